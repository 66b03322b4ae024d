"use strict";
// All text of a run goes into the page as text nodes: nothing a model wrote is ever parsed as HTML.

const PAGE_SIZE = 50;
const MOST_CHARACTERS = 3000;
const MOST_IN_LIST = 300;
const VERDICTS = {
  right: "right", part: "partly", wrong: "wrong", unscored: "not scored", error: "failed",
};

const $ = (id) => document.getElementById(id);

/** Decompresses one of the two blocks of data at the end of the page. */
async function unpack(id) {
  const block = $(id);
  const binary = atob(block.textContent.trim());
  block.remove();
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).json();
}

/** Passages are most of the data and wait until a question is opened. */
const passages = (() => {
  let loading = null;
  return () => (loading ??= unpack("passages-data"));
})();

/** The text with a sign for each character that nobody can see. */
function visible(text) {
  return text
    .replace(/[\x00-\x08\x0b-\x1f]/g, (c) => String.fromCharCode(0x2400 + c.charCodeAt(0)))
    .replace(/\x7f/g, "\u2421")
    .replace(/[\x80-\x9f\p{Cs}]/gu, "\ufffd");
}

function element(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  for (const child of children) {
    made.append(typeof child === "string" ? visible(child) : child);
  }
  return made;
}

/** The parts of the spans that lie between two places, counted from the first one. */
function within(spans, start, end) {
  return (spans ?? [])
    .map(([from, to]) => [Math.max(from, start) - start, Math.min(to, end) - start])
    .filter(([from, to]) => from < to);
}

/** A fragment of the text in which the spans are marked. */
function marked(text, spans) {
  const fragment = document.createDocumentFragment();
  let end = 0;
  for (const [from, to] of within(spans, 0, text.length)) {
    fragment.append(visible(text.slice(end, from)), element("mark", "", text.slice(from, to)));
    end = to;
  }
  fragment.append(visible(text.slice(end)));
  return fragment;
}

/** A block of text; a long one is cut and can be shown whole. */
function textBlock(text, spans = null) {
  const block = element("p", "text");
  block.dir = "auto";
  if (text.length <= MOST_CHARACTERS) {
    block.append(marked(text, spans));
    return block;
  }
  block.append(marked(text.slice(0, MOST_CHARACTERS), spans), "…");
  const more = element("button", "more", `Show all ${text.length.toLocaleString("en")} characters`);
  more.type = "button";
  more.addEventListener("click", () => {
    block.replaceChildren(marked(text, spans));
    more.remove();
  });
  const both = document.createDocumentFragment();
  both.append(block, more);
  return both;
}

function short(text) {
  const line = text.slice(0, MOST_IN_LIST).replace(/\s+/g, " ");
  return text.length > MOST_IN_LIST ? `${line}…` : line;
}

const joined = (answers) => answers.filter((answer) => answer !== null).join(" | ");

class Predictions {
  constructor(data) {
    this.runs = data.runs;
    this.metrics = data.metrics;
    this.questions = data.questions;
    this.rows = data.rows;
    this.texts = data.rows.map((run) => new Array(run.q.length));
    this.rowOf = data.rows.map((run) => {
      const found = new Int32Array(data.questions.id.length).fill(-1);
      run.q.forEach((q, row) => { found[q] = row; });
      return found;
    });
  }

  verdict(run, row) {
    const columns = this.rows[run];
    if (columns.error[row] !== null) return "error";
    const recall = columns.token_recall[row];
    if (recall === null) return "unscored";
    return recall >= 1 ? "right" : recall > 0 ? "part" : "wrong";
  }

  retrieval(run, row) {
    const hit = this.rows[run].hit[row];
    return hit === null ? "none" : hit ? "hit" : "miss";
  }

  /** What the search looks through, in lower case. */
  text(run, row) {
    const columns = this.rows[run];
    const q = columns.q[row];
    return (this.texts[run][row] ??= [
      this.questions.id[q], this.questions.text[q], joined(this.questions.answers[q]),
      columns.prediction[row], columns.error[row],
    ].map((part) => part ?? "").join("\n").toLowerCase());
  }

