"""What a run's folder has to say of its figures."""

from __future__ import annotations

from typing import Any

import pytest

from slm_vllm.rundir.contents import Manifest
from slm_vllm.rundir.remarks import remarks, sampled


@pytest.mark.parametrize(
    "engine", [{}, {"name": "vllm"}, {"sampling_proof": {}}, {"sampling_proof": {"u": "proven"}}]
)
def test_a_run_whose_sampling_is_its_own_needs_no_remark(engine: dict[str, Any]) -> None:
    assert remarks(Manifest(engine=engine), {}) == []
    assert remarks(Manifest(), {}) == []


def test_servers_that_were_not_seen_to_take_the_sampling_are_named() -> None:
    proofs = {"http://a/v1": "proven", "http://b/v1": "unproven: it refuses repetition_penalty"}
    (said,) = remarks(Manifest(engine={"sampling_proof": proofs}), {})
    assert "http://b/v1: unproven: it refuses repetition_penalty" in said
    assert "http://a/v1" not in said


STOPPED = {
    "until": {
        "against": "base",
        "metric": "token_recall",
        "margin": 0.01,
        "level": 0.05,
        "decision": "better",
        "questions": 40,
        "of": 100,
        "difference": 0.25,
        "interval": [0.125, 0.375],
    }
}
ABOUT = "after 40 of 100 questions (token recall +0.250 [+0.125, +0.375] at 95 %, valid at any look"


@pytest.mark.parametrize(
    ("decision", "said"),
    [
        ("better", "settled: above it"),
        ("worse", "settled: below it"),
        ("no difference", "settled: no difference beyond 0.01"),
        (None, "not settled"),
    ],
)
def test_what_a_run_was_stopped_for_is_told(decision: str | None, said: str) -> None:
    until = STOPPED["until"] | {"decision": decision}
    (remark,) = remarks(Manifest(), {"until": until})
    assert remark.startswith(f"difference from base {said}, {ABOUT}")
    assert "its other intervals take the number of questions as given" in remark


def test_a_run_that_asked_all_its_questions_was_not_stopped() -> None:
    until = STOPPED["until"] | {"questions": 100, "difference": None}
    (remark,) = remarks(Manifest(), {"until": until})
    assert "100 of 100 questions (token recall - [" in remark and "other intervals" not in remark


@pytest.mark.parametrize(
    ("floor", "end"),
    [(0.0123, "so numerics may move its token recall by up to 0.0123"), (None, "(1 to 16 %)")],
)
def test_what_was_asked_again_is_told(floor: float | None, end: str) -> None:
    check = {
        "rows": 40,
        "changed": 2,
        "changed_share": {"ci95": [0.0138, 0.1605]},
        "metrics": {"token_recall": {"floor": floor}},
    }
    (remark,) = remarks(Manifest(), {"repeat_check": check})
    assert remark.startswith("2 of 40 answers were others when asked again one at a time (1 to 16")
    assert remark.endswith(end)
    assert remarks(Manifest(), {"repeat_check": {"rows": 0}}) == []


def test_several_answers_are_told() -> None:
    found = {
        "answers": 5,
        "agreement": {"mean": 0.8},
        "majority": {"token_recall": {"mean": 0.4567}},
    }
    assert sampled({"sampling": found}) == (
        "5 answers to each question, of which 80% agree; the majority's token recall is 0.457"
    )
    assert sampled({}) == ""


@pytest.mark.parametrize(("before", "shown"), [(0.3214, "0.321"), (None, "-")])
def test_a_run_of_earlier_scripts_says_where_it_is_from(before: float | None, shown: str) -> None:
    about = {
        "from": "/old/run",
        "token_recall": before,
        "rows": 10,
        "rows_of_dataset": 8,
        "unknown": ["seed", "dtype"],
    }
    assert remarks(Manifest(adopted=about), {}) == [
        f"taken over from /old/run and rescored (token recall {shown} there); "
        "2 of its questions are not in the dataset and keep their own ids; unknown: seed, dtype"
    ]
    (all_known,) = remarks(Manifest(adopted=about | {"rows_of_dataset": 10}), {})
    assert "keep their own ids" not in all_known
