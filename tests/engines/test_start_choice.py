from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from slm_vllm.engines.start_choice import StartChoice, choose_start, compile_cache_is_warm


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("VLLM_CACHE_ROOT", str(tmp_path))
    return tmp_path / "torch_compile_cache"


def choose(wanted: str = "auto", kind: str = "cuda", **changes: Any) -> StartChoice:
    """Of SmolLM2-135M and the questions that were measured."""
    known = {"compiles": True, "questions": 3610, "new_tokens": 32, "batch": 512, "layers": 30}
    return choose_start(wanted, kind, **{**known, **changes})


def test_what_was_measured_starts_without_graphs(cache: Path) -> None:
    """Graphs loaded 24 s and more longer there to save 1 to 3 s."""
    assert choose() == StartChoice(
        True, "no graphs: graphs would take about 40 s to start and save about 2 s of answers"
    )
    (cache / "of_some_model").mkdir(parents=True)
    assert "about 24 s to start and save about 2 s" in choose().reason


@pytest.mark.parametrize(
    ("changes", "eager"),
    [
        ({"questions": 60_000}, True),
        ({"questions": 90_000}, False),
        ({"questions": 60_000, "new_tokens": 64}, False),
        ({"questions": 60_000, "layers": 60}, False),
        ({"questions": 60_000, "batch": 256}, False),
        # Without compilation only the capture is to be made good.
        ({"questions": 30_000, "compiles": False}, False),
        ({"questions": 0}, False),
        ({"layers": 0}, False),
    ],
)
def test_by_the_work(changes: dict[str, Any], eager: bool) -> None:
    assert choose(**changes).eager is eager


def test_a_warm_cache_makes_graphs_pay_sooner(cache: Path) -> None:
    assert choose(questions=60_000).eager
    (cache / "of_some_model").mkdir(parents=True)
    assert not choose(questions=60_000).eager


def test_a_word_of_the_user_counts_more() -> None:
    assert choose("fast", questions=10**7) == StartChoice(True, "hardware.start=fast")
    assert choose("throughput", questions=1) == StartChoice(False, "hardware.start=throughput")
    assert not choose("throughput", kind="cpu").eager


def test_a_cpu_does_not_compile() -> None:
    assert choose(kind="cpu", questions=10**7).eager


def test_where_vllm_keeps_its_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("VLLM_CACHE_ROOT")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert not compile_cache_is_warm()
    (tmp_path / "vllm" / "torch_compile_cache" / "a").mkdir(parents=True)
    assert compile_cache_is_warm()
