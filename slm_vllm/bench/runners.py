"""The engines that are measured, ours and its peers, behind one small interface."""

from __future__ import annotations

import gc
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from slm_vllm.config.engine import EngineConfig
from slm_vllm.engines.registry import engine_factory, engine_fork_server, engine_import
from slm_vllm.engines.settings import EngineSettings, vllm_arguments
from slm_vllm.engines.versions import kv_cache_tokens, shut_down
from slm_vllm.engines.vllm_offline import engine_argument_names
from slm_vllm.errors import EngineError
from slm_vllm.types import GenerationRequest

BATCH = 8  # of the transformers loop


@dataclass(frozen=True, slots=True)
class Pass:
    """What one pass over the prompts took.

    Attributes:
        seconds: In all.
        new_tokens: Over all answers.
        first_answer: Seconds until the first answer was there, None where it cannot be known.
        latencies: Seconds from a request's handing over to its answer, for each; may be empty.
    """

    seconds: float
    new_tokens: int
    first_answer: float | None = None
    latencies: tuple[float, ...] = ()


class Runner(ABC):
    """One engine with one model.

    Args:
        settings: The engine's settings.
        config: The `engine` section; of ours alone.
    """

    def __init__(self, settings: EngineSettings, config: EngineConfig) -> None:
        self.settings = settings
        self.config = config

    @abstractmethod
    def import_ahead(self) -> None:
        """Imports the packages; one that is missing is told of by `load`."""

    @abstractmethod
    def load(self) -> dict[str, Any]:
        """Loads the model and says what is known of the engine."""

    @abstractmethod
    def answer(self, prompts: Sequence[list[int]]) -> Pass:
        """Generates an answer to each prompt, as fast as it can."""

    @abstractmethod
    def forget(self) -> None:
        """Empties the prefix cache, so that a repeat does the same work."""

    @abstractmethod
    def close(self) -> None:
        """Frees everything."""


class OurRunner(Runner):
    """The engine that runs use, or several of them."""

    def __init__(self, settings: EngineSettings, config: EngineConfig) -> None:
        super().__init__(settings, config)
        self._fork_server = engine_fork_server(config)
        self._engine = engine_factory(config, self._fork_server)(settings)

    def import_ahead(self) -> None:
        """See `Runner.import_ahead`."""
        settings = self.settings
        engine_import(self.config, settings.hardware, settings.device, self._fork_server)()

    def load(self) -> dict[str, Any]:
        """See `Runner.load`."""
        return dict(self._engine.start().details)

    def answer(self, prompts: Sequence[list[int]]) -> Pass:
        """See `Runner.answer`."""
        handed: dict[str, float] = {}

        def requests() -> Iterator[GenerationRequest]:
            for number, token_ids in enumerate(prompts):
                handed[str(number)] = time.perf_counter()
                yield GenerationRequest(str(number), token_ids)

        latencies, new_tokens, first = [], 0, None
        started = time.perf_counter()
        for completion in self._engine.stream(requests()):
            if completion.error is not None:
                raise EngineError(f"a prompt of the benchmark failed: {completion.error}")
            now = time.perf_counter()
            first = first if first is not None else now - started
            latencies.append(now - handed[completion.request_id])
            new_tokens += completion.n_completion_tokens
        return Pass(time.perf_counter() - started, new_tokens, first, tuple(latencies))

    def forget(self) -> None:
        """See `Runner.forget`."""
        self._engine.forget_prompts()

    def close(self) -> None:
        """See `Runner.close`."""
        self._engine.close()
        self._fork_server.close()


