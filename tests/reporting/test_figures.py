"""The figures: their axes, signs and colours."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest

from slm_vllm.reporting.drawing import Label, Line, Marker, text_width
from slm_vllm.reporting.figures import Figure, build_figures
from slm_vllm.reporting.run_view import view_runs
from slm_vllm.rundir.names import MEMORY
from slm_vllm.rundir.reading import load_run
from support.run_folders import make_run


def rows(n: int = 20) -> list[dict[str, Any]]:
    """All answers of two words but the last, which has ten."""
    made: list[dict[str, Any]] = [{"token_recall": float(i % 2)} for i in range(n)]
    made[-1]["answers"] = ["one two three four five six seven eight nine ten"]
    return made


def figures(folder: Path) -> dict[str, Figure]:
    runs = [load_run(path) for path in sorted(folder.iterdir())]
    return {figure.key: figure for figure in build_figures(view_runs(runs))}


def texts(figure: Figure) -> list[str]:
    return [shape.text for shape in figure.drawing.shapes if isinstance(shape, Label)]


def colours(folder: Path) -> dict[str, str]:
    runs = [load_run(path) for path in sorted(folder.iterdir())]
    return {view.run.name: view.colour for view in view_runs(runs)}


def test_a_mode_has_its_colour_in_every_report(tmp_path: Path) -> None:
    make_run(tmp_path / "all" / "a", mode="no_context", rows=rows())
    make_run(tmp_path / "all" / "b", mode="retriever", rows=rows())
    make_run(tmp_path / "all" / "c", mode="oracle", rows=rows())
    make_run(tmp_path / "one" / "c", mode="oracle", rows=rows())
    assert colours(tmp_path / "one")["c"] == colours(tmp_path / "all")["c"]
    assert len(set(colours(tmp_path / "all").values())) == 3


def test_runs_of_one_mode_and_unknown_retrievers_can_be_told_apart(tmp_path: Path) -> None:
    for name in ("first", "second", "third"):
        make_run(tmp_path / name, mode="retriever", retriever="bm25", rows=rows())
    make_run(tmp_path / "other", mode="retriever", retriever="mine", rows=rows())
    assert len(set(colours(tmp_path).values())) == 4


def test_models_of_one_mode_share_its_colour_and_have_their_own_marker(tmp_path: Path) -> None:
    for model in ("small", "large"):
        make_run(tmp_path / model, model=model, mode="no_context", rows=rows())
    views = view_runs([load_run(path) for path in sorted(tmp_path.iterdir())])
    assert len({view.colour for view in views}) == 1
    assert len({view.shape for view in views}) == 2


def test_a_bin_of_one_question_is_hollow_and_has_no_interval(tmp_path: Path) -> None:
    make_run(tmp_path / "a", mode="no_context", rows=rows())
    figure = figures(tmp_path)["demo-answer-length"]
    marks = [shape for shape in figure.drawing.shapes if isinstance(shape, Marker) and shape.title]
    assert [mark.hollow for mark in marks] == [False, True]
    intervals = [s for s in figure.drawing.shapes if isinstance(s, Line) and s.title]
    assert len(intervals) == 1
    assert "Hollow" in figure.note


@pytest.mark.parametrize(
    ("key", "x"), [("throughput", "questions/s"), ("memory", "peak memory, GiB")]
)
def test_axes_are_named_and_the_front_is_made_of_steps(tmp_path: Path, key: str, x: str) -> None:
    make_run(tmp_path / "a", mode="no_context", rows=rows(), questions_per_second=20, peak_rss=1024)
    good = [{"token_recall": 1.0}] * 20
    make_run(tmp_path / "b", mode="retriever", rows=good, questions_per_second=10, peak_rss=4096)
    make_run(tmp_path / "c", mode="oracle", rows=good, questions_per_second=99, peak_rss=16)
    figure = figures(tmp_path)[f"demo-{key}"]
    # A bound is drawn, hollow, and beats nobody.
    assert [row[-1] for row in figure.rows] == ["yes", "yes", "no"]
    assert sum(isinstance(s, Marker) and s.hollow for s in figure.drawing.shapes) == 1
    assert {x, "token recall"} <= set(texts(figure))
    (front,) = [s for s in figure.drawing.shapes if isinstance(s, Line) and s.dashed]
    first, corner, last = front.points
    # The corner has the place of the one and the height of the other.
    assert corner == (last[0], first[1])


def test_names_of_runs_stand_in_the_legend_and_not_on_the_points(tmp_path: Path) -> None:
    for n, model in enumerate(("small", "large")):
        for mode in ("no_context", "oracle"):
            make_run(
                tmp_path / f"{model}_{mode}", model=model, mode=mode, rows=rows(),
                questions_per_second=10 + n,
            )  # fmt: skip
    said = texts(figures(tmp_path)["demo-throughput"])
    names = ("no_context", "oracle", "large", "small")
    assert [said.count(name) for name in names] == [1, 1, 1, 1]


def test_memory_has_a_strip_for_each_run_with_its_phases(tmp_path: Path) -> None:
    samples = [
        {"seconds": 3.0 * i, "phase": phase, "rss": 100.0 * i, "gpu": None}
        for i, phase in enumerate(["load"] * 10 + ["generate"] * 20)
    ]
    for name, mode in (("a", "no_context"), ("b", "oracle")):
        path = make_run(tmp_path / name, mode=mode, rows=rows())
        memory = json.loads((path / MEMORY).read_text())
        (path / MEMORY).write_text(json.dumps({**memory, "samples": samples}))
    figure = figures(tmp_path)["demo-memory-over-time"]
    said = texts(figure)
    assert [said.count(text) for text in ("GiB", "seconds", "load", "generate")] == [2, 1, 2, 2]
    lines = [s for s in figure.drawing.shapes if isinstance(s, Line) and s.title == "processes"]
    first, second = lines
    # Equal values do not cover each other.
    assert min(y for _, y in second.points) > max(y for _, y in first.points)


def test_names_of_phases_cover_neither_each_other_nor_are_said_twice(tmp_path: Path) -> None:
    phases = ["survey"] * 9 + ["load"] * 9 + ["index"] * 9 + ["load"] * 9 + ["generate"] * 164
    samples = [
        {"seconds": 1.0 * i, "phase": phase, "rss": 100.0, "gpu": None}
        for i, phase in enumerate(phases)
    ]
    path = make_run(tmp_path / "a", rows=rows())
    memory = json.loads((path / MEMORY).read_text())
    (path / MEMORY).write_text(json.dumps({**memory, "samples": samples}))
    shapes = figures(tmp_path)["demo-memory-over-time"].drawing.shapes
    named = [s for s in shapes if isinstance(s, Label) and s.text in phases]
    assert {label.text for label in named} >= {"survey", "load", "generate"}
    for one, other in itertools.combinations(named, 2):
        first, second = sorted((one, other), key=lambda label: label.x)
        assert first.y != second.y or first.x + text_width(first.text, first.size) <= second.x


def test_marks_of_many_runs_do_not_cover_each_other(tmp_path: Path) -> None:
    topics = [{"metadata": json.dumps({"topic": f"t{n}"})} for n in range(9)]
    for n in range(6):
        make_run(tmp_path / f"run{n}", rows=topics * 2)
    shapes = figures(tmp_path)["demo-topic"].drawing.shapes
    marks = sorted((s for s in shapes if isinstance(s, Marker) and s.title), key=lambda s: s.x)
    assert len(marks) == 54
    assert all(a.x + a.radius <= b.x - b.radius for a, b in itertools.pairwise(marks))


def test_names_that_lack_room_rise_and_keep_their_numbers(tmp_path: Path) -> None:
    def drawn(topics: list[str]) -> list[Label]:
        metadata = [{"metadata": json.dumps({"topic": topic})} for topic in topics]
        make_run(tmp_path / str(len(topics)) / "a", rows=metadata * 3)
        shapes = figures(tmp_path / str(len(topics)))["demo-topic"].drawing.shapes
        return [shape for shape in shapes if isinstance(shape, Label)]

    assert all(not label.rise for label in drawn(["sport", "music"]))
    long = [f"a topic with a long name, {n}" for n in range(9)]
    risen = [label for label in drawn(long) if label.rise]
    assert len(risen) == 9 and all(label.text.endswith(", n=3") for label in risen)
    # Each ends under its group and begins inside the drawing.
    for label in risen:
        width = text_width(label.text, label.size) * math.cos(math.radians(label.rise))
        assert label.anchor == "end" and label.x - width >= 0


def test_a_chart_of_one_of_many_models_names_it_once(tmp_path: Path) -> None:
    for model in ("small", "middle", "large"):
        for mode in ("no_context", "retriever", "oracle"):
            make_run(tmp_path / f"{model}_{mode}", model=model, mode=mode, rows=rows())
    figure = figures(tmp_path)["demo-answer-length-small"]
    assert figure.title.endswith(": small")
    assert {row[0] for row in figure.rows} == {"no_context", "retriever · bm25", "oracle"}


def test_answers_by_the_number_of_passages(tmp_path: Path) -> None:
    for name, count, mode, recall in (
        ("a", 10, "retriever", 0.75), ("b", 1, "retriever", 0.25), ("c", 3, "oracle", 1.0),
    ):  # fmt: skip
        config = {"retriever": {"top_k": count}}
        values = [{"token_recall": recall}] * 8
        make_run(tmp_path / name, mode=mode, rows=values, config=config)
    found = figures(tmp_path)["demo-passages"]
    assert [row[:3] for row in found.rows] == [
        ("retriever · bm25", "1", "0.250"),
        ("retriever · bm25", "10", "0.750"),
    ]
    # A third run of ten passages: what these runs differ in is not the number alone.
    make_run(tmp_path / "d", mode="retriever", rows=rows(), config={"retriever": {"top_k": 10}})
    assert "demo-passages" not in figures(tmp_path)
