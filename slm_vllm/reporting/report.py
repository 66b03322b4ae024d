"""The report: runs as one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from slm_vllm.durable import write_text
from slm_vllm.errors import DataError, StorageError, reason_of
from slm_vllm.reporting.comparison import with_unique_names
from slm_vllm.reporting.figures import Figure, build_figures
from slm_vllm.reporting.harm import harms
from slm_vllm.reporting.page_sections import Content, sections_and_links
from slm_vllm.reporting.pairing import paired_datasets
from slm_vllm.reporting.payload import packed, passages_payload, questions_payload
from slm_vllm.reporting.plain_text import escaped
from slm_vllm.reporting.run_view import RunView, view_runs
from slm_vllm.rundir.reading import RunData
from slm_vllm.version import __version__

_COLUMNS = (
    "contexts", "completion", "metadata", "truncated", "finish_reason", "n_prompt_tokens",
    "n_completion_tokens", "unterminated_thinking",
)  # fmt: skip
_SCRIPTS = ("text.js", "tables.js", "predictions.js", "list.js")


@dataclass(frozen=True, slots=True)
class Report:
    """A report in memory.

    Attributes:
        html: The page.
        figures: Its charts.
    """

    html: str
    figures: tuple[Figure, ...]


def build_report(runs: Sequence[RunData]) -> Report:
    """Makes the report of some runs.

    Raises:
        DataError: The predictions of a run lack a column.
    """
    for run in runs:
        missing = [name for name in _COLUMNS if name not in run.predictions.columns]
        if missing:
            raise DataError(f"{run.path}/predictions.parquet has no column '{missing[0]}'")
    views = view_runs(with_unique_names(runs))
    figures = tuple(build_figures(views))
    return Report(_page(views, figures), figures)


def write_report(report: Report, path: Path) -> None:
    """Writes the page; another one of that name is replaced when the new one is whole.

    Raises:
        StorageError: The file cannot be written.
    """
    try:
        write_text(path, report.html)
    except OSError as error:
        raise StorageError(f"{path}: cannot be written ({reason_of(error)})") from None


def _page(views: Sequence[RunView], figures: Sequence[Figure]) -> str:
    page = files("slm_vllm.reporting") / "page"
    style = (page / "page.css").read_text("utf-8")
    script = "\n".join((page / name).read_text("utf-8") for name in _SCRIPTS)
    datasets = paired_datasets(views)
    content = Content(views, datasets, harms(datasets), figures)
    sections, links = sections_and_links(content)
    values = {
        "title": escaped(_title(views)),
        "subtitle": escaped(_subtitle(views)),
        "version": escaped(__version__),
        "style": style,
        "script": script,
        # Nothing but this script can run, and nothing can be fetched, whatever a prediction says.
        "script_hash": _hash(script),
        "sections": sections,
        "links": links,
        "questions": packed(questions_payload(views, content.harms)),
        "passages": packed(passages_payload(views)),
    }
    template = (page / "page.html").read_text("utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], template)


def _title(views: Sequence[RunView]) -> str:
    if len(views) == 1:
        return views[0].run.name
    models = list(dict.fromkeys(view.model for view in views))
    datasets = list(dict.fromkeys(view.dataset for view in views))
    named = models[0] if len(models) == 1 else f"{len(models)} models"
    where = datasets[0] if len(datasets) == 1 else f"{len(datasets)} datasets"
    return f"{named} on {where}, {len(views)} runs"


def _subtitle(views: Sequence[RunView]) -> str:
    conditions = dict.fromkeys(view.condition for view in views)
    models = ", ".join(dict.fromkeys(view.model for view in views))
    datasets = ", ".join(dict.fromkeys(view.dataset for view in views))
    created = sorted(str(view.run.manifest.get("created", ""))[:10] for view in views)
    days = created[0] if created[0] == created[-1] else f"{created[0]} to {created[-1]}"
    return f"{models} on {datasets}: {', '.join(conditions)}. Run {days}."


def _hash(script: str) -> str:
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"
