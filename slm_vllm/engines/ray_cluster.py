"""Joins a Ray cluster or starts one on this machine, and leaves signals as they were."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Container
from contextlib import suppress
from functools import partial
from typing import Any

import psutil

from slm_vllm.errors import EngineError, MissingExtraError

_DAEMONS = ("raylet", "gcs_server")
_GRACE_SECONDS = 2.0
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


def import_ahead() -> None:
    """Imports Ray while the dataset is looked over; a missing package is reported at the start."""
    try:
        import_ray()
    except MissingExtraError:
        pass


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
        options |= {"address": "local", "include_dashboard": False}
    else:
        options["address"] = address
    # Ray puts a handler of its own in the place of the run's: it exits with the signal's number.
    told: SystemExit | None = None
    others = {child.pid for child in psutil.Process().children()}
    shutdown = partial(_shutdown, ray, others)
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        ray.init(**options)
    except SystemExit as exit:
        told = exit
    except Exception as error:  # ConnectionError, ValueError, RuntimeError, by version and cause
        _kill_daemons(others)
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
    except BaseException:  # the run's own handler was still there
        _kill_daemons(others)
        raise
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                signal.signal(number, handler)
    if told is not None:
        _kill_daemons(others)
        if told.code in SIGNALS:
            signal.raise_signal(signal.Signals(told.code))
        raise told
    return shutdown


def count_gpus(ray: Any) -> float:
    """GPUs of the whole cluster."""
    return float(ray.cluster_resources().get("GPU", 0))


def _shutdown(ray: Any, others: Container[int]) -> None:
    """Disconnects and ends Ray's processes that are children of this one, except `others`."""
    daemons = _daemons(others)
    started = [*daemons, *(below for daemon in daemons for below in daemon.children(True))]
    ray.shutdown()
    # Agents that were only just starting outlive their raylet, and wait for it in vain.
    _, left = psutil.wait_procs(started, _GRACE_SECONDS)
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def _kill_daemons(others: Container[int]) -> None:
    """Ends a Ray that is half started: stopped first, so that it starts nothing more."""
    daemons = _daemons(others)
    for daemon in daemons:
        with suppress(psutil.NoSuchProcess):
            daemon.suspend()
    for daemon in daemons:
        with suppress(psutil.NoSuchProcess):
            for process in [*daemon.children(recursive=True), daemon]:
                process.kill()


def _daemons(others: Container[int]) -> list[psutil.Process]:
    children = [child for child in psutil.Process().children() if child.pid not in others]
    return [child for child in children if child.name() in _DAEMONS]
