"""The Ray engine with real actors, each in its own process, around an engine of the tests."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from slm_vllm.config.compose import compose_config
from slm_vllm.config.engine import RayConfig
from slm_vllm.config.schema import GenerationConfig
from slm_vllm.engines import replicated
from slm_vllm.engines.base import BaseEngine
from slm_vllm.engines.ray_engine import RayEngine
from slm_vllm.engines.settings import EngineSettings
from slm_vllm.errors import ConfigError, EngineError, MissingExtraError
from slm_vllm.monitoring.device import Device
from slm_vllm.plugins import load
from slm_vllm.types import GenerationRequest
from support.counting_engine import KILLED_BY, CountingEngine
from support.extras import needs

pytestmark = [needs("ray"), pytest.mark.slow, pytest.mark.xdist_group("ray")]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes of one cluster, each with its own Ray processes."""
    from ray.cluster_utils import Cluster

    found = Cluster(initialize_head=True, head_node_args={"include_dashboard": False})
    found.add_node()
    yield found
    found.shutdown()


@pytest.fixture
def engine_for(cluster: Any, tmp_path: Path) -> Callable[..., RayEngine]:
    def make(
        *,
        fake: dict[str, Any] | None = None,
        engine_class: type[BaseEngine] = CountingEngine,
        **section: Any,
    ) -> RayEngine:
        config = compose_config(["hardware=cpu"])
        hardware = config.hardware.model_copy(update={"engine_args": {"max_num_seqs": 4}})
        settings = EngineSettings(
            model_path=tmp_path,
            device=Device("cpu", "CPU"),
            hardware=hardware,
            generation=GenerationConfig(),
            dtype="float32",
            max_model_len=128,
        )
        section.setdefault("ray_address", cluster.address)
        engine = partial(engine_class, folder=tmp_path, **(fake or {}))
        return RayEngine(settings, RayConfig(**section), engine)

    return make


def asked(n: int) -> Iterator[GenerationRequest]:
    return (GenerationRequest(f"r{i}", [i]) for i in range(n))


def test_replicas_share_the_work_in_bounded_flight(engine_for: Any, tmp_path: Path) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    taken = answered = most = 0

    def counted() -> Iterator[GenerationRequest]:
        nonlocal taken
        for request in asked(400):
            taken += 1
            yield request

    with engine_for(replicas=2) as engine:
        info = engine.start()
        assert signal.getsignal(signal.SIGTERM) is handler
        texts = {}
        for completion in engine.stream(counted()):
            texts[completion.request_id] = completion.text.split(" by ")
            answered += 1
            most = max(most, taken - answered)
        memory = engine.memory_usage()
    assert (info.engine, info.max_model_len, info.details["replicas"]) == ("ray", 128, 2)
    assert {name: token for name, (token, _) in texts.items()} == {
        f"r{i}": str(i) for i in range(400)
    }
    assert {pid for _, pid in texts.values()} == {path.name for path in tmp_path.iterdir()}
    assert len(list(tmp_path.iterdir())) == 2
    # Two windows of 8 in flight, as much again read ahead, and what is between.
    assert most <= 2 * 8 + 2 * 8 + 2
    assert len(memory) == 2 and all(found["peak_rss"] > 10 for found in memory.values())


def test_an_engine_of_a_file_goes_to_nodes_that_do_not_have_it(
    engine_for: Any, plugin: Callable[[str, str], Path]
) -> None:
    text = "from support.counting_engine import CountingEngine\nclass Mine(CountingEngine): pass\n"
    path = plugin("my_engine", text)
    found = load("my_engine:Mine")
    path.unlink()
    with engine_for(engine_class=found, replicas=1) as engine:
        engine.start()
        assert len(list(engine.stream(asked(3)))) == 3


def test_a_replica_that_is_killed_loses_nothing(engine_for: Any, tmp_path: Path) -> None:
    with engine_for(replicas=2, fake={"die_after": 30}) as engine:
        engine.start()
        first = [completion.request_id for completion in engine.stream(asked(300))]
        second = [completion.request_id for completion in engine.stream(asked(50))]
    assert (tmp_path / "dead").exists()
    assert sorted(first) == sorted(request.request_id for request in asked(300))
    assert sorted(second) == sorted(request.request_id for request in asked(50))


def test_a_prompt_that_kills_is_an_error(engine_for: Any) -> None:
    with engine_for() as engine:
        engine.start()
        (bad,) = engine.stream([GenerationRequest("bad", [KILLED_BY])])
        assert bad.error is not None and "2 replicas were lost with it" in bad.error
        assert [completion.error for completion in engine.stream(asked(3))] == [None] * 3


