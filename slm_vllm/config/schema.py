"""The typed form of a run's configuration.

Hydra composes the YAML groups under `configs/`; the models here check the result before anything
heavy is imported. They are frozen: after validation a configuration is data, not state.
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SerializeAsAny, field_validator, model_validator

from slm_vllm.config.engine import EngineConfig, ServerUrls, VllmConfig, engine_section
from slm_vllm.config.retriever_stages import ExpansionConfig, RerankerConfig
from slm_vllm.config.section import FolderName, Section, UserPath
from slm_vllm.config.template import checked_template

StopString = Annotated[str, Field(min_length=1)]
Dtype = Literal["auto", "float16", "bfloat16", "float32"]


class ModelConfig(Section):
    """Which weights answer (`configs/model/`)."""

    name: str
    path: UserPath
    """`demo`, a local folder or a Hugging Face repository."""
    revision: str | None = None
    dtype: Dtype = "auto"
    """`auto` leaves the choice to the hardware profile."""
    max_model_len: int | None = Field(default=None, ge=16)
    """Longest prompt plus answer in tokens; null: what the run needs, capped by the model."""
    quantization: str | None = None
    load_in_8bit: bool = False
    trust_remote_code: bool = False
    gradient_checkpointing: bool = False
    """Accepted from earlier configurations; has no meaning in inference."""


class DatasetConfig(Section):
    """Which questions are asked (`configs/dataset/`)."""

    name: str
    kind: str | None = None
    """A dataset class (`nq`, `simple_qa`, `qa_pairs`, `beir`, `hf`); null: found from the file."""
    path: UserPath
    split: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)


class CorpusConfig(Section):
    """A collection to search in place of the dataset's own documents (`configs/corpus/`)."""

    name: str
    path: UserPath
    """A file, a path with `*` or a folder; see `datasets.corpus_file.CorpusFile`."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Which columns hold `id`, `title` and `text`, where they have names of their own."""
    qrels: UserPath | None = None
    """A file that says which documents answer which question, as trec_eval or BEIR have it;
    `dataset`: the dataset's documents have the ids of this corpus; null: a search is judged by
    answers alone."""


class JudgeConfig(Section):
    """A model that grades the answers once they are all there (`configs/judge/`)."""

    name: str
    model: str | None = None
    """Model configuration, folder or repository; null: whatever the servers serve."""
    base_url: ServerUrls = ()
    """Servers to ask instead of loading the model."""
    api_key_env: str | None = None
    """The environment variable that holds their key; null: OPENAI_API_KEY, if it is set."""
    votes: int = Field(default=1, ge=1)
    """How often each answer is asked about, each time with the grades in another order."""
    settings: tuple[str, ...] = ()
    """Further settings of the judge, as `key=value`."""


class PassageConfig(Section):
    """How documents are cut into passages, in words."""

    size: int = Field(default=100, ge=1)
    stride: int = Field(default=100, ge=1)
    sentences: bool = False
    """End passages at sentence ends where one is near."""

    @model_validator(mode="after")
    def _no_gaps(self) -> PassageConfig:
        if self.stride > self.size:
            raise ValueError(
                f"stride {self.stride} is larger than size {self.size}: words between the "
                "windows would never be searched"
            )
        return self


class RetrieverConfig(Section):
    """Where passages come from (`configs/retriever/`)."""

    name: str
    kind: str
    """A retriever class: `bm25`, `rank_bm25`, `dense`, `hybrid`."""
    top_k: int = Field(default=3, ge=1)
    min_score: float | None = None
    """Passages that score lower are not used; null: all of the top k are."""
    passage: PassageConfig = Field(default_factory=PassageConfig)
    options: dict[str, Any] = Field(default_factory=dict)
    """What only this kind of retriever has; checked by its class."""
    reranker: RerankerConfig | None = None
    expansion: ExpansionConfig | None = None

    @property
    def asks_model(self) -> bool:
        """Whether the evaluated model is asked before passages are known."""
        is_reranked = self.reranker is not None and self.reranker.is_evaluated
        return is_reranked or self.expansion is not None

    def settings(self) -> dict[str, Any]:
        """All but the name; what earlier versions did not know only where it is set."""
        return self.model_dump(exclude={"name"} | ({"expansion"} if not self.expansion else set()))


class ModeConfig(Section):
    """What the model sees beside the question (`configs/experiment_mode/`)."""

    name: str
    context: str
    """A class of `runs.contexts`: `none`, `oracle`, `retriever`."""
    max_samples: int | None = Field(default=None, ge=1)


class FewShotExample(Section):
    """One worked example shown before the question."""

    question: str
    answer: str
    context: str | None = None


