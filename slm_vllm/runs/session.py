"""The work of one command: its cells, over one engine load."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from slm_vllm import gc_control
from slm_vllm.config.schema import Config
from slm_vllm.engines.registry import (
    check_engine,
    engine_factory,
    engine_fork_server,
    engine_import,
)
from slm_vllm.engines.settings import (
    EngineSettings,
    context_limit,
    engine_settings,
    read_model_config,
)
from slm_vllm.errors import EngineDiedError, EngineError, SlmVllmError, StorageError
from slm_vllm.jobs.log_tail import last_lines
from slm_vllm.models.resolve import ResolvedModel, require_model_packages, resolve_model
from slm_vllm.models.tokenizer import import_ahead as import_tokenizers
from slm_vllm.models.tokenizer import load_tokenizer
from slm_vllm.monitoring.device import detect_device
from slm_vllm.plugins import as_user_error
from slm_vllm.prompting.renderer import PromptRenderer
from slm_vllm.prompting.template import PromptTemplate
from slm_vllm.retrieval.base import BaseRetriever
from slm_vllm.rundir.fingerprint import answer_facts, answer_fingerprint
from slm_vllm.rundir.folder import RunFolder
from slm_vllm.rundir.journal import Journal, journal_schema
from slm_vllm.rundir.state import RunState
from slm_vllm.runs.answer_cache import AnswerCache
from slm_vllm.runs.cell import Cell
from slm_vllm.runs.cell_rows import CellRows
from slm_vllm.runs.cell_run import CellRun
from slm_vllm.runs.choices import check_choices
from slm_vllm.runs.contexts import check_gold, context_of
from slm_vllm.runs.dataset_checks import check_datasets, survey_datasets
from slm_vllm.runs.engine_host import EngineHost
from slm_vllm.runs.index_pool import IndexPool
from slm_vllm.runs.log_summary import log_start
from slm_vllm.runs.manifest import as_recorded
from slm_vllm.runs.notify import notifying
from slm_vllm.runs.options import RunOptions
from slm_vllm.runs.prompt_day import prompt_day
from slm_vllm.runs.question_set import QuestionSet
from slm_vllm.runs.services import open_services
from slm_vllm.runs.signals import Interrupted
from slm_vllm.runs.until_decided import paired_rows
from slm_vllm.tracking.launch import open_tracking

log = logging.getLogger(__name__)

_LAST_LINES, _ERRORS_REPEATED = 400, 20


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
        SlmVllmError: What the user has to fix.
        Interrupted: A signal stopped the run; what was answered is kept.
    """
    name = ", ".join(config.experiment.name for config in configs)
    first = configs[0].experiment.folder
    folder = first if len(configs) == 1 else first.parent
    options = options or RunOptions()
    with notifying(configs[0].notify, name, folder) as results:
        results += _evaluate(configs, options)
        if options.then is not None:
            results[:] = options.then(results)
    return results


def _evaluate(configs: Sequence[Config], options: RunOptions) -> list[dict[str, Any]]:
    with ExitStack() as stack:
        if not options.own_process:  # which goes on, and wants the memory of the engine back
            stack.callback(gc_control.collect)
        session = _Session(configs, options, stack)
        try:
            return session.run()
        except (Interrupted, KeyboardInterrupt) as stopped:
            session.mark_interrupted(stopped)
            raise
        except Exception as error:
            if (stop := session.interruption()) is not None:
                session.mark_interrupted(stop)
                raise stop from error
            try:
                problem = as_user_error(error)
            except Exception:
                log.exception("the run ended with a defect of the program")
                session.mark_unfinished("failed", error)
                raise
            log.error("%s", problem)
            session.repeat_engine_errors(problem)
            session.mark_unfinished("failed", problem)
            raise problem from problem.__cause__


