"""Tables of the page."""

from __future__ import annotations

import re
from collections.abc import Sequence

from slm_vllm.reporting.plain_text import escaped

_WITH_INTERVAL = re.compile(r"(\S.*?) (\[[^\]]*\])")


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    caption: str,
    text_columns: set[str] | None,
    tools: str = "",
) -> str:
    """An HTML table that scrolls sideways where it is too wide.

    Args:
        columns: Its head.
        rows: Its cells; the first of each line is the line's head.
        caption: Spoken, and shown above.
        text_columns: Columns that are not numbers; None: all of them.
        tools: Name of the files that the script offers it as, sorting included; "" for neither.
    """
    text = set(columns) if text_columns is None else text_columns
    classes = ["" if column in text else ' class="n"' for column in columns]
    head = "".join(
        f'<th scope="col"{kind}>{_breakable(column)}</th>'
        for column, kind in zip(columns, classes, strict=True)
    )
    body = "".join(
        "<tr>"
        + f'<th scope="row">{_breakable(row[0])}</th>'
        + "".join(
            f'<td{kind} data-label="{escaped(column)}">'
            f"{_cell(cell) if kind else _breakable(cell)}</td>"
            for cell, kind, column in zip(row[1:], classes[1:], columns[1:], strict=True)
        )
        + "</tr>"
        for row in rows
    )
    named = f' data-tools="{escaped(tools)}"' if tools else ""
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escaped(caption)}"{named}>'
        f"<table><caption>{escaped(caption)}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def _breakable(text: str) -> str:
    """Text that may be broken between the words of a name, and is copied as it is."""
    return re.sub(r"(?<=[_/.-])(?=\w)", "<wbr>", escaped(text))


def _cell(text: str) -> str:
    """A number; its interval is set smaller."""
    if (match := _WITH_INTERVAL.fullmatch(text)) is None:
        return escaped(text)
    return f"{escaped(match[1])} <small>{escaped(match[2])}</small>"
