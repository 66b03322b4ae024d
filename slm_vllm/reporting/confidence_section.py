"""What several answers to a question, and how probable they were, say of each run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from slm_vllm.reporting.estimates import metric_text
from slm_vllm.reporting.html_table import table
from slm_vllm.reporting.run_view import RunView
from slm_vllm.scoring.metrics import METRICS

_TEXT = {"run", "confidence in", "metric"}


def confidence_section(views: Sequence[RunView]) -> str:
    """Several answers, calibration, abstaining; "" where no run has any of it."""
    several = [row for view in views for row in _several_rows(view)]
    calibrated = [row for view in views for row in _calibration_rows(view)]
    left = [row for view in views for row in _abstention_rows(view)]
    parts = []
    if several:
        head = ["run", "metric", "mean", "between", "within", "s.e.", "s.e. of one answer"]
        parts.append(
            table(
                [*head, "majority", "any of all", "agreement", "answers"],
                several,
                caption="Several answers to each question: variance between questions and within",
                text_columns=_TEXT,
                tools="several",
            )
        )
    if calibrated:
        parts.append(
            table(
                [
                    "run", "confidence in", "metric", "right", "mean confidence", "ECE", "Brier",
                    "AURC", "n",
                ],
                calibrated,
                caption="Calibration: ECE over ten bins of equal width, Brier score, area under "
                "the risk-coverage curve (1 - right for a confidence that tells nothing)",
                text_columns=_TEXT,
                tools="calibration",
            )
        )  # fmt: skip
        rows = table(
            ["run", "confidence in", "metric", "at least", "answered", "of these right"],
            left,
            caption="What abstaining below a confidence leaves",
            text_columns=_TEXT,
            tools="abstaining",
        )
        parts.append(f"<details><summary>Abstaining</summary>{rows}</details>")
    return "".join(parts)


def _several_rows(view: RunView) -> list[list[str]]:
    found = view.run.results.get("sampling")
    if found is None:
        return []
    rows = []
    for name, parts in found["variance"].items():
        if name not in METRICS:
            continue
        chances = found["pass_at_k"].get(name, {})
        rows.append(
            [
                view.run.name,
                METRICS[name].label,
                metric_text(view.run.results["metrics"].get(name)),
                *(
                    _number(parts[key])
                    for key in ("between", "within", "stderr", "stderr_of_one_answer")
                ),
                metric_text(found["majority"].get(name)),
                metric_text(chances.get(str(found["answers"]))),
                metric_text(found["agreement"]),
                str(found["answers"]),
            ]
        )
    return rows


def _calibration_rows(view: RunView) -> list[list[str]]:
    return [
        [
            view.run.name,
            kind,
            label,
            *(_number(found[key]) for key in ("accuracy", "confidence", "ece", "brier", "aurc")),
            f"{found['n']:,}",
        ]
        for kind, label, found in _calibrations(view)
    ]


def _abstention_rows(view: RunView) -> list[list[str]]:
    return [
        [
            view.run.name,
            kind,
            label,
            f"{point['threshold']:.3g}",
            f"{100 * point['coverage']:.0f} %",
            metric_text(point["accuracy"]),
        ]
        for kind, label, found in _calibrations(view)
        for point in found["abstaining"]
    ]


def _calibrations(view: RunView) -> list[tuple[str, str, Mapping[str, Any]]]:
    by_kind = view.run.results.get("calibration", {})
    return [
        (kind, METRICS[name].label, found)
        for kind, metrics in by_kind.items()
        for name, found in metrics.items()
        if name in METRICS
    ]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
