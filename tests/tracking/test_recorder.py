"""The figures that a tracker is told once, at the end."""

from __future__ import annotations

from slm_vllm.tracking.recorder import single_values


def test_what_a_search_cost_the_model_is_told_by_stage() -> None:
    stages = {"rerank": {"prompt_tokens": 5000, "seconds": 1.5}}
    results = {"metrics": {"f1": {"mean": 0.5}}, "stages": stages}
    assert single_values(results, {}) == {
        "f1": 0.5, "rerank_prompt_tokens": 5000.0, "rerank_seconds": 1.5,
    }  # fmt: skip
