from __future__ import annotations

from pathlib import Path

import polars as pl

from slm_vllm.reporting.breakdowns import by_answer_length
from slm_vllm.scoring.answer_length import ANSWER_LENGTHS, answer_length, bin_labels
from slm_vllm.tracking.plots import prediction_events
from support.run_folders import make_run

SHORT = ["?", "two words", "three of them"]
ANSWERS = [["one"], SHORT, [], None, ["北京大学"], ["w " * 12], ["!"]]


def test_words_of_the_shortest_usable_answer() -> None:
    lengths = answer_length(pl.Series(ANSWERS, dtype=pl.List(pl.String)))
    assert lengths.to_list() == [1, 2, None, None, 4, 12, None]
    assert bin_labels(lengths, ANSWER_LENGTHS).to_list() == [
        "1", "2", None, None, "4-5", "10+", None,
    ]  # fmt: skip


def test_report_and_tracker_show_the_same_groups_in_the_same_order(tmp_path: Path) -> None:
    answers = [["w " * n] for n in range(1, 13)]
    rows = [{"answers": one, "token_recall": n / 12} for n, one in enumerate(answers)]
    run = make_run(tmp_path / "run", rows=rows)
    path = run / "predictions.parquet"
    shown = next(iter(prediction_events(path, 0))).plotly["data"][0]  # type: ignore[union-attr]
    groups = by_answer_length(pl.read_parquet(path))
    assert shown["x"] == [group.label for group in groups] == [label for label, _ in ANSWER_LENGTHS]
    assert shown["y"] == [round(group.estimate.mean, 6) for group in groups]
