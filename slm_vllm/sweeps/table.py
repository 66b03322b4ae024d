"""The plan and the progress of a sweep as a table for the terminal."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence

from slm_vllm.amounts import counted
from slm_vllm.rundir.contents import State
from slm_vllm.rundir.files import if_readable, read_state
from slm_vllm.rundir.state import now
from slm_vllm.sweeps.grid import SweepGrid
from slm_vllm.sweeps.plan import PlannedCell, groups, seconds_left

_SHOWN = {"new": "to do", "begun": "goes on", "done": "done"}


def plan_table(grid: SweepGrid, cells: Sequence[PlannedCell]) -> str:
    """One line for each cell, and what the whole will take."""
    width = max(len(cell.name) for cell in cells)
    loads = counted(len(groups(cells)), "model load")
    lines = [f"Sweep {grid.folder}: {counted(len(cells), 'cell')}, {loads}"]
    for cell in cells:
        rows = "" if cell.rows is None else f"{cell.rows:,} rows"
        if cell.status == "begun" and cell.left is not None:
            rows += f", {cell.left:,} left"
        lines.append(f"  {cell.name.ljust(width)}  {_SHOWN[cell.status].ljust(7)}  {rows}".rstrip())
    todo = [cell for cell in cells if cell.status != "done"]
    seconds = seconds_left(cells)
    if not todo:
        lines.append("Everything is done.")
    elif seconds is None:
        lines.append("Time: known when a cell of each model is done.")
    else:
        lines.append(f"Time: about {max(1, round(seconds / 60))} min and the model loads.")
    return "\n".join(lines)


class SweepTable:
    """Redraws the state of every cell in place (terminals only)."""

    def __init__(self, cells: Sequence[PlannedCell]) -> None:
        self._cells = cells
        self._drawn = 0
        self._began = now()

    def show(self) -> None:
        """Draws the table over the one before."""
        columns, rows = shutil.get_terminal_size()
        lines = [line[: columns - 1] for line in self._lines()[-(rows - 1) :]]
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        sys.stderr.write(up + "".join(f"\x1b[2K{line}\n" for line in lines))
        sys.stderr.flush()
        self._drawn = len(lines)

    def _lines(self) -> list[str]:
        width = max(len(cell.name) for cell in self._cells)
        lines = []
        for cell in self._cells:
            state: State = if_readable(read_state, cell.folder) or {}
            if cell.status != "done" and state.get("started", "") < self._began:
                state = {}  # of an earlier attempt
            phase = state.get("phase", "waiting")
            done, total = state.get("done"), state.get("total")
            count = f"{done:,} of {total:,}" if isinstance(total, int) and done is not None else ""
            lines.append(f"  {cell.name.ljust(width)}  {phase.ljust(11)}  {count}".rstrip())
        return lines