class _Session:
    """The cells of one command; everything it opens is closed by `stack`."""

    def __init__(self, configs: Sequence[Config], options: RunOptions, stack: ExitStack) -> None:
        self._options, self._stack = options, stack
        for config in configs:
            check_choices(config)
        self._config = configs[0]
        check_engine(self._config, detect_device())
        engine = self._config.engine
        self._fork_server = options.fork_server or engine_fork_server(engine)
        stack.enter_context(self._fork_server)
        self._make_engine = options.make_engine or engine_factory(engine, self._fork_server)
        questions: dict[str, QuestionSet] = {}
        # All before any: what --overwrite removes is gone, whatever is said of a later one.
        folders = [self._lock(config) for config in configs]
        self._cells = [
            self._open(
                config, folder, questions.setdefault(QuestionSet.key(config), QuestionSet(config))
            )
            for config, folder in zip(configs, folders, strict=True)
        ]
        self._services = open_services(options, stack)
        first, *others = [cell.folder for cell in self._cells]
        self._services.log.write_to(first.log)
        self._services.log.capture(first.engine_log)
        for folder in others:
            folder.share_engine_log(first)
        tracking = stack.enter_context(
            open_tracking(
                self._config.tracking, enabled=options.track, say=self._services.console.say
            )
        )
        for cell in self._cells:
            cell.recorder = tracking.recorder(cell.folder.path)
        # The log is among what is told: what becomes of the telling is said to the user alone.
        stack.callback(self._services.log.end)
        self._services.memory.set_publisher(tracking.pid)
        self._indexes = IndexPool(self._services.console.say)
        stack.callback(self._indexes.close)

    def mark_unfinished(self, phase: str, error: Exception | None = None) -> None:
        """Writes a phase into the state of every cell that has not ended."""
        for cell in self._cells:
            if cell.state.phase not in ("finished", "failed"):
                _end(cell, phase, error)

    def mark_interrupted(self, stop: BaseException) -> None:
        """Writes that the run was stopped, into its log too."""
        reason = str(stop) or "stopped from the keyboard"
        log.warning("%s; what is answered is kept, the same command resumes it", reason)
        self.mark_unfinished("interrupted")

    def interruption(self) -> Interrupted | None:
        """See `StopSignals.interruption`."""
        return self._services.signals.interruption()

    def repeat_engine_errors(self, error: SlmVllmError) -> None:
        """Tells the run's own log what the engine's log has of an engine's end."""
        path = self._cells[0].folder.engine_log
        if isinstance(error, EngineError) and path.exists():
            found = [line for line in last_lines(path, _LAST_LINES) if "ERROR" in line]
            for line in found[-_ERRORS_REPEATED:]:
                log.error("%s: %s", path.name, line)

    def run(self) -> list[dict[str, Any]]:
        """See `evaluate`."""
        services = self._services
        for cell in self._cells:
            cell.state.update("loading")
            cell.folder.write_config(cell.config)
        if self._config.model.gradient_checkpointing:
            services.console.say(
                "model.gradient_checkpointing is ignored: it has no meaning in inference"
            )
        by_dataset = check_datasets(self._cells, self._fail)
        with services.phase("survey"):
            survey_datasets(by_dataset, self._fail, services, self._import_ahead)
            self._check_surveyed()
        if not self._alive():
            return [cell.failure() for cell in self._cells]
        require_model_packages(self._config.engine.name, services.device.profile)
        model, tokenizer = self._load_model()
        with services.part("prompt lengths"):
            host = self._engine_host(model, tokenizer)
        self._indexes.start(self._cells)
        if any(
            not len(cell.journal) and not cell.config.experiment.answer_cache
            for cell in self._alive()
        ):
            # There is work for certain, so the engine starts while the index is made.
            host.start()
        for position, cell in enumerate(self._cells):
            if cell.error is None:
                try:
                    cell.result = self._run_cell(cell, model, tokenizer, host)
                except Exception as error:
                    self._fail([cell], as_user_error(error))
            self._indexes.keep(self._cells[position + 1 :])
        return [cell.failure() if cell.error else cell.result for cell in self._cells]

    def _load_model(self) -> tuple[ResolvedModel, Any]:
        """Finds the files of the model and loads its tokenizer."""
        config, services = self._config.model, self._services
        with services.phase("load"):
            with services.part("model files"):
                cache_dir = Path(self._config.cache_dir)
                model = resolve_model(config.path, config.revision, cache_dir=cache_dir)
            with services.part("tokenizer"):
                tokenizer = load_tokenizer(model.path, trust_remote_code=config.trust_remote_code)
        return model, tokenizer

    def _check_surveyed(self) -> None:
        """Refuses what has no gold context to show, or cannot be decided against."""
        for cell in self._alive():
            found = cell.questions.found
            try:
                check_gold(cell.config, found.rows, found.with_contexts)
                if cell.config.experiment.until != "all":
                    paired_rows(cell)
            except SlmVllmError as error:
                self._fail([cell], error)

    def _import_ahead(self) -> None:
        config, device = self._config, self._services.device
        ahead = engine_import(config.engine, config.hardware, device, self._fork_server)
        (self._options.import_engine or ahead)()
        import_tokenizers()

    def _alive(self) -> list[Cell]:
        return [cell for cell in self._cells if cell.error is None]

    def _fail(self, cells: Sequence[Cell], error: SlmVllmError) -> None:
        """Notes an error at its cells under `keep_going`; a dead engine ends them all."""
        final = isinstance(error, EngineDiedError) or self._services.signals.raised
        if final or not self._options.keep_going:
            raise error
        log.error("%s", error)
        for cell in cells:
            cell.error = error
            _end(cell, "failed", error)
            self._services.console.say(f"{cell.name} failed: {error}")

    def _lock(self, config: Config) -> RunFolder:
        folder = RunFolder(config.experiment.folder)
        self._stack.callback(folder.close)
        folder.lock()
        return folder

    def _open(self, config: Config, folder: RunFolder, questions: QuestionSet) -> Cell:
        context = context_of(config)
        if folder.open(config, overwrite=self._options.overwrite):
            log.info("%s: going on with the run that is there", folder.path)
        return Cell(config, context, folder, RunState(folder, config.experiment.name), questions)

    def _engine_host(self, model: ResolvedModel, tokenizer: Any) -> EngineHost:
        """Opens the journals and sizes the engine for the longest prompt of all cells."""
        longest = questions = 0
        model_config = read_model_config(model.path)
        for cell in self._alive():
            cell.journal = self._stack.enter_context(
                Journal(cell.folder.journal, journal_schema(cell.config))
            )
            cell.template = self._template(cell, tokenizer)
            limit = context_limit(cell.config, model_config)
            longest = max(longest, _longest_prompt(cell, tokenizer, limit))
            questions += max(0, cell.questions.found.rows - len(cell.journal))
        device = self._services.device
        settings = engine_settings(self._config, model.path, device, longest, questions)
        engine_log = self._cells[0].folder.engine_log
        return EngineHost(self._config, settings, self._make_engine, engine_log, self._services)

    def _template(self, cell: Cell, tokenizer: Any) -> PromptTemplate:
        template = PromptTemplate(
            cell.config.prompt, tokenizer, prompt_day(cell, self._options.today)
        )
        if template.day and not self._config.engine.takes_prompts:
            self._services.console.say(
                "The model's chat template writes the day: with engine.endpoint=chat that of the "
                "server, whatever prompt.date is"
            )
        if template.moves_instruction and cell is self._cells[0]:
            self._services.console.say(
                "The model's chat template shows no system turn: prompt.system stands at the "
                "beginning of the first user's turn"
            )
        return template

    def _run_cell(
        self, cell: Cell, model: ResolvedModel, tokenizer: Any, host: EngineHost
    ) -> dict[str, Any]:
        self._services.log.write_to(cell.folder.log)
        log_start(cell, host.settings, self._services.device)
        model = as_recorded(model, cell.folder.path)
        revision = model.revision or str(model.path)
        waited: dict[str, float] = {}
        retriever = stages = None
        if cell.searches:
            with self._services.phase("index", waited, cell.name):
                retriever = self._indexes.loader(cell).wait()
            if cell.asks_before_search:
                from slm_vllm.runs.stages.search import SearchStages

                stages = SearchStages(cell, retriever, host, tokenizer, revision, self._services)
                retriever = stages.retriever
        rows = self._rows_of(cell, tokenizer, host.settings, revision, retriever)
        cell_run = CellRun(cell, rows, host, self._services, stages)
        return cell_run.finish(model, self._indexes, self._cells, waited)

    def _rows_of(
        self,
        cell: Cell,
        tokenizer: Any,
        settings: EngineSettings,
        revision: str,
        retriever: BaseRetriever | None,
    ) -> CellRows:
        """The rows of a cell, known by all that their answers depend on."""
        config = cell.config
        cache = None
        if config.experiment.answer_cache:
            path = Path(config.cache_dir) / "answers.sqlite"
            cache = self._stack.enter_context(AnswerCache(path, config, revision, settings.dtype))
        index = retriever.fingerprint if retriever is not None else None
        depends_on = (revision, settings.dtype, settings.context_limit, index)
        cell.facts = answer_facts(config, *depends_on)
        budget = settings.max_model_len - config.generation.max_new_tokens
        return CellRows(
            config,
            cell.questions,
            cell.context(config, retriever),
            answer_fingerprint(config, *depends_on, cell.template.state),
            PromptRenderer(cell.template, tokenizer, budget),
            cell.journal,
            cache,
            retry_errors=self._options.retry_errors,
        )


def _longest_prompt(cell: Cell, tokenizer: Any, limit: int) -> int:
    """An upper bound of all that the model is asked for a cell, in tokens."""
    found = cell.questions.found
    renderer = PromptRenderer(cell.template, tokenizer, limit)
    longest = cell.context.longest_prompt(cell.config, found, renderer)
    if cell.asks_before_search:
        from slm_vllm.runs.stages.search import longest_auxiliary_prompt

        asked_before = longest_auxiliary_prompt(cell.config, tokenizer, found, limit)
        longest = max(longest, asked_before)
    return longest


def _end(cell: Cell, phase: str, error: Exception | None) -> None:
    """Writes how a cell ends without results."""
    figures = cell.progress.figures() if cell.progress else {}
    try:
        cell.state.update(phase, **figures, **_reason(error))
    except StorageError as problem:
        # The disk may be full, which is what ended the run: the user is told that, not this.
        log.error("%s", problem)
    cell.recorder.stopped(phase)


def _reason(error: Exception | None) -> dict[str, Any]:
    """What `state.json` says of an error."""
    if error is None:
        return {}
    return {"error": str(error), "exit_code": getattr(error, "exit_code", 1)}
