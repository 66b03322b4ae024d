"""The judge: a model behind any engine that grades answers one by one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from slm_vllm.config.schema import Config, PromptConfig
from slm_vllm.engines.registry import EngineFactory, engine_factory
from slm_vllm.engines.settings import (
    EngineSettings,
    context_limit,
    engine_settings,
    read_model_config,
)
from slm_vllm.errors import ConfigError
from slm_vllm.json_text import encode_bytes
from slm_vllm.judging.choice import has_files
from slm_vllm.judging.prompt import LETTERS, PROMPT_VERSION, judge_turn, prompt_hash
from slm_vllm.models.resolve import ResolvedModel, require_model_packages, resolve_model
from slm_vllm.models.tokenizer import load_tokenizer
from slm_vllm.prompting.answer import extract_answer
from slm_vllm.prompting.renderer import PromptInput, PromptRenderer
from slm_vllm.prompting.template import PromptTemplate
from slm_vllm.rundir.fingerprint import digest
from slm_vllm.runs.answer_cache import AnswerCache, batches
from slm_vllm.runs.auxiliary import FIXED_DAY, Asked
from slm_vllm.runs.engine_host import EngineHost
from slm_vllm.runs.services import Services
from slm_vllm.types import Completion, GenerationRequest

# What of an identity says where the weights are, and not which.
_NAMES = ("model", "engine", "served_at")


@dataclass(frozen=True, slots=True)
class Case:
    """One vote on one answer.

    Attributes:
        question_id: Of the first row with this content.
        question: What was asked.
        answers: The expected answers.
        prediction: The answer to grade.
        vote: Number of the vote, from 0.
    """

    question_id: str
    question: str
    answers: Sequence[str]
    prediction: str
    vote: int


class Judge:
    """A model that grades.

    Args:
        config: Its model, engine, hardware and generation; the rest is not used.
        services: Console, signals and clock of the command, which close its engine and its cache.
        make_engine: Builds the engine; None: the one that the configuration names.
        engine_log: Where what the engine prints may be found.

    Attributes:
        identity: Who judges; set by `prepare`, as is all that follows.
        fingerprint: A hash of all that a grade depends on beside the answer that it is for.
        host: Its engine.
        cache: Replies that it gave in earlier commands.

    Raises:
        SlmVllmError: The model or the engine cannot be used.
    """

    def __init__(
        self,
        config: Config,
        services: Services,
        make_engine: EngineFactory | None = None,
        *,
        engine_log: Path,
    ) -> None:
        check_judge_config(config)
        self._config, self._services = config, services
        self._engine_log = engine_log
        self._make_engine = make_engine or engine_factory(config.engine)
        self._model: ResolvedModel | None = None
        self._tokenizer: Any = None
        self._prompt = _prompt(config.prompt)
        if has_files(config):
            with services.phase("load"):
                self._resolve()
        self._template = PromptTemplate(self._prompt, self._tokenizer, FIXED_DAY)
        thinks = config.prompt.enable_thinking or self._template.opened_block("") is not None
        # A constrained reply leaves no room for thoughts.
        self._choices: tuple[str, ...] = () if thinks else LETTERS
        self.host: EngineHost
        self.cache: AnswerCache
        self.identity: dict[str, Any]
        self.fingerprint: str

    def prepare(self, cases: Iterable[Case]) -> None:
        """Sizes the engine, and learns from a server which model it serves.

        Args:
            cases: All that may be asked: the longest of them counts.
        """
        settings = self._settings(cases)
        config = self._config
        constrained = replace(settings, only_answers=self._choices)
        self.host = EngineHost(
            config, constrained, self._make_engine, self._engine_log, self._services
        )
        self.identity = self._identity(settings)
        self.fingerprint = digest({k: v for k, v in self.identity.items() if k not in _NAMES})
        scope = digest([self.fingerprint, config.engine.place])
        path = Path(config.cache_dir) / "judgements.sqlite"
        cache = AnswerCache(path, config, scope, settings.dtype)
        self.cache = self._services.stack.enter_context(cache)

    def key(self, case: Case) -> int:
        """A 64-bit key of a case: of its content, the vote and all that the judge is."""
        return int.from_bytes(self.content(case)[:8], "big")

    def content(self, case: Case) -> bytes:
        """The hash behind `key`, whole."""
        content = [case.question, list(case.answers), case.prediction, case.vote]
        found = hashlib.blake2b(self.fingerprint.encode(), digest_size=32)
        found.update(encode_bytes(content))
        return found.digest()

    def requests(self, cases: Iterable[tuple[int, Case]]) -> Iterator[Asked]:
        """The prompts of cases with their keys."""
        for batch in batches(cases):
            turns = [_turn(case) for _, case in batch]
            if self._tokenizer is None:
                for (key, _), turn in zip(batch, turns, strict=True):
                    yield Asked(GenerationRequest(f"{key:016x}", [], self._template.turns(turn)))
                continue
            renderer = self._renderer(self.host.settings.max_model_len)
            for (key, _), prompt in zip(
                batch, renderer.stream([PromptInput(turn) for turn in turns]), strict=True
            ):
                request = GenerationRequest(f"{key:016x}", prompt.token_ids, renderer.turns(prompt))
                yield Asked(request, prompt.opened, prompt.error)

    def reply(self, completion: Completion, asked: Asked) -> Completion:
        """A completion without the thoughts in it."""
        opened = None if completion.is_whole else asked.opened
        return replace(completion, text=extract_answer(completion.text, opened).text)

    def _resolve(self) -> None:
        config = self._config
        require_model_packages(config.engine.name, self._services.device.profile)
        self._model = resolve_model(
            config.model.path, config.model.revision, cache_dir=Path(config.cache_dir)
        )
        self._tokenizer = load_tokenizer(
            self._model.path, trust_remote_code=config.model.trust_remote_code
        )

    def _settings(self, cases: Iterable[Case]) -> EngineSettings:
        config, device = self._config, self._services.device
        if self._model is None:
            return EngineSettings(
                model_path=Path(),
                device=device,
                hardware=config.hardware,
                generation=config.generation,
                dtype="served",
                max_model_len=0,  # the server knows
                stop=config.generation.stop,
                seed=config.experiment.seed,
                max_in_flight=config.engine.max_in_flight,
                enable_thinking=config.prompt.enable_thinking,
            )
        limit = context_limit(config, read_model_config(self._model.path))
        renderer = self._renderer(limit)
        longest = n = 0
        for batch in batches(cases):
            longest = max(longest, renderer.longest([PromptInput(_turn(case)) for case in batch]))
            n += len(batch)
        return engine_settings(config, self._model.path, device, longest, n)

    def _renderer(self, max_model_len: int) -> PromptRenderer:
        budget = max_model_len - self._config.generation.max_new_tokens
        return PromptRenderer(self._template, self._tokenizer, budget)

    def _identity(self, settings: EngineSettings) -> dict[str, Any]:
        config = self._config
        found: dict[str, Any] = {
            "model": config.model.name,
            "revision": None,
            "dtype": settings.dtype,
            "engine": config.engine.name,
            "prompt_version": PROMPT_VERSION,
            "prompt_hash": prompt_hash(),
            "template": [self._template.is_chat, *self._template.state],
            "constrained": bool(self._choices),
            # What later versions add says nothing until it is set.
            "generation": config.generation.model_dump(mode="json", exclude_defaults=True),
            "quantized": config.model.model_dump(include={"quantization", "load_in_8bit"}),
            **config.engine.changes_answers(),
        }
        if self._model is not None:
            found["revision"] = self._model.revision or str(self._model.path)
        if not config.engine.weights_are_known:
            found["dtype"] = "served"
            found["served_at"] = config.engine.place
            self.host.start()
            found["served_model"] = self.host.details.get("served_model")
            if self._model is None:
                found["model"] = ", ".join(found["served_model"] or ["unknown"])
        return found


def check_judge_config(config: Config) -> None:
    """Checks what can be told of a judge before anything is loaded.

    Args:
        config: Its configuration.

    Raises:
        ConfigError: It cannot grade.
    """
    if config.generation.temperature > 0:
        raise ConfigError(
            "generation.temperature: a judge is asked greedily; its votes differ by the order "
            "in which the grades are listed"
        )
    if not has_files(config) and config.engine.takes_prompts:
        raise ConfigError(
            "a judge without --model is a server that answers chats: engine.endpoint=chat. For "
            "prompts as text or token ids its tokenizer is needed: name it with --model"
        )


def _turn(case: Case) -> str:
    return judge_turn(case.question, case.answers, case.prediction, case.vote)


def _prompt(config: PromptConfig) -> PromptConfig:
    """What of a `prompt` section has a meaning for a judge, with the judge's own words."""
    return PromptConfig(
        name="judge",
        chat=config.chat,
        chat_template=config.chat_template,
        enable_thinking=config.enable_thinking,
    )
