"""Memory of the whole process tree and of the GPU, sampled in a thread, by phase."""

from __future__ import annotations

import threading
import time
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from slm_vllm.monitoring.nvml import Nvml
from slm_vllm.monitoring.shared_pages import SharedPages
from slm_vllm.monitoring.usage import Memory

MIB = 1 << 20
CGROUP = Path("/sys/fs/cgroup")
_MOST_SAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Moment:
    """Memory at one moment, in bytes.

    Attributes:
        seconds: Since sampling began.
        phase: What was being done.
        run: The run that it was done for; None for what runs of one process share.
        rss_bytes: Resident memory of this process and its children, the publisher left out; what
            forked ones share counts once.
        gpu_bytes: Memory these processes hold on NVIDIA GPUs, None without one.
    """

    seconds: float
    phase: str
    run: str | None
    rss_bytes: int
    gpu_bytes: int | None


def usable_memory(cgroup: Path = CGROUP) -> int:
    """Bytes of memory that this process may use: the machine's, or those of its container."""
    total = int(psutil.virtual_memory().total)
    try:
        return min(total, int((cgroup / "memory.max").read_text()))
    except (OSError, ValueError):  # no container, or one without a limit
        return total


class MemorySampler:
    """Samples memory and measures how long each phase took.

    The number of samples is bounded: when there are too many, every second one is dropped and
    the interval doubles. Peaks are kept apart and lose nothing.

    Args:
        interval: Seconds between samples at the beginning.
    """

    def __init__(self, interval: float = 0.5) -> None:
        self._interval = interval
        self._phase: tuple[str, str | None] = ("start", None)
        self._samples: list[Moment] = []
        self._peaks: dict[tuple[str, str | None], tuple[int, int | None]] = {}
        self._started = time.monotonic()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._gpu = _GpuMemory()
        self._shared = SharedPages()
        self._publisher: int | None = None
        self._publisher_peak: int | None = None
        self._thread = threading.Thread(target=self._run, name="memory", daemon=True)

    def __enter__(self) -> MemorySampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._gpu.close()

    @contextmanager
    def phase(self, name: str, run: str | None = None) -> Iterator[None]:
        """Names what happens inside the block, and the run it is for; blocks may be nested."""
        outer, self._phase = self._phase, (name, run)
        self.sample()
        try:
            yield
        finally:
            self.sample()
            self._phase = outer

    def set_publisher(self, pid: int | None) -> None:
        """Counts a child process apart from the run: the one that tells the tracker."""
        self._publisher = pid

    def sample(self) -> Moment:
        """Takes a sample now."""
        seconds = time.monotonic() - self._started
        rss, publisher = tree_rss(self._publisher, shared=self._shared)
        phase = self._phase
        moment = Moment(seconds, *phase, rss, self._gpu.used())
        with self._lock:
            self._samples.append(moment)
            if len(self._samples) > _MOST_SAMPLES:
                del self._samples[::2]
                self._interval *= 2
            rss, gpu = self._peaks.get(phase, (0, None))
            gpu_peak = max((x for x in (gpu, moment.gpu_bytes) if x is not None), default=None)
            self._peaks[phase] = (max(rss, moment.rss_bytes), gpu_peak)
            if publisher is not None:
                self._publisher_peak = max(self._publisher_peak or 0, publisher)
        return moment

    def report(self, run: str | None = None) -> Memory:
        """The content of `memory_usage.json`, in MiB.

        Args:
            run: Leaves out what was done for other runs of the same process.
        """
        with self._lock:
            samples = [sample for sample in self._samples if sample.run in (None, run)]
            peaks = {name: peak for (name, of), peak in self._peaks.items() if of in (None, run)}
        gpu_peaks = [gpu for _, gpu in peaks.values() if gpu is not None]
        return {
            "unit": "MiB",
            "peak_rss": _mib(max((rss for rss, _ in peaks.values()), default=0)),
            "peak_gpu": _mib(max(gpu_peaks)) if gpu_peaks else None,
            "publisher": (
                None if self._publisher_peak is None else {"peak_rss": _mib(self._publisher_peak)}
            ),
            "phases": {
                phase: {"peak_rss": _mib(rss), "peak_gpu": None if gpu is None else _mib(gpu)}
                for phase, (rss, gpu) in peaks.items()
            },
            "samples": [
                {
                    "seconds": round(s.seconds, 2),
                    "phase": s.phase,
                    "rss": _mib(s.rss_bytes),
                    "gpu": None if s.gpu_bytes is None else _mib(s.gpu_bytes),
                }
                for s in samples
            ],
        }

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            self.sample()


class _GpuMemory:
    """Memory that this process tree holds on NVIDIA GPUs."""

    def __init__(self) -> None:
        self._nvml = Nvml()
        self._gpus = self._nvml.gpus()
        self._is_told = False

    def used(self) -> int | None:
        """Bytes; None without a GPU, or where one does not tell.

        In a container NVML may list none of its processes, so nothing is taken for told before
        some memory has been.
        """
        found = gpu_memory(self._nvml, self._gpus, {process.pid for process in tree()})
        self._is_told = self._is_told or bool(found)
        return found if self._is_told else None

    def close(self) -> None:
        self._nvml.close()


def gpu_memory(nvml: Nvml, gpus: Sequence[Any], pids: Container[int]) -> int | None:
    """Bytes that processes hold on GPUs; None without a GPU, or where one does not tell."""
    if not gpus:
        return None
    total = 0
    for gpu in gpus:
        processes = nvml.ask("nvmlDeviceGetComputeRunningProcesses", gpu)
        if processes is None:
            return None
        own = [process.usedGpuMemory for process in processes if process.pid in pids]
        if None in own:  # a part of a GPU, for one, whose memory is not told by process
            return None
        total += sum(map(int, own))
    return total


def tree_rss(
    apart: int | None = None,
    root: psutil.Process | None = None,
    shared: SharedPages | None = None,
) -> tuple[int, int | None]:
    """Resident memory of a process, this one if none is given, and its descendants.

    Args:
        apart: One of them that does not count.
        root: The process.
        shared: Has what they share counted once; asked about the same processes again and again.

    Returns:
        Bytes without the process `apart`, and those of that one, None where it is not there.
    """
    total, other = 0, None
    processes = tree(root)
    for process in processes:
        try:
            size = process.memory_info().rss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        if process.pid == apart:
            other = size
        else:
            total += size
    if shared is not None:
        total -= shared.counted_again([process.pid for process in processes])
    return total, other


def tree(root: psutil.Process | None = None) -> list[psutil.Process]:
    """A process, this one if none is given, and its descendants; nothing of one that has ended."""
    try:
        root = root or psutil.Process()
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _mib(size: int) -> float:
    return round(size / MIB, 1)
