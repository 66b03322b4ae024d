"""vLLM on this machine, driven step by step.

`LLM.generate` returns only when everything is done. Here requests are topped up to a window and
every answer is handed on as it finishes, with the same tokens at the same speed, in bounded
memory. The parts of vLLM used here exist in 0.9.2 and in 0.32; `docs/hardware.md` says what was
run on which.
"""

from __future__ import annotations

import dataclasses
import inspect
import logging
import math
import os
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from copy import copy
from types import MappingProxyType
from typing import Any, ClassVar

from slm_vllm.amounts import format_memory
from slm_vllm.config.engine import EngineConfig, VllmConfig
from slm_vllm.engines.base import BaseEngine, auxiliary_settings
from slm_vllm.engines.determinism import how as deterministic_by
from slm_vllm.engines.fork_server import SPAWN_VARIABLE
from slm_vllm.engines.memory_shortage import (
    MAX_RETRIES,
    PrintedErrors,
    is_memory_shortage,
    shortage_advice,
    with_less_memory,
)
from slm_vllm.engines.prefetch import Prefetcher
from slm_vllm.engines.settings import (
    EngineSettings,
    device_bytes,
    engine_environment,
    kv_cache_bytes,
    kv_cache_choice,
    request_seed,
    sampling_arguments,
    start_choice,
    vllm_arguments,
)
from slm_vllm.engines.versions import (
    PromptMaker,
    choice_argument,
    copy_lightly,
    free_device,
    installed_vllm,
    kv_cache_tokens,
    make_modules_readable,
    prompt_maker,
    shut_down,
    weighing_arguments,
    works_without_tokenizer,
)
from slm_vllm.environment import kept_variable
from slm_vllm.errors import EngineDiedError, EngineError, MissingExtraError
from slm_vllm.extras import engine_extra
from slm_vllm.gc_control import frozen_imports
from slm_vllm.models.thinking import AnswerDecoder, answer_decoder
from slm_vllm.models.tokenizer import load_tokenizer, without_unused_packages
from slm_vllm.monitoring.device import detect_device
from slm_vllm.types import AuxiliaryTask, Completion, EngineInfo, GenerationRequest, Sample

log = logging.getLogger(__name__)

_SEE_LOG = "engine.log in the run folder has vLLM's own messages"
_NOTHING: Mapping[str, Any] = MappingProxyType({})


