"""The page's sections, in their order.

A new one is a function from `Content` to HTML and a line in `SECTIONS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files

from slm_vllm.reporting import answer_sections, origin_sections, run_tables
from slm_vllm.reporting.confidence_section import confidence_section
from slm_vllm.reporting.figures import Figure
from slm_vllm.reporting.figures_section import figures_section
from slm_vllm.reporting.harm import Harm
from slm_vllm.reporting.headline import headline
from slm_vllm.reporting.pairing import DatasetPairs
from slm_vllm.reporting.plain_text import escaped
from slm_vllm.reporting.run_view import RunView


@dataclass(frozen=True, slots=True)
class Content:
    """What sections are made of, computed once.

    Attributes:
        views: The runs, in the order of the page.
        datasets: The same by dataset, compared with each other.
        harms: What context destroyed, for each run that has some.
        figures: The plots.
    """

    views: Sequence[RunView]
    datasets: Sequence[DatasetPairs]
    harms: Sequence[Harm]
    figures: Sequence[Figure]


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page with a heading, and a link to it at the top.

    Attributes:
        key: Its id.
        title: Its heading.
        body: Makes its HTML; "" leaves it out.
    """

    key: str
    title: str
    body: Callable[[Content], str]


def _summary(content: Content) -> str:
    return (
        f"{answer_sections.verdict_section(content.datasets)}"
        f'<dl class="tiles">{headline(content.views)}</dl>'
        f"{run_tables.results_table(content.views)}"
    )


def _predictions(_: Content) -> str:
    return (files("slm_vllm.reporting") / "page" / "predictions.html").read_text("utf-8")


SECTIONS = (
    Section("summary", "Summary", _summary),
    Section(
        "differences", "Differences", lambda c: answer_sections.differences_section(c.datasets)
    ),
    Section("harm", "Destroyed answers", lambda c: answer_sections.harm_section(c.harms)),
    Section("retrieval", "Retrieval", lambda c: run_tables.search_table(c.views)),
    Section("confidence", "Confidence", lambda c: confidence_section(c.views)),
    Section("cost", "Cost", lambda c: run_tables.cost_table(c.views)),
    Section("plots", "Plots", lambda c: figures_section(c.figures)),
    Section("predictions", "Predictions", _predictions),
    Section(
        "configuration", "Configuration", lambda c: origin_sections.configuration_section(c.views)
    ),
    Section("origin", "Origin", lambda c: origin_sections.origin_section(c.views)),
)


def sections_and_links(content: Content) -> tuple[str, str]:
    """The HTML of all sections that have something to say, and of the links to them."""
    shown = [(section, body) for section in SECTIONS if (body := section.body(content))]
    html = "".join(
        f'<section id="{one.key}" aria-labelledby="{one.key}-title">'
        f'<h2 id="{one.key}-title">{escaped(one.title)}</h2>{body}</section>'
        for one, body in shown
    )
    links = "".join(f'<a href="#{one.key}">{escaped(one.title)}</a>' for one, _ in shown)
    return html, links