class BareVllmRunner(Runner):
    """`LLM.generate` with the same engine arguments and its own defaults for the rest."""

    _llm: Any

    def import_ahead(self) -> None:
        """See `Runner.import_ahead`."""
        with suppress(ImportError):
            import vllm  # noqa: F401

    def load(self) -> dict[str, Any]:
        """See `Runner.load`."""
        import vllm

        arguments, _ = vllm_arguments(self.settings, engine_argument_names())
        self._llm = vllm.LLM(**arguments)
        known = {"vllm": vllm.__version__, "arguments": arguments}
        return known | {"kv_cache_tokens": kv_cache_tokens(self._llm)}

    def answer(self, prompts: Sequence[list[int]]) -> Pass:
        """See `Runner.answer`."""
        from vllm import SamplingParams, TokensPrompt

        sampling = SamplingParams(
            temperature=0.0,
            max_tokens=self.settings.generation.max_new_tokens,
            ignore_eos=self.settings.ignore_eos,
        )
        asked = [TokensPrompt(prompt_token_ids=token_ids) for token_ids in prompts]
        started = time.perf_counter()
        outputs = self._llm.generate(asked, sampling, use_tqdm=False)
        seconds = time.perf_counter() - started
        return Pass(seconds, sum(len(output.outputs[0].token_ids) for output in outputs))

    def forget(self) -> None:
        """See `Runner.forget`."""
        self._llm.reset_prefix_cache()

    def close(self) -> None:
        """See `Runner.close`."""
        shut_down(self._llm)
        del self._llm
        gc.collect()


class TransformersRunner(Runner):
    """`model.generate` in left-padded batches, the loop that many scripts have."""

    _model: Any

    def import_ahead(self) -> None:
        """See `Runner.import_ahead`."""
        with suppress(ImportError):
            import torch  # noqa: F401
            import transformers  # noqa: F401

    def load(self) -> dict[str, Any]:
        """See `Runner.load`."""
        import torch
        import transformers
        from transformers import AutoConfig, AutoModelForCausalLM

        torch.set_num_threads(len(os.sched_getaffinity(0)))
        dtype = {"torch_dtype": getattr(torch, self.settings.dtype)}
        path = str(self.settings.model_path)
        torch.manual_seed(self.settings.seed)
        if self.settings.hardware.engine_args.get("load_format") == "dummy":
            config = AutoConfig.from_pretrained(path)
            self._model = AutoModelForCausalLM.from_config(config, **dtype)
        else:
            self._model = AutoModelForCausalLM.from_pretrained(path, **dtype)
        self._model.eval().to(self.settings.device.kind)
        return {"transformers": transformers.__version__, "batch": BATCH}

    def answer(self, prompts: Sequence[list[int]]) -> Pass:
        """See `Runner.answer`."""
        new_tokens, first = 0, None
        started = time.perf_counter()
        for start in range(0, len(prompts), BATCH):
            new_tokens += self._batch(prompts[start : start + BATCH])
            first = first if first is not None else time.perf_counter() - started
        return Pass(time.perf_counter() - started, new_tokens, first)

    def forget(self) -> None:
        """Nothing is kept between batches."""

    def close(self) -> None:
        """See `Runner.close`."""
        del self._model
        gc.collect()

    def _batch(self, prompts: Sequence[list[int]]) -> int:
        import torch

        most = self.settings.generation.max_new_tokens
        width = max(map(len, prompts))
        padded = [[0] * (width - len(prompt)) + prompt for prompt in prompts]
        mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        device = self.settings.device.kind
        ends = self._model.generation_config.eos_token_id
        with torch.inference_mode():
            made = self._model.generate(
                torch.tensor(padded, device=device),
                attention_mask=torch.tensor(mask, device=device),
                max_new_tokens=most,
                min_new_tokens=most if self.settings.ignore_eos else None,
                do_sample=False,
                pad_token_id=0,
            )
        answers = made[:, width:].tolist()
        return sum(_length(answer, ends) for answer in answers)


def _length(token_ids: list[int], ends: int | list[int] | None) -> int:
    """Tokens up to the first that ends an answer; the padding behind it is not counted."""
    marks = {ends} if isinstance(ends, int) else set(ends or ())
    for position, token in enumerate(token_ids, start=1):
        if token in marks:
            return position
    return len(token_ids)


RUNNERS: dict[str, type[Runner]] = {
    "slm-vllm": OurRunner,
    "vllm": BareVllmRunner,
    "transformers": TransformersRunner,
}
