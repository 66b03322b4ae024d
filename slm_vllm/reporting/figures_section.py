"""The plots of the page, each with its numbers."""

from __future__ import annotations

from collections.abc import Sequence

from slm_vllm.reporting.drawing import PAGE, to_svg
from slm_vllm.reporting.figures import Figure
from slm_vllm.reporting.html_table import table
from slm_vllm.reporting.plain_text import escaped


def figures_section(figures: Sequence[Figure]) -> str:
    """Every figure with its numbers as a table under it."""
    drawn = "".join(_figure(figure) for figure in figures)
    return f'<div class="figures">{drawn}</div>' if drawn else ""


def _figure(figure: Figure) -> str:
    data = table(
        figure.columns,
        figure.rows,
        caption=figure.title,
        text_columns={
            column for column in figure.columns if column in ("model", "mode", "run", "memory of")
        },
    )
    return (
        f'<figure id="{escaped(figure.key)}"><figcaption><h3>{escaped(figure.title)}</h3>'
        f"<p>{escaped(figure.note)}</p></figcaption>{to_svg(figure.drawing, PAGE)}"
        f"<details><summary>Numbers</summary>{data}</details></figure>"
    )
