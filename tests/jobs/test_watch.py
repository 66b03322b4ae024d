"""`runs watch`: what it shows of runs, sweeps and the machine, and how it ends."""

from __future__ import annotations

import io
import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from click.testing import CliRunner
from rich.console import Console

from slm_vllm.cli.runs import command
from slm_vllm.errors import ConfigError
from slm_vllm.jobs import watch
from slm_vllm.jobs.overview import Overview, take_overview
from slm_vllm.jobs.watch import overview_text, watch_lines, watch_screen
from slm_vllm.monitoring.machine import GpuUse, Host, Machine
from support.fake_nvml import FakeNvml
from support.run_folders import make_run

HOST = Host(3 << 30, 8 << 30, 1.5, 2, (GpuUse("Tesla V100", 12 << 30, 16 << 30, 97),))


@pytest.fixture
def make_job(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Writes the state of a run; it belongs to a child that lives, or to nobody."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    pid_started = psutil.Process(child.pid).create_time()

    def make(name: str, *, alive: bool = True, **state: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        content = {
            "name": folder.name,
            "phase": "generating",
            "pid": child.pid,
            "pid_started": pid_started if alive else pid_started - 99,
            "heartbeat": "2026-01-01T00:00:00+00:00",
            **state,
        }
        (folder / "state.json").write_text(json.dumps(content))
        return folder

    yield make
    child.kill()
    child.communicate()


class FakeMachine(Machine):
    """A machine of which the figures are known."""

    def host(self) -> Host:
        return HOST

    def memory_of(self, process: psutil.Process) -> tuple[int, int | None]:
        return 2 << 30, 11 << 30


def look(folder: Path, *patterns: str) -> Overview:
    with FakeMachine() as machine:
        return take_overview(patterns, folder, machine)


def rows(text: str) -> dict[str, list[str]]:
    """The words of each line by the first of them."""
    return {words[0]: words[1:] for line in text.splitlines() if (words := line.split())}


def test_runs_are_shown_with_all_that_matters(
    make_job: Callable[..., Path], tmp_path: Path
) -> None:
    figures = {"questions_per_second": 3.26, "token_recall": 0.78125, "eta_seconds": 111}
    make_job("night", done=125, total=491, errors=2, token_recall_ci95=[0.69, 0.851], **figures)
    make_job("gone", alive=False, done=3, total=10)
    make_job("broke", alive=False, phase="failed", error="no weights\nhere")
    make_run(tmp_path / "ready", rows=[{"token_recall": 1.0}])
    text = overview_text(look(tmp_path), tmp_path)
    assert "host: 3 GiB of 8 GiB in use, load 1.5 on 2 processors" in text
    assert "GPU 0, Tesla V100: 12 GiB of 16 GiB in use, busy 97 %" in text
    shown = rows(text)
    assert shown["night"][:6] == ["generating", "125/491", "2", "3.3", "1:51", "0.781"]
    assert shown["night"][6:8] == ["[0.690,", "0.851]"]
    assert shown["night"][-4:] == ["2", "GiB", "11", "GiB"]
    assert shown["gone"][:2] == ["died:", "slm-vllm"]  # the line below the table
    assert shown["broke"] == ["failed:", "no", "weights", "here"]
    assert shown["ready"][:6] == ["finished", "1/1", "0", "12.5", "-", "1.000"]
    names = [line.split()[0] for line in text.splitlines()]
    assert names.index("night") < names.index("ready")  # those that run come first


def test_runs_of_one_process_have_its_memory_once(
    make_job: Callable[..., Path], tmp_path: Path
) -> None:
    make_job("a_waits", phase="loading")
    working = make_job("b_works")
    assert set(look(tmp_path).memory) == {working}


def test_what_runs_keeps_its_line(make_job: Callable[..., Path], tmp_path: Path) -> None:
    times = {"b": "2026-01-01T00:00:09+00:00", "a": "2026-01-01T00:00:00+00:00"}
    for name, heartbeat in times.items():
        make_job(name, heartbeat=heartbeat)
        make_job(f"ended_{name}", alive=False, heartbeat=heartbeat)
    names = [job.name for job in look(tmp_path).jobs]
    assert names == ["a", "b", "ended_b", "ended_a"]


def test_a_sweep_says_what_is_to_come(make_job: Callable[..., Path], tmp_path: Path) -> None:
    state = json.loads((make_job("night/one") / "state.json").read_text())
    of_sweep = {"pid": state["pid"], "pid_started": state["pid_started"]}
    of_sweep["cells"] = ["one", "two", "three"]
    (tmp_path / "night" / "sweep.json").write_text(json.dumps(of_sweep))
    (tmp_path / "night" / "one" / "state.json").write_text(
        json.dumps(state | {"phase": "finished"})
    )
    overview = look(tmp_path)
    assert [str(s) for s in overview.sweeps] == [
        f"sweep {tmp_path / 'night'}: 1 finished, 2 to come"
    ]
    # Between two models none of its runs is at work.
    assert not any(job.running for job in overview.jobs) and overview.active
    of_sweep["pid_started"] -= 99
    (tmp_path / "night" / "sweep.json").write_text(json.dumps(of_sweep))
    overview = look(tmp_path, "night")
    assert "its process has ended" in str(overview.sweeps[0]) and not overview.active


@pytest.mark.parametrize("width", [80, 100, 130])
def test_a_narrow_terminal_loses_columns_and_no_figures(
    make_job: Callable[..., Path], tmp_path: Path, width: int
) -> None:
    name = "a_rather_long_name_of_a_run_that_goes_on"
    interval = {"token_recall": 0.781, "token_recall_ci95": [0.744, 0.818]}
    make_job(name, done=3_000, total=3_610, errors=12, eta_seconds=111, **interval)
    console = Console(file=io.StringIO(), width=width, height=24)
    console.print(*watch._screen(look(tmp_path), tmp_path, console))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    (line,) = [line for line in lines if line.startswith(name[:12])]
    assert all(len(line) <= width for line in lines)
    for figure in ("generating", "3000/3610", "12", "1:51", "0.781"):
        assert figure in line.split(), line
    assert ("[0.744, 0.818]" in line) == (width > 80)
    assert ("11 GiB" in line) == (width == 130)


def test_what_does_not_fit_the_height_is_counted(
    make_job: Callable[..., Path], tmp_path: Path
) -> None:
    for number in range(20):
        make_job(f"run_{number}")
    console = Console(file=io.StringIO(), width=120, height=12)
    console.print(*watch._screen(look(tmp_path), tmp_path, console))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    shown = sum(line.startswith("run_") for line in lines)
    assert shown and len(lines) < 12
    assert f"and {20 - shown} more" in lines[-1]


def test_lines_say_what_changed_and_end_by_themselves(
    make_job: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_job("night", done=1, total=9)
    make_job("still", done=5, total=9)
    changes = iter(["generating", "generating", "finished"])

    def turn(seconds: float) -> None:
        state = json.loads((folder / "state.json").read_text())
        state["phase"] = next(changes)
        state["done"] = 4
        (folder / "state.json").write_text(json.dumps(state))
        if state["phase"] == "finished":
            other = json.loads((tmp_path / "still" / "state.json").read_text())
            other["phase"] = "interrupted"
            (tmp_path / "still" / "state.json").write_text(json.dumps(other))

    monkeypatch.setattr(watch.time, "sleep", turn)
    said: list[str] = []
    watch_lines(lambda: look(tmp_path), tmp_path, said.append, keep=False)
    told = [" ".join(line.split()[1:]) for line in said]
    assert sorted(told[:2]) == ["night generating 1/9 rows", "still generating 5/9 rows"]
    # In the second round nothing had changed but the one number.
    assert told[2] == "night generating 4/9 rows"
    assert sorted(told[3:]) == ["night finished 4/9 rows", "still interrupted 5/9 rows"]


def test_a_sweep_that_has_only_just_begun_is_waited_for(
    make_job: Callable[..., Path], tmp_path: Path
) -> None:
    other = json.loads((make_job("other") / "state.json").read_text())
    folder = tmp_path / "night"
    folder.mkdir()
    of_sweep = {key: other[key] for key in ("pid", "pid_started")} | {"cells": ["one", "two"]}
    (folder / "sweep.json").write_text(json.dumps(of_sweep))
    overview = look(tmp_path, "night")
    assert [str(sweep) for sweep in overview.sweeps] == [f"sweep {folder}: 2 to come"]
    assert overview.active and overview.jobs == []
    assert [job.name for job in look(tmp_path, "night", "other").jobs] == ["other"]
    (folder / "sweep.json").unlink()
    with pytest.raises(ConfigError, match="holds none"):
        look(tmp_path, "night")


def test_once_prints_and_ends(make_job: Callable[..., Path], tmp_path: Path) -> None:
    make_job("night", done=1, total=9)
    result = CliRunner().invoke(
        command, ["watch", "--once", "--output-dir", str(tmp_path)], catch_exceptions=False
    )
    assert result.exit_code == 0 and "1/9" in result.output and "host:" in result.output


def test_a_gpu_is_seen_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml())
    with Machine() as machine:
        (gpu,) = machine.host().gpus
        rss, on_gpu = machine.memory_of(psutil.Process())
    assert (gpu.name, gpu.total_bytes, gpu.busy) == ("NVIDIA GB10", 64 << 30, None)
    assert on_gpu == 3 << 20 and rss > 1 << 20


class Terminal:
    """`runs watch` in a terminal of its own."""

    def __init__(self, folder: Path) -> None:
        self.end, terminal = pty.openpty()
        termios.tcsetwinsize(terminal, (24, 120)) if hasattr(termios, "tcsetwinsize") else None
        self.before = termios.tcgetattr(terminal)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "slm_vllm", "runs", "watch", "--output-dir", str(folder)],
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            env=os.environ | {"TERM": "xterm-256color"},
            start_new_session=True,
        )
        self.terminal, self.seen = terminal, ""

    def until(self, text: str) -> None:
        """Reads until something is seen."""
        while text not in self.seen:
            assert self.process.poll() is None or select.select([self.end], [], [], 0)[0], self.seen
            self.seen += os.read(self.end, 4096).decode("utf-8", "replace")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.end)
        os.close(self.terminal)


