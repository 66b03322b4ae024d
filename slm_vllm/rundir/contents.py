"""The content of the JSON files of a run folder.

Files of other versions may have more keys, or lack some that are named here: a reader asks for
what it can do without by `get`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    from slm_vllm.scoring.intervals import Mean


class OwnProcess(TypedDict):
    """The process that wrote a file: its pid, and when it began, as a pid is used again."""

    pid: int
    pid_started: float


class State(TypedDict, total=False):
    """`state.json`: what a run is doing.

    Attributes:
        phase: "loading", "generating", "finished", "interrupted" or "failed".
        pid: Its process, with `pid_started` in seconds since 1970; see `OwnProcess`.
        started: Of this process, as `heartbeat` in ISO 8601.
        done: Rows that have an answer, of `total`.
        questions_per_second: Lately.
        token_recall: Mean of what this process has answered, with its 95 % interval.
        eta_seconds: Until the last answer, None while it cannot be told.
        errors: Rows that failed.
        error: Why it failed, with the `exit_code` of its command.
    """

    name: str
    phase: str
    pid: int
    pid_started: float
    started: str
    heartbeat: str
    done: int
    total: int
    questions_per_second: float | None
    token_recall: float | None
    token_recall_ci95: list[float] | None
    eta_seconds: float | None
    errors: int
    error: str
    exit_code: int


class SweepState(TypedDict, total=False):
    """`sweep.json` in the folder of a sweep: its process, as in `State`, and its cells by name."""

    pid: int
    pid_started: float
    cells: list[str]


class Throughput(TypedDict, total=False):
    """Rates while answers were generated, None where nothing was asked.

    Attributes:
        joules_per_1000_questions: Energy of the GPUs that the engines were on, all of it; missing
            where there were none here, or none that counts.
    """

    questions_per_second: float | None
    completion_tokens_per_second: float | None
    prompt_tokens_per_second: float | None
    joules_per_1000_questions: float | None


class Moved(TypedDict):
    """How a metric moved when rows were asked again.

    Attributes:
        mean_change: The second time minus the first.
        mean_square: Of the changes of single rows; see `scoring.numeric_floor`.
        floor: What numerics alone may move the mean of all rows of the run by.
    """

    mean_change: Mean
    mean_square: float | None
    floor: float | None


class RepeatCheck(TypedDict):
    """What came of `experiment.repeat_check`.

    Attributes:
        rows: Asked again with an answer both times.
        failed: Asked again without.
        changed: Rows of which the answer is not the same.
        changed_share: Their share with its 95 % interval.
        metrics: By metric.
    """

    rows: int
    failed: int
    changed: int
    changed_share: Mean
    metrics: dict[str, Moved]


class Look(TypedDict):
    """One line of `looks.jsonl`: a difference as it was known after so many questions.

    Attributes:
        questions: Asked so far.
        difference: Mean of the paired differences, None where none is scored.
        low: Lower end of the 95 % confidence sequence.
        high: Upper end.
        decision: "better", "worse", "no difference", or None: not settled.
    """

    questions: int
    difference: float | None
    low: float
    high: float
    decision: str | None


class Until(TypedDict):
    """What came of `experiment.until=decided`.

    Attributes:
        against: Name of the other run.
        metric: Of which the difference is.
        margin: Differences that count as none.
        level: Probability that the `interval` ever leaves the true difference out, at most.
        decision: As in the last `Look`, with its `questions`, `difference` and `interval`.
        of: Questions that both runs could have been asked.
        looks: How often was looked.
    """

    against: str
    metric: str
    margin: float
    level: float
    decision: str | None
    questions: int
    of: int
    looks: int
    difference: float | None
    interval: list[float]


class Sampling(TypedDict):
    """What several answers to each question tell.

    Attributes:
        answers: To each question.
        questions: With an answer and a score.
        variance: By metric the parts `between` and `within` questions, and what the standard error
            is with them: as asked, of one answer, of endless ones.
        pass_at_k: By 0/1 metric and k.
        majority: Metrics of the answer that most agree on.
        agreement: Share of the answers that agree on it.
    """

    answers: int
    questions: int
    variance: dict[str, dict[str, float | None]]
    pass_at_k: dict[str, dict[str, Mean]]
    majority: dict[str, Mean]
    agreement: Mean


class CalibrationFigures(TypedDict):
    """Confidence against being right; see `scoring.calibration`."""

    n: int
    accuracy: float
    confidence: float
    ece: float
    brier: float
    aurc: float
    bins: list[dict[str, float | None]]
    abstaining: list[dict[str, Any]]


class Results(TypedDict, total=False):
    """`results.json`: the figures of a finished run.

    Attributes:
        uses_gold: Whether prompts held gold contexts; missing in 0.2.0 and before.
        token_recall: The mean, beside `metrics` for earlier readers.
        duration_seconds: Of all phases.
        metrics: Means of the answers' metrics.
        retrieval: Means of the search metrics; empty without a search.
        counts: Rows: total, scored, unscored, errors, rejected, resumed ...
        scoring_version: Of the definitions behind the metrics; missing in version 1.
        timing: Seconds by phase; `overlapped` holds those of what went on beside them.
        repeat_check: Where rows were asked again.
        stages: What the model was asked before passages were known, and in how many seconds, by
            stage; by the process that wrote this.
        until: Where questions were asked until a difference was settled.
        sampling: Where there are several answers to a question.
        calibration: Where there is a confidence, by its kind and 0/1 metric.
    """

    name: str
    model: str
    dataset: str
    mode: str
    uses_gold: bool
    retriever: str | None
    token_recall: float | None
    num_examples: int
    duration_seconds: float
    scoring_version: int
    metrics: dict[str, Mean]
    retrieval: dict[str, Mean]
    counts: dict[str, int]
    timing: dict[str, Any]
    throughput: Throughput
    repeat_check: RepeatCheck
    stages: dict[str, dict[str, float]]
    until: Until
    sampling: Sampling
    calibration: dict[str, dict[str, CalibrationFigures]]


class Manifest(TypedDict, total=False):
    """`manifest.json`: what it would take to repeat a run.

    Attributes:
        prompt_date: The day that stands in the prompts, where one does.
        answers: What the answers depend on beside the configuration and their rows; missing in
            runs of earlier versions.
        adopted: Of a run of earlier scripts: where it was, and what of it is unknown.
    """

    slm_vllm: str
    created: str
    command: list[str]
    config_hash: str
    prompt_hash: str
    prompt_date: str
    model: dict[str, Any]
    dataset: dict[str, Any]
    retriever: str | None
    engine: dict[str, Any]
    device: dict[str, Any]
    git: dict[str, Any] | None
    python: str
    platform: str
    cpus: int | None
    packages: dict[str, str]
    answers: dict[str, Any]
    adopted: dict[str, Any]
