"""A command's whole work: cells of one model (modes, datasets, retrievers) over one engine load."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from slm_vllm.config.schema import Config
from slm_vllm.engines.base import BaseEngine
from slm_vllm.engines.registry import engine_class, engine_factory
from slm_vllm.engines.settings import (
    EngineSettings,
    choose_dtype,
    context_limit,
    engine_settings,
    read_model_config,
)
from slm_vllm.errors import EngineDiedError, SlmVllmError
from slm_vllm.extras import require_model_packages
from slm_vllm.models.resolve import ResolvedModel, resolve_model
from slm_vllm.models.tokenizer import load_tokenizer
from slm_vllm.monitoring.console import OutputCapture
from slm_vllm.monitoring.device import detect_device
from slm_vllm.monitoring.memory import MemorySampler
from slm_vllm.prompting.renderer import PromptRenderer
from slm_vllm.prompting.template import PromptTemplate
from slm_vllm.rundir.fingerprint import answer_fingerprint
from slm_vllm.rundir.folder import RunFolder
from slm_vllm.rundir.journal import Journal
from slm_vllm.rundir.state import RunState
from slm_vllm.runs.answer_cache import AnswerCache
from slm_vllm.runs.cell import Cell
from slm_vllm.runs.index_pool import IndexPool
from slm_vllm.runs.manifest import build_manifest
from slm_vllm.runs.mode_run import ModeRun
from slm_vllm.runs.progress import Progress
from slm_vllm.runs.question_set import QuestionSet
from slm_vllm.runs.results import RunTiming, build_results, write_predictions
from slm_vllm.runs.signals import Interrupted, StopSignals
from slm_vllm.runs.survey import longest_prompt
from slm_vllm.tracking.launch import open_tracking

log = logging.getLogger(__name__)

DRAIN_SECONDS = 20.0
_NO_BUDGET = 1 << 30


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a command treats what is there already.

    Attributes:
        overwrite: Replace an earlier run of the same name.
        retry_errors: Ask again the questions that failed in an earlier run.
        keep_going: A cell that fails is recorded, and the others are run.
        track: Tell the tracker of the configuration; False for `--no-clearml`.
        make_engine: Builds the engine; None: the one that the configuration names.
        import_engine: Imports what it needs, ahead of time and in another thread; None likewise.
    """

    overwrite: bool = False
    retry_errors: bool = False
    keep_going: bool = False
    track: bool = True
    make_engine: Callable[[EngineSettings], BaseEngine] | None = None
    import_engine: Callable[[], None] | None = None


def evaluate(configs: Sequence[Config], options: RunOptions | None = None) -> list[dict[str, Any]]:
    """Runs the cells one after the other over one engine load.

    Args:
        configs: One for each cell: a mode, a dataset, a retriever. All share the model, the
            engine, the hardware profile and the sampling.
        options: How to treat what is there already.

    Returns:
        The content of each cell's `results.json`; of a cell that failed (`keep_going`), its
        name, `error` and `exit_code`.

    Raises:
        SlmVllmError: What the user has to mend.
        Interrupted: A signal stopped the run; what was answered is kept.
    """
    with ExitStack() as stack:
        session = _Session(configs, options or RunOptions(), stack)
        try:
            return session.run()
        except Interrupted:
            session.mark_unfinished("interrupted")
            raise
        except Exception as error:
            if (stop := session.interruption()) is not None:
                session.mark_unfinished("interrupted")
                raise stop from error
            if isinstance(error, SlmVllmError):
                log.error("%s", error)
                session.mark_unfinished("failed", error)
                raise
            log.exception("the run ended with a defect of the program")
            session.mark_unfinished("failed", error)
            raise


