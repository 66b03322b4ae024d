"""A metric of one's own: registered once, known everywhere."""

from __future__ import annotations

from pathlib import Path

from support.child import run_python
from support.run_folders import make_run

ADDED = """\
import polars as pl
from slm_vllm.scoring.metrics import Pairs, metric

@metric("first_word", "first word", unit="0 or 1", is_binary=True, source="our own")
def first_word(pairs: Pairs) -> pl.Series:
    first = [pl.col(f"{side}_tokens").list.first() for side in ("prediction", "answer")]
    return pairs.select(first[0].eq_missing(first[1])).to_series()
"""
USED = """
from pathlib import Path
from slm_vllm.reporting.comparison import compare_runs
from slm_vllm.reporting.comparison_tables import render
from slm_vllm.reporting.report import build_report
from slm_vllm.reporting.table import results_table
from slm_vllm.rundir.reading import load_run

runs = [load_run(Path(path)) for path in sys.argv[1:]]
print(results_table([run.results for run in runs]))
print(render(compare_runs(runs, "first_word"), "terminal"))
print("in the page:", "first word" in build_report(runs).html)
"""


def test_a_metric_is_one_function(tmp_path: Path) -> None:
    """Tables, `compare` and the report have it, for runs that were scored before it was there."""
    rows = [[{"prediction": "answer"}] * 8, [{"prediction": "wrong"}] * 8]
    runs = [
        make_run(tmp_path / name, rows=part, model=name)
        for name, part in zip("ab", rows, strict=True)
    ]
    package = tmp_path / "added"
    (package / "added-1.dist-info").mkdir(parents=True)
    (package / "added.py").write_text(ADDED)
    (package / "added-1.dist-info" / "METADATA").write_text("Name: added\nVersion: 1\n")
    (package / "added-1.dist-info" / "entry_points.txt").write_text(
        "[slm_vllm.metrics]\nadded = added\n"
    )
    code = f"import sys; sys.path.append({str(package)!r})\n{USED}"
    done = run_python(code, *map(str, runs))
    assert done.returncode == 0, done.stderr
    output = done.stdout
    table = output.splitlines()
    assert "first word" in table[0]
    assert " 1.000 [" in table[2] and " 0.000 [" in table[3]
    assert "McNemar p" in output and "-1.000 [-1.000, " in output
    assert "in the page: True" in output