  /** How the second run's answer compares: better, worse or same; null where one is unscored. */
  change(run, row, other, otherRow) {
    const first = this.rows[run].token_recall[row];
    const second = this.rows[other].token_recall[otherRow];
    if (first === null || second === null) return null;
    return second > first ? "better" : second < first ? "worse" : "same";
  }

  /** The entries that pass the filters: [run, row, row of the other run or -1]. */
  select(filters) {
    const words = filters.search.toLowerCase().split(/\s+/).filter(Boolean);
    const found = [];
    let among = 0;
    this.runs.forEach((about, run) => {
      if (filters.run !== null ? run !== filters.run : filters.mode && about.mode !== filters.mode) {
        return;
      }
      this.rows[run].q.forEach((q, row) => {
        const beside = filters.other === null ? -1 : this.rowOf[filters.other][q];
        if (filters.other !== null && beside < 0) return;
        among++;
        if (filters.verdict && this.verdict(run, row) !== filters.verdict) return;
        if (filters.hit && this.retrieval(run, row) !== filters.hit) return;
        if (filters.change && this.change(run, row, filters.other, beside) !== filters.change) return;
        if (words.length) {
          const own = this.text(run, row);
          const also = beside < 0 ? "" : this.text(filters.other, beside);
          if (!words.every((word) => own.includes(word) || also.includes(word))) return;
        }
        found.push([run, row, beside]);
      });
    });
    return { found, among };
  }
}

class List {
  constructor(predictions) {
    this.predictions = predictions;
    this.found = [];
    this.page = 0;
    this.fillChoices();
    // Names of runs stand in the list only where there are several.
    this.several = predictions.runs.length > 1;
    const form = $("filters");
    form.hidden = false;
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", () => setTimeout(() => this.refresh()));
    form.addEventListener("change", (event) => { if (event.target.id !== "search") this.refresh(event.target.id); });
    let timer = 0;
    $("search").addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(() => this.refresh(), 120);
    });
    $("previous").addEventListener("click", () => this.show(this.page - 1));
    $("next").addEventListener("click", () => this.show(this.page + 1));
    $("page").addEventListener("change", () => this.show(Number($("page").value) - 1));
    // "toggle" does not bubble.
    $("list").addEventListener("toggle", (event) => this.open(event.target), true);
    this.refresh();
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
    $("hit").parentElement.hidden = rows.every((run) => run.hit.every((hit) => hit === null));
  }

  filters() {
    const chosen = (id) => ($(id).value === "" ? null : Number($(id).value));
    return {
      search: $("search").value, mode: $("mode").value, run: chosen("run"), other: chosen("other"),
      verdict: $("verdict").value, hit: $("hit").value, change: $("change").value,
    };
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
    const what = this.active.other === null ? "predictions" : "questions that both runs have";
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
    const cell = element("span", "cell");
    if (this.several) cell.append(element("small", "who", runs[run].label));
    cell.append(error === null
      ? visible(short(rows[run].prediction[row] ?? ""))
      : element("span", "error", short(error)));
    return cell;
  }

  async open(details) {
    if (!details.open || details.dataset.index === undefined || details.dataset.filled) return;
    details.dataset.filled = "yes";
    const [run, row, beside] = this.shown[Number(details.dataset.index)];
    const { questions, rows } = this.predictions;
    const other = this.active.other;
    const q = rows[run].q[row];
    const body = element("div", "body",
      element("h4", "", "Question"), textBlock(questions.text[q] ?? ""),
      element("h4", "", "Expected"), textBlock(joined(questions.answers[q]) || "(no answer given)"),
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
    if (this.several) side.append(element("h3", "", runs[run].name));
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
    new List(new Predictions(await unpack("questions-data")));
    document.documentElement.dataset.ready = "yes";
  } catch (error) {
    $("status").textContent = typeof DecompressionStream === "undefined"
      ? "This browser cannot unpack the predictions; use a version from 2023 or later."
      : `The predictions cannot be shown: ${error}`;
    throw error;
  }
})();
