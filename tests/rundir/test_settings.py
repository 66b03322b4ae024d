"""What is said to have changed since the earlier run in a folder."""

from __future__ import annotations

from slm_vllm.rundir.contents import Manifest
from slm_vllm.rundir.settings import changed_facts

BEFORE: Manifest = {
    "created": "2026-01-01",
    "dataset": {"path": "data/a.jsonl", "sha256": "a" * 64},
    "answers": {"model": "1" * 40, "dtype": "float16", "context_limit": 2048, "index": None},
}


def test_facts_that_answers_depend_on() -> None:
    now: Manifest = {
        "created": "2026-01-02",
        "dataset": {"path": "data/nq/a.jsonl", "sha256": "b" * 64},
        "answers": {
            "model": "1" * 40,
            "dtype": "float16",
            "context_limit": 1024,
            "index": "c" * 64,
        },
    }
    assert changed_facts(BEFORE, now) == {
        "dataset.sha256": ("a" * 12, "b" * 12),
        "answers.context_limit": ("2048", "1024"),
        "answers.index": ("null", "c" * 12),
    }


def test_what_an_earlier_version_did_not_write_is_not_a_change() -> None:
    assert changed_facts({"dataset": {"sha256": "a" * 64}}, BEFORE) == {}
    assert changed_facts(None, BEFORE) == {}
