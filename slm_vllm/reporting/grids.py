"""Tables before they have a format, and the formats that they can have."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from slm_vllm.text_table import one_line, text_table


@dataclass(frozen=True, slots=True)
class Grid:
    """A table before it has a format.

    Attributes:
        title: What it shows.
        header: Names of the columns.
        rows: Cells as text, each row as long as the header.
        note: How to read it, may be empty.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def as_text(grids: Sequence[Grid], form: str) -> str:
    """Tables for people, in one of `TEXT_FORMATS`."""
    return TEXT_FORMATS[form](grids)


def as_csv(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """One table for spreadsheets, its numbers unrounded."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([_csv_cell(cell) for cell in row] for row in rows)
    return out.getvalue().rstrip("\n")


def _csv_cell(cell: object) -> object:
    if isinstance(cell, float):
        return cell if math.isfinite(cell) else ""
    if isinstance(cell, str):
        # A spreadsheet takes text that begins so for a formula.
        return one_line(f"'{cell}" if cell[:1] in ("=", "+", "-", "@") else cell)
    return "" if cell is None else cell


def _as_terminal(grids: Sequence[Grid]) -> str:
    """Columns under a header and a rule."""
    return "\n\n".join(_drawn(grid) for grid in grids)


def _drawn(grid: Grid) -> str:
    note = [one_line(grid.note)] if grid.note else []
    return "\n".join([one_line(grid.title), text_table(grid.header, grid.rows), *note])


def _as_markdown(grids: Sequence[Grid]) -> str:
    """Tables of GitHub's Markdown under headings."""
    parts = []
    for grid in grids:
        lines = [grid.header, tuple("---" for _ in grid.header), *grid.rows]
        table = "\n".join(
            "| " + " | ".join(_markdown_cell(cell) for cell in line) + " |" for line in lines
        )
        parts.append(f"### {_markdown_cell(grid.title)}\n\n{table}")
        if grid.note:
            parts.append(_markdown_cell(grid.note))
    return "\n\n".join(parts)


def _as_latex(grids: Sequence[Grid]) -> str:
    """Tables for the package booktabs."""
    parts = []
    for grid in grids:
        columns = "ll" + "r" * (len(grid.header) - 2)
        lines = [
            "\\begin{table}",
            f"\\caption{{{_latex_cell(grid.title)}}}",
            f"\\begin{{tabular}}{{{columns}}}",
            "\\toprule",
            " & ".join(_latex_cell(cell) for cell in grid.header) + " \\\\",
            "\\midrule",
            *(_latex_row(row) for row in grid.rows),
            "\\bottomrule",
            "\\end{tabular}",
            *([f"\\par\\footnotesize {_latex_cell(grid.note)}"] if grid.note else []),
            "\\end{table}",
        ]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#",
    "%": r"\%", "_": r"\_", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}",
}  # fmt: skip


def _latex_row(row: tuple[str, ...]) -> str:
    text = " & ".join(_latex_cell(cell) for cell in row) + " \\\\"
    # Behind the end of a row these would be taken for an argument of it.
    return f"{{}}{text}" if text.lstrip().startswith(("[", "*")) else text


def _latex_cell(cell: str) -> str:
    return "".join(_LATEX.get(character, character) for character in one_line(cell))


def _markdown_cell(cell: str) -> str:
    return re.sub(r"([\\`*_\[\]<>|#~])", r"\\\1", one_line(cell))


TEXT_FORMATS = {"terminal": _as_terminal, "markdown": _as_markdown, "latex": _as_latex}
