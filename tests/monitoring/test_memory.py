from __future__ import annotations

import os
import subprocess
import sys

import psutil
import pytest

from slm_vllm.monitoring import memory
from slm_vllm.monitoring.memory import MIB, MemorySampler, tree_rss


def test_a_child_counts_with_the_run_or_apart() -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with child:
        assert child.stdout is not None and child.stdin is not None
        child.stdout.readline()
        size = psutil.Process(child.pid).memory_info().rss
        together, nobody = tree_rss()
        alone, apart = tree_rss(child.pid)
        child.stdin.write(b"\n")
    assert nobody is None and apart is not None
    assert apart == pytest.approx(size, rel=0.2)
    assert together - alone == pytest.approx(size, rel=0.2)


def test_peaks_of_each_phase_survive_the_thinning(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = iter(range(10, 100))
    monkeypatch.setattr(memory, "_MOST_SAMPLES", 4)
    monkeypatch.setattr(memory, "tree_rss", lambda apart, shared: (next(sizes) * MIB, None))
    sampler = MemorySampler()
    with sampler.phase("loading"):
        for _ in range(5):
            sampler.sample()  # with the ends of the phase: 10 to 16
    with sampler.phase("asking"):
        sampler.sample()  # 17 to 19
    report = sampler.report()
    peaks = {name: phase["peak_rss"] for name, phase in report["phases"].items()}
    assert peaks == {"loading": 16.0, "asking": 19.0}
    assert report["peak_rss"] == 19.0
    assert len(report["samples"]) <= 4
    assert report["publisher"] is None


def test_a_phase_of_another_run_is_left_out() -> None:
    sampler = MemorySampler()
    for name, run in (("load", None), ("ask", "mine"), ("ask", "theirs"), ("index", "theirs")):
        with sampler.phase(name, run):
            pass
    report = sampler.report("mine")
    assert set(report["phases"]) == {"load", "ask"}
    assert [sample["phase"] for sample in report["samples"]] == ["load", "load", "ask", "ask"]
    sampler.set_publisher(os.getpid())
    sampler.sample()
    assert sampler.report()["publisher"]["peak_rss"] > 1