class VllmEngine(BaseEngine):
    """One vLLM engine on one device of this machine."""

    config_class: ClassVar[type[EngineConfig]] = VllmConfig
    auxiliary: ClassVar[frozenset[str]] = frozenset({"text", "margin"})

    _uncollected: ClassVar[bool] = False  # what an engine left that was closed in this process

    def __init__(self, settings: EngineSettings, config: EngineConfig | None = None) -> None:
        super().__init__(settings, config)
        self._llm: Any = None
        self._tokenizer: Any = None
        self._sampling: Any = None
        self._auxiliary: dict[AuxiliaryTask, Any] = {}
        self._ends: dict[str, Any] = {}
        self._decode: AnswerDecoder
        self._prompt_of: PromptMaker

    @classmethod
    def import_ahead(cls) -> None:
        """Imports vLLM, which takes seconds; what goes wrong is reported by `start`."""
        try:
            _import_vllm()
        except Exception:
            log.info("vLLM could not be imported ahead", exc_info=True)

    def start(self) -> EngineInfo:
        """Imports vLLM and loads the model; takes seconds on a CPU, up to minutes on a GPU."""
        os.environ.update(engine_environment(self._settings))
        vllm = _import_vllm()
        self._collect()
        less: list[str] = []
        while self._llm is None:
            arguments, left_out = vllm_arguments(self._settings, engine_argument_names())
            makes_text = self._makes_text(arguments)
            if left_out:
                log.info("vLLM %s has no argument %s", vllm.__version__, ", ".join(left_out))
            choices = {
                **self._settings.choices,
                "start": start_choice(self._settings).reason,
                "kv_cache": kv_cache_choice(self._settings),
            }
            if self._settings.device.kind == "cuda":  # on a CPU it is always the same
                self.say(f"Start: {choices['start']} (hardware.start)")
            log.info("starting vLLM %s with %s", vllm.__version__, arguments)
            try:
                self._llm = self._load(vllm, arguments)
            except _TooLittleMemory as error:
                less.append(self._take_less(error, len(less)))
        if makes_text:
            self._take_over_tokenizer()
        else:
            self._tokenizer = self._llm.get_tokenizer()
        self._decode = answer_decoder(self._tokenizer)
        self._sampling = _sampling_parameters(
            self._settings, {} if self._settings.ignore_eos else self._ends
        )
        self._prompt_of = prompt_maker()
        details = {"vllm": vllm.__version__, "arguments": arguments, "left_out": left_out}
        details["kv_cache_tokens"] = kv_cache_tokens(self._llm)
        details["choices"] = choices
        if self._settings.hardware.deterministic:
            details["deterministic"] = deterministic_by(self._settings.device)
        if less:
            details["retried_with_less_memory"] = less
        return EngineInfo("vllm", self._settings.max_model_len, details)

    def stream(self, requests: Iterable[GenerationRequest]) -> Generator[Completion, None, None]:
        """See `BaseEngine.stream`."""
        if self._llm is None:
            raise EngineError("The engine is not started")
        source = Prefetcher(requests, self._settings.window)
        in_flight: dict[str, AuxiliaryTask | None] = {}
        try:
            while not source.exhausted or in_flight:
                yield from self._top_up(source, in_flight)
                if in_flight:
                    yield from self._step(in_flight)
        except EngineDiedError:
            in_flight.clear()  # early vLLM raises at an abort too, in place of this error
            raise
        finally:
            source.close()
            if in_flight and self._llm is not None:
                self._llm.llm_engine.abort_request(list(in_flight))

    def forget_prompts(self) -> None:
        """Empties the prefix cache."""
        if self._llm is not None:
            self._llm.reset_prefix_cache()

    def close(self) -> None:
        """Shuts the engine down; vLLM gives back what is large.

        The rest waits for a garbage collection, by the next engine at the latest: most often
        the process ends now, and a look takes half a second.
        """
        if self._llm is None:
            return
        llm, self._llm, self._tokenizer = self._llm, None, None
        VllmEngine._uncollected = True
        shut_down(llm)

    def _collect(self) -> None:
        if VllmEngine._uncollected:
            free_device(self._settings.device.kind)
            VllmEngine._uncollected = False

    def _top_up(
        self, source: Prefetcher[GenerationRequest], in_flight: dict[str, AuxiliaryTask | None]
    ) -> Iterator[Completion]:
        """Hands requests over up to the window; yields those that the engine refuses."""
        while len(in_flight) < self._settings.window:
            # With work in hand there is no waiting: the next step goes on without them.
            request = source.take(wait=not in_flight)
            if request is None:
                return
            prompt = self._prompt_of(request.prompt_token_ids)
            try:
                sampling = self._sampling_of(request)
                self._llm.llm_engine.add_request(request.request_id, prompt, sampling)
            except ValueError as error:
                yield Completion.failed(request, str(error))
            except Exception as error:
                raise _death(error) from error
            else:
                in_flight[request.request_id] = request.auxiliary

    def _step(self, in_flight: dict[str, AuxiliaryTask | None]) -> Iterator[Completion]:
        """One step of the engine; yields what finished in it."""
        try:
            outputs = [output for output in self._llm.llm_engine.step() if output.finished]
        except Exception as error:
            raise _death(error) from error
        texts = iter(self._texts([answer for output in outputs for answer in output.outputs]))
        for output in outputs:
            task = in_flight.pop(output.request_id)
            first = output.outputs[0]
            own = [next(texts) for _ in output.outputs]
            yield Completion(
                request_id=output.request_id,
                text=own[0],
                finish_reason=first.finish_reason or "stop",
                n_prompt_tokens=len(output.prompt_token_ids),
                n_completion_tokens=sum(len(answer.token_ids) for answer in output.outputs),
                samples=() if task else self._samples(output, own),
                margin=_margin(task.either, first.logprobs) if task and task.either else None,
            )

    def _texts(self, answers: list[Any]) -> list[str]:
        if not answers:
            return []
        if self._settings.stop:  # vLLM had to detokenize to find the stop strings
            return [answer.text for answer in answers]
        return self._decode([list(answer.token_ids) for answer in answers])

    def _samples(self, output: Any, texts: list[str]) -> tuple[Sample, ...]:
        if not self._settings.generation.keeps_samples:
            return ()
        seed = request_seed(self._settings, output.request_id)
        return tuple(
            Sample(
                text=text,
                finish_reason=answer.finish_reason or "stop",
                n_completion_tokens=len(answer.token_ids),
                seed=None if seed is None else seed + number,
                logprob=answer.cumulative_logprob,
            )
            for number, (answer, text) in enumerate(zip(output.outputs, texts, strict=True))
        )

    def _sampling_of(self, request: GenerationRequest) -> Any:
        if request.auxiliary is not None:
            return self._auxiliary_sampling(request.auxiliary)
        if self._settings.generation.n == 1:
            return self._sampling
        sampling = copy(self._sampling)
        sampling.seed = request_seed(self._settings, request.request_id)  # vLLM counts on from it
        return sampling

    def _auxiliary_sampling(self, task: AuxiliaryTask) -> Any:
        if task not in self._auxiliary:
            # Texts of one stream are made from its tokens in one way.
            more = self._ends | {"detokenize": bool(self._settings.stop)}
            if task.either is not None:
                more |= weighing_arguments([*task.either[0], *task.either[1]])
            settings = auxiliary_settings(self._settings, task)
            self._auxiliary[task] = _sampling_parameters(settings, more)
        return self._auxiliary[task]

    def _makes_text(self, arguments: dict[str, Any]) -> bool:
        """Whether answers become text here, and vLLM is told to load no tokenizer.

        It would load it three times, and look at each prompt for ids that are none of its own.
        """
        settings = self._settings
        if works_without_tokenizer(installed_vllm()) and not settings.stop + settings.only_answers:
            arguments.setdefault("skip_tokenizer_init", True)
        return bool(arguments.get("skip_tokenizer_init"))

    def _take_over_tokenizer(self) -> None:
        trusted = bool(self._settings.extra.get("trust_remote_code"))
        self._tokenizer = load_tokenizer(self._settings.model_path, trust_remote_code=trusted)
        if (end := self._tokenizer.eos_token_id) is not None:
            # vLLM knows those of the model's configuration alone.
            self._ends = {"stop_token_ids": [end]}

    def _load(self, vllm: Any, arguments: dict[str, Any]) -> Any:
        _check_host_memory(self._settings)
        # vLLM sets it on a CPU for its own processes.
        with PrintedErrors() as printed, kept_variable(SPAWN_VARIABLE):
            try:
                make_modules_readable()
                return vllm.LLM(**arguments)
            except Exception as error:  # vLLM raises many types; all of them mean no engine
                message = _start_failure(error, self._settings)
                reason = f"{error}\n{printed.read()}"
                if is_memory_shortage(reason):
                    raise _TooLittleMemory(message, reason) from error
                raise EngineError(f"{message}\n{_SEE_LOG}") from error

    def _take_less(self, error: _TooLittleMemory, tries: int) -> str:
        """Lowers the settings for one more try and returns what was changed."""
        lower = with_less_memory(self._settings, error.reason) if tries < MAX_RETRIES else None
        if lower is None:
            raise EngineError(f"{error}\n{shortage_advice(self._settings)}\n{_SEE_LOG}") from error
        self._settings, changes = lower
        log.warning("%s. Trying again with %s", error, changes)
        free_device(self._settings.device.kind)
        return changes


