/** What sorts a cell: its number where it begins with one, a dash last. */
function sortKey(text) {
  const number = Number.parseFloat(text.replace(/^@\d+ |[<,]/g, "").replace("\u2212", "-"));
  return Number.isNaN(number) ? text : number;
}

/** Tables that can be sorted by their heads and taken away as CSV or Markdown. */
class Table {
  constructor(region) {
    this.table = region.querySelector("table");
    this.name = region.dataset.tools;
    const same = [...document.querySelectorAll(`[data-tools="${CSS.escape(this.name)}"]`)].indexOf(region);
    /** Its word in the address; a page of several datasets has several tables of a name. */
    this.word = same ? `sort.${this.name}.${same + 1}` : `sort.${this.name}`;
    this.sorted = () => {};
    this.heads = [...this.table.tHead.rows[0].cells];
    this.titles = this.heads.map((head) => head.textContent);
    this.heads.forEach((head, i) => {
      const button = element("button", "sort", head.textContent);
      button.type = "button";
      button.addEventListener("click", () => { this.sort(i); this.sorted(); });
      head.replaceChildren(button);
    });
    const tools = element("p", "tools");
    for (const [label, write] of [["CSV", "csv"], ["Markdown", "markdown"]]) {
      const button = element("button", "more", label);
      button.type = "button";
      button.setAttribute("aria-label", `Save the table "${this.table.caption.textContent}" as ${label}`);
      button.addEventListener("click", () => this.save(write));
      tools.append(button);
    }
    region.before(tools);
  }

  sort(column) {
    const head = this.heads[column];
    const down = head.getAttribute("aria-sort") === "descending";
    const first = head.classList.contains("n") ? "descending" : "ascending";
    this.arrange(column, head.hasAttribute("aria-sort") ? (down ? "ascending" : "descending") : first);
  }

  /** What it is sorted by, "-" before it where the largest is first; "" as it was made. */
  get order() {
    const column = this.heads.findIndex((head) => head.hasAttribute("aria-sort"));
    if (column < 0) return "";
    return (this.heads[column].getAttribute("aria-sort") === "descending" ? "-" : "") + this.titles[column];
  }

  set order(said) {
    const column = this.titles.indexOf(said.replace(/^-/, ""));
    if (column >= 0) this.arrange(column, said.startsWith("-") ? "descending" : "ascending");
  }

  arrange(column, direction) {
    for (const other of this.heads) other.removeAttribute("aria-sort");
    this.heads[column].setAttribute("aria-sort", direction);
    const sign = direction === "ascending" ? 1 : -1;
    const body = this.table.tBodies[0];
    const keyed = [...body.rows].map((row) => [sortKey(row.cells[column].textContent), row]);
    keyed.sort(([a], [b]) => {
      if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
      return typeof a === "number" ? sign * (a - b) : sign * a.localeCompare(b);
    });
    body.append(...keyed.map(([, row]) => row));
  }

  rows() {
    return [this.titles, ...[...this.table.tBodies[0].rows].map(
      (row) => [...row.cells].map((cell) => cell.textContent.replace(/\s+/g, " ")))];
  }

  /** A spreadsheet takes text that begins like a formula for one. */
  csv() {
    const cell = (text) => {
      const safe = /^[=+\-@]/.test(text) && !/^[+-]?[\d.]+( \[|$)/.test(text) && text !== "-" ? `'${text}` : text;
      return /[",\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
    };
    return this.rows().map((row) => row.map(cell).join(",")).join("\n") + "\n";
  }

  markdown() {
    const line = (cells) => `| ${cells.map((cell) => cell.replace(/[\\`*_[\]<>|#~]/g, "\\$&")).join(" | ")} |`;
    const [head, ...rows] = this.rows();
    return [line(head), `|${" --- |".repeat(head.length)}`, ...rows.map(line)].join("\n") + "\n";
  }

  save(form) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([this[form]()], { type: "text/plain" }));
    link.download = `${this.name}.${form === "csv" ? "csv" : "md"}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href));
  }
}
