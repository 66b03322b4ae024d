"""Runs to judge, and the configuration of a judge that needs no weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slm_vllm.config.schema import Config
from slm_vllm.judging.choice import judge_config
from support.run_folders import make_run


@pytest.fixture
def judge_model(tiny_model: Path, tmp_path: Path) -> Path:
    """The tiny model with room for a judge's prompt."""
    folder = shutil.copytree(tiny_model, tmp_path / "judge")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 4096}))
    return folder


@pytest.fixture
def config(judge_model: Path, tmp_path: Path) -> Config:
    words = ["hardware=cpu", f"cache_dir={tmp_path / 'cache'}"]
    return judge_config(str(judge_model), overrides=words)


@pytest.fixture
def run_of(tmp_path: Path) -> Callable[..., Path]:
    """Makes a finished run of predictions; a row may be a prediction or columns."""

    def make(name: str, *rows: str | dict[str, Any]) -> Path:
        full = [{"prediction": row} if isinstance(row, str) else row for row in rows]
        return make_run(tmp_path / "outputs" / name, rows=full)

    return make
