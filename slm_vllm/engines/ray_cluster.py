"""Joins a Ray cluster or starts one on this machine, and leaves signals as they were."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

from slm_vllm.errors import EngineError, MissingExtraError

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


def connect(ray: Any, address: str | None) -> None:
    """Connects to a cluster, or starts one that ends with this process.

    Args:
        ray: The package.
        address: "auto" or HOST:PORT of a cluster; None starts Ray on this machine.

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
    # Ray puts a handler of its own in the place of the run's.
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        ray.init(**options)
    except Exception as error:  # ConnectionError, ValueError, RuntimeError, by version and cause
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
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                signal.signal(number, handler)


def count_gpus(ray: Any) -> float:
    """GPUs of the whole cluster."""
    return float(ray.cluster_resources().get("GPU", 0))
