"""Inspects a model folder without loading it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import BinaryIO

from slm_vllm.durable import samples

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tekken.json",
    "vocab.json",
    "vocab.txt",
)
_WEIGHT_PATTERNS = ("*.safetensors", "*.bin", "*.pt")
_INDEX_FILES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_LFS_POINTER = b"version https://git-lfs"
_SAMPLE_BYTES = 1 << 16
_SAMPLES = 16
_TENSOR_BYTES = 1024


def find_problems(folder: Path) -> list[str]:
    """Says what keeps a folder from being a complete model; empty when nothing does."""
    problems = [*_config_problems(folder), *_weight_problems(folder)]
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        problems.append("no tokenizer (tokenizer.json, tokenizer.model or vocab.json)")
    return problems


def content_hash(folder: Path) -> str:
    """A short hash of a model folder that changes when config, tokenizer or weights do.

    Weight files are read at evenly spaced samples only: hashing gigabytes would cost more time
    than loading them. Where training changed a few layers alone, `tensors_hash` tells.
    """
    digest = hashlib.sha256()
    weights = set(_weight_files(folder))
    for path in sorted(folder.iterdir()):
        if not path.is_file() or path.name.startswith("."):
            continue
        size = path.stat().st_size
        if path in weights:
            digest.update(f"{path.name}\0{size}\0".encode())
            for block in samples(path, _SAMPLES, _SAMPLE_BYTES):
                digest.update(block)
        elif path.suffix in {".json", ".model", ".txt", ".jinja"}:
            digest.update(f"{path.name}\0{size}\0".encode())
            digest.update(path.read_bytes())
    return f"content-{digest.hexdigest()[:16]}"


def tensors_hash(folder: Path) -> str:
    """A short hash of a sample of every tensor in safetensors; "" where there are none.

    Training changes nearly every value of the tensors that it changes.
    """
    digest = hashlib.sha256()
    tensors = 0
    for path in _weight_files(folder):
        if path.suffix != ".safetensors":
            continue
        with path.open("rb") as file:
            for begin, end in _tensor_places(file, path.stat().st_size):
                file.seek(max(begin, (begin + end - _TENSOR_BYTES) // 2))
                digest.update(file.read(min(_TENSOR_BYTES, end - begin)))
                tensors += 1
    return digest.hexdigest()[:8] if tensors else ""


def _tensor_places(file: BinaryIO, size: int) -> list[tuple[int, int]]:
    """Where each tensor of a safetensors file begins and ends; none of one that is damaged."""
    length = int.from_bytes(file.read(8), "little")
    if not 0 < length <= size - 8:
        return []
    try:
        header = json.loads(file.read(length))
        places = [one["data_offsets"] for name, one in header.items() if name != "__metadata__"]
        start = 8 + length
        return sorted((start + int(begin), start + int(end)) for begin, end in places)
    except (ValueError, KeyError, TypeError, AttributeError):
        return []


def weight_bytes(folder: Path) -> int:
    """Size of the weights in one form: safetensors where there are such."""
    files = _weight_files(folder)
    safe = [path for path in files if path.suffix == ".safetensors"]
    return sum(path.stat().st_size for path in safe or files)


def _weight_files(folder: Path) -> list[Path]:
    return sorted(path for pattern in _WEIGHT_PATTERNS for path in folder.glob(pattern))


def _config_problems(folder: Path) -> list[str]:
    path = folder / "config.json"
    if not path.is_file():
        if (folder / "adapter_config.json").is_file():
            return ["it holds an adapter only, which must be merged into its base model first"]
        return ["no config.json"]
    try:
        config = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        return [f"config.json is not valid JSON ({error})"]
    if not isinstance(config, dict) or "model_type" not in config:
        return ["config.json names no model_type"]
    return []


def _weight_problems(folder: Path) -> list[str]:
    files = _weight_files(folder)
    if not files:
        return ["no weights (*.safetensors)"]
    present = {path.name for path in files}
    for name in _INDEX_FILES:
        index = folder / name
        if not index.is_file():
            continue
        try:
            wanted = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
        except (ValueError, KeyError, AttributeError, TypeError):
            return [f"{name} is damaged"]
        if missing := sorted(wanted - present):
            return [f"{len(missing)} of {len(wanted)} weight files are missing ({missing[0]}...)"]
        break
    for path in files:
        with path.open("rb") as file:
            head = file.read(len(_LFS_POINTER))
        if head == _LFS_POINTER:
            return [f"{path.name} is a Git LFS pointer, not the file itself; run: git lfs pull"]
        if not head:
            return [f"{path.name} is empty"]
    return []