@pytest.fixture
def terminal(
    make_job: Callable[..., Path], tmp_path: Path, signals_arrive: None
) -> Iterator[Terminal]:
    make_job("night", done=1, total=9)
    opened = Terminal(tmp_path)
    yield opened
    opened.close()


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (lambda t: os.write(t.end, b"q"), 0),
        (lambda t: t.process.send_signal(signal.SIGINT), 0),
        (lambda t: t.process.send_signal(signal.SIGTERM), 143),
    ],
)
def test_a_terminal_is_as_before_however_the_look_ends(
    terminal: Terminal, tmp_path: Path, end: Callable[[Terminal], Any], code: int
) -> None:
    terminal.until("q quits")
    assert "\x1b[?1049h" in terminal.seen and "night" in terminal.seen
    end(terminal)
    terminal.until("\x1b[?1049l")  # back from the other screen
    assert terminal.process.wait() == code
    assert termios.tcgetattr(terminal.terminal) == terminal.before
    state = json.loads((tmp_path / "night" / "state.json").read_text())
    assert psutil.pid_exists(state["pid"])


def test_the_screen_ends_when_nothing_runs(
    make_job: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(tmp_path / "ready", rows=[{"token_recall": 1.0}])
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: False))
    console = Console(file=io.StringIO(), force_terminal=True, width=120, height=24)
    watch_screen(lambda: look(tmp_path), tmp_path, console, keep=False)
    written = console.file.getvalue()  # type: ignore[attr-defined]
    assert "ready" in written.split("\x1b[?1049l")[-1]  # it stays behind
