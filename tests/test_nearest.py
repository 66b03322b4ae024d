from __future__ import annotations

from slm_vllm.nearest import close_names, nearest


def test_the_closest_word_comes_before_all_valid_ones() -> None:
    assert nearest("retriver", ["oracle", "retriever"]) == (
        "Did you mean 'retriever'? Valid: oracle, retriever"
    )


def test_nothing_alike_is_not_guessed() -> None:
    assert nearest("xyz", ["oracle", "retriever"]) == "Valid: oracle, retriever"


def test_case_is_no_difference() -> None:
    assert close_names("NQ.JSONL", ["nq.jsonl", "NQ.jsonl", "simple_qa.csv"]) == [
        "nq.jsonl",
        "NQ.jsonl",
    ]


def test_no_more_than_asked_for_the_closest_first() -> None:
    assert close_names("run-1", ["run-123", "run-12", "run-1"], 2) == ["run-1", "run-12"]
