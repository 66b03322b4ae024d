"""Turns what happens in a run into events of the spool."""

from __future__ import annotations

import functools
import logging
import math
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

import yaml

from slm_vllm.config.schema import Config
from slm_vllm.monitoring.memory import MIB, Moment
from slm_vllm.rundir import names
from slm_vllm.rundir.files import read_manifest, read_memory, read_results
from slm_vllm.rundir.judgement import current_judgement
from slm_vllm.rundir.names import SPOOL
from slm_vllm.tracking import plots
from slm_vllm.tracking.events import Artifact, Ended, Event, Scalars, SingleValues, Started
from slm_vllm.tracking.spool import Spool

log = logging.getLogger(__name__)

POINTS = 200
_LEAST_SECONDS = 2.0
_ARTIFACTS = {
    "results": names.RESULTS,
    "predictions": names.PREDICTIONS,
    "predictions_json": names.PREDICTIONS_JSON,
    "memory_usage": names.MEMORY,
    "manifest": names.MANIFEST,
    "config": names.CONFIG,
    "log": names.LOG,
    "report": names.REPORT,
}
_Call = TypeVar("_Call", bound=Callable[..., None])


class RunProgress(Protocol):
    """What a recorder asks of the run's progress."""

    done: int
    tokens: int

    @property
    def total_done(self) -> int:
        """Examples done, earlier processes included."""

    @property
    def running_recall(self) -> float | None:
        """Mean token recall so far."""


def _harmless(method: _Call) -> _Call:
    """A tracker that fails is switched off; the run goes on."""

    @functools.wraps(method)
    def call(self: Recorder, *args: Any, **kwargs: Any) -> None:
        if self.broken:
            return
        try:
            method(self, *args, **kwargs)
        except Exception:
            log.warning("tracking of %s ends here", self.folder, exc_info=True)
            self.broken = True

    return call  # type: ignore[return-value]


class NullRecorder:
    """For runs that are not tracked."""

    def started(self, config: Config, manifest: Mapping[str, Any], total: int | None) -> None:
        """Does nothing."""

    def progress(self, progress: RunProgress, memory: Callable[[], Moment]) -> None:
        """Does nothing."""

    def finished(self) -> None:
        """Does nothing."""

    def stopped(self, phase: str) -> None:
        """Does nothing."""


