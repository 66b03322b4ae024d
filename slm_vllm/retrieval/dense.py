"""Dense retrieval: sentence embeddings and their nearest neighbours."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from slm_vllm.config.section import UserPath
from slm_vllm.datasets.identity import dataset_identity
from slm_vllm.errors import DataError, StorageError
from slm_vllm.monitoring.memory import usable_memory
from slm_vllm.retrieval.base import (
    SEARCH_ONLY,
    BuildMonitor,
    SearchResult,
    StoredRetriever,
    check_top_k,
)
from slm_vllm.retrieval.embeddings_file import placed_embeddings
from slm_vllm.retrieval.encoder import (
    DEFAULT_MODEL,
    Encoder,
    EncoderDtype,
    declared_dimension,
    find_encoder,
    model_identity,
    prefixes_for,
)
from slm_vllm.retrieval.passage_store import PassageStore
from slm_vllm.retrieval.vector_build import build_index, keep_built
from slm_vllm.retrieval.vector_index import (
    IndexKind,
    VectorIndex,
    import_faiss,
    kind_by_size,
    kind_that_fits,
    vectors_file,
)

log = logging.getLogger(__name__)

SHARD = 2_048
"""Passages encoded between two writes to disk: what a killed build loses at most."""


# Options that decide the content of an index of each kind; any may, where the kind is open.
_BUILT_WITH: dict[str, tuple[str, ...]] = {
    "flat": (),
    "fp16": (),
    "sq8": (),
    "hnsw": ("hnsw_m", "ef_construction"),
    "ivfsq8": ("nlist",),
    "ivfpq": ("nlist", "pq_m"),
    "auto": ("hnsw_m", "ef_construction", "nlist", "pq_m"),
}


@dataclass(frozen=True, slots=True)
class DenseOptions:
    """What `retriever.options` of kind `dense` may hold.

    Attributes:
        model: A local folder or a Hugging Face repository of sentence-transformers.
        revision: A commit or tag of the repository.
        index: `flat` is exact; `fp16` and `sq8` look at all vectors too, kept in two bytes and one
            byte a number; `hnsw`, `ivfsq8` and `ivfpq` look at some. `auto` chooses by size and
            memory.
        embeddings: A file of the passages' vectors, which are then not computed; see
            `retrieval.embeddings_file`. The model encodes the questions alone.
        similarity: `cosine`, or `ip` for the inner product of the vectors as they are.
        query_prefix: Put before each question; null: what the model is known to want.
        passage_prefix: Put before each passage; null: what the model is known to want.
        dtype: `auto`: float16 on a GPU, float32 on a CPU. `int8`: CPU only.
        device: `auto`: the GPU where there is one.
        batch_size: Texts encoded at once; null: by device.
        hnsw_m: Neighbours of a node in the HNSW graph.
        ef_construction: Candidates looked at for each node while the graph is built.
        ef_search: Candidates looked at in a search.
        nlist: Lists of IVF; null: by size.
        nprobe: Lists looked at in a search.
        pq_m: Bytes a vector is compressed to in IVF-PQ; null: by dimension.
    """

    model: str = DEFAULT_MODEL
    revision: str | None = None
    index: Literal["auto", "flat", "fp16", "sq8", "hnsw", "ivfsq8", "ivfpq"] = "auto"
    embeddings: UserPath | None = None
    similarity: Literal["cosine", "ip"] = "cosine"
    query_prefix: str | None = field(default=None, metadata=SEARCH_ONLY)
    passage_prefix: str | None = None
    dtype: EncoderDtype = "auto"
    device: str = field(default="auto", metadata=SEARCH_ONLY)
    batch_size: Annotated[int, Field(ge=1)] | None = field(default=None, metadata=SEARCH_ONLY)
    hnsw_m: Annotated[int, Field(ge=2)] = 32
    ef_construction: Annotated[int, Field(ge=1)] = 80
    ef_search: Annotated[int, Field(ge=1)] = field(default=128, metadata=SEARCH_ONLY)
    nlist: Annotated[int, Field(ge=1)] | None = None
    nprobe: Annotated[int, Field(ge=1)] = field(default=32, metadata=SEARCH_ONLY)
    pq_m: Annotated[int, Field(ge=1)] | None = None


class DenseRetriever(StoredRetriever):
    """Embeddings of sentence-transformers, searched by FAISS. Scores are cosines by default."""

    kind: ClassVar[str] = "dense"
    options_class: ClassVar[type] = DenseOptions
    resumable: ClassVar[bool] = True

    def __init__(
        self, passages: PassageStore, fingerprint: str, folder: Path, options: DenseOptions
    ) -> None:
        super().__init__(passages, fingerprint, folder, options)
        self._folder = folder
        self._options = options
        self._index = VectorIndex(folder, options)
        if self._index.n != len(passages):
            raise ValueError(f"{self._index.n} vectors for {len(passages)} passages")
        self._encoder = _encoder(options)
        self._prefix = _query_prefix(options)

    def search(self, questions: Sequence[str], top_k: int) -> SearchResult:
        """See `BaseRetriever.search`. The model is loaded at the first search.

        Blank questions find nothing.

        Raises:
            StorageError: The model's vectors have another length than those of the index.
        """
        check_top_k(top_k)
        result = SearchResult.empty(len(questions), top_k)
        asked = [i for i, question in enumerate(questions) if question.strip()]
        if not asked:
            return result
        vectors = self._encoder.encode([self._prefix + questions[i] for i in asked])
        if vectors.shape[1] != self._index.dimension:
            raise StorageError(
                f"The model {self._options.model} gives vectors of {vectors.shape[1]} numbers, the "
                f"index {self._folder} holds vectors of {self._index.dimension}. Rebuild it: "
                "remove that folder and run slm-vllm index build"
            )
        found = self._index.search(vectors, top_k)
        result.indices[asked], result.scores[asked] = found.indices, found.scores
        return result

    def describe(self) -> dict[str, Any]:
        """See `BaseRetriever.describe`; adds the model and the kind of index."""
        facts: dict[str, Any] = {"model": self._options.model, "index": self._index.kind}
        facts["dimension"] = self._index.dimension
        if (recall := self._index.recall) is not None:
            facts["recall"] = f"{recall['mean']:.3f} of exact search's best {recall['at']}"
        return {**super().describe(), **facts}

    def close(self) -> None:
        """Frees the model, then the files."""
        self._encoder.close()
        super().close()

    @classmethod
    def settled(cls, options: DenseOptions, passages: PassageStore) -> DenseOptions:
        """`auto` as the kind of index that fits; where that is the one of this size, it stays."""
        if options.index != "auto":
            return options
        n, dimension = (
            len(passages),
            declared_dimension(find_encoder(options.model, options.revision)),
        )
        kind = kind_that_fits(n, dimension, options.hnsw_m, usable_memory())
        return options if kind == kind_by_size(n) else replace(options, index=kind)

    @classmethod
    def identity(cls, options: DenseOptions) -> dict[str, Any]:
        """The content of the model's files in place of its name, so that moving it is no change."""
        shown = super().identity(options)
        folder = find_encoder(options.model, options.revision)
        shown["passage_prefix"] = _passage_prefix(options)
        for key in _BUILT_WITH["auto"]:
            if key not in _BUILT_WITH[options.index]:
                del shown[key]
        del shown["model"], shown["revision"], shown["embeddings"]
        if options.embeddings is not None:
            shown["embeddings"] = dataset_identity(options.embeddings)
        return {**shown, "model": model_identity(folder)}

    @classmethod
    def build(
        cls, folder: Path, passages: PassageStore, options: DenseOptions, monitor: BuildMonitor
    ) -> None:
        """Encodes all passages, going on where an interrupted build stopped, then indexes them."""
        import_faiss()
        if keep_built(folder):
            return
        encoder = _encoder(options)
        try:
            if options.embeddings is None:
                dimension = _encode_all(folder, passages, options, encoder, monitor)
            else:
                dimension = encoder.dimension()
                _take_all(folder, passages, options, dimension, monitor)
        finally:
            encoder.close()
        build_index(folder, _kind(options, passages), len(passages), dimension, options, monitor)
        keep_built(folder)


