"""slm-vllm: fast, resumable evaluation of small language models on question answering.

    from slm_vllm import evaluate, compare_runs

    runs = evaluate("demo", "demo", mode="no_context,oracle", samples=20)
    print(runs[0].results["token_recall"])

Everything named in `__all__` is meant to be used; docs/python.md shows how. Importing the package
imports nothing heavy: each name is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from slm_vllm.version import __version__

if TYPE_CHECKING:
    from slm_vllm.api import compare_runs, evaluate, load_run, open_dataset
    from slm_vllm.config.compose import compose_config
    from slm_vllm.datasets.base import BaseDataset
    from slm_vllm.engines.base import BaseEngine
    from slm_vllm.errors import SlmVllmError
    from slm_vllm.retrieval.base import BaseRetriever
    from slm_vllm.rundir.reading import RunData
    from slm_vllm.scoring.answers import score_answers

__all__ = [
    "BaseDataset",
    "BaseEngine",
    "BaseRetriever",
    "RunData",
    "SlmVllmError",
    "__version__",
    "compare_runs",
    "compose_config",
    "evaluate",
    "load_run",
    "open_dataset",
    "score_answers",
]

_MODULES = {
    "BaseDataset": "slm_vllm.datasets.base",
    "BaseEngine": "slm_vllm.engines.base",
    "BaseRetriever": "slm_vllm.retrieval.base",
    "RunData": "slm_vllm.rundir.reading",
    "SlmVllmError": "slm_vllm.errors",
    "compare_runs": "slm_vllm.api",
    "compose_config": "slm_vllm.config.compose",
    "evaluate": "slm_vllm.api",
    "load_run": "slm_vllm.api",
    "open_dataset": "slm_vllm.api",
    "score_answers": "slm_vllm.scoring.answers",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'slm_vllm' has no attribute '{name}'")
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
