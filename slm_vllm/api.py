"""The Python interface: the same runs as the command line, from a notebook, script or thread.

Unlike the command line it takes neither standard output nor signals from the process it runs in.
Errors are `SlmVllmError`, with the message that the command line would print.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slm_vllm.errors import ConfigError
from slm_vllm.paths import expanded
from slm_vllm.rundir.reading import RunData
from slm_vllm.rundir.reading import load_run as read_run

if TYPE_CHECKING:
    from slm_vllm.datasets.base import BaseDataset
    from slm_vllm.engines.base import BaseEngine
    from slm_vllm.engines.settings import EngineSettings
    from slm_vllm.reporting.comparison import Comparison
    from slm_vllm.types import RejectedRow


def evaluate(
    model: str,
    dataset: str | Path,
    *,
    mode: str | Sequence[str] = "no_context",
    retriever: str | None = None,
    corpus: str | Path | None = None,
    samples: int | None = None,
    name: str | None = None,
    output_dir: str | Path | None = None,
    overrides: Sequence[str] = (),
    config_dir: str | Path | None = None,
    engine: type[BaseEngine] | Callable[[EngineSettings], BaseEngine] | None = None,
    overwrite: bool = False,
    retry_errors: bool = False,
    track: bool = False,
) -> list[RunData]:
    """Asks a model the questions of a dataset; an existing run is resumed.

    Args:
        model: Model configuration, local folder or Hugging Face repository.
        dataset: Dataset configuration, file or URL.
        mode: `no_context`, `oracle`, `retriever`; several, in a list or separated by commas, share
            one engine load.
        retriever: Retriever configuration, such as `bm25`.
        corpus: Corpus configuration, file or folder to search in place of the dataset's documents.
        samples: Only the first rows.
        name: Name of the run and of its folder; of several modes, the part before theirs.
        output_dir: Where run folders are kept.
        overrides: Further settings as on the command line: `["generation.max_new_tokens=64"]`.
        config_dir: A folder with configuration groups of your own.
        engine: A class of your own (or a function that makes one of its settings), instead of the
            engine that the configuration names.
        overwrite: Replace an earlier run of the same name.
        retry_errors: Ask again the questions that failed in an earlier run.
        track: Tell the configured tracker (ClearML), as the command line does.

    Returns:
        The finished runs, one for each mode, in their order.

    Raises:
        SlmVllmError: What has to be fixed.
    """
    from slm_vllm.config.compose import compose_config
    from slm_vllm.config.run_words import run_words, split_modes
    from slm_vllm.judging.judge_at_end import judge_at_end
    from slm_vllm.runs.options import RunOptions
    from slm_vllm.runs.session import evaluate as run_cells

    settings = {
        "model": model,
        "dataset": str(dataset),
        "retriever": retriever,
        "corpus": None if corpus is None else str(corpus),
        "samples": samples,
        "output_dir": None if output_dir is None else str(output_dir),
    }
    modes = split_modes(mode if isinstance(mode, str) else ",".join(mode))
    configs = [
        compose_config(words, config_dir)
        for words in run_words(
            settings, modes, name=name, overrides=overrides, config_dir=config_dir
        )
    ]
    options = RunOptions(
        overwrite=overwrite,
        retry_errors=retry_errors,
        track=track,
        then=judge_at_end(configs, config_dir),
    )
    if engine is not None:
        options = replace(options, make_engine=engine, import_engine=lambda: None)
    run_cells(configs, options)
    return [read_run(config.experiment.folder) for config in configs]


def open_dataset(
    path: str | Path,
    kind: str | None = None,
    *,
    on_reject: Callable[[RejectedRow], None] | None = None,
    **options: Any,
) -> BaseDataset:
    """A dataset; its `scan` yields polars frames of question, answers, contexts and documents.

    Args:
        path: The file, an `s3://` URL, or "demo" for the shipped one.
        kind: A dataset class by name; None finds it from the file.
        on_reject: Called for each row that cannot be used.
        options: Further arguments of the class, such as `split` or `columns`.

    Raises:
        SlmVllmError: It cannot be used.
    """
    from slm_vllm.datasets.registry import open_dataset as opened

    return opened(kind, _expanded(path), on_reject=on_reject, options=options)


def load_run(path: str | Path) -> RunData:
    """A finished run: `results`, `predictions` (a polars frame), `config`, `manifest`, `memory`.

    Args:
        path: Its folder.

    Raises:
        DataError: It is not finished, or damaged.
    """
    return read_run(Path(_expanded(path)))


def compare_runs(
    runs: Sequence[RunData | str | Path], metric: str = "token_recall", *, intersect: bool = False
) -> Comparison:
    """Pairs runs by question and tests their differences; `slm-vllm compare` from Python.

    Args:
        runs: Finished runs, or their folders. The first is the baseline.
        metric: What is compared.
        intersect: Compare on shared questions where question sets differ.

    Raises:
        SlmVllmError: They cannot be compared.
    """
    from slm_vllm.reporting.comparison import compare_runs as compared

    if isinstance(runs, (RunData, str, Path)):
        runs = [runs]
    loaded = [run if isinstance(run, RunData) else load_run(run) for run in runs]
    return compared(loaded, metric, intersect=intersect)


def _expanded(path: str | Path) -> str:
    try:
        return expanded(str(path))
    except ValueError as error:
        raise ConfigError(str(error)) from None
