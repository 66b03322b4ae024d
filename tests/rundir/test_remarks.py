"""What a run's folder has to say of its figures."""

from __future__ import annotations

from typing import Any

import pytest

from slm_vllm.rundir.contents import Manifest
from slm_vllm.rundir.remarks import remarks


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