def test_a_stream_that_is_given_up_leaves_nothing_to_the_next(
    engine_for: Any, tmp_path: Path
) -> None:
    with engine_for() as engine:
        engine.start()
        stream = engine.stream(asked(1000))
        next(stream)
        stream.close()
        later = [GenerationRequest(f"later{i}", [i]) for i in range(20)]
        names = [completion.request_id for completion in engine.stream(later)]
    assert sorted(names) == sorted(request.request_id for request in later)


def test_why_no_replica_could_start(engine_for: Any, tmp_path: Path) -> None:
    with engine_for(fake={"broken": True}) as engine:
        with pytest.raises(EngineError, match="replica 0 on .*no weights here"):
            engine.start()


def test_other_versions_are_refused(engine_for: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    own = {"slm-vllm": "9.9.9", "vllm": None, "python": "3.0"}
    monkeypatch.setattr(replicated, "versions", lambda: own)
    with engine_for() as engine:
        with pytest.raises(EngineError, match=r"slm-vllm .*\(here 9.9.9\).*Install the same"):
            engine.start()


def test_a_node_that_dies_loses_nothing(engine_for: Any, cluster: Any) -> None:
    node = cluster.add_node()
    errors = {}
    with engine_for(replicas=3) as engine:
        engine.start()
        for completion in engine.stream(asked(2000)):
            errors[completion.request_id] = completion.error
            if len(errors) == 100:
                cluster.remove_node(node, allow_graceful=False)
    assert errors == {request.request_id: None for request in asked(2000)}


def test_nothing_is_put_on_a_node_that_is_dead_and_not_known_to_be(
    engine_for: Any, cluster: Any
) -> None:
    node = cluster.add_node()
    cluster.remove_node(node, allow_graceful=False)
    # More than nodes: each gets one, and Ray picks some node to find a place for each.
    with engine_for(replicas=6) as engine:
        info = engine.start()
    assert info.details["replicas"] == 6


def test_ray_of_its_own_ends_with_the_engine(tmp_path: Path) -> None:
    """In another process: a driver that had a Ray of its own starts no actor elsewhere."""
    done = subprocess.run(
        [sys.executable, "-m", "support.own_ray", str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["own"] > 1 and found["answers"] == 40 and found["left"] == []


@pytest.mark.parametrize("sign", ["gcs_server", "raylet", "ray::RuntimeEnvAgent", "ray::Replica"])
def test_a_signal_while_ray_starts_leaves_nothing_behind(sign: str) -> None:
    """Told as soon as a process of that name is there: while Ray starts, or replicas load."""
    process = psutil.Popen([sys.executable, "-m", "support.stopped_ray"])
    started: dict[int, psutil.Process] = {}
    while not any(sign in _title(child) for child in started.values()):
        assert not _ended_in(process, 0.01)
        started |= {child.pid: child for child in process.children(recursive=True)}
    process.send_signal(signal.SIGTERM)
    while not _ended_in(process, 0.05):
        with contextlib.suppress(psutil.NoSuchProcess):
            started |= {child.pid: child for child in process.children(recursive=True)}
    assert process.returncode == 143
    assert not psutil.wait_procs(list(started.values()), timeout=60)[1]


def _ended_in(process: psutil.Popen, seconds: float) -> bool:
    with contextlib.suppress(psutil.TimeoutExpired):
        process.wait(seconds)
    return process.returncode is not None


def _title(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.NoSuchProcess):
        return " ".join(process.cmdline())
    return ""


def test_a_cluster_that_is_not_there(engine_for: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**options: Any) -> None:
        raise ConnectionError("Could not find any running Ray instance")

    monkeypatch.setattr("ray.init", refuse)
    with engine_for(ray_address="auto") as engine:
        with pytest.raises(EngineError, match="the Ray cluster at auto could not be used: Could"):
            engine.start()


def test_an_address_where_nothing_listens_is_said_at_once(engine_for: Any) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and not listening
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        with engine_for(ray_address=address) as engine:
            with pytest.raises(EngineError, match=f"{address} could not be used: .*refused"):
                engine.start()


def test_ray_that_is_not_installed(engine_for: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match="extra 'ray': pip install .*ray"):
        engine_for().start()


def test_settings_of_ray_need_the_engine() -> None:
    with pytest.raises(ConfigError, match="engine.replicas is for .*Use --engine ray"):
        compose_config(["engine.replicas=2"])
