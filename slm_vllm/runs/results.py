"""Makes the final files from the journal, in bounded memory."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from polars.io.plugins import register_io_source

from slm_vllm.config.schema import Config
from slm_vllm.json_text import encode, json_number
from slm_vllm.rundir import names
from slm_vllm.rundir.contents import Results, Throughput
from slm_vllm.rundir.folder import RunFolder
from slm_vllm.rundir.journal import Journal, query_column
from slm_vllm.rundir.predictions import ROW_GROUP, predictions_schema, sampled_schema
from slm_vllm.runs.contexts import context_of
from slm_vllm.runs.sample_summary import SampleSummary
from slm_vllm.scoring.intervals import ValueTally
from slm_vllm.scoring.metrics import METRICS
from slm_vllm.scoring.normalize import SCORING_VERSION
from slm_vllm.scoring.samples import score_rows

# Scoring has a fixed cost for each batch; `Journal.read` cuts those of long lines.
_SCORED_ROWS = 2048
_COUNTED = ("truncated", "unterminated_thinking")
_KINDS_OF_ROWS = ("total", "scored", "unscored", "errors", "empty", *_COUNTED, "without_passage")


@dataclass(frozen=True, slots=True)
class RunTiming:
    """Seconds by phase.

    Attributes:
        phases: One after the other; their sum is the duration of the run. Those before
            "generate" are shared by all modes of a command.
        overlapped: What went on beside them: opening the index, searching.
        start: Parts of the command's start up to its first answer; see `Services.start`.
    """

    phases: dict[str, float]
    overlapped: dict[str, float]
    start: dict[str, float] = field(default_factory=dict)


@dataclass
class RunSummary:
    """Sums over all answers of a run, taken batch by batch."""

    metrics: dict[str, ValueTally] = field(
        default_factory=lambda: {metric: ValueTally() for metric in METRICS}
    )
    search: dict[str, ValueTally] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    samples: SampleSummary | None = None

    @property
    def answered(self) -> int:
        """Rows whose request did not fail."""
        return self.counts["total"] - self.counts["errors"]

    @property
    def scores(self) -> dict[str, ValueTally]:
        """The metrics. A failed row counts as wrong, but only failures make no figure."""
        return self.metrics if self.answered else {metric: ValueTally() for metric in METRICS}

    @property
    def n_scored(self) -> int:
        """Rows that the metrics are means of."""
        return self.counts["scored"] if self.answered else 0

    def add(self, scored: pl.DataFrame) -> None:
        """Counts a batch of `predictions_schema`."""
        for metric, tally in self.metrics.items():
            tally.add(scored[metric])
        unscored = scored["token_recall"].null_count()
        said_nothing = pl.col("prediction").eq("") & pl.col("error").is_null()
        empty = scored.select((said_nothing & ~pl.col("unterminated_thinking")).sum()).item()
        self.counts.update(
            total=scored.height,
            scored=scored.height - unscored,
            unscored=unscored,
            errors=scored["error"].count(),
            empty=empty,
            without_passage=int((scored["n_passages_used"] == 0).sum()),
            prompt_tokens=int(scored["n_prompt_tokens"].sum()),
            completion_tokens=int(scored["n_completion_tokens"].sum()),
            **{name: int(scored[name].sum()) for name in _COUNTED},
        )
        self._add_search(scored["search"].drop_nulls())
        if self.samples is not None:
            self.samples.add(scored)

    def _add_search(self, rows: pl.Series) -> None:
        if not len(rows):
            return
        columns: dict[str, list[float]] = {}
        for row in rows:
            for name, value in json.loads(row).items():
                columns.setdefault(name, []).append(value)
        for name, values in columns.items():
            self.search.setdefault(name, ValueTally()).add(pl.Series(values, dtype=pl.Float64))


def write_predictions(
    folder: RunFolder, journal: Journal, keys: npt.NDArray[np.uint64], config: Config
) -> RunSummary:
    """Scores every answer and writes `predictions.parquet` and `predictions.json`.

    Args:
        folder: The run folder.
        journal: Its journal, with an answer for every key.
        keys: Keys of the run's rows, in the order of the dataset.
        config: The run's configuration.
    """
    keeps_samples = config.generation.keeps_samples
    schema = sampled_schema() if keeps_samples else predictions_schema()
    schema = pl.Schema({**schema, **query_column(config)})
    summary = RunSummary(samples=SampleSummary(config.generation) if keeps_samples else None)
    with ExitStack() as stack:
        parquet = stack.enter_context(folder.replacing(names.PREDICTIONS))
        as_json: _JsonPredictions | None = None
        if config.experiment.log_predictions:
            path = stack.enter_context(folder.replacing(names.PREDICTIONS_JSON))
            as_json = stack.enter_context(_JsonPredictions(path, config))

        def batches(
            with_columns: list[str] | None,
            predicate: pl.Expr | None,
            n_rows: int | None,
            batch_size: int | None,
        ) -> Iterator[pl.DataFrame]:
            """What polars reads from; sinking asks for everything."""
            for batch in journal.read(keys, _SCORED_ROWS):
                scored = _scored(batch, config, schema)
                summary.add(scored)
                if as_json is not None:
                    as_json.add(scored)
                yield scored

        register_io_source(batches, schema=schema).sink_parquet(
            parquet, compression="zstd", row_group_size=ROW_GROUP
        )
        if as_json is not None:
            as_json.end(summary)
    return summary


def _scored(batch: pl.DataFrame, config: Config, schema: pl.Schema) -> pl.DataFrame:
    scored = score_rows(batch).drop("key")
    if not config.experiment.save_contexts:
        scored = scored.with_columns(pl.lit(None, dtype=schema["contexts"]).alias("contexts"))
    return scored.select(schema.names()).cast(schema)


class _JsonPredictions(AbstractContextManager["_JsonPredictions"]):
    """Writes the layout that earlier readers know, batch by batch."""

    def __init__(self, path: Path, config: Config) -> None:
        self._file = path.open("w", encoding="utf-8", errors="replace")
        self._file.write('{"predictions": [')
        self._config = config
        self._separator = "\n"

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, scored: pl.DataFrame) -> None:
        """Adds rows of `predictions_schema`."""
        rows = (encode(_json_row(row, self._config)) for row in scored.iter_rows(named=True))
        if scored.height:
            self._file.write(self._separator + ",\n".join(rows))
            self._separator = ",\n"

    def end(self, summary: RunSummary) -> None:
        """Writes what comes of all rows."""
        statistics = {
            "num_examples": summary.counts["total"],
            "num_scored": summary.n_scored,
            **{name: json_number(tally.mean) for name, tally in summary.scores.items()},
        }
        self._file.write(f'\n], "statistics": {json.dumps(statistics)}}}\n')
        self._file.close()


def _json_row(row: dict[str, Any], config: Config) -> dict[str, Any]:
    return {
        "question_id": row["question_id"],
        "question": row["question"],
        "predicted_answer": row["prediction"],
        "ground_truth": row["answers"],
        "contexts": [passage["text"] for passage in row["contexts"] or []],
        "context_type": row["context_type"],
        "model_name": config.model.name,
        **{metric: row[metric] for metric in METRICS},
        "error": row["error"],
        **_all_answers(row),
        "metadata": json.loads(row["metadata"]) if row["metadata"] not in (None, "", "{}") else {},
    }


def _all_answers(row: Mapping[str, Any]) -> dict[str, Any]:
    """Every answer to a question that was answered several times."""
    samples = row.get("samples") or []
    return {"predicted_answers": [one["prediction"] for one in samples]} if len(samples) > 1 else {}


def build_results(
    config: Config,
    summary: RunSummary,
    *,
    rejected: int,
    timing: RunTiming,
    throughput: Throughput,
    resumed: int,
    from_cache: int,
) -> Results:
    """The content of `results.json`.

    Args:
        config: The run's configuration.
        summary: Sums over all answers.
        rejected: Rows of the dataset that were left out.
        timing: Seconds by phase.
        throughput: Rates of this process's own work.
        resumed: Answers that an earlier process had given.
        from_cache: Answers of other runs.
    """
    estimates = {
        name: tally.estimate(seed=config.experiment.seed) for name, tally in summary.scores.items()
    }
    return {
        "name": config.experiment.name,
        "model": config.model.name,
        "dataset": config.dataset.name,
        "mode": config.experiment_mode.name,
        "retriever": config.retriever.name if context_of(config).searches else None,
        "uses_gold": context_of(config).uses_gold,
        "scoring_version": SCORING_VERSION,
        "token_recall": json_number(estimates["token_recall"].mean),
        "num_examples": summary.counts["total"],
        "duration_seconds": round(sum(timing.phases.values()), 3),
        "metrics": {name: estimate.to_json() for name, estimate in estimates.items()},
        "retrieval": {
            name: tally.estimate(seed=config.experiment.seed).to_json()
            for name, tally in summary.search.items()
        },
        "counts": {
            **{name: summary.counts[name] for name in _KINDS_OF_ROWS},
            "scored": summary.n_scored,
            "rejected": rejected,
            "resumed": resumed,
            "from_cache": from_cache,
            "prompt_tokens": summary.counts["prompt_tokens"],
            "completion_tokens": summary.counts["completion_tokens"],
        },
        "timing": {
            **{phase: round(seconds, 3) for phase, seconds in timing.phases.items()},
            "overlapped": {phase: round(s, 3) for phase, s in timing.overlapped.items()},
            "start": {part: round(s, 3) for part, s in timing.start.items()},
        },
        "throughput": throughput,
        **_of_samples(summary.samples, config.experiment.seed),
    }


def _of_samples(samples: SampleSummary | None, seed: int) -> Results:
    """The parts of `results.json` that only runs with several answers or probabilities have."""
    found: Results = {}
    if samples is not None:
        if (sampling := samples.sampling(seed)) is not None:
            found["sampling"] = sampling
        if figures := samples.calibration():
            found["calibration"] = figures
    return found
