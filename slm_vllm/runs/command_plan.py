"""Estimates what a command would do; loads and writes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from slm_vllm.amounts import format_clock, format_memory
from slm_vllm.config.schema import Config
from slm_vllm.datasets.base import limited_scan
from slm_vllm.datasets.rejects import RejectLog
from slm_vllm.datasets.schema import gold_passages
from slm_vllm.engines.memory_need import memory_need
from slm_vllm.engines.registry import check_engine
from slm_vllm.errors import ConfigError, SlmVllmError
from slm_vllm.monitoring.device import Device, detect_device
from slm_vllm.prompting.template import PromptTemplate
from slm_vllm.rundir.contents import Throughput
from slm_vllm.rundir.files import read_manifest, read_results, read_settings, unreadable
from slm_vllm.rundir.folder import RunFolder
from slm_vllm.rundir.journal import count_answers
from slm_vllm.rundir.lookup import runs_in, why_unfinished
from slm_vllm.rundir.settings import flat
from slm_vllm.runs.choices import check_choices
from slm_vllm.runs.contexts import (
    check_gold,
    context_of,
    found_tokens,
    passage_tokens,
    search_depth,
)
from slm_vllm.runs.question_set import QuestionSet
from slm_vllm.text_table import text_table
from slm_vllm.types import Passage

_BYTES_PER_TOKEN = 4  # in English; no tokenizer in use makes two tokens of one byte
_MARGIN = 1.25
_AUXILIARY_TOKENS = 80  # the words around a question, and itself, in English
# Settings that make the speed of one run that of another.
_DECISIVE = ("model.path", "engine.name", "engine.base_url")


@dataclass(slots=True)
class _Prompts:
    """The rows of a run, and the bytes of its prompts: all of them, and the longest."""

    rows: int = 0
    with_contexts: int = 0
    rejected: int = 0
    prompts: int = 0
    longest: int = 0


@dataclass(frozen=True, slots=True)
class RunPlan:
    """One run of the command.

    Attributes:
        folder: Where its results go.
        rows: Usable rows that it asks.
        rejected: Rows that cannot be used.
        prompt_tokens: Of all prompts, estimated; without what a chat template adds.
        most_prompt_tokens: One for each byte.
        longest_prompt: Of its longest prompt, estimated.
        new_tokens: At most, of the rows that are open.
        resumed: Answers in its folder that need not be given again, while model and data are as
            they were.
        refused: Why it would not start, "" if it would.
        auxiliary_prompts: At most, what the model is asked before passages are known (reranking,
            expansion), with `auxiliary_tokens`, estimated.
        judge_prompts: What its judge is asked about the answers, at most.
        seconds: Shortest and longest time of answering, None where no run tells.
        joules: Least and most energy of the GPUs meanwhile, None where no run tells.
        learned_from: Earlier runs behind it.
    """

    name: str
    folder: str
    rows: int
    rejected: int
    prompt_tokens: int
    most_prompt_tokens: int
    longest_prompt: int
    new_tokens: int
    resumed: int
    refused: str
    auxiliary_prompts: int
    auxiliary_tokens: int
    judge_prompts: int
    seconds: tuple[float, float] | None
    joules: tuple[float, float] | None
    learned_from: int

    @property
    def line(self) -> list[str]:
        """Its row of the table."""
        return [
            self.name,
            f"{self.rows:,}",
            f"{self.rejected:,}",
            f"{self.prompt_tokens:,} (at most {self.most_prompt_tokens:,})",
            f"{self.new_tokens:,}",
            "refused" if self.refused else f"{self.resumed:,}",
            "unknown" if self.seconds is None else " to ".join(map(format_clock, self.seconds)),
        ]


@dataclass(frozen=True, slots=True)
class CommandPlan:
    """All runs of a command, and the one engine they share.

    Attributes:
        device: Where the engine would run.
        memory: Whether the model fits, in words.
        fits: The same; None where it is not known here.
    """

    device: str
    memory: str
    fits: bool | None
    runs: tuple[RunPlan, ...]

    def to_json(self) -> dict[str, Any]:
        """As one object."""
        return asdict(self) | {"joules": self.joules}

    @property
    def joules(self) -> tuple[float, float] | None:
        """Least and most energy of all runs, None where that of one is not known."""
        known = [run.joules for run in self.runs if run.joules is not None]
        if len(known) < len(self.runs):
            return None
        return sum(least for least, _ in known), sum(most for _, most in known)

    def __str__(self) -> str:
        header = ("run", "rows", "rejected", "prompt tokens", "new tokens", "resumed", "time")
        known = [f"{r.name} from {r.learned_from}" for r in self.runs if r.seconds is not None]
        learned = ", ".join(known) + " earlier run(s)" if known else ""
        if len(known) < len(self.runs):
            unknown = "unknown: no earlier run of this model on this device"
            learned = f"{learned}; otherwise {unknown}" if known else unknown
        lines = [
            text_table(header, [r.line for r in self.runs]),
            f"Results: {', '.join(r.folder for r in self.runs)}",
            f"Device: {self.device}",
            f"Memory: {self.memory}",
            f"Time: {learned} (of answering alone: loading and indexing come on top)",
            f"Energy: {_energy(self.joules)}",
            f"Prompt tokens: estimated, {_BYTES_PER_TOKEN} bytes each; at most one a byte, and 2.5 "
            "a word of what a search finds. The chat template's own come on top",
            "New tokens are at most so many; answers are resumed if model and data are unchanged",
            *(
                f"Before the searches of {r.name}: {r.auxiliary_prompts:,} prompts more, about "
                f"{r.auxiliary_tokens:,} tokens, which the time leaves out"
                for r in self.runs
                if r.auxiliary_prompts
            ),
            *(
                f"After {r.name}: {r.judge_prompts:,} prompts for the judge, which the time leaves "
                "out"
                for r in self.runs
                if r.judge_prompts
            ),
        ]
        return "\n".join([*lines, *(f"Refused: {r.refused}" for r in self.runs if r.refused)])


def plan_command(
    configs: Sequence[Config], *, overwrite: bool = False, retry_errors: bool = False
) -> CommandPlan:
    """Looks at the data, the folders, the model's files and the device.

    Args:
        configs: The runs of the command.
        overwrite: Whether earlier runs in their folders would be removed.
        retry_errors: Whether what failed would be asked again.

    Raises:
        SlmVllmError: A choice or a dataset that the command itself would refuse.
    """
    device = detect_device()
    by_dataset: dict[str, list[Config]] = {}
    for config in configs:
        check_choices(config)
        by_dataset.setdefault(QuestionSet.key(config), []).append(config)
    check_engine(configs[0], device)
    asked = {id(c): a for group in by_dataset.values() for c, a in _look_over(group)}
    runs = [
        _plan_run(config, asked[id(config)], _answered(config, overwrite, retry_errors), device)
        for config in configs
    ]
    fits, memory = memory_need(configs[0], device, max(run.longest_prompt for run in runs))
    place = configs[0].engine.place or f"{device.name}, {format_memory(device.memory_bytes)}"
    return CommandPlan(place, memory, fits, tuple(runs))


def _look_over(configs: Sequence[Config]) -> list[tuple[Config, _Prompts]]:
    """Passes once over the dataset of runs that ask the same rows."""
    rejects = RejectLog(strict=configs[0].experiment.strict)
    found = [(config, _Prompts()) for config in configs]
    templates = [
        PromptTemplate(config.prompt.model_copy(update={"chat": False}), None) for config in configs
    ]
    for frame in limited_scan(QuestionSet(configs[0]).open(rejects), configs[0].max_samples):
        for question, contexts in frame.select("question", "contexts").iter_rows():
            for (config, asked), template in zip(found, templates, strict=True):
                prompt = template.render(question, _shown(config, contexts))
                size = len(prompt.encode("utf-8", "surrogatepass"))
                asked.rows += 1
                asked.with_contexts += bool(contexts)
                asked.prompts += size
                asked.longest = max(asked.longest, size)
    for config, asked in found:
        check_gold(config, asked.rows, asked.with_contexts)
        asked.rejected = rejects.count
    return found


def _shown(config: Config, contexts: list[str]) -> Sequence[Passage]:
    """The passages of a prompt; what a search will find is still empty."""
    context = context_of(config)
    found = [Passage("", "", "", "")] * (config.retriever.top_k if context.searches else 0)
    return [*found, *(gold_passages("", contexts) if context.uses_gold else ())]


def _answered(config: Config, overwrite: bool, retry_errors: bool) -> int | ConfigError:
    """Answers that are there already, or why the folder cannot be used."""
    folder = RunFolder(config.experiment.folder)
    try:
        if overwrite or not folder.holds_answers(config):
            return 0
    except ConfigError as error:
        return error
    except OSError as error:
        raise unreadable(folder.path, error) from None
    answers, failed = count_answers(folder.journal)
    return answers if retry_errors else answers + failed


def _plan_run(
    config: Config, asked: _Prompts, answered: int | ConfigError, device: Device
) -> RunPlan:
    context = context_of(config)
    searched = found_tokens(config.retriever) if context.searches else 0
    refused = str(answered) if isinstance(answered, ConfigError) else ""
    resumed = 0 if isinstance(answered, ConfigError) else min(answered, asked.rows)
    pending = asked.rows - resumed
    earlier = _earlier_rates(config, device)
    rates = [rate for rate, _ in earlier]
    energies = [joules for _, joules in earlier if joules is not None]
    auxiliary_prompts, auxiliary_tokens = (
        _auxiliary(config, pending) if context.searches else (0, 0)
    )
    return RunPlan(
        name=config.experiment.name,
        folder=str(config.experiment.folder),
        rows=asked.rows,
        rejected=asked.rejected,
        # The bound of what a search adds is twice what English needs.
        prompt_tokens=asked.prompts // _BYTES_PER_TOKEN + asked.rows * searched // 2,
        most_prompt_tokens=asked.prompts + asked.rows * searched,
        longest_prompt=int(asked.longest / _BYTES_PER_TOKEN * _MARGIN) + searched,
        new_tokens=pending * config.generation.n * config.generation.max_new_tokens,
        resumed=resumed,
        refused=refused,
        auxiliary_prompts=auxiliary_prompts,
        auxiliary_tokens=auxiliary_tokens,
        judge_prompts=asked.rows * config.judge.votes if config.judge is not None else 0,
        seconds=(pending / max(rates), pending / min(rates)) if rates else None,
        joules=(pending * min(energies), pending * max(energies)) if energies else None,
        learned_from=len(rates),
    )


def _energy(joules: tuple[float, float] | None) -> str:
    if joules is None:
        return "unknown: no earlier run of this model and mode whose GPU counts it"
    least, most = (f"{value / 3600:.3g}" for value in joules)
    return f"{least} to {most} Wh of the GPUs while they answer, by earlier runs"


def _auxiliary(config: Config, rows: int) -> tuple[int, int]:
    """Prompts before the searches for so many rows, and about how many tokens they come to."""
    reranker, expansion = config.retriever.reranker, config.retriever.expansion
    prompts = tokens = 0
    if expansion is not None:
        prompts += rows
        tokens += rows * (_AUXILIARY_TOKENS + expansion.max_new_tokens)
    if reranker is not None and reranker.is_evaluated:
        pairs = rows * max(reranker.candidates, search_depth(config))
        prompts += pairs
        tokens += pairs * (_AUXILIARY_TOKENS + passage_tokens(config.retriever) // 2)
    return prompts, tokens


def _earlier_rates(config: Config, device: Device) -> list[tuple[float, float | None]]:
    """Questions a second of finished runs of this model and engine on this device.

    Those of the same mode, where there are such: others have prompts of another length. With each
    the joules of a question, None where they were not counted.
    """
    root = Path(config.experiment.output_dir)
    by_mode: dict[bool, list[tuple[float, float | None]]] = {True: [], False: []}
    for run in runs_in(root) if root.is_dir() else []:
        try:
            if why_unfinished(run) is not None:
                continue
            results, manifest, settings = read_results(run), read_manifest(run), read_settings(run)
        except SlmVllmError:
            continue
        if not (results and manifest and settings) or not _is_alike(settings, config):
            continue
        throughput = results.get("throughput") or Throughput()
        rate = throughput.get("questions_per_second")
        joules = throughput.get("joules_per_1000_questions")
        if rate and flat(manifest).get("device.name") == device.name:
            is_same = results.get("mode") == config.experiment_mode.name
            by_mode[is_same].append((rate, None if joules is None else joules / 1000))
    return by_mode[True] or by_mode[False]


def _is_alike(settings: Mapping[str, Any], config: Config) -> bool:
    before, now = flat(settings), flat(config.model_dump(mode="json"))
    return all(before.get(key) == now.get(key) for key in _DECISIVE)
