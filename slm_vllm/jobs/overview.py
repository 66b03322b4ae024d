"""A snapshot of all runs of some folders, their sweeps and their machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from slm_vllm.jobs.job import Job, by_sign_of_life, find_jobs, list_jobs, process_of
from slm_vllm.monitoring.machine import Host, Machine
from slm_vllm.rundir import names
from slm_vllm.rundir.contents import SweepState
from slm_vllm.rundir.files import if_readable, read_sweep
from slm_vllm.rundir.lookup import runs_in

_ENDED_BADLY = ("failed", "interrupted", "died", "damaged")


@dataclass(frozen=True, slots=True)
class Sweep:
    """A sweep whose process is alive, or that has cells which never began.

    Attributes:
        path: Its folder.
        alive: Whether its process is there.
        phases: How many of its cells are in which phase; "to come" for those that are in none.
    """

    path: Path
    alive: bool
    phases: Mapping[str, int]

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {phase}" for phase, count in self.phases.items())
        end = "" if self.alive else "; its process has ended: its command resumes it"
        return f"sweep {self.path}: {counts}{end}"


@dataclass(frozen=True, slots=True)
class Overview:
    """Runs at one moment.

    Attributes:
        jobs: Those that are running first, by folder; the others by sign of life.
        memory: Bytes of the machine and of its GPUs that a run's process holds, by run folder.
            Runs that share a process have it at the one that generates.
        sweeps: Those of the runs that are not through.
        host: The machine.
    """

    jobs: Sequence[Job]
    memory: Mapping[Path, tuple[int, int | None]]
    sweeps: Sequence[Sweep]
    host: Host

    @property
    def active(self) -> bool:
        """Whether anything runs or will."""
        return any(job.running for job in self.jobs) or any(sweep.alive for sweep in self.sweeps)

    @property
    def troubled(self) -> list[Job]:
        """Runs that did not end well."""
        return [job for job in self.jobs if job.phase in _ENDED_BADLY]


def take_overview(patterns: Sequence[str], output_dir: Path, machine: Machine) -> Overview:
    """Looks at runs now.

    Args:
        patterns: Which, see `rundir.lookup`; none for all of `output_dir`.
        output_dir: Where run folders are kept.
        machine: Looks at the machine.

    Raises:
        ConfigError: There is none.
        StorageError: A folder cannot be read.
    """
    begun = [pattern for pattern in patterns if not _is_to_come(pattern, output_dir)]
    found = find_jobs(begun, output_dir) if patterns else list_jobs(output_dir)
    jobs = sorted(by_sign_of_life(found), key=_order)
    memory: dict[Path, tuple[int, int | None]] = {}
    seen: set[int] = set()
    for job in jobs:
        process = job.process() if job.running else None
        if process is not None and process.pid not in seen:
            seen.add(process.pid)
            memory[job.path] = machine.memory_of(process)
    return Overview(jobs, memory, _sweeps(jobs, patterns, output_dir), machine.host())


def _is_to_come(pattern: str, output_dir: Path) -> bool:
    """Whether it names a sweep of which no cell has begun."""
    folder = output_dir / pattern
    return (folder / names.SWEEP).is_file() and not runs_in(folder)


def _order(job: Job) -> tuple[int, str]:
    """Those at work, those that wait for their turn in the same process, those that ended.

    What runs keeps its line: the latest sign of life is another's every time.
    """
    if not job.running:
        return 2, ""
    return int(job.phase == "loading"), str(job.path)


def _sweeps(jobs: Sequence[Job], patterns: Sequence[str], output_dir: Path) -> list[Sweep]:
    folders = {job.path.parent for job in jobs}
    # One that has just begun has no cell yet.
    places = [output_dir / pattern for pattern in patterns] or list(output_dir.glob("*"))
    folders |= {place for place in places if (place / names.SWEEP).is_file()}
    sweeps = []
    for folder in sorted(folders):
        state = if_readable(read_sweep, folder)
        if state and (sweep := _sweep(folder, state, jobs)) is not None:
            sweeps.append(sweep)
    return sweeps


def _sweep(folder: Path, state: SweepState, jobs: Sequence[Job]) -> Sweep | None:
    pid, started, cells = state.get("pid"), state.get("pid_started"), state.get("cells")
    if not (isinstance(pid, int) and isinstance(started, float) and isinstance(cells, list)):
        return None
    alive = pid > 0 and process_of(pid, started) is not None
    phase = {job.path.name: job.phase for job in jobs if job.path.parent == folder}
    phases = Counter(phase.get(cell, "to come") for cell in cells)
    return Sweep(folder, alive, phases) if alive or phases["to come"] else None
