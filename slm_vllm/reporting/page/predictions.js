class Predictions {
  constructor(data) {
    this.runs = data.runs;
    this.metrics = data.metrics;
    this.questions = data.questions;
    this.rows = data.rows;
    this.harms = data.harms;
    // For each run the cause of each destroyed answer, by row.
    this.causes = data.rows.map(() => new Map());
    for (const { run, causes } of data.harms) {
      for (const { name, rows } of causes) rows.forEach((row) => this.causes[run].set(row, name));
    }
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
      columns.prediction[row], columns.error[row], ...(columns.samples?.[row] ?? []).map(([text]) => text),
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
        if (filters.row !== null && row !== filters.row) return;
        const beside = filters.other === null ? -1 : this.rowOf[filters.other][q];
        if (filters.other !== null && beside < 0) return;
        among++;
        if (filters.verdict && this.verdict(run, row) !== filters.verdict) return;
        if (filters.hit && this.retrieval(run, row) !== filters.hit) return;
        if (filters.cause && (filters.cause === "any"
          ? !this.causes[run].has(row) : this.causes[run].get(row) !== filters.cause)) return;
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
