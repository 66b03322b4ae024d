from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from slm_vllm.reporting.table import results_table
from support.run_folders import make_run


def results(path: Path, **row: Any) -> dict[str, Any]:
    run = make_run(path, rows=[row] * 3)
    found: dict[str, Any] = json.loads((run / "results.json").read_text())
    return found


def test_a_dataset_that_no_metric_can_judge_is_told(tmp_path: Path) -> None:
    nothing = results(tmp_path / "emoji", answers=["🎉"], **dict.fromkeys(["token_recall"]))
    some = results(tmp_path / "words", token_recall=1.0)
    *_, note = results_table([nothing, some]).splitlines()
    assert note.startswith("emoji: 3 without a usable answer to score against, ")
    assert note.endswith("no answer of the dataset has a word, so no metric can judge it")


def test_a_metric_that_older_results_lack_is_a_dash(tmp_path: Path) -> None:
    old = results(tmp_path / "old", token_recall=1.0)
    del old["metrics"]["contains"], old["metrics"]["f1"]
    line = results_table([old]).splitlines()[2].split("  ")
    cells = [cell.strip() for cell in line if cell.strip()]
    assert cells[1:5] == ["1.000 [0.439, 1.000]", "0.000 [0.000, 0.561]", "-", "-"]


def test_results_of_an_earlier_definition_are_told(tmp_path: Path) -> None:
    old = results(tmp_path / "old", token_recall=1.0)
    assert "scored by" not in results_table([old])
    del old["scoring_version"]
    assert "old: scored by version 1 of what a word is, not 2" in results_table([old])


def test_questions_that_were_asked_without_context_are_told(tmp_path: Path) -> None:
    oracle = results(tmp_path / "oracle", token_recall=1.0)
    oracle["counts"]["without_passage"] = 2
    assert "asked without context" not in results_table([oracle])
    assert "oracle: 2 asked without context" in results_table([{**oracle, "uses_gold": True}])
    assert "oracle: 2 asked without context" in results_table([{**oracle, "retriever": "bm25"}])