def _encode_all(
    folder: Path,
    passages: PassageStore,
    options: DenseOptions,
    encoder: Encoder,
    monitor: BuildMonitor,
) -> int:
    """Appends the missing vectors to the file of vectors; returns their length."""
    n = len(passages)
    prefix = _passage_prefix(options)
    dimension = encoder.dimension()
    path, dtype = vectors_file(folder, _kind(options, passages))
    row = dimension * np.dtype(dtype).itemsize
    begin = time.perf_counter()
    with path.open("ab") as file:
        # A row that was cut short by a kill is written again.
        done = first = min(path.stat().st_size // row, n)
        file.truncate(done * row)
        if done:
            log.info("Going on with the embeddings of an interrupted build: %d of %d", done, n)
        while done < n:
            monitor.report("encoding passages", done, n)
            texts = passages.texts(done, min(done + SHARD, n))
            vectors = encoder.encode([prefix + text for text in texts])
            file.write(np.ascontiguousarray(vectors, dtype).data)
            file.flush()
            os.fsync(file.fileno())
            done += len(texts)
    monitor.report("encoding passages", n, n)
    seconds = max(time.perf_counter() - begin, 1e-9)
    log.info("Encoded %d passages, %.0f a second", n - first, (n - first) / seconds)
    return dimension


def _take_all(
    folder: Path,
    passages: PassageStore,
    options: DenseOptions,
    dimension: int,
    monitor: BuildMonitor,
) -> None:
    """Writes vectors that were computed elsewhere into the file of vectors."""
    assert options.embeddings is not None
    done = 0
    shape = (len(passages), dimension)
    path, dtype = vectors_file(folder, _kind(options, passages))
    placed = np.memmap(path, dtype, mode="w+", shape=shape)
    for at, vectors in placed_embeddings(options.embeddings, passages):
        if vectors.shape[1] != dimension:
            raise DataError(
                f"{options.embeddings} has vectors of {vectors.shape[1]} numbers, and the model "
                f"{options.model} makes {dimension} of a question. Name the model they are of with "
                "retriever.options.model"
            )
        if options.similarity == "cosine":
            lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
            vectors = vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
        placed[at] = vectors
        done += len(vectors)
        monitor.report("reading embeddings", done, len(passages))
    placed.flush()


def _kind(options: DenseOptions, passages: PassageStore) -> IndexKind:
    return kind_by_size(len(passages)) if options.index == "auto" else options.index


def _encoder(options: DenseOptions) -> Encoder:
    return Encoder(
        find_encoder(options.model, options.revision),
        device=options.device,
        dtype=options.dtype,
        batch_size=options.batch_size,
        normalize=options.similarity == "cosine",
    )


def _passage_prefix(options: DenseOptions) -> str:
    if options.passage_prefix is not None:
        return options.passage_prefix
    return prefixes_for(options.model, find_encoder(options.model, options.revision)).passage


def _query_prefix(options: DenseOptions) -> str:
    if options.query_prefix is not None:
        return options.query_prefix
    return prefixes_for(options.model, find_encoder(options.model, options.revision)).query
