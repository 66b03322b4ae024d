from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from slm_vllm.cli.main import cli
from slm_vllm.errors import ConfigError
from slm_vllm.scoring.power import PairedSpread, detectable_difference, questions_needed
from support.run_folders import make_run

Plan = Callable[..., Result]

ONE: list[Any] = [1.0, 0.0, 0.5, 1.0, 0.0, 1.0, None, 0.0]
OTHER: list[Any] = [0.0, 0.0, 1.0, 1.0, 0.0, 0.0, None, 0.5]


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    for name, values in (("one", ONE), ("other", OTHER)):
        make_run(tmp_path / name, rows=[{"token_recall": value} for value in values])

    def run(*words: str) -> Result:
        words = ("compare", *words, "--plan", "--output-dir", str(tmp_path))
        return CliRunner().invoke(cli, words)

    return run


def test_two_runs_tell_the_paired_variance(plan: Plan) -> None:
    (pair,) = json.loads(plan("one", "other", "--json").stdout)["pairs"]
    d = np.array(
        [b - a for a, b in zip(ONE, OTHER, strict=True) if a is not None and b is not None]
    )
    assert pair["variance"] == pytest.approx(d.var(ddof=1))
    assert pair["n"] == 7
    assert pair["correlation"] is None
    spread = PairedSpread(d.var(ddof=1), d.mean())
    assert pair["needed"] == [questions_needed(spread, x) for x in (0.01, 0.02, 0.05, 0.1)]
    assert pair["shown"] == pytest.approx(detectable_difference(spread, 7))


def test_one_run_needs_a_correlation_and_says_which(plan: Plan) -> None:
    known = np.array([value for value in ONE if value is not None]).var(ddof=1)
    (pair,) = json.loads(plan("one", "--json", "--correlation", "0.8").stdout)["pairs"]
    assert pair["variance"] == pytest.approx(2 * known * 0.2, rel=1e-4)
    assert pair["correlation"] == 0.8
    assert "correlate by 0.5" in plan("one").stdout


def test_a_figure_of_a_search_is_planned_from_one_run_too(plan: Plan, tmp_path: Path) -> None:
    ranks = [1.0, 0.5, None, 0.0]
    rows = [{"search": {} if rank is None else {"answer_mrr": rank}} for rank in ranks]
    make_run(tmp_path / "found", mode="retriever", rows=rows)
    (pair,) = json.loads(plan("found", "--metric", "answer_mrr", "--json").stdout)["pairs"]
    assert pair["n"] == 3
    assert pair["variance"] == pytest.approx(np.var([1.0, 0.5, 0.0], ddof=1))


def test_difference_power_and_alpha_are_those_that_were_given(plan: Plan) -> None:
    words = ("--difference", "0.3", "--power", "0.9", "--alpha", "0.01")
    found = json.loads(plan("one", "other", "--json", *words).stdout)
    (pair,) = found["pairs"]
    spread = PairedSpread(pair["variance"], pair["mean"])
    needed = questions_needed(spread, 0.3, power=0.9, alpha=0.01)
    assert (found["differences"], pair["needed"]) == ([0.3], [needed])


def test_a_line_of_csv_for_each_difference(plan: Plan) -> None:
    rows = list(csv.DictReader(io.StringIO(plan("one", "other", "--format", "csv").stdout)))
    assert [row["difference"] for row in rows] == ["0.01", "0.02", "0.05", "0.1"]
    assert rows[0]["learned_from"] == "other against one"


def test_a_spreadsheet_takes_no_text_for_a_formula(plan: Plan, tmp_path: Path) -> None:
    rows = [{"token_recall": value} for value in ONE]
    make_run(tmp_path / "odd", dataset="=SUM(A1)", rows=rows)
    (first, *_) = csv.DictReader(io.StringIO(plan("odd", "--format", "csv").stdout))
    assert first["dataset"] == "'=SUM(A1)"


def test_runs_that_never_differ_tell_nothing(plan: Plan, tmp_path: Path) -> None:
    make_run(tmp_path / "same", rows=[{"token_recall": value} for value in ONE])
    result = plan("one", "same")
    assert "nothing is known of the variance" in result.stdout
    assert json.loads(plan("one", "same", "--json").stdout)["pairs"][0]["needed"] == [None] * 4


@pytest.mark.parametrize(
    "words",
    [("--difference", "0"), ("--power", "0.01"), ("--alpha", "1"), ("--correlation", "1")],
)
def test_figures_that_are_none_are_refused(plan: Plan, words: tuple[str, ...]) -> None:
    result = plan("one", *words)
    assert isinstance(result.exception, ConfigError)
    assert words[0] in str(result.exception)


def test_options_of_the_plan_go_with_it(plan: Plan, tmp_path: Path) -> None:
    words = ["compare", "one", "other", "--power", "0.9", "--output-dir", str(tmp_path)]
    result = CliRunner().invoke(cli, words)
    assert isinstance(result.exception, ConfigError)
    assert "--plan" in str(result.exception)
