"""A command's whole work: several modes of one model and dataset over one engine load."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from slm_vllm.config.schema import Config
from slm_vllm.datasets.base import BaseDataset
from slm_vllm.datasets.registry import local_path, open_dataset
from slm_vllm.datasets.rejects import RejectLog
from slm_vllm.engines.base import BaseEngine
from slm_vllm.engines.device import detect_device
from slm_vllm.engines.settings import (
    EngineSettings,
    choose_dtype,
    context_limit,
    engine_settings,
    read_model_config,
)
from slm_vllm.engines.vllm_offline import VllmEngine
from slm_vllm.errors import SlmVllmError
from slm_vllm.models.resolve import ResolvedModel, resolve_model
from slm_vllm.models.tokenizer import load_tokenizer
from slm_vllm.monitoring.console import OutputCapture
from slm_vllm.monitoring.memory import MemorySampler
from slm_vllm.monitoring.progress import Progress
from slm_vllm.prompting.renderer import PromptRenderer
from slm_vllm.prompting.template import PromptTemplate
from slm_vllm.runs.fingerprint import answer_fingerprint, digest
from slm_vllm.runs.folder import RunFolder
from slm_vllm.runs.index_loader import IndexLoader
from slm_vllm.runs.journal import Journal
from slm_vllm.runs.manifest import build_manifest
from slm_vllm.runs.mode_run import ModeRun
from slm_vllm.runs.results import RunTiming, build_results, write_predictions
from slm_vllm.runs.signals import Interrupted, StopSignals
from slm_vllm.runs.state import RunState
from slm_vllm.runs.survey import Survey, dataset_identity, limited_scan, longest_prompt, survey

log = logging.getLogger(__name__)

DRAIN_SECONDS = 20.0
_NO_BUDGET = 1 << 30


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a command treats what is there already.

    Attributes:
        overwrite: Replace an earlier run of the same name.
        retry_errors: Ask again the questions that failed in an earlier run.
        make_engine: Builds the engine.
    """

    overwrite: bool = False
    retry_errors: bool = False
    make_engine: Callable[[EngineSettings], BaseEngine] = VllmEngine