class _TooLittleMemory(EngineError):
    """The engine did not start for lack of memory.

    Attributes:
        reason: All that was said of it.
    """

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


def _import_vllm() -> Any:
    """The package, with all modules that `start` needs: most of them are imported at their use."""
    try:
        with frozen_imports(), without_unused_packages():
            import vllm
            from vllm import LLM, EngineArgs, SamplingParams  # noqa: F401
    except ImportError as error:
        if error.name == "vllm":
            extra = engine_extra("vllm", detect_device().profile)
            raise MissingExtraError("vllm", extra, "The vLLM engine") from None
        raise EngineError(
            f"vLLM is installed but cannot be imported: {error}. Install one of the locked "
            "sets in requirements/ (bash scripts/setup.sh does)"
        ) from error
    return vllm


def engine_argument_names() -> frozenset[str]:
    """Names that `LLM(...)` takes in the installed version."""
    from vllm import LLM
    from vllm.engine.arg_utils import EngineArgs

    fields = {field.name for field in dataclasses.fields(EngineArgs)}
    return frozenset(fields | set(inspect.signature(LLM.__init__).parameters))


def _sampling_parameters(settings: EngineSettings, more: Mapping[str, Any] = _NOTHING) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    # One output for each request, when it is done; its tokens become text in one go.
    arguments = sampling_arguments(settings) | dict(more)
    if settings.only_answers:
        arguments |= choice_argument(settings.only_answers)
    return copy_lightly(SamplingParams(**arguments, output_kind=RequestOutputKind.FINAL_ONLY))


