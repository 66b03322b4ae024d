"""NVIDIA's management library: one session, in which a figure that is not available is None."""

from __future__ import annotations

import logging
import os
from contextlib import AbstractContextManager
from typing import Any

log = logging.getLogger(__name__)


class Nvml(AbstractContextManager["Nvml"]):
    """NVML while it is open.

    It looks at a machine and never ends a run: without the package, without a driver, and whatever
    a driver answers, the figures in question are missing.
    """

    def __init__(self) -> None:
        self._library: Any = None
        try:
            import pynvml
        except ImportError:
            return
        self._library = pynvml
        if not self._tried("nvmlInit")[0]:
            self._library = None

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the session; may be called again."""
        if self._library is not None:
            self._tried("nvmlShutdown")
            self._library = None

    def ask(self, function: str, *arguments: Any) -> Any:
        """What a function of `pynvml` gives; None where it, or an argument, is not available."""
        if self._library is None or None in arguments:
            return None
        return self._tried(function, *arguments)[1]

    def gpus(self) -> list[Any]:
        """Handles of all GPUs of the machine, visible to CUDA or not."""
        count = self.ask("nvmlDeviceGetCount") or 0
        handles = (self.ask("nvmlDeviceGetHandleByIndex", index) for index in range(count))
        return [handle for handle in handles if handle is not None]

    def first_gpu(self) -> Any:
        """The handle of the GPU that CUDA will call the first, None without one."""
        return self.gpu_named(first_visible())

    def gpu_named(self, name: str) -> Any:
        """The handle of a GPU that CUDA_VISIBLE_DEVICES names so, None without one.

        To CUDA the beginning of a UUID is enough.
        """
        if name.isdigit():
            return self.ask("nvmlDeviceGetHandleByIndex", int(name))
        if (gpu := self.ask("nvmlDeviceGetHandleByUUID", name)) is not None:
            return gpu
        begun = (gpu for gpu in self.gpus() if self._uuid(gpu).startswith(name))
        return next(begun, None) if name.startswith("GPU-") else None

    def _uuid(self, gpu: Any) -> str:
        return str(self.ask("nvmlDeviceGetUUID", gpu))

    def _tried(self, function: str, *arguments: Any) -> tuple[bool, Any]:
        try:
            return True, getattr(self._library, function)(*arguments)
        # Not only NVMLError: a driver older than the package lacks functions, and says so by
        # NVMLLibraryMismatchError or AttributeError, which are none.
        except Exception as error:
            log.debug("NVML: %s: %s", function, error)
            return False, None


def first_visible() -> str:
    """Index or UUID of the GPU that CUDA will call the first."""
    return os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()


def visible_names(count: int) -> list[str]:
    """Indexes or UUIDs of the GPUs that CUDA may use.

    Args:
        count: GPUs of the machine, which are meant where nothing is said.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return [str(index) for index in range(count)]
    return [name for part in visible.split(",") if (name := part.strip()) and name != "-1"]
