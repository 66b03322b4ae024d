"""What the cells of a command share: console, signals, memory sampler, timing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from slm_vllm.monitoring.device import Device, detect_device
from slm_vllm.monitoring.memory import MemorySampler
from slm_vllm.monitoring.process_age import process_age
from slm_vllm.runs.console import Console, OutputCapture, RunLog
from slm_vllm.runs.options import RunOptions
from slm_vllm.runs.signals import StopSignals


@dataclass
class Services:
    """Everything is opened by `open_services` and closed by its stack.

    Attributes:
        stack: Closes what is opened for the command.
        log: Where log records go, and the console.
        signals: Whether the run should stop.
        memory: Samples the memory of the process tree and the GPU.
        device: What the engine runs on.
        seconds: Seconds by phase of what the cells share.
        start: Seconds by part of the start; parts may lie within a phase, and beside one another.
    """

    stack: ExitStack
    log: RunLog
    signals: StopSignals
    memory: MemorySampler
    device: Device
    seconds: dict[str, float] = field(default_factory=dict)
    start: dict[str, float] = field(default_factory=dict)

    @property
    def console(self) -> Console:
        """Lines for the user."""
        return self.log.console

    @contextmanager
    def phase(
        self, name: str, seconds: dict[str, float] | None = None, run: str | None = None
    ) -> Iterator[None]:
        """Times a phase and labels the memory samples taken in it.

        Args:
            name: The phase.
            seconds: Where to count it; None: among what the cells share.
            run: The run that it is for, if only one.
        """
        seconds = self.seconds if seconds is None else seconds
        started = time.monotonic()
        with self.memory.phase(name, run):
            yield
        seconds[name] = seconds.get(name, 0.0) + time.monotonic() - started

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Times a part of the start."""
        started = time.monotonic()
        yield
        self.start[name] = self.start.get(name, 0.0) + time.monotonic() - started


def open_services(options: RunOptions, stack: ExitStack) -> Services:
    """Opens them for one command.

    Args:
        options: Says whether output and signals of the process are the run's own.
        stack: Closes them.
    """
    start = {}
    if options.own_process:
        start["process"] = process_age()
    return Services(
        stack=stack,
        start=start,
        log=stack.enter_context(OutputCapture() if options.own_process else RunLog()),
        signals=stack.enter_context(StopSignals(install=options.own_process)),
        memory=stack.enter_context(MemorySampler()),
        device=detect_device(),
    )
