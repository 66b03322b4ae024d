"""The screen of `runs watch`, redrawn every two seconds."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from slm_vllm.amounts import format_memory
from slm_vllm.jobs.overview import Overview
from slm_vllm.jobs.table import called, job_cells, job_line
from slm_vllm.text_table import one_line, text_table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

_SCREEN_SECONDS, _LINES_SECONDS = 2.0, 10.0
_MOST_TROUBLES = 5
_NARROW_NAME, _GAP = 18, 2
# Left out from the first on where the terminal is too narrow for all.
_FIRST_TO_GO = ("host memory", "GPU memory", "questions/s", "95 % interval", "heartbeat")
_STYLES = {
    "generating": "green",
    "loading": "cyan",
    "finished": "dim",
    "interrupted": "yellow",
    "failed": "bold red",
    "died": "bold red",
    "damaged": "bold red",
}

Look = Callable[[], Overview]


def watch_screen(look: Look, output_dir: Path, console: Console, *, keep: bool) -> None:
    """Draws until nothing runs any more, q or Ctrl-C; the terminal is then as it was before.

    Args:
        look: What there is to see now.
        output_dir: Where run folders are kept: names are relative to it.
        console: A terminal.
        keep: Go on when nothing runs.
    """
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    def foot() -> Text:
        return Text(f"{time.strftime('%H:%M:%S')}  q quits, the runs continue", style="dim")

    overview = look()
    with (
        suppress(KeyboardInterrupt),
        _ending_in_order(),
        _keys() as key,
        Live(console=console, screen=True, auto_refresh=False) as live,
    ):
        while True:
            live.update(Group(*_screen(overview, output_dir, console), foot()), refresh=True)
            if not (overview.active or keep) or key(_SCREEN_SECONDS) in ("q", "Q"):
                break
            overview = look()
    # What was seen last stays behind.
    console.print(*_screen(overview, output_dir, console))


def watch_lines(look: Look, output_dir: Path, say: Callable[[str], None], *, keep: bool) -> None:
    """Says what has changed, every ten seconds, until nothing runs any more or Ctrl-C."""
    printed: dict[Path, str] = {}
    while True:
        overview = look()
        names = {job.path: called(job, output_dir) for job in overview.jobs}
        lines = {job.path: f"{names[job.path]}  {job_line(job)}" for job in overview.jobs}
        lines |= {sweep.path: str(sweep) for sweep in overview.sweeps}
        moment = time.strftime("%H:%M:%S")
        for path, line in lines.items():
            if printed.get(path) != line:
                say(one_line(f"{moment}  {line}"))
        printed = lines
        if not (overview.active or keep):
            return
        time.sleep(_LINES_SECONDS)


def overview_text(overview: Overview, output_dir: Path) -> str:
    """All there is to see as plain text."""
    rows = _rows(overview, output_dir)
    table = [text_table(list(rows[0]), (list(row.values()) for row in rows))] if rows else []
    return "\n".join([*_headlines(overview), *table, *_troubles(overview, output_dir)])


def _screen(overview: Overview, output_dir: Path, console: Console) -> list[Text | Table]:
    """What fits the screen, with a line to spare."""
    from rich.text import Text

    head, foot = _headlines(overview), _troubles(overview, output_dir)
    rows = _rows(overview, output_dir)
    # Beside them the header of the table, what is left out, and the line to spare.
    room = max(1, console.height - len(head) - len(foot) - 3)
    if len(rows) > room:
        foot.append(f"and {len(rows) - room} more (slm-vllm runs list)")
    above, below = ([Text(s, no_wrap=True, overflow="ellipsis") for s in t] for t in (head, foot))
    return [*above, _table(rows[:room], console.width), *below]


def _table(rows: list[dict[str, str]], width: int) -> Table:
    """As many columns as fit the width, and what is left of it for the names."""
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    shown = list(rows[0]) if rows else []
    widths = {name: max(cell_len(row[name]) for row in [*rows, {name: name}]) for name in shown}
    for name in (*_FIRST_TO_GO, None):
        others = sum(widths[other] + _GAP for other in shown if other != "run")
        if others + _NARROW_NAME <= width:
            break
        shown = [other for other in shown if other != name]
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0))
    for name in shown:
        room = max(_NARROW_NAME, width - others) if name == "run" else None
        table.add_column(name, no_wrap=True, overflow="ellipsis", max_width=room)
    for row in rows:
        style = _STYLES.get(row["phase"], "")
        table.add_row(*(Text(row[name], style=style if name == "phase" else "") for name in shown))
    return table


def _rows(overview: Overview, output_dir: Path) -> list[dict[str, str]]:
    rows = []
    for job in overview.jobs:
        host, gpu = overview.memory.get(job.path, (None, None))
        cells = job_cells(job)
        del cells["pid"]
        cells |= {"host memory": _size(host)}
        cells |= {"GPU memory": _size(gpu)} if overview.host.gpus else {}
        row = {"run": called(job, output_dir), **cells}
        rows.append({name: one_line(text) for name, text in row.items()})
    return rows


def _headlines(overview: Overview) -> list[str]:
    """The machine, and the sweeps that are not through."""
    host = overview.host
    lines = [
        f"host: {format_memory(host.used_bytes)} of {format_memory(host.total_bytes)} in use, "
        f"load {host.load:.1f} on {host.cpus} processors"
    ]
    for number, gpu in enumerate(host.gpus):
        busy = "" if gpu.busy is None else f", busy {gpu.busy} %"
        used, total = format_memory(gpu.used_bytes), format_memory(gpu.total_bytes)
        lines.append(f"GPU {number}, {gpu.name}: {used} of {total} in use{busy}")
    return lines + [one_line(str(sweep)) for sweep in overview.sweeps]


def _troubles(overview: Overview, output_dir: Path) -> list[str]:
    lines = []
    for job in overview.troubled[:_MOST_TROUBLES]:
        name = called(job, output_dir)
        text = job.error or job.problem or f"slm-vllm runs show {name} says how to resume it"
        lines.append(one_line(f"{name} {job.phase}: {text}"))
    return lines


def _size(n_bytes: int | None) -> str:
    return "-" if n_bytes is None else format_memory(n_bytes)


@contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
    """A function that waits some seconds for a key and returns it, or nothing."""
    if not (sys.stdin and sys.stdin.isatty()):

        def nothing(seconds: float) -> str:
            time.sleep(seconds)
            return ""

        yield nothing
        return
    import termios
    import tty

    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)

    def key(seconds: float) -> str:
        if not select.select([keyboard], [], [], seconds)[0]:
            return ""
        return os.read(keyboard, 1).decode("ascii", "replace") or "q"  # the terminal is gone

    try:
        tty.setcbreak(keyboard)
        yield key
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)


@contextmanager
def _ending_in_order() -> Iterator[None]:
    """Lets SIGTERM unwind, so that the terminal is put back; so does Ctrl-C, which is no error."""

    def leave(signum: int, frame: FrameType | None) -> Any:
        raise SystemExit(128 + signum)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
