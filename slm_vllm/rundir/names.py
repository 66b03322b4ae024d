"""The names of the files of a run folder."""

from __future__ import annotations

from pathlib import Path

CONFIG = "config.yaml"
CONFIG_HASH = "config.hash"
STATE = "state.json"
MANIFEST = "manifest.json"
JOURNAL = "predictions.jsonl"
LOOKS = "looks.jsonl"
REPEATED = "repeat_check.jsonl"
PREDICTIONS = "predictions.parquet"
PREDICTIONS_JSON = "predictions.json"
REJECTED = "rejected.jsonl"
RESULTS = "results.json"
MEMORY = "memory_usage.json"
LOG = "experiment.log"
ENGINE_LOG = "engine.log"
REPORT = "report.html"
JUDGEMENTS = "judgements.jsonl"
GRADES = "judgement.parquet"
JUDGEMENT = "judgement.json"
JUDGE_LOG = "judge.log"
JUDGE_ENGINE_LOG = "judge_engine.log"
LOCK = ".lock"
TRACKING = "tracking"
SPOOL = Path(TRACKING) / "events.jsonl"
PUBLISHER_LOG = Path(TRACKING) / "publisher.log"
SWEEP = "sweep.json"
SWEEP_LOG = "sweep.log"

DESCRIBED = {
    RESULTS: "figures",
    PREDICTIONS: "questions, answers and scores",
    PREDICTIONS_JSON: "the same as JSON",
    JOURNAL: "journal: answers as they came",
    LOOKS: "differences as they were looked at",
    REPEATED: "journal: answers to rows that were asked again",
    REJECTED: "rows that could not be used",
    LOG: "log: what the run did",
    ENGINE_LOG: "log: what the engine said",
    CONFIG: "configuration",
    MANIFEST: "versions and hashes",
    MEMORY: "memory over time",
    JUDGEMENT: "figures of a judge",
    GRADES: "its grades",
    JUDGEMENTS: "journal: what the judge replied",
    JUDGE_LOG: "log: what the judge did",
    JUDGE_ENGINE_LOG: "log: what its engine said",
}
"""What a user finds in the files that are meant to be read."""

WRITTEN = (*DESCRIBED, CONFIG_HASH, STATE, TRACKING)
"""What a run writes, and `--overwrite` removes."""
