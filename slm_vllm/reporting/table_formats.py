"""Tables of text cells as terminal text, Markdown and LaTeX."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from slm_vllm.reporting.plain_text import visible


@dataclass(frozen=True, slots=True)
class Table:
    """A table whose cells are ready to be read.

    Attributes:
        title: What it shows.
        header: Names of the columns.
        rows: As many cells each as the header has.
        text_columns: How many columns at the left hold names and other foreign text; those behind
            them hold figures and are set to the right.
        notes: Sentences under it.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    text_columns: int
    notes: tuple[str, ...] = ()


def to_text(tables: Sequence[Table]) -> str:
    """Columns aligned with blanks, for a terminal."""
    return "\n\n".join(_text(table) for table in tables) + "\n"


def to_markdown(tables: Sequence[Table]) -> str:
    """GitHub's pipe tables under headings."""
    return "\n\n".join(_markdown(table) for table in tables) + "\n"


def to_latex(tables: Sequence[Table]) -> str:
    r"""`table` environments with the rules of the package booktabs."""
    return "\n\n".join(["% needs \\usepackage{booktabs}", *map(_latex, tables)]) + "\n"


def _text(table: Table) -> str:
    lines = [tuple(map(_one_line, line)) for line in (table.header, *table.rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    drawn = ["  ".join(_aligned(line, widths, table.text_columns)).rstrip() for line in lines]
    rule = "  ".join("-" * width for width in widths)
    return "\n".join(
        [_one_line(table.title), drawn[0], rule, *drawn[1:], *_notes(table, _one_line)]
    )


def _aligned(line: Sequence[str], widths: Sequence[int], text_columns: int) -> list[str]:
    return [
        cell.ljust(width) if column < text_columns else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(line, widths, strict=True))
    ]


def _notes(table: Table, form: Callable[[str], str]) -> list[str]:
    return [form(note) for note in table.notes]


def _one_line(text: str) -> str:
    return visible(text).replace("\n", "\\n").replace("\t", "\\t")


def _markdown(table: Table) -> str:
    columns = len(table.header)
    aligned = [" --- " if i < table.text_columns else " ---: " for i in range(columns)]
    lines = [
        _piped([_markdown_text(cell) for cell in table.header]),
        f"|{'|'.join(aligned)}|",
        *(
            _piped(
                [
                    _markdown_text(cell) if column < table.text_columns else _entities(cell)
                    for column, cell in enumerate(row)
                ]
            )
            for row in table.rows
        ),
    ]
    parts = [f"### {_markdown_text(table.title)}", "\n".join(lines)]
    return "\n\n".join([*parts, *_notes(table, _markdown_text)])


def _piped(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown_text(text: str) -> str:
    return _entities(re.sub(r"([\\`*_{}\[\]#|~!$])", r"\\\1", _one_line(text)))


def _entities(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _latex(table: Table) -> str:
    columns = "".join("l" if i < table.text_columns else "r" for i in range(len(table.header)))
    rows = [" & ".join(map(_latex_text, table.header)) + r" \\", r"\midrule"]
    for row in table.rows:
        cells = [
            _latex_text(cell) if column < table.text_columns else _latex_figure(cell)
            for column, cell in enumerate(row)
        ]
        # A bracket or asterisk behind the end of a row would be taken for an argument of it.
        rows.append(("{}" if cells[0].startswith(("[", "*")) else "") + " & ".join(cells) + r" \\")
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_latex_text(table.title)}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        *rows,
        r"\bottomrule",
        r"\end{tabular}",
        *(rf"\par\footnotesize {note}" for note in _notes(table, _latex_text)),
        r"\end{table}",
    ]
    return "\n".join(lines)


def _latex_figure(cell: str) -> str:
    return re.sub(r"-(?=\d)", "$-$", _latex_text(cell))


def _latex_text(text: str) -> str:
    # The pictures of control characters are in no usual font.
    seen = re.sub("[\u2400-\u2421\ufffd]", "?", _one_line(text))
    escaped = "".join(_LATEX.get(character, character) for character in seen)
    return escaped.replace("--", "-{}-")


_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "`": r"\textasciigrave{}",
    **{character: f"\\{character}" for character in "{}#$%&_"},
}