def _margin(either: tuple[Sequence[int], Sequence[int]], logprobs: Sequence[Any]) -> float | None:
    """The difference of log-probabilities of two words as the first new token.

    Args:
        either: Token ids of each word's forms, whose probabilities add up.
        logprobs: vLLM's: for each new token those that were asked for.
    """
    by_token = logprobs[0]
    if any(token not in by_token for forms in either for token in forms):
        return None  # a V1 engine of a release without `logprob_token_ids`
    first, second = (_summed([by_token[token].logprob for token in forms]) for forms in either)
    return first - second


def _summed(logprobs: Sequence[float]) -> float:
    """The logarithm of the sum of probabilities."""
    most = max(logprobs)
    return most + math.log(math.fsum(math.exp(one - most) for one in logprobs))


def _check_host_memory(settings: EngineSettings) -> None:
    """On a CPU the kernel kills what takes too much memory, so it is asked for beforehand."""
    if settings.device.kind != "cpu":
        return
    import psutil

    needed = device_bytes(settings)
    free = psutil.virtual_memory().available
    if needed > free:
        reason = (
            f"Not enough memory for the engine: weights {format_memory(settings.weight_bytes)} and "
            f"KV cache {format_memory(kv_cache_bytes(settings) or 0)}, but {format_memory(free)} "
            "are free"
        )
        raise _TooLittleMemory(reason, reason)


def _death(error: Exception) -> EngineDiedError:
    """What anything means that an engine raises while it has requests, whichever call meets it."""
    return EngineDiedError(
        f"The engine died while generating: {type(error).__name__}: {error}. "
        "engine.log has its own messages; the same command resumes where it stopped"
    )


def _start_failure(error: Exception, settings: EngineSettings) -> str:
    text = str(error).strip() or type(error).__name__
    # pydantic ends its messages with an address of its documentation.
    lines = [line.strip() for line in text.splitlines() if "errors.pydantic.dev" not in line]
    return f"vLLM could not load {settings.model_path}: {lines[-1] if lines else text}"
