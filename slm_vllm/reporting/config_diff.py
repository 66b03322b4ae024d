"""What differs between the configurations of runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from slm_vllm.rundir.reading import RunData
from slm_vllm.rundir.settings import NOT_SET, flat

# Names and places differ between any two runs and say nothing.
_IGNORED = ("experiment.name", "experiment.output_dir", "cache_dir")
# Settings that earlier versions did not know, with the value that means what they did.
_AS_EVER = {
    "engine.replicas_per_gpu": "auto",
    "experiment.level": "0.05",
    "experiment.margin": "0.01",
    "experiment.until": "all",
    "generation.logprobs": "false",
    "generation.n": "1",
    "hardware.deterministic": "false",
    "hardware.start": "auto",
}
_MANIFEST_KEYS = (
    "slm_vllm",
    "model.revision",
    "dataset.sha256",
    "dataset.sha256_of_ends",
    "engine.name",
    "engine.vllm",
    "engine.arguments.dtype",
    "device.name",
    "git.commit",
)


@dataclass(frozen=True, slots=True)
class Difference:
    """A setting that is not the same in all runs.

    Attributes:
        key: With dots between sections; `manifest:` before those that no configuration holds.
        values: Each value and the runs (by position) that have it.
    """

    key: str
    values: tuple[tuple[str, tuple[int, ...]], ...]


def config_differences(runs: Sequence[RunData]) -> list[Difference]:
    """A flat diff of the configurations, and of a few facts of the manifests.

    Settings of retriever and corpus are compared among the runs that use one.
    """
    settings = [flat_settings(run) for run in runs]
    facts = [_facts(run) for run in runs]
    found = []
    for columns in (settings, facts):
        for key in dict.fromkeys(key for column in columns for key in column):
            values: dict[str, list[int]] = {}
            for number, (run, column) in enumerate(zip(runs, columns, strict=True)):
                # Of a run that was taken over, what is not there is unknown, not different.
                is_unknown = key not in column and "adopted" in run.manifest
                if applies(key, run) and not is_unknown:
                    values.setdefault(column.get(key, NOT_SET), []).append(number)
            if len(values) > 1:
                found.append(Difference(key, tuple((v, tuple(n)) for v, n in values.items())))
    return found


def flat_settings(run: RunData) -> dict[str, str]:
    """The configuration with dotted keys and values as JSON, without names and places.

    A setting that is null, or as earlier versions had it without knowing it, is left out. The day
    that stands in the prompts is one of the settings, whoever chose it.
    """
    found = {
        key: value
        for key, value in flat(run.config).items()
        if value not in ("null", _AS_EVER.get(key))
    }
    found["prompt.date"] = str(run.manifest.get("prompt_date", "null"))
    return {k: v for k, v in found.items() if k not in _IGNORED and v != "null"}


def applies(key: str, run: RunData) -> bool:
    """Whether a setting had any effect on a run."""
    return not key.startswith(("retriever.", "corpus.")) or run.results.get("retriever") is not None


def _facts(run: RunData) -> dict[str, str]:
    found = flat(run.manifest)
    return {f"manifest:{key}": found[key] for key in _MANIFEST_KEYS if key in found}
