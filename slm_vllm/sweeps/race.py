"""`sweep --race`: stops models early that are certainly not the best.

Models run one after the other. Each is compared with the best one so far that was asked everything
in the same mode over the same data, and stops when it is settled that it is below that one
(`until_decided`). The best one is itself chosen by its figures, out of up to m - 1 models. So the
level of every test is 5 % / (m - 1), and the chance that the best model is dropped stays below 5 %
(Bonferroni).
"""

from __future__ import annotations

from collections.abc import Sequence

from slm_vllm.config.schema import Config
from slm_vllm.rundir.files import if_readable, read_results
from slm_vllm.rundir.fingerprint import digest
from slm_vllm.rundir.lookup import why_unfinished
from slm_vllm.rundir.remarks import was_stopped
from slm_vllm.runs.contexts import context_of
from slm_vllm.runs.question_set import QuestionSet
from slm_vllm.scoring.intervals import CONFIDENCE
from slm_vllm.scoring.metrics import MAIN
from slm_vllm.sweeps.plan import PlannedCell


def raced(cell: PlannedCell, earlier: Sequence[PlannedCell], n_models: int) -> Config:
    """The configuration of a cell that ends when it is behind.

    Args:
        cell: The cell.
        earlier: Cells of the models before its own.
        n_models: Of the whole sweep.
    """
    best = max(
        (
            one
            for one in earlier
            if _lane(one.config) == _lane(cell.config) and _mean(one) is not None
        ),
        key=lambda one: _mean(one) or 0.0,
        default=None,
    )
    if best is None:
        return cell.config
    race = {
        "until": "worse",
        "against": best.name,
        "level": (1 - CONFIDENCE) / max(1, n_models - 1),
    }
    experiment = cell.config.experiment.model_copy(update=race)
    return cell.config.model_copy(update={"experiment": experiment})


def _lane(config: Config) -> str:
    """Equal for cells that differ in their model alone."""
    retriever = config.retriever.model_dump() if context_of(config).searches else None
    return digest([QuestionSet.key(config), config.experiment_mode.model_dump(), retriever])


def _mean(cell: PlannedCell) -> float | None:
    """Its main figure, None where it has none over all questions."""
    if not cell.folder.is_dir() or why_unfinished(cell.folder) is not None:
        return None
    results = if_readable(read_results, cell.folder)
    if results is None or was_stopped(results):
        return None
    mean: float | None = results["metrics"][MAIN]["mean"]
    return mean
