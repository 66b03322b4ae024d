from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_folders import make_run

from slm_vllm.reporting.comparison import compare_runs
from slm_vllm.reporting.comparison_tables import formatted
from slm_vllm.reporting.run_data import load_run
from slm_vllm.reporting.table_formats import Table, to_latex, to_markdown, to_text

HOSTILE = "a|b_c & 100% $x$ #1 {y} ~^\\ <script>alert(1)</script> `c` *d* [e](f)\n\x1b[31mred\x00"


def table(name: str) -> Table:
    return Table(name, ("run", "value"), ((name, "-0.5 [-1.0, 0.1]"), ("b", "<0.001")), 1, (name,))


@given(st.text(max_size=40))
def test_any_name_keeps_the_shape_of_a_terminal_table(name: str) -> None:
    text = to_text([table(name)])
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", text)
    assert text.count("\n") == 6


@given(st.text(max_size=40))
def test_any_name_keeps_the_shape_of_a_markdown_table(name: str) -> None:
    lines = to_markdown([table(name)]).split("\n")
    for row in lines[2:6]:
        assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) == 3
    assert not re.search(r"[<>]|(?<!\\)(?:\\\\)*[`*_\[\]]", lines[0] + lines[4].split(" | -")[0])


@given(st.text(max_size=40))
def test_any_name_keeps_the_shape_of_a_latex_table(name: str) -> None:
    text = to_latex([table(name)])
    row = text.split("\\midrule\n")[1].split("\n")[0]
    cell = row.removeprefix("{}").rsplit(" & ", 1)[0]
    # Take away what is escaped; nothing that TeX would act on is left.
    bare = re.sub(r"\\text[a-z]+\{\}|\\[{}#$%&_]|-\{\}-", "", cell)
    bare = bare.replace("{}-", "")
    assert not re.search(r"[\\{}#$%&_~^]", bare)
    assert row.endswith(r"$-$0.5 [$-$1.0, 0.1] \\")
    assert not row.startswith(("[", "*"))


def test_hostile_names_by_hand() -> None:
    text = to_text([table(HOSTILE)])
    assert "\\n␛[31mred␀" in text
    markdown = to_markdown([table(HOSTILE)])
    assert r"| a\|b\_c &amp; 100% \$x\$ \#1" in markdown
    assert "&lt;script&gt;" in markdown and r"\[e\](f)" in markdown
    latex = to_latex([table(HOSTILE)])
    assert r"a\textbar{}b\_c \& 100\% \$x\$ \#1 \{y\} \textasciitilde{}\textasciicircum{}" in latex
    assert "\x1b" not in latex and "␛" not in latex


@pytest.mark.parametrize("form", ["table", "markdown", "csv", "json", "latex"])
def test_runs_with_hostile_names(tmp_path: Path, form: str) -> None:
    rows = [{"token_recall": 1.0}, {"token_recall": 0.0}]
    name = HOSTILE.replace("/", "").replace("\x00", "")
    runs = [make_run(tmp_path / f"{name}{i}", model=name, dataset=name, rows=rows) for i in (1, 2)]
    text = formatted(compare_runs([load_run(run) for run in runs]), form)
    assert "script" in text and text.endswith("\n")
    if form != "csv":
        assert "\x1b" not in text


def test_columns_are_aligned() -> None:
    shown = to_text([Table("t", ("run", "n"), (("long name", "5"), ("b", "1000")), 1, ("note",))])
    assert shown.split("\n") == [
        "t",
        "run           n",
        "---------  ----",
        "long name     5",
        "b          1000",
        "note",
        "",
    ]
