from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slm_vllm.reporting.comparison import Comparison, compare_runs
from slm_vllm.reporting.comparison_tables import FORMATS, render
from slm_vllm.rundir.reading import load_run
from support.run_folders import make_run

HOSTILE = "a|b_c & 100% $x$ #1 {y} ~^\\ <script>alert(1)</script> `c` *d* [e](f)\n\x1b[31mred\x00"
ROWS = [{"token_recall": 1.0}, {"token_recall": 0.0}]


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    folder = tmp_path_factory.mktemp("outputs")
    runs = [make_run(folder / name, rows=ROWS) for name in ("a", "b")]
    return compare_runs([load_run(run) for run in runs])


def named(comparison: Comparison, name: str) -> Comparison:
    """The same with this name for everything that a user can name."""
    (dataset,) = comparison.datasets
    runs = tuple(replace(run, name=name, model=name, mode=name) for run in dataset.runs)
    pairs = tuple(replace(pair, run=name) for pair in dataset.pairs)
    changed = replace(dataset, dataset=name, baseline=name, runs=runs, pairs=pairs, notes=(name,))
    return replace(comparison, datasets=(changed,))


names = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@names
@given(st.text(min_size=1, max_size=40))
def test_any_name_keeps_the_lines_of_a_terminal_table(comparison: Comparison, name: str) -> None:
    text = render(named(comparison, name), "terminal")
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", text)
    assert text.count("\n") == render(named(comparison, "x"), "terminal").count("\n")


@names
@given(st.text(min_size=1, max_size=40))
def test_any_name_keeps_the_columns_of_a_markdown_table(comparison: Comparison, name: str) -> None:
    def bars(text: str) -> list[int]:
        return [len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in text.splitlines()]

    text = render(named(comparison, name), "markdown")
    assert bars(text) == bars(render(named(comparison, "x"), "markdown"))
    assert not re.search(r"(?<!\\)(?:\\\\)*[<>`]", text)


@names
@given(st.text(min_size=1, max_size=40))
def test_any_name_leaves_nothing_for_tex_to_act_on(comparison: Comparison, name: str) -> None:
    text = render(named(comparison, name), "latex")
    for row in re.findall(r"\\midrule\n(.*?)\\bottomrule", text, flags=re.DOTALL):
        for line in row.strip().split("\n"):
            assert line.endswith(r" \\")
            assert not line.startswith(("[", "*")), "taken for an argument of the row before"
            bare = re.sub(r"\\text[a-z]+\{\}|\\[{}#$%&_]", "", line.removesuffix(r" \\"))
            assert not re.search(r"[\\#$%_~^]|\{(?!\})|(?<!\{)\}", bare)


@names
@given(st.text(min_size=1, max_size=40))
def test_any_name_is_one_cell_of_csv(comparison: Comparison, name: str) -> None:
    lines = list(csv.reader(io.StringIO(render(named(comparison, name), "csv"))))
    assert len(lines) == 3 and len({len(line) for line in lines}) == 1


@pytest.mark.parametrize("form", FORMATS)
def test_runs_with_hostile_names(tmp_path: Path, form: str) -> None:
    name = HOSTILE.replace("/", "").replace("\x00", "")
    folder = "".join(character for character in name if character.isprintable())
    runs = [
        make_run(tmp_path / f"{folder}{i}", model=name, dataset=name, rows=ROWS) for i in (1, 2)
    ]
    text = render(compare_runs([load_run(run) for run in runs]), form)
    assert "script" in text
    if form != "csv":
        assert "\x1b" not in text
    if form == "latex":
        assert r"b\_c \& 100\% \$x\$ \#1 \{y\} \textasciitilde{}\textasciicircum{}" in text
    if form == "markdown":
        assert r"a\|b\_c" in text and "<script>" not in text.replace(r"\<script\>", "")
