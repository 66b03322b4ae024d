"""Joins a Ray cluster or starts one here, and restores the signal handlers."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import psutil

from slm_vllm.errors import EngineError, MissingExtraError

_DAEMONS = ("raylet", "gcs_server")
_GRACE_SECONDS = 2.0
_CONNECT_SECONDS = 5.0
_PROBE_SECONDS = 1.0
# One node, whose raylet is a child of this process: what the check could find is that the machine
# was busy, or asleep, for a minute.
_ALONE = {"health_check_failure_threshold": 10_000}
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def import_ray() -> Any:
    """The package; it is large and optional."""
    # It would report its use to its makers.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise MissingExtraError("ray", "ray", "The Ray engine") from None
    return ray


def connect(ray: Any, address: str | None) -> Callable[[], None]:
    """Connects to a cluster, or starts one that ends with this process.

    Args:
        ray: The package.
        address: "auto" or HOST:PORT of a cluster; None starts Ray on this machine.

    Returns:
        Disconnects, and ends the Ray that was started.

    Raises:
        EngineError: There is no cluster to be reached.
    """
    if ray.is_initialized():
        raise EngineError("Ray is connected already in this process; one run uses it at a time")
    options: dict[str, Any] = {"logging_level": "warning", "configure_logging": False}
    if address is None:
        options |= {"address": "local", "include_dashboard": False, "_system_config": _ALONE}
    else:
        options["address"] = address
    others = {child.pid for child in psutil.Process().children()}
    try:
        if address is not None and (found := re.fullmatch(r"([^/:]+):(\d+)", address)):
            # Ray itself goes on trying for minutes.
            socket.create_connection((found[1], int(found[2])), _CONNECT_SECONDS).close()
        with _handlers_kept():
            ray.init(**options)
    except BaseException as error:
        _kill_daemons(others)
        ray.shutdown()
        if isinstance(error, SystemExit) and error.code in SIGNALS:
            signal.raise_signal(signal.Signals(error.code))  # it went to Ray's handler
        if not isinstance(error, Exception):
            raise
        # OSError, ValueError, RuntimeError, by version and cause
        place = f"the Ray cluster at {address}" if address else "Ray on this machine"
        raise EngineError(
            f"{place} could not be used: {error}. "
            + (
                "Check the address with `ray status --address` on this machine, and that Ray and "
                "Python have the same versions there"
                if address
                else "Set engine.ray_address to use a cluster that is running"
            )
        ) from error
    return partial(_shutdown, ray, others)


def live_nodes(ray: Any) -> list[str]:
    """Ids of the nodes that answer, sorted; of all that Ray thinks alive if none does.

    Ray believes in a dead node for 15 seconds and more, and lets actors wait for it.
    """
    alive = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
    return sorted(name for name, node in alive.items() if _answers(node)) or sorted(alive)


def _answers(node: dict[str, Any]) -> bool:
    try:
        address = (node["NodeManagerAddress"], node["NodeManagerPort"])
        socket.create_connection(address, _PROBE_SECONDS).close()
    except OSError:
        return False
    return True


def count_gpus(ray: Any) -> float:
    """GPUs of the whole cluster."""
    return float(ray.cluster_resources().get("GPU", 0))


@contextmanager
def _handlers_kept() -> Iterator[None]:
    """Puts the run's handlers back: Ray's own exits with the number of the signal."""
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                signal.signal(number, handler)


def _shutdown(ray: Any, others: Container[int]) -> None:
    """Disconnects and ends Ray's processes that are children of this one, except `others`."""
    started = _with_descendants(_daemons(others))
    ray.shutdown()
    # Agents that were only just starting outlive their raylet, and wait for it.
    _, left = psutil.wait_procs(started, _GRACE_SECONDS)
    _kill(left)


def _kill_daemons(others: Container[int]) -> None:
    """Ends a Ray that is half started: stopped first, so that it starts nothing more."""
    daemons = _daemons(others)
    for daemon in daemons:
        with suppress(psutil.NoSuchProcess):
            daemon.suspend()
    _kill(_with_descendants(daemons))


def _kill(processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def _daemons(others: Container[int]) -> list[psutil.Process]:
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):
            if child.pid not in others and child.name() in _DAEMONS:
                found.append(child)
    return found


def _with_descendants(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    found = []
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            found += [*process.children(recursive=True), process]
    return found