def evaluate(configs: Sequence[Config], options: RunOptions | None = None) -> list[dict[str, Any]]:
    """Runs the modes one after the other over one engine load.

    Args:
        configs: One for each mode; they share everything else.
        options: How to treat what is there already.

    Returns:
        The content of each mode's `results.json`.

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
        except SlmVllmError as error:
            log.error("%s", error)
            session.mark_unfinished("failed")
            raise
        except Exception:
            log.exception("the run ended with a defect of the program")
            session.mark_unfinished("failed")
            raise


class _Session:
    """What the modes of one command share; everything it opens is closed by `stack`."""

    def __init__(self, configs: Sequence[Config], options: RunOptions, stack: ExitStack) -> None:
        self._configs, self._options, self._stack = configs, options, stack
        self._config = configs[0]
        self._folders = [self._open_folder(config) for config in configs]
        self._capture = stack.enter_context(OutputCapture())
        self._capture.lead_to(self._folders[0].log)
        self._signals = stack.enter_context(StopSignals())
        self._memory = stack.enter_context(MemorySampler())
        self._states = [
            RunState(folder, config.experiment.name)
            for config, folder in zip(configs, self._folders, strict=True)
        ]
        self._device = detect_device()
        self._timing: dict[str, float] = {}
        self._engine: BaseEngine | None = None
        self._engine_details: dict[str, Any] = {}

    def mark_unfinished(self, phase: str) -> None:
        """Writes a phase into the state of every mode that is not finished."""
        for state in self._states:
            if state.phase != "finished":
                state.update(phase)

    def run(self) -> list[dict[str, Any]]:
        """See `evaluate`."""
        self.mark_unfinished("loading")
        for config, folder in zip(self._configs, self._folders, strict=True):
            folder.write_text("config.yaml", _as_yaml(config))
        if self._config.model.gradient_checkpointing:
            self._capture.console.say(
                "model.gradient_checkpointing is ignored: it has no meaning in inference"
            )
        found, rejected = self._survey()
        identity = dataset_identity(local_path(self._config.dataset.path))
        with self._phase("load"):
            model = resolve_model(
                self._config.model.path,
                self._config.model.revision,
                cache_dir=Path(self._config.cache_dir),
            )
            tokenizer = load_tokenizer(
                model.path, trust_remote_code=self._config.model.trust_remote_code
            )
        index = self._start_index(identity)
        templates = [PromptTemplate(config.prompt, tokenizer) for config in self._configs]
        longest = max(
            longest_prompt(config, found, PromptRenderer(template, tokenizer, _NO_BUDGET))
            for config, template in zip(self._configs, templates, strict=True)
        )
        settings = engine_settings(self._config, model.path, self._device, longest)
        journals = [self._stack.enter_context(Journal(folder.journal)) for folder in self._folders]
        if not all(len(journal) for journal in journals):
            # There is work for certain, so the engine starts while the index is made.
            self._start_engine(settings)
        results = []
        for position, config in enumerate(self._configs):
            folder, journal = self._folders[position], journals[position]
            self._capture.lead_to(folder.log)
            run = self._make_run(config, journal, model, index)
            pending = run.pending(self._dataset()) if len(journal) else found.rows
            if pending:
                self._start_engine(settings)
            budget = settings.max_model_len - config.generation.max_new_tokens
            renderer = PromptRenderer(templates[position], tokenizer, budget)
            manifest = build_manifest(config, model, self._device, identity, self._engine_details)
            folder.write_json("manifest.json", manifest)
            self._states[position].update("generating", total=found.rows, done=found.rows - pending)
            progress = Progress(
                self._capture.console, config.experiment.name, found.rows, found.rows - pending
            )
            with self._memory.phase(_generate_phase(config)):
                seconds = self._generate(run, renderer, progress, position, bool(pending))
            overlapped = {"retrieval": run.retrieval_seconds}
            if index is not None and config.experiment_mode.context == "retriever":
                overlapped["index"] = index.seconds
            timing = RunTiming({**self._timing, "generate": seconds}, overlapped)
            result = self._write_results(config, folder, journal, run, progress, timing, rejected)
            self._states[position].update("finished", done=result["counts"]["total"])
            results.append(result)
        return results

    def _open_folder(self, config: Config) -> RunFolder:
        folder = RunFolder(Path(config.experiment.output_dir) / config.experiment.name)
        self._stack.callback(folder.close)
        if folder.open(config, overwrite=self._options.overwrite):
            log.info("%s: going on with the run that is there", folder.path)
        return folder

    def _dataset(self, rejects: RejectLog | None = None) -> BaseDataset:
        section = self._config.dataset
        options = dict(section.options)
        if section.split is not None:
            options["split"] = section.split
        return open_dataset(section.kind, section.path, on_reject=rejects, options=options)

    def _survey(self) -> tuple[Survey, int]:
        """Passes over the dataset while vLLM is imported; also counts the rejected rows."""
        first = self._folders[0].path / "rejected.jsonl"
        # A bad file is known before anything large is imported.
        next(limited_scan(self._dataset(), 1), None)
        rejects = RejectLog(first, strict=self._config.experiment.strict)
        importing = threading.Thread(target=_import_vllm, name="import", daemon=True)
        with self._phase("survey"), closing(rejects):
            importing.start()
            try:
                found = survey(self._dataset(rejects), self._config.max_samples)
            finally:
                # Two threads importing parts of the same packages can see them half made.
                importing.join()
        if rejects.count:
            self._capture.console.say(
                f"{rejects.count} rows of {self._config.dataset.path} cannot be used; "
                f"{first} says why"
            )
            for folder in self._folders[1:]:
                shutil.copyfile(first, folder.path / "rejected.jsonl")
        return found, rejects.count

    def _start_index(self, identity: dict[str, Any]) -> IndexLoader | None:
        if all(config.experiment_mode.context != "retriever" for config in self._configs):
            return None

        def documents() -> Iterator[pl.DataFrame]:
            for frame in self._dataset().scan():
                yield (
                    frame.select(pl.col("documents").explode(empty_as_null=True))
                    .drop_nulls()
                    .unnest("documents")
                )

        loader = IndexLoader(
            self._config.retriever,
            documents,
            corpus_key=digest(identity | {"dataset": self._config.dataset.model_dump()}),
            cache_dir=Path(self._config.cache_dir),
        )
        self._stack.callback(loader.close)
        return loader

    def _start_engine(self, settings: EngineSettings) -> None:
        if self._engine is not None:
            return
        self._capture.console.say(f"Loading {self._config.model.name} on {self._device.name} ...")
        self._engine = self._stack.enter_context(self._options.make_engine(settings))
        with self._phase("load"):
            info = self._engine.start()
        self._engine_details = {"name": info.engine, "max_model_len": info.max_model_len}
        self._engine_details |= info.details

    def _make_run(
        self, config: Config, journal: Journal, model: ResolvedModel, index: IndexLoader | None
    ) -> ModeRun:
        retriever = None
        if config.experiment_mode.context == "retriever" and index is not None:
            with self._phase("index"):
                retriever = index.wait()
        fingerprint = answer_fingerprint(
            config,
            model.revision or str(model.path),
            choose_dtype(config, self._device),
            context_limit(config, read_model_config(model.path)),
            retriever.fingerprint if retriever is not None else None,
        )
        return ModeRun(
            config, fingerprint, journal, retriever, retry_errors=self._options.retry_errors
        )

    def _generate(
        self, run: ModeRun, renderer: PromptRenderer, progress: Progress, position: int, work: bool
    ) -> float:
        """Asks what is pending and returns the seconds it took."""
        started = time.monotonic()
        if not work or self._engine is None:
            for _ in run.requests(self._dataset(), renderer):
                raise AssertionError("a row became pending")  # the keys are what is needed
            return 0.0
        self._signals.drain(True)
        stop_at: float | None = None
        with closing(run.answers(self._engine, self._dataset(), renderer, progress)) as answers:
            for _ in answers:
                self._states[position].beat(done=progress.total_done)
                if self._signals.received is None:
                    continue
                if stop_at is None:
                    run.stop()
                    stop_at = time.monotonic() + DRAIN_SECONDS
                    self._capture.console.say("Stopping: finishing what is in flight ...")
                if time.monotonic() > stop_at:
                    break
        progress.show()
        self._capture.console.end_line()
        self._signals.drain(False)
        return time.monotonic() - started

    def _write_results(
        self,
        config: Config,
        folder: RunFolder,
        journal: Journal,
        run: ModeRun,
        progress: Progress,
        timing: RunTiming,
        rejected: int,
    ) -> dict[str, Any]:
        journal.sync()
        started = time.monotonic()
        with self._memory.phase("score"):
            summary = write_predictions(folder, journal, run.keys, config)
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
            rejected=rejected,
            timing=timing,
            throughput=throughput,
            resumed=run.resumed,
        )
        others = {_generate_phase(other) for other in self._configs if other is not config}
        folder.write_json("memory_usage.json", self._memory.report(without=others))
        folder.write_json("results.json", result)
        return result

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        """Times a phase and labels the memory samples taken in it."""
        started = time.monotonic()
        with self._memory.phase(name):
            yield
        self._timing[name] = self._timing.get(name, 0.0) + time.monotonic() - started


def _generate_phase(config: Config) -> str:
    return f"generate {config.experiment_mode.name}"


def _import_vllm() -> None:
    """Imports the largest dependency ahead; what goes wrong is reported by the engine."""
    try:
        import vllm  # noqa: F401
    except Exception:
        log.info("vLLM could not be imported ahead", exc_info=True)


def _as_yaml(config: Config) -> str:
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _rate(count: int, seconds: float) -> float | None:
    return round(count / seconds, 2) if count and seconds else None
