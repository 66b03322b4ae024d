"""What figures show, and that the page and a tracker show the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from slm_vllm.figures.breakdowns import BREAKDOWNS, by_topic
from slm_vllm.figures.usage import memory_strip
from slm_vllm.reporting.figures import build_figures
from slm_vllm.reporting.run_view import view_runs
from slm_vllm.rundir.names import MEMORY, PREDICTIONS
from slm_vllm.rundir.reading import load_run
from slm_vllm.tracking import plots
from slm_vllm.tracking.events import Figure
from slm_vllm.tracking.plots import memory_figure, prediction_events
from support.run_folders import make_run


def rows() -> list[dict[str, Any]]:
    """Answers of 1 to 12 words, found at ranks 0 to 5, of two topics and none."""
    return [
        {
            "answers": ["w " * (n % 12 + 1)],
            "token_recall": n % 5 / 4,
            "search": {"answer_mrr": 1 / (n % 6) if n % 6 else 0.0},
            "metadata": json.dumps({"topic": ["Sport", "Art"][n % 2]}) if n % 3 else None,
        }
        for n in range(72)
    ]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run", mode="retriever", rows=rows())


def test_the_page_and_a_tracker_show_the_same(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "ROW_GROUP", 10)
    drawn = {figure.title: figure for figure in build_figures(view_runs([load_run(run)]))}
    told = [event for event in prediction_events(run / PREDICTIONS, 0) if isinstance(event, Figure)]
    assert [event.title for event in told] == [
        "Token recall by answer length", "Token recall by retrieval rank", "Token recall by topic",
    ]  # fmt: skip
    for event in told:
        (points,) = event.plotly["data"]
        lines = [
            (x, f"{y:.3f}", f"{y - down:.3f}", f"{y + up:.3f}", n.removeprefix("n="))
            for x, y, up, down, n in zip(
                points["x"], points["y"], points["error_y"]["array"],
                points["error_y"]["arrayminus"], points["text"], strict=True,
            )
        ]  # fmt: skip
        assert lines == [row[1:] for row in drawn[event.title].rows]
        assert event.plotly["layout"]["xaxis"]["title"]["text"] == drawn[event.title].columns[1]
        assert sorted(event.plotly["layout"]["xaxis"]["categoryarray"]) == sorted(points["x"])


def test_memory_is_one_figure_with_its_phases(run: Path) -> None:
    memory = json.loads((run / MEMORY).read_text())
    phases = ("load",) * 20 + ("index",) * 2 + ("generate",) * 28
    memory["samples"] = [
        {"seconds": float(s), "phase": phase, "rss": 1024.0 + s, "gpu": None}
        for s, phase in enumerate(phases)
    ]
    (run / MEMORY).write_text(json.dumps(memory))
    drawn = {figure.title: figure for figure in build_figures(view_runs([load_run(run)]))}
    (event,) = memory_figure(memory)
    (lines,) = event.plotly["data"]
    ((_, name, samples, highest),) = drawn[event.title].rows
    assert (lines["name"], str(len(lines["x"])), f"{max(lines['y']):.2f}") == (
        name, samples, highest,
    )  # fmt: skip
    # One second of fifty is shaded, and too narrow for a name.
    assert [one["text"] for one in event.plotly["layout"]["annotations"]] == ["load", "generate"]
    shades = [(one["x0"], one["x1"]) for one in event.plotly["layout"]["shapes"]]
    assert shades == [(0, 19), (20, 21), (22, 49)]
    assert event.plotly["layout"]["yaxis"]["title"]["text"] == "GiB"


def test_memory_that_was_not_sampled_is_no_figure() -> None:
    assert memory_strip(None, "run") is None
    assert list(memory_figure({"samples": []})) == []


def test_time_of_other_runs_belongs_to_no_phase() -> None:
    samples = [
        {"seconds": s, "phase": phase, "rss": 1024.0, "gpu": None}
        for s, phase in ((0.0, "load"), (2.0, "load"), (2.0, "index"), (2.5, "index"),
                         (2.6, "start"), (8.9, "start"),
                         (9.0, "generate"), (12.0, "generate"), (12.0, "load"), (13.0, "load"))
    ]  # fmt: skip
    strip = memory_strip({"samples": samples}, "run")
    assert strip is not None
    assert strip.phases == [
        ("load", 0.0, 2.0), ("index", 2.0, 2.5), ("generate", 9.0, 12.0), ("load", 12.0, 13.0),
    ]  # fmt: skip
    assert [(track.label, track.points[0]) for track in strip.tracks] == [("processes", (0.0, 1.0))]


def test_the_topics_with_most_questions_in_order_of_their_names() -> None:
    names = [f"t{n:02}" for n in range(25) for _ in range(n + 1)]
    frame = pl.DataFrame(
        {
            "metadata": [json.dumps({"topic": name}) for name in names] + [None, "{}"],
            "token_recall": [1.0] * len(names) + [0.0, 0.0],
        }
    )
    groups = by_topic(frame.iter_slices(40))
    assert [group.label for group in groups] == [f"t{n:02}" for n in range(5, 25)]
    assert [group.estimate.n for group in groups] == list(range(6, 26))


def test_every_breakdown_says_what_it_reads(run: Path) -> None:
    for breakdown in BREAKDOWNS:
        columns = [*breakdown.columns, "token_recall"]
        groups = breakdown.groups([pl.read_parquet(run / PREDICTIONS, columns=columns)])
        assert bool(groups) is (breakdown.key != "position")
