"""Several engines on this machine, in processes that are killed at every moment."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from slm_vllm.config.schema import GenerationConfig, HardwareConfig
from slm_vllm.engines.base import BaseEngine
from slm_vllm.engines.fork_server import ForkServer
from slm_vllm.engines.local_replicas import LocalReplicas
from slm_vllm.engines.replica_plan import ReplicaPlan
from slm_vllm.engines.replica_process import main
from slm_vllm.engines.settings import EngineSettings
from slm_vllm.errors import EngineDiedError, EngineError
from slm_vllm.monitoring.device import Device
from slm_vllm.plugins import load
from slm_vllm.types import Completion, GenerationRequest
from support.counting_engine import (
    KILLED_BY,
    CountingEngine,
    ThreadedEngine,
    all_ended,
    import_torch,
)

pytestmark = pytest.mark.slow
WINDOW = 8


@pytest.fixture
def engine_for(tmp_path: Path) -> Callable[..., LocalReplicas]:
    def make(
        n: int = 2,
        engine_class: type[BaseEngine] = CountingEngine,
        fork_server: ForkServer | None = None,
        **fake: Any,
    ) -> LocalReplicas:
        settings = EngineSettings(
            model_path=tmp_path,
            device=Device("cpu", "CPU"),
            hardware=HardwareConfig(name="cpu", engine_args={"max_num_seqs": WINDOW // 2}),
            generation=GenerationConfig(),
            dtype="float32",
            max_model_len=128,
        )
        make_engine = partial(engine_class, folder=tmp_path, **fake)
        plan = ReplicaPlan((), n, "as configured")
        return LocalReplicas(settings, make_engine=make_engine, plan=plan, fork_server=fork_server)

    return make


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where temporary files go; short, as sockets are among them."""
    with tempfile.TemporaryDirectory(prefix="t") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


def asked(n: int) -> Iterator[GenerationRequest]:
    return (GenerationRequest(f"r{i}", [i]) for i in range(n))


def by_id(completions: Iterator[Completion]) -> dict[str, Completion]:
    found: dict[str, Completion] = {}
    for completion in completions:
        assert completion.request_id not in found
        found[completion.request_id] = completion
    return found


def test_replicas_share_the_work_in_bounded_flight(engine_for: Any, tmp_path: Path) -> None:
    taken = answered = most = 0

    def counted() -> Iterator[GenerationRequest]:
        nonlocal taken
        for request in asked(400):
            taken += 1
            yield request

    with engine_for() as engine:
        info = engine.start()
        texts = {}
        for completion in engine.stream(counted()):
            texts[completion.request_id] = completion.text.split(" by ")
            answered += 1
            most = max(most, taken - answered)
        memory = engine.memory_usage()
    assert (info.engine, info.max_model_len) == ("counting", 128)
    assert info.details["replicas"] == 2 and info.details["counted"]
    assert {name: token for name, (token, _) in texts.items()} == {
        f"r{i}": str(i) for i in range(400)
    }
    workers = {path.name for path in tmp_path.iterdir()}
    assert {pid for _, pid in texts.values()} == workers and len(workers) == 2
    # Two windows in flight, as much again read ahead, and what is between.
    assert most <= 2 * WINDOW + 2 * WINDOW + 2
    assert len(memory) == 2 and all(found["peak_rss"] > 10 for found in memory.values())
    assert not any(psutil.pid_exists(int(pid)) for pid in workers)


