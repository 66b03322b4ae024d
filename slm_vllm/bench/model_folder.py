"""Model folders with random weights: a shape (`config.json`) and the demo tokenizer."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from slm_vllm.durable import new_folder
from slm_vllm.models.demo import prepare_demo_model
from slm_vllm.models.resolve import resolve_model

_TOKENIZER = ("tokenizer.json", "tokenizer_config.json")


def find_model(path: str, revision: str | None, *, dummy: bool, cache_dir: Path) -> Path:
    """The folder an engine loads.

    Args:
        path: What `model.path` says.
        revision: What `model.revision` says.
        dummy: No weights are needed.
        cache_dir: This project's own cache.

    Raises:
        EngineError: The model is not available.
    """
    local = Path(path)
    if dummy and (local / "config.json").is_file():
        if (local / _TOKENIZER[0]).is_file():
            return local.resolve()
        return _with_demo_tokenizer(local, cache_dir)
    return resolve_model(path, revision, cache_dir=cache_dir).path


def _with_demo_tokenizer(shape: Path, cache_dir: Path) -> Path:
    config = (shape / "config.json").read_bytes()
    demo = prepare_demo_model(cache_dir)
    name = f"shape-{shape.resolve().name}-{hashlib.sha256(config).hexdigest()[:8]}"
    target = cache_dir.resolve() / "models" / name
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        with new_folder(target, Path.is_dir) as made:
            (made / "config.json").write_bytes(config)
            for file in _TOKENIZER:
                shutil.copyfile(demo / file, made / file)
    return target