class _Session:
    """What the cells of one command share; everything it opens is closed by `stack`."""

    def __init__(self, configs: Sequence[Config], options: RunOptions, stack: ExitStack) -> None:
        self._options, self._stack = options, stack
        self._config = configs[0]
        self._make_engine = options.make_engine or engine_factory(self._config.engine)
        questions: dict[str, QuestionSet] = {}
        self._cells = []
        for config in configs:
            folder = self._open_folder(config)
            state = RunState(folder, config.experiment.name)
            asked = questions.setdefault(QuestionSet.key(config), QuestionSet(config))
            self._cells.append(Cell(config, folder, state, asked))
        self._capture = stack.enter_context(OutputCapture())
        self._capture.lead_to(self._cells[0].folder.log)
        self._signals = stack.enter_context(StopSignals())
        self._memory = stack.enter_context(MemorySampler())
        tracking = stack.enter_context(
            open_tracking(
                self._config.tracking, enabled=options.track, say=self._capture.console.say
            )
        )
        for cell in self._cells:
            cell.recorder = tracking.recorder(cell.folder.path)
        self._memory.set_publisher(tracking.pid)
        self._device = detect_device()
        self._timing: dict[str, float] = {}
        self._indexes = IndexPool()
        stack.callback(self._indexes.close)
        self._engine: BaseEngine | None = None
        self._engine_details: dict[str, Any] = {}
        self._engine_died = False

    def mark_unfinished(self, phase: str, error: Exception | None = None) -> None:
        """Writes a phase into the state of every cell that has not ended."""
        for cell in self._cells:
            if cell.state.phase not in ("finished", "failed"):
                cell.state.update(phase, **_reason(error))
                if phase != "loading":
                    cell.recorder.stopped(phase)

    def interruption(self) -> Interrupted | None:
        """The signal behind an error: compiled code may make one of its own of `Interrupted`."""
        number = self._signals.received
        return Interrupted(number) if self._signals.raised and number is not None else None

    def run(self) -> list[dict[str, Any]]:
        """See `evaluate`."""
        self.mark_unfinished("loading")
        for cell in self._cells:
            cell.folder.write_text("config.yaml", _as_yaml(cell.config))
        if self._config.model.gradient_checkpointing:
            self._capture.console.say(
                "model.gradient_checkpointing is ignored: it has no meaning in inference"
            )
        self._look_over_datasets()
        if not self._alive():
            return [cell.failure() for cell in self._cells]
        require_model_packages(self._config.engine.name, self._device.profile)
        with self._phase("load"):
            model = resolve_model(
                self._config.model.path,
                self._config.model.revision,
                cache_dir=Path(self._config.cache_dir),
            )
            tokenizer = load_tokenizer(
                model.path, trust_remote_code=self._config.model.trust_remote_code
            )
        for cell in self._alive():
            cell.template = PromptTemplate(cell.config.prompt, tokenizer)
            cell.journal = self._stack.enter_context(Journal(cell.folder.journal))
        longest = max(
            longest_prompt(
                cell.config,
                cell.questions.found,
                PromptRenderer(cell.template, tokenizer, _NO_BUDGET),
            )
            for cell in self._alive()
        )
        settings = engine_settings(self._config, model.path, self._device, longest)
        self._indexes.start(self._cells)
        if any(
            not len(cell.journal) and not cell.config.experiment.answer_cache
            for cell in self._alive()
        ):
            # There is work for certain, so the engine starts while the index is made.
            self._start_engine(settings)
        results = []
        for position, cell in enumerate(self._cells):
            following = self._cells[position + 1 :]
            if cell.error is None:
                try:
                    results.append(self._run_cell(cell, following, model, settings, tokenizer))
                except SlmVllmError as error:
                    self._fail([cell], error)
            if cell.error is not None:
                results.append(cell.failure())
            self._indexes.keep(following)
        return results

    def _alive(self) -> list[Cell]:
        return [cell for cell in self._cells if cell.error is None]

    def _fail(self, cells: Sequence[Cell], error: SlmVllmError) -> None:
        """Notes an error at its cells under `keep_going`; a dead engine ends them all."""
        final = isinstance(error, EngineDiedError) or self._signals.raised
        if final or not self._options.keep_going:
            raise error
        log.error("%s", error)
        for cell in cells:
            cell.error = error
            cell.state.update("failed", **_reason(error))
            cell.recorder.stopped("failed")
            self._capture.console.say(f"{cell.name} failed: {error}")

    def _open_folder(self, config: Config) -> RunFolder:
        folder = RunFolder(Path(config.experiment.output_dir) / config.experiment.name)
        self._stack.callback(folder.close)
        if folder.open(config, overwrite=self._options.overwrite):
            log.info("%s: going on with the run that is there", folder.path)
        return folder

    def _look_over_datasets(self) -> None:
        """Passes over each dataset while vLLM is imported; also counts the rejected rows."""
        by_dataset: dict[int, list[Cell]] = {}
        for cell in self._cells:
            by_dataset.setdefault(id(cell.questions), []).append(cell)
        for cells in by_dataset.values():
            # A bad file is known before anything large is imported.
            try:
                cells[0].questions.check()
            except SlmVllmError as error:
                self._fail(cells, error)
        work = self._options.import_engine or engine_class(self._config.engine.name).import_ahead
        importing = threading.Thread(target=work, name="import", daemon=True)
        with self._phase("survey"):
            importing.start()
            try:
                for cells in by_dataset.values():
                    if cells[0].error is None:
                        self._look_over(cells)
            finally:
                # Two threads importing parts of the same packages can see them half made.
                importing.join()

    def _look_over(self, cells: Sequence[Cell]) -> None:
        questions = cells[0].questions
        try:
            questions.look_over([cell.folder.rejected for cell in cells])
        except SlmVllmError as error:
            self._fail(cells, error)
        for notice in questions.notices:
            self._capture.console.say(notice)
        if questions.rejected:
            self._capture.console.say(
                f"{questions.rejected} rows of {questions.path} cannot be used; "
                f"{cells[0].folder.rejected} says why"
            )

    def _start_engine(self, settings: EngineSettings) -> None:
        if self._engine is not None:
            return
        place = self._config.engine.place or self._device.name
        self._capture.console.say(f"Loading {self._config.model.name} on {place} ...")
        engine = self._stack.enter_context(self._make_engine(settings))
        with self._phase("load"):
            info = engine.start()
        self._engine = engine
        self._engine_details = {"name": info.engine, "max_model_len": info.max_model_len}
        self._engine_details |= info.details

    def _restart_engine(self, settings: EngineSettings, error: EngineDiedError) -> None:
        """Loads a dead engine again, once in a command."""
        if self._engine_died or self._signals.received is not None:
            raise error
        self._engine_died = True
        log.warning("%s", error, exc_info=error)
        self._capture.console.say("The engine died; starting it again (once). Answers are kept.")
        assert self._engine is not None
        self._engine.close()
        self._engine = None
        self._start_engine(settings)

    def _run_cell(
        self,
        cell: Cell,
        following: Sequence[Cell],
        model: ResolvedModel,
        settings: EngineSettings,
        tokenizer: Any,
    ) -> dict[str, Any]:
        config, folder, total = cell.config, cell.folder, cell.questions.found.rows
        self._capture.lead_to(folder.log)
        waited: dict[str, float] = {}
        run = self._make_run(cell, model, waited)
        budget = settings.max_model_len - config.generation.max_new_tokens
        renderer = PromptRenderer(cell.template, tokenizer, budget)
        run.take_from_cache(cell.questions.open(), renderer)
        if run.from_cache:
            self._capture.console.say(f"{cell.name}: {run.from_cache} answers of the answer cache")
        pending = run.pending(cell.questions.open()) if len(cell.journal) else total
        if pending:
            self._start_engine(settings)
        manifest = build_manifest(
            config, model, self._device, cell.questions.identity, self._engine_details
        )
        folder.write_json("manifest.json", manifest)
        cell.recorder.started(config, manifest, total)
        cell.state.update("generating", total=total, done=total - pending)
        progress = Progress(self._capture.console, config.experiment.name, total, total - pending)
        self._indexes.start(following)
        with self._memory.phase(_generate_phase(cell)):
            seconds = self._generate(cell, run, renderer, progress, settings if pending else None)
        overlapped = {"retrieval": run.retrieval_seconds}
        if cell.searches:
            overlapped["index"] = self._indexes.loader(cell).seconds
        timing = RunTiming({**self._timing, **waited, "generate": seconds}, overlapped)
        result = self._write_results(cell, run, progress, timing)
        cell.recorder.finished()
        cell.state.update("finished", done=result["counts"]["total"])
        return result

    def _make_run(self, cell: Cell, model: ResolvedModel, waited: dict[str, float]) -> ModeRun:
        config, retriever = cell.config, None
        if cell.searches:
            with self._phase("index", waited):
                retriever = self._indexes.loader(cell).wait()
        revision = model.revision or str(model.path)
        dtype = choose_dtype(config, self._device)
        cache = None
        if config.experiment.answer_cache:
            path = Path(config.cache_dir) / "answers.sqlite"
            cache = self._stack.enter_context(AnswerCache(path, config, revision, dtype))
        fingerprint = answer_fingerprint(
            config,
            revision,
            dtype,
            context_limit(config, read_model_config(model.path)),
            retriever.fingerprint if retriever is not None else None,
        )
        return ModeRun(
            config,
            fingerprint,
            cell.journal,
            retriever,
            cache,
            retry_errors=self._options.retry_errors,
        )

    def _generate(
        self,
        cell: Cell,
        run: ModeRun,
        renderer: PromptRenderer,
        progress: Progress,
        settings: EngineSettings | None,
    ) -> float:
        """Asks what is pending and returns the seconds it took.

        Args:
            cell: The cell.
            run: Its rows.
            renderer: Makes its prompts.
            progress: Counts its answers.
            settings: Of the engine, None when nothing is pending.
        """
        started = time.monotonic()
        if settings is None:
            for _ in run.requests(cell.questions.open(), renderer):
                raise AssertionError("a row became pending")  # the keys are what is needed
            return 0.0
        self._signals.drain(True)
        try:
            self._ask(cell, run, renderer, progress)
        except EngineDiedError as error:
            self._signals.drain(False)
            self._restart_engine(settings, error)
            run.start_over()
            self._signals.drain(True)
            self._ask(cell, run, renderer, progress)
        progress.show()
        self._capture.console.end_line()
        self._signals.drain(False)
        return time.monotonic() - started

    def _ask(self, cell: Cell, run: ModeRun, renderer: PromptRenderer, progress: Progress) -> None:
        assert self._engine is not None
        stop_at: float | None = None
        dataset = cell.questions.open()
        with closing(run.answers(self._engine, dataset, renderer, progress)) as answers:
            for _ in answers:
                cell.state.beat(done=progress.total_done)
                self._capture.keep_small()
                cell.recorder.progress(progress, self._memory.sample)
                if self._signals.received is None:
                    continue
                if stop_at is None:
                    run.stop()
                    stop_at = time.monotonic() + DRAIN_SECONDS
                    self._capture.console.say("Stopping: finishing what is in flight ...")
                if time.monotonic() > stop_at:
                    break

    def _write_results(
        self, cell: Cell, run: ModeRun, progress: Progress, timing: RunTiming
    ) -> dict[str, Any]:
        config, folder = cell.config, cell.folder
        cell.journal.sync()
        started = time.monotonic()
        with self._memory.phase("score"):
            summary = write_predictions(folder, cell.journal, run.keys, config)
        timing.phases["score"] = time.monotonic() - started
        seconds = timing.phases["generate"]
        throughput = {
            "questions_per_second": _rate(progress.done, seconds),
            "completion_tokens_per_second": _rate(progress.tokens, seconds),
            "prompt_tokens_per_second": _rate(progress.prompt_tokens, seconds),
        }
        result = build_results(
            config,
            summary,
            rejected=cell.questions.rejected,
            timing=timing,
            throughput=throughput,
            resumed=run.resumed,
            from_cache=run.from_cache,
        )
        names: dict[str, str | None] = {
            _generate_phase(other): None for other in self._cells if other is not cell
        }
        names[_generate_phase(cell)] = "generate"
        memory = self._memory.report(names)
        if self._engine is not None and (elsewhere := self._engine.memory_usage()):
            memory["replicas"] = elsewhere
        folder.write_json("memory_usage.json", memory)
        folder.write_json("results.json", result)
        return result

    @contextmanager
    def _phase(self, name: str, timing: dict[str, float] | None = None) -> Iterator[None]:
        """Times a phase and labels the memory samples taken in it."""
        timing = self._timing if timing is None else timing
        started = time.monotonic()
        with self._memory.phase(name):
            yield
        timing[name] = timing.get(name, 0.0) + time.monotonic() - started


def _reason(error: Exception | None) -> dict[str, Any]:
    """What `state.json` says of an error."""
    if error is None:
        return {}
    return {"error": str(error), "exit_code": getattr(error, "exit_code", 1)}


def _generate_phase(cell: Cell) -> str:
    return f"generate {cell.name}"


def _as_yaml(config: Config) -> str:
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _rate(count: int, seconds: float) -> float | None:
    return round(count / seconds, 2) if count and seconds else None