def test_what_an_engine_logs_is_written_where_vllm_writes(
    engine_for: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    with engine_for() as engine:
        engine.start()
    said = re.findall(r"^INFO .* \[(\d+)\] beginning to count$", capfd.readouterr().err, re.M)
    assert len(set(said)) == 2


def test_each_forgets_prompts_between_two_streams(engine_for: Any, tmp_path: Path) -> None:
    with engine_for(journal=True) as engine:
        engine.start()
        first = by_id(engine.stream(asked(50)))
        engine.forget_prompts()
        again = by_id(engine.stream(asked(50)))
    assert len(first) == len(again) == 50
    noted = [path.read_text().splitlines() for path in tmp_path.glob("*.asked")]
    before = [lines[: lines.index("forgot")] for lines in noted]
    after = [lines[lines.index("forgot") + 1 :] for lines in noted]
    assert sorted(name for lines in before for name in lines) == sorted(first)
    assert sorted(name for lines in after for name in lines) == sorted(again)


def test_what_keeps_a_single_one_from_starting_is_said_plainly(engine_for: Any) -> None:
    with (
        engine_for(1, broken=True) as engine,
        pytest.raises(EngineError, match="^replica 0 on .*: EngineError: no weights here$"),
    ):
        engine.start()


def test_each_has_its_own_cores(engine_for: Any) -> None:
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        pytest.skip("one core")
    with engine_for() as engine:
        engine.start()
        pids = {int(c.text.partition(" by ")[2]) for c in engine.stream(asked(100))}
        own = [set(psutil.Process(pid).cpu_affinity() or []) for pid in pids]
    assert len(own) == 2 and not own[0] & own[1]


def test_one_that_is_not_forked_has_its_threads_too() -> None:
    """The variable that would say so is left to vLLM."""
    code = """
from slm_vllm.engines.replica_process import _made_with
def make_engine():
    import torch
    print(torch.get_num_threads())
_made_with(3, make_engine)
"""
    environment = {name: value for name, value in os.environ.items() if "OMP_" not in name}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "3\n"


def test_each_computes_with_a_thread_for_each_of_its_cores(engine_for: Any) -> None:
    cores = len(os.sched_getaffinity(0))
    if cores < 2:
        pytest.skip("one core")
    with ForkServer(main, import_torch) as fork_server:
        with engine_for(cores, ThreadedEngine, fork_server=fork_server) as engine:
            assert engine.start().details["threads"] == 1


@pytest.mark.parametrize("after", [0, 1, 3, 7, 8, 9, 30, 60, 97, 98])
def test_one_that_is_killed_loses_only_what_it_had_in_flight(
    engine_for: Any, tmp_path: Path, after: int, temporary: Path
) -> None:
    with engine_for(helper=True, journal=True) as engine:
        engine.start()
        assert len(list(temporary.rglob("left_by_*"))) == 2
        found: dict[str, Completion] = {}
        victim: int | None = None
        for completion in engine.stream(asked(100)):
            assert completion.request_id not in found
            if len(found) == after:
                victim = int(completion.text.partition(" by ")[2])
                os.kill(victim, signal.SIGKILL)
            found[completion.request_id] = completion
        later = by_id(engine.stream(GenerationRequest(f"s{i}", [i]) for i in range(40)))
    assert sorted(found) == sorted(request.request_id for request in asked(100))
    assert not any(completion.error for completion in found.values())
    assert len(later) == 40
    times = Counter(name for path in tmp_path.glob("*.asked") for name in path.read_text().split())
    # What the one that was killed had in flight is asked once more.
    again = [name for name, n in times.items() if n > 1]
    assert all_ended(tmp_path)
    assert not list(temporary.iterdir())
    assert len(times) == 140 and max(times.values()) <= 2 and len(again) <= WINDOW


def test_where_a_sockets_path_would_be_too_long_the_usual_folder_is_used(
    engine_for: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 70)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    monkeypatch.setattr(tempfile, "tempdir", None)
    with engine_for(1, helper=True) as engine:
        engine.start()
        assert [path.parent for path in long.rglob("left_by_*")] == [long]


def test_a_prompt_that_kills_is_found_and_no_other_row_is_blamed(engine_for: Any) -> None:
    requests = list(asked(60))
    for place in (5, 6, 40):
        requests[place] = GenerationRequest(f"bad{place}", [KILLED_BY])
    with engine_for() as engine:
        engine.start()
        found = by_id(engine.stream(requests))
    assert len(found) == 60
    blamed = {name: one.error for name, one in found.items() if one.error}
    assert sorted(blamed) == ["bad40", "bad5", "bad6"]
    assert all("with nothing beside it: its process" in str(error) for error in blamed.values())
    assert all("SIGKILL" in str(error) for error in blamed.values())


def test_an_engine_that_dies_at_everything_ends_the_run(engine_for: Any) -> None:
    with engine_for(1) as engine:
        engine.start()
        with pytest.raises(EngineDiedError, match="All replicas are lost.*SIGKILL.*same command"):
            list(engine.stream(GenerationRequest(f"r{i}", [KILLED_BY]) for i in range(40)))


def test_an_engine_that_raises_is_lost_too(engine_for: Any) -> None:
    """It is in its process as `EngineDiedError`, while requests are still awaited."""
    with engine_for(2, raise_after=20) as engine:
        engine.start()
        found = by_id(engine.stream(asked(100)))
    assert len(found) == 100 and not any(completion.error for completion in found.values())


def test_a_stream_that_is_given_up_leaves_nothing_to_the_next(engine_for: Any) -> None:
    with engine_for() as engine:
        engine.start()
        stream = engine.stream(asked(1000))
        next(stream)
        stream.close()
        later = by_id(engine.stream(GenerationRequest(f"later{i}", [i]) for i in range(20)))
    assert sorted(later) == sorted(f"later{i}" for i in range(20))


def test_why_none_could_start(engine_for: Any) -> None:
    with engine_for(broken=True) as engine:
        with pytest.raises(EngineError, match=r"replica \d on .*no weights here"):
            engine.start()


def test_an_engine_of_a_plug_in(engine_for: Any, plugin: Callable[[str, str], Path]) -> None:
    text = "from support.counting_engine import CountingEngine\nclass Mine(CountingEngine): pass\n"
    plugin("my_engine", text)
    with engine_for(engine_class=load("my_engine:Mine")) as engine:
        engine.start()
        assert len(by_id(engine.stream(asked(20)))) == 20


def test_no_file_of_the_working_folder_is_imported(
    engine_for: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sys.version_info < (3, 11):
        pytest.skip("Python has no safe path")
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "psutil.py").write_text("raise SystemExit('imported from the working folder')")
    monkeypatch.chdir(folder)
    with engine_for() as engine:
        engine.start()