class PromptConfig(Section):
    """How a question becomes a prompt (`configs/prompt/`).

    Templates are `str.format` strings. `question_template` knows `{question}`,
    `context_template` knows `{context}` and `{question}`, `passage_template` knows `{rank}`,
    `{title}` and `{text}`.
    """

    name: str
    chat: bool | None = None
    """Use the tokenizer's chat template; null: when it has one."""
    chat_template: str | None = None
    """Which of several named chat templates; null: its default."""
    date: str | None = None
    """What a chat template writes as today's date, as YYYY-MM-DD; null: the day the run began."""
    system: str | None = None
    question_template: str = "{question}"
    context_template: str = "{context}\n\n{question}"
    passage_template: str = "[{rank}] {title}\n{text}"
    passage_separator: str = "\n\n"
    few_shot: tuple[FewShotExample, ...] = ()
    stop: tuple[StopString, ...] = ()
    """Stop strings this form of prompt needs, beside those of `generation.stop`."""
    enable_thinking: bool = False

    @field_validator("question_template")
    @classmethod
    def _shows_the_question(cls, value: str) -> str:
        return checked_template(value, {"question": ""}, ("question",))

    @field_validator("context_template")
    @classmethod
    def _shows_context_and_question(cls, value: str) -> str:
        return checked_template(value, {"context": "", "question": ""}, ("context", "question"))

    @field_validator("passage_template")
    @classmethod
    def _shows_the_text(cls, value: str) -> str:
        return checked_template(value, {"rank": 1, "title": "", "text": ""}, ("text",))

    @property
    def day(self) -> datetime.date | None:
        """The `date` as one."""
        return datetime.date.fromisoformat(self.date) if self.date else None

    @field_validator("date")
    @classmethod
    def _a_day(cls, value: str | None) -> str | None:
        try:
            return None if value is None else datetime.date.fromisoformat(value).isoformat()
        except ValueError:
            raise ValueError(f"'{value}' is not a day such as 2026-01-31") from None


class GenerationConfig(Section):
    """Sampling of the answer."""

    max_new_tokens: int = Field(default=32, ge=1)
    temperature: float = Field(default=0.0, ge=0.0)
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    top_k: int | None = Field(default=None, ge=1)
    repetition_penalty: float = Field(default=1.0, gt=0.0)
    stop: tuple[StopString, ...] = ()
    """Extra stop strings. Empty by default: a model ends its answer itself, and stops such as
    "." or "," cut right answers ("J. S. Bach")."""
    n: int = Field(default=1, ge=1)
    """Answers to each question; more than one needs a temperature."""
    logprobs: bool = False
    """Keep how probable each answer was, for figures of confidence."""

    @model_validator(mode="after")
    def _answers_differ(self) -> GenerationConfig:
        if self.n > 1 and self.temperature == 0:
            raise ValueError(
                f"generation.n={self.n} needs generation.temperature above 0: greedy answers are "
                "all the same"
            )
        return self

    @property
    def keeps_samples(self) -> bool:
        """Whether more is kept of a question than one answer."""
        return self.n > 1 or self.logprobs

    def changes_answers(self) -> dict[str, Any]:
        """What of it answers depend on; what earlier versions did not know only where it is set."""
        exclude = {"n"} if self.n == 1 else set()
        return self.model_dump(exclude=exclude if self.logprobs else exclude | {"logprobs"})


class HardwareConfig(Section):
    """Engine settings for one kind of machine (`configs/hardware/`)."""

    name: str
    dtype: Dtype = "auto"
    env: dict[str, str] = Field(default_factory=dict)
    """Environment variables set before vLLM is imported, unless the user has set them."""
    engine_args: dict[str, Any] = Field(default_factory=dict)
    """Arguments of vLLM's `EngineArgs`; those the installed version lacks are left out."""
    start: Literal["auto", "fast", "throughput"] = "auto"
    """`fast`: no compilation and no CUDA graphs; `throughput`: with both; `auto`: by the work."""
    deterministic: bool = False
    """Answers that do not depend on the batch; an error where the engine cannot give such."""


