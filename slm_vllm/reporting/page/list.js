const PAGE_SIZE = 50;
const FILTERS = ["search", "mode", "run", "other", "verdict", "hit", "harm-cause", "change", "row", "page"];
const VERDICTS = {
  right: "right", part: "partly", wrong: "wrong", unscored: "not scored", error: "failed",
};

class List {
  constructor(predictions, tables) {
    this.predictions = predictions;
    this.tables = tables;
    for (const table of tables) table.sorted = () => this.remember();
    this.found = [];
    this.page = 0;
    this.fillChoices();
    // Names of runs stand in the list only where there are several.
    this.several = predictions.runs.length > 1;
    const form = $("filters");
    form.hidden = false;
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", () => setTimeout(() => this.change()));
    form.addEventListener("change", (event) => { if (event.target.id !== "search") this.change(event.target.id); });
    let timer = 0;
    $("search").addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(() => this.change(), 120);
    });
    $("previous").addEventListener("click", () => this.turn(this.page - 1));
    $("next").addEventListener("click", () => this.turn(this.page + 1));
    $("page").addEventListener("change", () => this.turn(Number($("page").value) - 1));
    // "toggle" does not bubble.
    $("list").addEventListener("toggle", (event) => this.open(event.target), true);
    this.row = null;
    this.listHarms();
    addEventListener("hashchange", () => this.goTo(location.hash));
    if (!this.goTo(location.hash)) this.refresh();
  }

  fillChoices() {
    const { runs, rows } = this.predictions;
    runs.forEach((run, i) => {
      for (const id of ["run", "other"]) $(id).append(new Option(visible(run.name), String(i)));
    });
    for (const mode of new Set(runs.map((run) => run.mode))) {
      $("mode").append(new Option(visible(mode), mode));
    }
    for (const id of ["run", "other", "mode"]) {
      $(id).parentElement.hidden = $(id).options.length <= 2;
    }
    const causes = new Map(this.predictions.harms.flatMap((harm) => harm.causes.map((c) => [c.name, c.label])));
    if (causes.size) {
      $("harm-cause").append(new Option("for any reason", "any"));
      for (const [name, label] of causes) $("harm-cause").append(new Option(label, name));
      $("harm-cause").parentElement.hidden = false;
    }
    $("hit").parentElement.hidden = rows.every((run) => run.hit.every((hit) => hit === null));
  }

  filters() {
    const chosen = (id) => ($(id).value === "" ? null : Number($(id).value));
    return {
      search: $("search").value, mode: $("mode").value, run: chosen("run"), other: chosen("other"),
      verdict: $("verdict").value, hit: $("hit").value, change: $("change").value,
      cause: $("harm-cause").value, row: this.row,
    };
  }

  /** Filters that a user chose; a single row that a link led to is left. */
  change(changed = "") {
    this.row = null;
    this.refresh(changed);
    this.remember();
  }

  turn(page) {
    this.show(page);
    this.remember();
  }

  /** What is chosen, as the part of the address behind "#"; names instead of positions of runs. */
  address(chosen) {
    const words = new URLSearchParams();
    for (const id of FILTERS) {
      const value = id in chosen ? chosen[id] : "";
      if (value === "" || value === null) continue;
      const isRun = id === "run" || id === "other";
      words.set(id, isRun ? this.predictions.runs[Number(value)].name : value);
    }
    for (const table of this.tables) {
      if (table.order) words.set(table.word, table.order);
    }
    const said = words.toString();
    return said ? `#${said}` : "#predictions";
  }

  remember() {
    const chosen = Object.fromEntries(FILTERS.map((id) => [id, $(id)?.value ?? ""]));
    chosen.row = this.row;
    chosen.page = this.page ? this.page + 1 : "";
    history.replaceState(null, "", this.address(chosen));
  }

  /** Shows what an address says; false where it says nothing of predictions. */
  goTo(hash) {
    if (!hash.includes("=")) return false;
    const words = new URLSearchParams(hash.slice(1));
    for (const table of this.tables) table.order = words.get(table.word) ?? table.order;
    if (!FILTERS.some((id) => words.has(id))) return false;
    for (const id of FILTERS) {
      if (id === "row" || id === "page") continue;
      const value = words.get(id) ?? "";
      const place = this.predictions.runs.findIndex((run) => run.name === value);
      $(id).value = id === "run" || id === "other" ? (place < 0 ? "" : String(place)) : value;
      if ($(id).value !== value && $(id).selectedIndex < 0) $(id).value = "";
    }
    const row = words.get("row");
    this.row = row !== null && $("run").value !== "" && /^\d+$/.test(row) ? Number(row) : null;
    this.refresh();
    this.show(Number(words.get("page") ?? 1) - 1);
    this.remember();
    $("predictions").scrollIntoView();
    if (this.row !== null) {
      const first = document.querySelector("#list details");
      if (first) {
        first.open = true;
        first.querySelector("summary").focus({ preventScroll: true });
      }
    }
    return true;
  }

  /** The destroyed answers under their table, a list for each run and cause, filled when opened. */
  listHarms() {
    const { runs, harms } = this.predictions;
    for (const harm of harms) {
      const number = harm.causes.reduce((sum, cause) => sum + cause.rows.length, 0);
      const place = harms.length === 1 ? $("harm-lists") : element("details", "",
        element("summary", "", `${runs[harm.run].label} (${number.toLocaleString("en")})`));
      if (harms.length > 1 && number) $("harm-lists").append(place);
      for (const cause of harm.causes) {
        const list = element("ol", "harms");
        const details = element("details", "", element("summary", "",
          `${cause.label} (${cause.rows.length.toLocaleString("en")})`), list);
        details.addEventListener("toggle", () => {
          if (details.open && !list.children.length) {
            list.append(...cause.rows.map((row) => this.harmLine(harm, row)));
          }
        });
        place.append(details);
      }
    }
  }

  harmLine({ run, closedBook }, row) {
    const { questions, rows, rowOf } = this.predictions;
    const q = rows[run].q[row];
    const before = rowOf[closedBook][q];
    const link = element("a", "", short(questions.text[q] ?? "") || "(no text)");
    link.href = this.address({ run: String(run), other: before < 0 ? "" : String(closedBook), row });
    const said = (text) => short(text ?? "") || "(empty)";
    const item = element("li", "", link,
      element("span", "expected", ` expected ${short(joined(questions.answers[q]))}`));
    const answers = element("span", "answers");
    if (before >= 0) answers.append(visible(said(rows[closedBook].prediction[before])), " → ");
    answers.append(visible(said(rows[run].error[row] ?? rows[run].prediction[row])));
    item.append(answers);
    item.dir = "auto";
    return item;
  }

  /** Keeps the choices sensible: two runs side by side are two different ones. */
  settle(changed) {
    const { runs, rowOf, rows } = this.predictions;
    const value = (id) => $(id).value;
    if (changed === "mode" && value("run") !== "" && value("mode") !== "" &&
        runs[Number(value("run"))].mode !== value("mode")) {
      $("run").value = "";
    }
    if (changed === "run" && value("run") !== "") $("mode").value = "";
    if (value("other") !== "") {
      const other = Number(value("other"));
      const shares = (i) => i !== other && rows[i].q.some((q) => rowOf[other][q] >= 0);
      if (value("run") === "" && changed === "other") {
        const first = runs.findIndex((run, i) =>
          shares(i) && (value("mode") === "" || run.mode === value("mode")));
        if (first >= 0) { $("run").value = String(first); $("mode").value = ""; }
      }
      if (value("run") === "" || value("run") === value("other")) $("other").value = "";
    }
    $("change-label").hidden = value("other") === "";
    if (value("other") === "") $("change").value = "";
  }

  refresh(changed = "") {
    this.settle(changed);
    this.active = this.filters();
    const { found, among } = this.predictions.select(this.active);
    this.found = found;
    const one = among === 1;
    const what = this.active.other === null
      ? (one ? "prediction" : "predictions")
      : `${one ? "question" : "questions"} that both runs have`;
    const number = (n) => n.toLocaleString("en");
    $("status").textContent = found.length === among
      ? `${number(among)} ${what}`
      : `${number(found.length)} of ${number(among)} ${what}`;
    this.show(0);
  }

  show(page) {
    const pages = Math.max(1, Math.ceil(this.found.length / PAGE_SIZE));
    this.page = Math.min(Math.max(0, Math.trunc(page) || 0), pages - 1);
    const begin = this.page * PAGE_SIZE;
    this.shown = this.found.slice(begin, begin + PAGE_SIZE);
    $("list").replaceChildren(...this.shown.map((entry, i) => this.line(entry, i)));
    $("pages").hidden = pages === 1;
    $("page").value = String(this.page + 1);
    $("page").max = String(pages);
    $("page-count").textContent = `of ${pages.toLocaleString("en")}`;
    $("previous").disabled = this.page === 0;
    $("next").disabled = this.page === pages - 1;
  }

  line([run, row, beside], index) {
    const { questions, rows, runs } = this.predictions;
    const q = rows[run].q[row];
    const { other } = this.active;
    const badges = element("span", "cell", this.badge(run, row));
    if (beside >= 0) badges.append(document.createElement("br"), this.badge(other, beside));
    const summary = element("summary", "",
      badges,
      element("span", "cell", short(questions.text[q] ?? "")),
      element("span", "cell expected", short(joined(questions.answers[q]))),
      this.answerCell(run, row),
    );
    if (beside >= 0) summary.append(this.answerCell(other, beside));
    for (const cell of summary.children) cell.dir = "auto";
    const details = element("details", "", summary);
    details.dataset.index = String(index);
    const item = element("li", beside >= 0 ? "pair" : "", details);
    return item;
  }

  badge(run, row) {
    const verdict = this.predictions.verdict(run, row);
    const recall = this.predictions.rows[run].token_recall[row];
    const amount = verdict === "part" ? ` ${recall.toFixed(2)}` : "";
    return element("span", `badge ${verdict}`, VERDICTS[verdict] + amount);
  }

  answerCell(run, row) {
    const { rows, runs } = this.predictions;
    const error = rows[run].error[row];
    const text = error === null
      ? short(rows[run].prediction[row] ?? "")
      : element("span", "error", short(error));
    const answer = element("span", "answer", element("span", "cell", text));
    if (this.several) answer.prepend(element("small", "who", runs[run].label));
    return answer;
  }

  async open(details) {
    if (!details.open || details.dataset.index === undefined || details.dataset.filled) return;
    details.dataset.filled = "yes";
    const [run, row, beside] = this.shown[Number(details.dataset.index)];
    const { questions, rows } = this.predictions;
    const other = this.active.other;
    const q = rows[run].q[row];
    const body = element("div", "body",
      element("h3", "name", "Question"), textBlock(questions.text[q] ?? ""),
      element("h3", "name", "Expected"), textBlock(joined(questions.answers[q]) || "(no answer given)"),
    );
    details.append(body);
    const stored = await passages();
    const sides = element("div", "sides", this.side(run, row, stored));
    if (beside >= 0) sides.append(this.side(other, beside, stored));
    const metadata = questions.metadata[q];
    body.append(sides, element("p", "facts",
      `id ${questions.id[q]}`, metadata ? ` · ${short(metadata)}` : ""));
  }

  side(run, row, stored) {
    const { rows, runs } = this.predictions;
    const columns = rows[run];
    const side = element("div", "side");
    side.append(element("h3", "", runs[run].name));
    const heading = element("h4", "", "Prediction ");
    heading.append(this.badge(run, row));
    side.append(heading);
    if (columns.error[row] !== null) {
      const said = element("div", "error", "Failed: ");
      said.append(textBlock(columns.error[row]));
      side.append(said);
    }
    side.append(textBlock(columns.prediction[row] || "(empty)", columns.predictionSpans[row]));
    const completion = columns.completion[row];
    if (completion !== null && completion !== columns.prediction[row]) {
      const whole = element("details", "", element("summary", "facts", "All the model wrote"));
      whole.append(textBlock(completion, columns.completionSpans[row]));
      side.append(whole);
    }
    const samples = columns.samples?.[row] ?? [];
    if (samples.length) {
      const all = element("details", "samples", element("summary", "facts", `All ${samples.length} answers`));
      for (const [text, recall] of samples) {
        all.append(textBlock(text || "(empty)"), element("p", "facts", recall === null ? "unscored" : `Token recall ${recall}`));
      }
      side.append(all);
    }
    side.append(element("p", "facts", this.facts(run, row)));
    const used = stored.rows[run][row];
    if (used.length) side.append(element("h4", "", `Passages in the prompt (${used.length})`));
    used.forEach(([number, score, spans], i) => side.append(passage(stored.passages[number], score, i + 1, spans)));
    return side;
  }

  facts(run, row) {
    const columns = this.predictions.rows[run];
    const facts = [];
    for (const { name, label } of this.predictions.metrics) {
      const value = columns[name][row];
      if (value !== null) facts.push(`${label} ${Number(value.toFixed(3))}`);
    }
    facts.push(`${columns.promptTokens[row]} + ${columns.newTokens[row]} tokens`);
    if (columns.finish[row] === "length") facts.push("stopped at the length limit");
    if (columns.truncated[row]) facts.push("prompt cut to fit");
    const rank = columns.rank[row];
    if (rank !== null) {
      const miss = columns.hit[row] ? "" : ", not in the prompt";
      facts.push(rank === 0 ? "no passage found with an answer" : `first passage with an answer: rank ${rank}${miss}`);
    }
    return facts.join(" · ");
  }
}

/** A passage; where an answer stands in it, `spans` are its places in title, blank, text. */
function passage([id, title, text], score, rank, spans) {
  const block = element("div", spans ? "passage found" : "passage");
  const begin = (title ?? "").length + 1;
  const source = element("div", "source", `${rank}. `);
  if (title) source.append(marked(title, within(spans, 0, title.length)), " ");
  source.append(visible(score === null ? `(${id})` : `(${id}, score ${score})`));
  block.append(source, textBlock(text ?? "", within(spans, begin, Infinity)));
  return block;
}

(async () => {
  try {
    const tables = [...document.querySelectorAll("[data-tools]")].map((region) => new Table(region));
    new List(new Predictions(await unpack("questions-data")), tables);
    document.documentElement.dataset.ready = "yes";
  } catch (error) {
    $("status").textContent = typeof DecompressionStream === "undefined"
      ? "This browser cannot unpack the predictions; use a version from 2023 or later."
      : `The predictions cannot be shown: ${error}`;
    throw error;
  }
})();
