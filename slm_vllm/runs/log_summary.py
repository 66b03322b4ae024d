"""The lines of `experiment.log` at the start and at the end of a run."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from slm_vllm.amounts import format_clock
from slm_vllm.engines.settings import EngineSettings
from slm_vllm.monitoring.device import Device
from slm_vllm.reporting.estimates import metric_text
from slm_vllm.runs.cell import Cell
from slm_vllm.scoring.metrics import METRICS
from slm_vllm.version import __version__

log = logging.getLogger(__name__)


def log_start(cell: Cell, settings: EngineSettings, device: Device) -> None:
    """Which run this is, the settings that matter and the choices made for it."""
    config = cell.config
    searching = f", retriever {config.retriever.name}" if cell.searches else ""
    log.info(
        "run %s: model %s (%s), dataset %s (%s), mode %s%s; slm-vllm %s",
        cell.name,
        config.model.name,
        config.model.path,
        config.dataset.name,
        config.dataset.path,
        config.experiment_mode.name,
        searching,
        __version__,
    )
    generation = config.generation
    log.info(
        "prompt %s, at most %d new tokens, temperature %g, seed %d",
        config.prompt.name,
        generation.max_new_tokens,
        generation.temperature,
        config.experiment.seed,
    )
    log.info(
        "engine %s on %s: profile %s, %s, prompts and answers up to %d tokens, %d at a time",
        config.engine.name,
        config.engine.place or device.name,
        config.hardware.name,
        settings.dtype,
        settings.max_model_len,
        settings.max_num_seqs,
    )
    log.info(
        "%d rows, %d rejected, %d answered before; what the engine writes is in %s",
        cell.questions.found.rows,
        cell.questions.rejected,
        len(cell.journal),
        cell.folder.engine_log.name,
    )


def log_choices(engine: Mapping[str, Any]) -> None:
    """What was chosen for the run and why, from what its engine reports of itself."""
    choices = engine.get("choices") or (engine.get("replica") or {}).get("choices") or {}
    if choices:
        log.info("chosen: %s", "; ".join(f"{name}: {why}" for name, why in choices.items()))


def log_results(results: Mapping[str, Any]) -> None:
    """All figures of a finished run."""
    for name, value in results["metrics"].items():
        log.info("%s %s", METRICS[name].label if name in METRICS else name, metric_text(value))
    for name, value in results["retrieval"].items():
        log.info("%s %s", name, metric_text(value))
    log.info("counts: %s", _listed(results["counts"]))
    timing = {name: s for name, s in results["timing"].items() if not isinstance(s, dict)}
    log.info("seconds: %s", _listed(timing))
    log.info("throughput: %s", _listed(results["throughput"]))
    log.info("finished in %s, start and load included", format_clock(results["duration_seconds"]))


def _listed(figures: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in figures.items() if value is not None)
