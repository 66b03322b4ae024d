"""One cell from its first question to its results."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from slm_vllm.errors import EngineError
from slm_vllm.models.resolve import ResolvedModel
from slm_vllm.monitoring.energy import EnergyMeter
from slm_vllm.rundir import names
from slm_vllm.rundir.contents import Manifest, RepeatCheck, Results, Throughput
from slm_vllm.rundir.files import if_readable, read_manifest, read_results
from slm_vllm.rundir.journal import Journal, journal_schema
from slm_vllm.rundir.settings import changed_facts
from slm_vllm.runs.asking import Asking
from slm_vllm.runs.cell import Cell
from slm_vllm.runs.cell_rows import CellRows, Plan
from slm_vllm.runs.engine_host import EngineHost
from slm_vllm.runs.index_pool import IndexPool
from slm_vllm.runs.log_summary import log_choices, log_results
from slm_vllm.runs.manifest import build_manifest
from slm_vllm.runs.progress import Progress
from slm_vllm.runs.repeat_check import compare_passes, drawn_rows
from slm_vllm.runs.results import RunTiming, build_results, write_predictions
from slm_vllm.runs.services import Services
from slm_vllm.runs.until_decided import UntilDecided
from slm_vllm.scoring.metrics import MAIN

if TYPE_CHECKING:
    from slm_vllm.runs.stages.search import SearchStages

_MEASURED = ("throughput", "timing", "duration_seconds", "stages")


class CellRun:
    """Asks what is open, and writes what comes of it.

    Args:
        cell: The cell.
        rows: Its rows.
        host: The engine, started only if something is open.
        services: Console, signals and clock of the command.
        stages: What the model is asked before passages are known, if anything.
    """

    def __init__(
        self,
        cell: Cell,
        rows: CellRows,
        host: EngineHost,
        services: Services,
        stages: SearchStages | None = None,
    ) -> None:
        self._cell, self._rows = cell, rows
        self._host, self._services, self._stages = host, services, stages

    def finish(
        self,
        model: ResolvedModel,
        indexes: IndexPool,
        cells: Sequence[Cell],
        waited: dict[str, float],
    ) -> dict[str, Any]:
        """Runs it to the end.

        Args:
            model: The weights.
            indexes: The retrieval indexes; that of the next cell is begun while this one asks.
            cells: All cells of the command, this one included.
            waited: Seconds by phase that this cell alone took so far.

        Returns:
            The content of `results.json`.
        """
        cell = self._cell
        before = self._rows.plan()
        plan = self._take_cached(before)
        until = self._until(plan)
        if until is not None:
            plan = until.within(plan)
        parts = filter(_is_open, [plan] if until is None else until.parts(plan))
        first = next(parts, None)
        total = len(plan.keys) if until is None else until.total
        progress = self._begin(model, total, plan.pending, is_asked=first is not None)
        indexes.start(cells[cells.index(cell) + 1 :])
        meter = EnergyMeter(self._host.details.get("gpus") or ())
        seconds = self._ask(chain(filter(None, [first]), parts), progress)
        throughput = _throughput(progress, seconds, meter.joules())
        timing = self._timing(waited, seconds, indexes)
        is_checked = cell.config.experiment.repeat_check is not None
        if is_checked:
            timing.phases["repeat"] = self._ask_again(plan)
        asked = slice(None) if until is None else until.asked  # of all rows a view, no copy
        resumed = int((~before.open[asked]).sum())
        result = self._score(plan.keys[asked], timing, throughput, resumed)
        if until is not None:
            result["until"] = until.result()
        if is_checked:
            result["repeat_check"] = self._compared_passes(plan, result["counts"]["scored"])
        self._write(result, progress)
        return {**result}

    def _take_cached(self, plan: Plan) -> Plan:
        """Journals what the answer cache has; returns what is left to ask."""
        if self._cell.config.experiment.answer_cache:
            self._staged(plan)  # an answer is known by its prompt
        left = self._rows.take_from_cache(plan)
        if n := self._rows.from_cache:
            self._services.console.say(f"{self._cell.name}: {n} answers of the answer cache")
        return left

    def _ask(self, parts: Iterable[Plan], progress: Progress) -> float:
        """Asks one part after the other; returns the seconds it took."""
        asking = Asking(self._cell, self._rows, self._host, self._services)
        with self._services.memory.phase("generate", self._cell.name):
            return sum(asking.ask(self._staged(part), progress) for part in parts)

    def _timing(self, waited: dict[str, float], seconds: float, indexes: IndexPool) -> RunTiming:
        services = self._services
        stages = {} if self._stages is None else self._stages.seconds
        overlapped = {"retrieval": self._rows.search_seconds}
        if self._cell.searches:
            overlapped["index"] = indexes.loader(self._cell).seconds
        phases = {**services.seconds, **waited, **stages, "generate": seconds}
        return RunTiming(phases, overlapped, services.start)

    def _write(self, result: Results, progress: Progress) -> None:
        """Writes memory and results, and tells that the run has finished.

        Where nothing was asked, the figures that an earlier process measured stay; they are put
        into `result`.
        """
        cell = self._cell
        earlier = None if progress.done or self._rows.from_cache else self._earlier_results()
        if earlier is None:
            memory = self._services.memory.report(cell.name)
            if elsewhere := self._host.memory_usage():
                memory["replicas"] = elsewhere
            cell.folder.write_json(names.MEMORY, memory)
        else:
            kept = {key: value for key, value in earlier.items() if key in _MEASURED}
            result.update(cast(Results, kept))
        cell.folder.write_json(names.RESULTS, result)
        _check_answers(cell, result["counts"], progress, self._services.console.say)
        log_results(result)
        cell.recorder.finished()
        cell.state.update("finished", **_final_figures(result))

    def _begin(self, model: ResolvedModel, total: int, pending: int, *, is_asked: bool) -> Progress:
        """Writes the manifest and says that questions are asked now."""
        cell, services = self._cell, self._services
        if is_asked:
            self._host.start()  # what it reports of itself is part of the manifest
        earlier = if_readable(read_manifest, cell.folder.path)
        manifest = build_manifest(
            cell.config,
            model,
            services.device,
            cell.questions.identity,
            # Where nothing is asked, that of the engine which gave the answers.
            self._host.details if is_asked else (earlier or {}).get("engine", {}),
            cell.template.day,
        )
        manifest["answers"] = cell.facts
        if is_asked:
            log_choices(self._host.details)
            self._say_what_is_asked(earlier, manifest, pending, total)
        elif not self._rows.from_cache:
            text = f"{cell.name}: all {total:,} questions are answered already"
            if "dataset.sha256" in changed_facts(earlier, manifest):
                text += (
                    ". The dataset's file is another one now: what no answer depends on, such as "
                    "metadata, stays as it was"
                )
            services.console.say(text)
        cell.folder.write_json(names.MANIFEST, manifest)
        cell.recorder.started(cell.config, manifest, total)
        cell.state.update("generating", total=total, done=total - pending)
        cell.progress = Progress(services.console, cell.name, total, total - pending)
        return cell.progress

    def _say_what_is_asked(
        self, earlier: Manifest | None, manifest: Manifest, pending: int, total: int
    ) -> None:
        """Says of a run that goes on how much is left, and what may be why."""
        text = f"{self._cell.name}: {pending:,} of {total:,} questions are asked"
        if changes := changed_facts(earlier, manifest):
            differences = ", ".join(
                f"{key} is {now} and was {old}" for key, (old, now) in changes.items()
            )
            text += f". Since the earlier run there was a change: {differences}"
        elif pending < total:
            text += ", the others are answered already"
        elif earlier is not None and (n := len(self._cell.journal.keys(with_failed=False))):
            text += f": the {n:,} answers of the earlier run are to other rows or prompts"
        elif self._earlier_results() is not None:
            text += f" again: {names.JOURNAL} of the finished run has no answers any more"
        else:
            return
        self._services.console.say(text)

    def _earlier_results(self) -> Results | None:
        """The figures of the same run, finished before; None where it was not."""
        folder = self._cell.folder.path
        return if_readable(read_results, folder) if (folder / names.MEMORY).exists() else None

    def _until(self, plan: Plan) -> UntilDecided | None:
        """How far to ask; None: to the end."""
        cell = self._cell
        if cell.config.experiment.until == "all":
            return None
        until = UntilDecided(cell, plan, self._host.settings.max_num_seqs)
        if until.failed:
            self._services.console.say(
                f"{cell.name}: {until.failed} of {until.total} questions failed in "
                f"{cell.config.experiment.against} and count as answered with nothing there"
            )
        return until

    def _ask_again(self, plan: Plan) -> float:
        """Asks the rows of `experiment.repeat_check` that were not; returns the seconds it took."""
        cell, services = self._cell, self._services
        with Journal(cell.folder.repeated, journal_schema(cell.config)) as journal:
            rows = self._rows.again(journal)
            drawn = self._drawn(plan)
            again = rows.plan().within(np.isin(plan.keys, drawn))
            if not again.pending:
                return 0.0
            self._host.engine.forget_prompts()
            before = len(drawn) - again.pending
            progress = Progress(services.console, f"{cell.name}, again", len(drawn), before)
            asking = Asking(cell, rows, self._host, services)
            return asking.ask(self._staged(again), progress, one_at_a_time=True)

    def _staged(self, plan: Plan) -> Plan:
        """The plan, when all is known that the search for its open rows needs."""
        if self._stages is not None:
            self._stages.prepare(plan)
        return plan

    def _compared_passes(self, plan: Plan, n_scored: int) -> RepeatCheck:
        cell = self._cell
        with Journal(cell.folder.repeated, journal_schema(cell.config)) as journal:
            seed = cell.config.experiment.seed
            return compare_passes(cell.journal, journal, self._drawn(plan), n_scored, seed=seed)

    def _drawn(self, plan: Plan) -> npt.NDArray[np.uint64]:
        answered = np.intersect1d(plan.keys, self._cell.journal.keys(with_failed=False))
        return drawn_rows(answered, self._cell.config.experiment.repeat_check or 0)

    def _score(
        self,
        keys: npt.NDArray[np.uint64],
        timing: RunTiming,
        throughput: Throughput,
        resumed: int,
    ) -> Results:
        """Writes the predictions and returns the content of `results.json`."""
        cell, services = self._cell, self._services
        cell.journal.sync()
        started = time.monotonic()
        with services.memory.phase("score", cell.name):
            summary = write_predictions(cell.folder, cell.journal, keys, cell.config)
        timing.phases["score"] = time.monotonic() - started
        result = build_results(
            cell.config,
            summary,
            rejected=cell.questions.rejected,
            timing=timing,
            throughput=throughput,
            resumed=resumed,
            from_cache=self._rows.from_cache,
        )
        if self._stages is not None:
            result["stages"] = self._stages.figures()
        return result


def _check_answers(
    cell: Cell, counts: dict[str, int], progress: Progress, say: Callable[[str], None]
) -> None:
    """Says how many questions were not answered, and refuses to call it finished if all were not.

    Raises:
        EngineError: All rows failed; says with what.
    """
    errors, total = counts["errors"], counts["total"]
    if not errors:
        return
    reason = f" The last one said: {progress.last_error}." if progress.last_error else ""
    again = "The same command with --retry-errors asks them again"
    if errors == total:
        raise EngineError(
            f"{cell.name}: not one of {total} questions was answered.{reason} {again}"
        )
    say(f"{cell.name}: {errors} of {total} questions failed and count as wrong.{reason} {again}")


def _final_figures(result: Results) -> dict[str, Any]:
    """What `state.json` says of a run that is through: as `results.json` does."""
    recall = result["metrics"][MAIN]
    return {
        "done": result["counts"]["total"],
        "errors": result["counts"]["errors"],
        "questions_per_second": result["throughput"]["questions_per_second"],
        "token_recall": recall["mean"],
        "token_recall_ci95": recall["ci95"],
        "eta_seconds": None,
    }


def _throughput(progress: Progress, seconds: float, joules: float | None) -> Throughput:
    """Rates of this process's own work."""
    found: Throughput = {
        "questions_per_second": _rate(progress.done, seconds),
        "completion_tokens_per_second": _rate(progress.tokens, seconds),
        "prompt_tokens_per_second": _rate(progress.prompt_tokens, seconds),
    }
    if joules is not None and progress.done:
        found["joules_per_1000_questions"] = round(1000 * joules / progress.done, 1)
    return found


def _is_open(plan: Plan) -> bool:
    return plan.pending > 0


def _rate(count: int, seconds: float) -> float | None:
    return round(count / seconds, 2) if count and seconds else None
