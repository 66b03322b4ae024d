"""Opens the index of a configuration, building what is not there yet.

Layout under the cache folder::

    indexes/passages-<fingerprint>/   passages of one corpus under one chunking, shared
    indexes/<kind>-<fingerprint>/     what one retriever keeps of them
    indexes/corpora/<key>.json        which corpus content an unchanged dataset file holds

A fingerprint covers everything that decides the content of its folder and nothing else, so runs
and modes share indexes, and an index can never be taken for that of other settings.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from slm_vllm.config.schema import PassageConfig, RetrieverConfig
from slm_vllm.durable import write_text
from slm_vllm.errors import DataError
from slm_vllm.retrieval.base import (
    BaseRetriever,
    BuildMonitor,
    CompositeRetriever,
    StoredRetriever,
    fingerprint_of,
)
from slm_vllm.retrieval.index_files import (
    FORMAT_VERSION,
    LAYOUT,
    DamagedIndexError,
    building,
    locked,
    publish,
    read_seal,
    write_seal,
)
from slm_vllm.retrieval.options import parse_options
from slm_vllm.retrieval.passage_store import PassageStore, PassageWriter
from slm_vllm.retrieval.passages import DocumentFilter, OtherDocumentsError, iter_passages
from slm_vllm.retrieval.registry import retriever_class

log = logging.getLogger(__name__)

CHUNKING_VERSION = 1
"""Raised when the same documents and settings would give other passages than before."""

_KEPT_PASSAGES = 250_000
"""Passages cut between two times they are made durable: what a killed build cuts again at most."""

Documents = Callable[[], Iterable[pl.DataFrame]]


@dataclass(frozen=True, slots=True)
class _Corpus:
    documents: Documents
    key: str
    root: Path  # the folder `indexes`
    monitor: BuildMonitor


def open_index(
    config: RetrieverConfig,
    documents: Documents,
    *,
    corpus_key: str,
    cache_dir: Path,
    progress: Callable[[str, int, int | None], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> BaseRetriever:
    """Opens the stored index of a configuration, or builds it.

    Where the evaluated model is asked before or after the search, it is left to the run to put
    that, and any reranker, around what is opened here.

    Args:
        config: The retriever, its options, chunking and reranker.
        documents: `Corpus.documents`; called only when passages have to be built.
        corpus_key: `Corpus.key`.
        cache_dir: Indexes are kept in its folder `indexes`.
        progress: Called with a phase, what is done of it, and its size where known.
        cancelled: Asked during a build; True ends it.

    Raises:
        ConfigError: Options that are not valid, or a package or model that is not there.
        DataError: The corpus has no document with text.
        StorageError: The index cannot be written.
        IndexCancelled: `cancelled` said so.
    """
    monitor = BuildMonitor(progress, cancelled)
    corpus = _Corpus(documents, corpus_key, Path(cache_dir) / "indexes", monitor)
    retriever = _open(config, corpus)
    if config.reranker is not None and not config.asks_model:
        from slm_vllm.retrieval.reranker import CrossEncoderScorer, RerankingRetriever

        return RerankingRetriever(retriever, config.reranker, CrossEncoderScorer(config.reranker))
    return retriever


def stored_indexes(cache_dir: Path) -> list[dict[str, Any]]:
    """What lies in the index store: one mapping of facts for each folder."""
    found = []
    root = Path(cache_dir) / "indexes"
    for folder in sorted(p for p in root.glob("*-*") if p.is_dir() and p.name[0] != "."):
        entry: dict[str, Any] = {"name": folder.name, "path": str(folder)}
        try:
            seal = read_seal(folder)
        except DamagedIndexError as damage:
            entry["damaged"] = str(damage)
        else:
            entry["bytes"] = sum(file["size"] for file in seal.pop("files").values())
            entry.update(seal)
        found.append(entry)
    return found


def _open(config: RetrieverConfig, corpus: _Corpus) -> BaseRetriever:
    found = retriever_class(config.kind)
    options = parse_options(config.kind, found.options_class, config.options)
    if issubclass(found, CompositeRetriever):
        parts = [_open(part, corpus) for part in found.components(config, options)]
        return found.combine(parts, options)
    assert issubclass(found, StoredRetriever)
    passages = _open_passages(config.passage, corpus)
    options = found.settled(options, passages)
    identity = {
        "version": found.version,
        "options": found.identity(options),
        **found.passages_identity(passages),
    }
    fingerprint = _fingerprint(passages.fingerprint, config.kind, identity)
    folder = corpus.root / f"{config.kind}-{fingerprint}"
    make = partial(found, passages, fingerprint, folder, options)
    retriever = _try_open(folder, found.layout, make)
    if retriever is not None:
        return retriever
    lock = corpus.root / f".{folder.name}.lock"
    with locked(lock, f"the {config.kind} index", corpus.monitor):
        retriever = _try_open(folder, found.layout, make, say_why=True)
        if retriever is not None:
            return retriever
        facts = {"kind": config.kind, "fingerprint": fingerprint, "identity": identity}
        _build(found, folder, passages, options, facts, corpus.monitor)
    return make()


def _try_open(
    folder: Path, layout: int, make: Callable[[], StoredRetriever], *, say_why: bool = False
) -> StoredRetriever | None:
    if not folder.exists():
        return None
    try:
        if read_seal(folder).get(LAYOUT, 1) == layout:
            return make()
        if say_why:
            log.warning(
                "The index %s has the files of another version of slm-vllm and is built again",
                folder,
            )
        return None
    except (DamagedIndexError, OSError, ValueError, KeyError) as damage:
        if say_why:
            log.warning("The index %s is damaged and will be rebuilt: %s", folder, damage)
        return None


def _build(
    found: type[StoredRetriever],
    folder: Path,
    passages: PassageStore,
    options: Any,
    facts: dict[str, Any],
    monitor: BuildMonitor,
) -> None:
    begin = time.perf_counter()
    temporary = folder.with_name(f".building-{folder.name}")
    with building(temporary, f"the {found.kind} index", resumable=found.resumable):
        found.build(temporary, passages, options, monitor)
        seconds = time.perf_counter() - begin
        counts = {"n_passages": len(passages), "passages": passages.fingerprint}
        counts[LAYOUT] = found.layout
        write_seal(temporary, {**facts, **counts, "build_seconds": round(seconds, 3)})
        publish(temporary, folder)
    log.info("Built %s: %d passages in %.1f s", folder.name, len(passages), seconds)


def _open_passages(config: PassageConfig, corpus: _Corpus) -> PassageStore:
    # The key is the user's path and file times; its hash makes a file name of it.
    key = hashlib.sha256(corpus.key.encode()).hexdigest()[:24]
    known = corpus.root / "corpora" / f"{key}.json"
    store = _known_passages(known, config, corpus.root)
    if store is not None:
        return store
    with locked(known.with_suffix(".lock"), "the passages", corpus.monitor):
        store = _known_passages(known, config, corpus.root, say_why=True)
        if store is None:
            store = _build_passages(known, config, corpus)
        return store


def _known_passages(
    known: Path, config: PassageConfig, root: Path, say_why: bool = False
) -> PassageStore | None:
    try:
        corpus_hash = json.loads(known.read_text("utf-8"))["corpus_hash"]
        fingerprint = _passage_fingerprint(corpus_hash, config)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    folder = root / f"passages-{fingerprint}"
    if not folder.exists():
        return None
    try:
        read_seal(folder)
        return PassageStore(folder, fingerprint)
    except (DamagedIndexError, OSError, ValueError) as damage:
        if say_why:
            log.warning("The passages %s are damaged and will be rebuilt: %s", folder, damage)
        return None


def _build_passages(known: Path, config: PassageConfig, corpus: _Corpus) -> PassageStore:
    settings = _fingerprint(config.model_dump(), CHUNKING_VERSION)
    temporary = corpus.root / f".building-passages-{known.stem}-{settings}"
    with building(temporary, "the passages", resumable=True):
        try:
            seen, count = _write_passages(temporary, config, corpus, going_on=True)
        except OtherDocumentsError:
            seen, count = _write_passages(temporary, config, corpus, going_on=False)
        if count == 0:
            raise DataError(_nothing_to_search(seen.n_seen))
        fingerprint = _passage_fingerprint(seen.corpus_hash, config)
        facts = {
            "kind": "passages",
            "fingerprint": fingerprint,
            "passage": config.model_dump(),
            "n_passages": count,
            "n_documents": seen.n_kept,
            "n_duplicates": seen.n_seen - seen.n_kept,
        }
        write_seal(temporary, facts)
        folder = corpus.root / f"passages-{fingerprint}"
        # Another key may hold the same content: both builders then want the same folder.
        with locked(corpus.root / f".{folder.name}.lock", "the passages", corpus.monitor):
            publish(temporary, folder)
        facts = {"corpus_hash": seen.corpus_hash, "corpus_key": corpus.key}
        write_text(known, json.dumps(facts, sort_keys=True))
    return PassageStore(folder, fingerprint)


def _write_passages(
    folder: Path, config: PassageConfig, corpus: _Corpus, *, going_on: bool
) -> tuple[DocumentFilter, int]:
    """Cuts all documents; returns what was seen of them and the number of passages.

    All documents are read again by a build that is resumed, since it has to know which came before.
    """
    with PassageWriter(folder, going_on=going_on) as writer:
        kept = writer.written
        seen = DocumentFilter(kept.get("documents", 0), kept.get("corpus_hash", ""))
        count = n_kept = kept.get("passages", 0)
        if count:
            log.info("Going on with the %d passages of an interrupted build", count)
        for frame in iter_passages(corpus.documents(), config, seen):
            writer.append(frame)
            count += frame.height
            if count - n_kept >= _KEPT_PASSAGES:
                facts = {"documents": seen.n_seen, "corpus_hash": seen.corpus_hash}
                writer.keep({**facts, "passages": count})
                n_kept = count
            corpus.monitor.report("cutting passages", count)
        writer.aliases = seen.aliases
    return seen, count


def _nothing_to_search(n_seen: int) -> str:
    found = f"its {n_seen} documents have no text" if n_seen else "it has no documents"
    return (
        f"There is nothing to search in this dataset: {found}. Name what is to be searched with "
        "--corpus FILE (or a folder), or take another mode (--mode no_context, --mode oracle)"
    )


def _passage_fingerprint(corpus_hash: str, config: PassageConfig) -> str:
    return _fingerprint(corpus_hash, config.model_dump(), CHUNKING_VERSION)


def _fingerprint(*parts: Any) -> str:
    return fingerprint_of(json.dumps([FORMAT_VERSION, *parts], sort_keys=True, default=str))