class Recorder(NullRecorder):
    """Writes the spool of one run. No call raises, none waits for a server.

    Args:
        folder: The run folder.
        clock: Seconds, for the rates.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.folder, self.broken = folder, False
        self._clock = clock
        self._spool: Spool | None = None
        self._open = False
        self._debug_samples = 0
        self._points: list[tuple[float, int, float | None]] = []
        self._began = self._last_time = clock()
        self._last_done = self._last_tokens = self._next = 0
        self._step = 1

    @_harmless
    def started(self, config: Config, manifest: Mapping[str, Any], total: int | None) -> None:
        """The run begins to ask questions, or goes on.

        Args:
            config: Its configuration.
            manifest: The content of `manifest.json`.
            total: Rows of the run.
        """
        self._debug_samples = config.tracking.debug_samples
        self._step = max(1, math.ceil((total or 0) / POINTS))
        self._began = self._last_time = self._clock()
        self._open = True
        self._write(_started_event(config, manifest), durable=True)

    @_harmless
    def progress(self, progress: RunProgress, memory: Callable[[], Moment]) -> None:
        """Notes how far the run is, at most `POINTS` times in all and every two seconds.

        Args:
            progress: Its counts.
            memory: Takes or remembers a sample; called for what is noted only.
        """
        if progress.total_done < self._next:
            return
        now = self._clock()
        if now - self._last_time < _LEAST_SECONDS and self._points:
            return
        self._next = progress.total_done + self._step
        self._note(progress, memory(), now)

    @_harmless
    def finished(self) -> None:
        """The run has written its results, and all of its log."""
        results, memory = read_results(self.folder), read_memory(self.folder)
        assert results is not None
        events: list[Event] = [SingleValues(single_values(results, memory or {}))]
        events.append(plots.metrics_table(results))
        if memory is not None:
            events += plots.memory_figure(memory)
        if self._points:
            events.append(plots.progress_figure(self._points))
        predictions = self.folder / names.PREDICTIONS
        events += plots.prediction_events(predictions, self._debug_samples)
        events += [
            Artifact(name, file)
            for name, file in _ARTIFACTS.items()
            if (self.folder / file).exists()
        ]
        self._write(*events, Ended("finished"), durable=True)
        self._close()

    @_harmless
    def stopped(self, phase: str) -> None:
        """The run ends without results; does nothing after `finished`.

        Args:
            phase: "interrupted" or "failed".
        """
        if self._open:
            self._write(Ended(phase), durable=True)
            self._close()

    def _note(self, progress: RunProgress, memory: Moment, now: float) -> None:
        recall, done = progress.running_recall, progress.total_done
        values: dict[str, dict[str, float]] = {}
        if recall is not None:
            values["Token recall"] = {"running": round(recall, 6)}
        seconds = now - self._last_time
        if self._points and seconds > 0:
            questions, tokens = progress.done - self._last_done, progress.tokens - self._last_tokens
            values["Questions per second"] = {"since the last point": round(questions / seconds, 3)}
            values["Tokens per second"] = {"since the last point": round(tokens / seconds, 3)}
        values["Memory (MiB)"] = {"process tree": round(memory.rss_bytes / MIB, 1)}
        if memory.gpu_bytes is not None:
            values["Memory (MiB)"]["GPU"] = round(memory.gpu_bytes / MIB, 1)
        self._points.append((round(now - self._began, 2), done, recall))
        self._last_time, self._last_done, self._last_tokens = now, progress.done, progress.tokens
        self._write(Scalars(done, values))

    def _write(self, *events: Event, durable: bool = False) -> None:
        if self._spool is None:
            self._spool = Spool(self.folder / SPOOL)
        self._spool.append(*events, durable=durable)

    def _close(self) -> None:
        self._open = False
        if self._spool is not None:
            self._spool.close()
            self._spool = None


def record_finished_run(folder: Path, config: Config) -> None:
    """Writes the spool of a finished run that was not tracked while it ran.

    Raises:
        OSError: A file of it cannot be read or written.
    """
    recorder = Recorder(folder)
    # Runs of 0.1 have it in their results alone.
    retriever = {"retriever": (read_results(folder) or {}).get("retriever")}
    recorder.started(config, retriever | dict(read_manifest(folder) or {}), None)
    recorder.finished()
    if recorder.broken:
        raise OSError(f"the results in {folder} cannot be read")


def record_additions(folder: Path) -> None:
    """Adds what is written beside a run when somebody asks for it: its page, its judgement.

    Raises:
        OSError: The spool cannot be written.
    """
    events: list[Event] = []
    if (folder / names.REPORT).exists():
        events.append(Artifact("report", names.REPORT))
    judgement = current_judgement(folder)
    if judgement is not None:
        events.append(SingleValues(single_values({"metrics": judgement["metrics"]}, {})))
        events += [Artifact("judgement", names.JUDGEMENT), Artifact("grades", names.GRADES)]
    if events:
        spool = Spool(folder / SPOOL)
        spool.append(*events)
        spool.close()


def _started_event(config: Config, manifest: Mapping[str, Any]) -> Started:
    """Everything known at the beginning."""
    mode, tracking = config.experiment_mode, config.tracking
    content = _without_passwords(config.model_dump(mode="json"))
    tags = [config.model.name, config.dataset.name, mode.name]
    if retriever := manifest.get("retriever"):
        tags.append(retriever)
    general = {key: value for key, value in content.items() if not isinstance(value, dict)}
    sections = {key: value for key, value in content.items() if isinstance(value, dict)}
    return Started(
        name=config.experiment.name,
        project=tracking.project,
        task_type=tracking.task_type,
        tags=list(dict.fromkeys(tags)),
        parameters={
            section: dict(_flat(values)) for section, values in {**sections, "run": general}.items()
        },
        configuration=yaml.safe_dump(content, sort_keys=False, allow_unicode=True),
        source={
            "command": _without_passwords(list(manifest.get("command") or [])),
            "git": manifest.get("git"),
            "packages": manifest.get("packages") or {},
            "python": manifest.get("python"),
            "device": manifest.get("device") or {},
        },
    )


def single_values(results: Mapping[str, Any], memory: Mapping[str, Any]) -> dict[str, float]:
    """All final figures, flat."""
    found: dict[str, Any] = {
        name: value["mean"]
        for group in ("metrics", "retrieval")
        for name, value in results.get(group, {}).items()
    }
    found["duration_seconds"] = results.get("duration_seconds")
    found |= results.get("throughput", {})
    found |= {f"count_{name}": value for name, value in results.get("counts", {}).items()}
    found |= {
        f"seconds_{phase}": value
        for phase, value in results.get("timing", {}).items()
        if not isinstance(value, dict)
    }
    found |= {
        f"{stage}_{name}": value
        for stage, figures in results.get("stages", {}).items()
        for name, value in figures.items()
    }
    found |= {"peak_rss_mib": memory.get("peak_rss"), "peak_gpu_mib": memory.get("peak_gpu")}
    return {
        name: float(value)
        for name, value in found.items()
        if isinstance(value, (int, float)) and math.isfinite(value)
    }


def _without_passwords(value: Any) -> Any:
    """Takes the user part out of URLs."""
    if isinstance(value, dict):
        return {key: _without_passwords(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_passwords(item) for item in value]
    return re.sub(r"://[^/@\s]+@", "://***@", value) if isinstance(value, str) else value


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for key, value in values.items():
        if isinstance(value, dict) and value:
            pairs += _flat(value, f"{prefix}{key}/")
        else:
            pairs.append((f"{prefix}{key}", "" if value is None else str(value)))
    return pairs
