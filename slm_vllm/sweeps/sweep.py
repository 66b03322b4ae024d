"""Runs the cells of a sweep in one process for each model, which frees its memory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from slm_vllm import durable
from slm_vllm.errors import EngineError, StorageError, reason_of
from slm_vllm.rundir import names
from slm_vllm.rundir.contents import State, SweepState
from slm_vllm.rundir.files import if_readable, read_results, read_state
from slm_vllm.rundir.state import own_process
from slm_vllm.runs.notify import notifying
from slm_vllm.runs.options import RunOptions
from slm_vllm.runs.signals import SIGNALS, Interrupted, handled
from slm_vllm.sweeps.plan import PlannedCell, groups
from slm_vllm.sweeps.race import raced

_WATCH_SECONDS = 1.0

Watcher = Callable[[], None]


def run_sweep(
    cells: Sequence[PlannedCell],
    log_dir: Path,
    options: RunOptions | None = None,
    *,
    quiet: bool = False,
    watch: Watcher | None = None,
    race: bool = False,
    program: Sequence[str] = (sys.executable, "-m", "slm_vllm.sweeps.group"),
) -> list[dict[str, Any]]:
    """Runs what is not done; a cell that fails is recorded and the others are run.

    Args:
        cells: See `plan_sweep`.
        log_dir: Folder of the sweep; what its processes print goes to `sweep.log` when quiet.
        options: Those of its runs that are no part of a configuration; what they say of the process
            and of the engine is not used.
        quiet: Keep the output of the processes from the terminal.
        watch: Called about once a second while a process works.
        race: End the cells of models that are certainly not the best; see `race.raced`.
        program: What runs the cells of one model; see `sweeps.group`.

    Returns:
        For each cell the content of its `results.json`, or its name, `error` and `exit_code`.

    Raises:
        Interrupted: A signal stopped the sweep; giving the command again resumes it.
        StorageError: The folder cannot be written.
    """
    options = options or RunOptions()
    words = ["--overwrite"] * options.overwrite + ["--retry-errors"] * options.retry_errors
    words += [f"--today={options.today}", *([] if options.track else ["--no-clearml"])]
    asks_all = options.overwrite or options.retry_errors
    failures: dict[str, dict[str, Any]] = {}
    with notifying(cells[0].config.notify, log_dir.name, log_dir) as results:
        _announce(cells, log_dir)
        by_model, earlier = groups(cells), list[PlannedCell]()
        for group in by_model:
            todo = [cell for cell in group if asks_all or cell.status != "done"]
            rivals, earlier = earlier, [*earlier, *group]
            if not todo:
                continue
            configs = [raced(cell, rivals, len(by_model)) if race else cell.config for cell in todo]
            content = json.dumps([config.model_dump(mode="json") for config in configs])
            before = {cell.name: if_readable(read_state, cell.folder) for cell in todo}
            code = _run_process([*program, *words], content, log_dir, quiet, watch)
            for cell in todo:
                error = _error_of(cell, code, before[cell.name])
                if error is not None:
                    failures[cell.name] = error
        results += [failures.get(cell.name) or _results(cell) for cell in cells]
        if options.then is not None:
            results[:] = options.then(results)
    return results


def _announce(cells: Sequence[PlannedCell], folder: Path) -> None:
    """Leaves word for other processes of which cells there will be."""
    state: SweepState = {**own_process(), "cells": [cell.name for cell in cells]}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        durable.write_text(folder / names.SWEEP, json.dumps(state) + "\n")
    except OSError as error:
        raise StorageError(f"{folder}: cannot be written ({reason_of(error)})") from None


def _run_process(
    command: Sequence[str], content: str, log_dir: Path, quiet: bool, watch: Watcher | None
) -> int:
    """Runs one group and returns the exit code of its process."""
    try:
        log = (log_dir / names.SWEEP_LOG).open("ab")
    except OSError as error:
        raise StorageError(f"{log_dir}: cannot be written ({reason_of(error)})") from None
    forward = _Forward()
    with log, tempfile.TemporaryFile() as given, handled(forward.handle):
        given.write(content.encode())
        given.seek(0)
        # In a session of its own the process gets each signal once: from here.
        process = subprocess.Popen(
            command,
            stdin=given,
            stdout=log,
            stderr=log if quiet else None,
            start_new_session=True,
        )
        forward.to(process)
        while process.poll() is None:
            if watch is not None:
                watch()
            try:
                process.wait(_WATCH_SECONDS)
            except subprocess.TimeoutExpired:
                continue
        if forward.received is not None:
            raise Interrupted(forward.received)
    code = int(process.returncode)
    for signum in SIGNALS:
        if code == 128 + signum:
            raise Interrupted(signum)
    return code


class _Forward:
    """Hands a signal on to the process of the group."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def to(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        if self.received is not None:
            process.send_signal(self.received)

    def handle(self, signum: int, frame: FrameType | None) -> None:
        self.received = signum
        if self._process is not None:
            self._process.send_signal(signum)


def _error_of(cell: PlannedCell, code: int, before: State | None) -> dict[str, Any] | None:
    """Why a cell of a process that has ended has no results, None when it has.

    Args:
        cell: The cell.
        code: The exit code of the process.
        before: The state that an earlier process had left: the end of that one, not of this.
    """
    state: State = if_readable(read_state, cell.folder) or {}
    if code != 0 and state == before:
        state = {}
    if state.get("phase") == "finished":
        return None
    killed = f"its process was killed by signal {-code}" if code < 0 else ""
    reason = state.get("error") or killed or f"its process ended with exit code {code}"
    return {
        "name": cell.name,
        "error": f"{reason} ({cell.folder / names.LOG})",
        "exit_code": state.get("exit_code") or (code if code > 0 else EngineError.exit_code),
    }


def _results(cell: PlannedCell) -> dict[str, Any]:
    results = if_readable(read_results, cell.folder)
    if not results:
        return {
            "name": cell.name,
            "error": f"{cell.folder / names.RESULTS} cannot be read",
            "exit_code": StorageError.exit_code,
        }
    return {**results}


def die_with_parent() -> None:
    """Asks Linux to end this process as by SIGTERM when its parent is gone."""
    import ctypes

    pr_set_pdeathsig = 1
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getppid()
    libc.prctl(pr_set_pdeathsig, signal.SIGTERM)
    if os.getppid() != parent:  # it went before the request was in place
        os.kill(os.getpid(), signal.SIGTERM)