class ExperimentConfig(Section):
    """The run as a whole."""

    name: FolderName
    output_dir: UserPath = "outputs"
    seed: int = Field(default=42, ge=0)
    log_predictions: bool = True
    """Write `predictions.json` beside the Parquet file."""
    save_contexts: bool = True
    """Keep the passages each prompt used in the predictions."""
    max_samples: int | None = Field(default=None, ge=1)
    strict: bool = False
    """A rejected row or a failed request ends the run."""
    answer_cache: bool = False
    """Share greedy answers with other runs, in `<cache_dir>/answers.sqlite`."""
    repeat_check: int | None = Field(default=None, ge=1)
    """Ask so many random rows once more at the end, one at a time, to see what batching changes."""
    until: Literal["all", "decided", "worse"] = "all"
    """`decided`: ask in random order until the difference from `against` is settled; `worse`: end
    only where that one is settled to be above this run."""
    against: str | None = None
    """A finished run, by its name under `output_dir` or its path."""
    margin: float = Field(default=0.01, gt=0.0, le=1.0)
    """Differences within it count as none under `until=decided`."""
    level: float = Field(default=0.05, gt=0.0, lt=1.0)
    """Probability that `until` ever ends a run wrongly, at most."""

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.output_dir, self.name)

    @model_validator(mode="after")
    def _decided_against_a_run(self) -> ExperimentConfig:
        if (self.until != "all") != (self.against is not None):
            raise ValueError(
                "experiment.until=decided (or worse) and experiment.against=RUN go together: the "
                "run is ended when its difference from RUN is settled"
            )
        if self.against is not None and (
            self.against == self.name or Path(self.against).resolve() == self.folder.resolve()
        ):
            raise ValueError(
                f"experiment.against={self.against} is this run itself; leave its mode out, or "
                "give this run another name (--name)"
            )
        return self


class TrackingConfig(Section):
    """Who is told about the run; changes no answer."""

    tracker: str = "auto"
    """`auto`: ClearML where it is configured; `clearml`, `none`."""
    project: str = "slm-experiments"
    task_type: Literal["testing", "inference"] = "testing"
    output_uri: UserPath | None = None
    """Where artifacts go (`s3://host:port/bucket`, a folder); null: as the environment and
    ClearML's configuration say (docs/clearml.md)."""
    offline: bool = True
    """Without a server keep the run as an offline session in its folder."""
    debug_samples: int = Field(default=100, ge=0)
    """How many predictions are shown in the tracker."""
    close_timeout: float = Field(default=30.0, gt=0)
    """Seconds the end of a run may wait for the tracker."""


class NotifyConfig(Section):
    """Who is told how a command ended (docs/jobs.md); changes no answer."""

    command: str | None = None
    """A line for the shell; the results are its standard input."""
    url: str | None = None
    """Gets the results as JSON; `$NAME` in it is taken from the environment or `.env`."""

    @field_validator("url")
    @classmethod
    def _of_the_web(cls, value: str | None) -> str | None:
        # What it holds may be a secret, so it is not repeated.
        if value is not None and not value.startswith(("http://", "https://", "$")):
            raise ValueError("must begin with http://, https://, or the $NAME of a variable")
        return value


class Config(Section):
    """Everything a run depends on."""

    model: ModelConfig
    dataset: DatasetConfig
    corpus: CorpusConfig | None = None
    """null: the dataset's own documents are searched."""
    judge: JudgeConfig | None = None
    """null: nobody grades the answers."""
    retriever: RetrieverConfig
    experiment_mode: ModeConfig
    prompt: PromptConfig
    generation: GenerationConfig = Field(default_factory=GenerationConfig)
    hardware: HardwareConfig
    engine: SerializeAsAny[EngineConfig] = Field(default_factory=VllmConfig)
    """A section of the class that `engine.name` chooses."""
    experiment: ExperimentConfig
    tracking: TrackingConfig = Field(default_factory=TrackingConfig)
    # It may hold secrets, so no file, log, tracker or other process is told.
    notify: NotifyConfig = Field(default_factory=NotifyConfig, exclude=True, repr=False)
    cache_dir: UserPath = ".cache"
    """Where prepared models, indexes and downloaded datasets are kept."""

    @field_validator("engine", mode="before")
    @classmethod
    def _of_the_named_engine(cls, value: Any) -> Any:
        return engine_section(value)

    @model_validator(mode="after")
    def _cached_answers_repeat(self) -> Config:
        if self.experiment.answer_cache and self.generation.temperature > 0:
            raise ValueError(
                "experiment.answer_cache=true needs generation.temperature=0: sampled answers are "
                "meant to differ"
            )
        if self.experiment.answer_cache and self.generation.logprobs:
            raise ValueError(
                "experiment.answer_cache=true does not go with generation.logprobs=true: the cache "
                "keeps no probabilities"
            )
        if self.experiment.answer_cache and not self.engine.weights_are_known:
            raise ValueError(
                f"experiment.answer_cache=true does not go with engine.name={self.engine.name}: a "
                "server may be given other weights under the same address"
            )
        return self

    @model_validator(mode="after")
    def _deterministic_here(self) -> Config:
        if self.hardware.deterministic and self.engine.place is not None:
            raise ValueError(
                f"hardware.deterministic=true does not go with engine.name={self.engine.name}: a "
                "server has its own settings (of vLLM's: VLLM_BATCH_INVARIANT=1)"
            )
        return self

    @property
    def max_samples(self) -> int | None:
        """The smaller of the experiment's and the mode's limit, or None for all rows."""
        limits = [n for n in (self.experiment.max_samples, self.experiment_mode.max_samples) if n]
        return min(limits) if limits else None
