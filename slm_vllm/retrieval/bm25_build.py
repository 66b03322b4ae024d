"""Builds the inverted index of bm25 in memory that does not grow with the corpus.

The words of each block of passages are counted, as many blocks at a time as there are threads, and
the counts of a block are written to a folder of its own. When all are there they are merged, some
terms at a time. A build that was killed resumes with the blocks whose folders are whole.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import polars as pl
from numpy.typing import DTypeLike, NDArray

from slm_vllm.durable import publish_folder, sync, write_text
from slm_vllm.parallel import in_order
from slm_vllm.retrieval.arrays import mapped_array
from slm_vllm.retrieval.base import BuildMonitor
from slm_vllm.retrieval.lexical import Analyzer, count_terms
from slm_vllm.retrieval.passage_store import PassageStore
from slm_vllm.retrieval.postings import ARRAYS, BLOCK, TERMS, idf, norms, weights
from slm_vllm.scoring.normalize import WORDS_VERSION

COUNTED = f"counted-{WORDS_VERSION}"
"""Folder of the blocks that are counted; those of other words are not resumed."""
MERGED = f"merged-{WORDS_VERSION}.txt"
"""Says that all files are whole and on disk."""

_BATCH = 16_384  # passages tokenised at once: bounds the memory of a thread
_MERGED = 1 << 23  # postings merged at once


@dataclass(frozen=True, slots=True)
class _Block:
    """The counts of a block of passages.

    Attributes:
        folder: Holds places, counts and lengths; see `Postings`.
        terms: int32 (n_terms,), position of its terms in the whole vocabulary, ascending.
        pointers: int64 (n_terms + 1,), where the postings of each begin.
    """

    folder: Path
    terms: NDArray[np.int32]
    pointers: NDArray[np.int64]

    def load(self, name: str) -> NDArray[Any]:
        """One of its arrays, mapped for as long as it is used."""
        found: NDArray[Any] = mapped_array(self.folder / f"{name}.npy")
        return found


@dataclass(frozen=True, slots=True)
class _Whole:
    """What is known of all blocks together; see `Postings`."""

    pointers: NDArray[np.int64]
    entries: NDArray[np.int64]
    lengths: NDArray[np.unsignedinteger[Any]]
    norms: NDArray[np.float64]
    counts: np.dtype[Any]


def build_postings(
    folder: Path,
    passages: PassageStore,
    analyzer: Analyzer,
    parameters: tuple[float, float],
    threads: int,
    monitor: BuildMonitor,
) -> None:
    """Writes vocabulary and postings of some passages.

    Args:
        folder: May hold the counted blocks of an interrupted build of the same index.
        passages: What to index.
        analyzer: Makes words of texts.
        parameters: k1 and b.
        threads: Blocks worked on at once; each takes about 250 MB.
        monitor: Told after each block.
    """
    if (folder / MERGED).exists():
        _remove_all_but(folder, {MERGED, TERMS, *(f"{name}.npy" for name in ARRAYS)})
        return
    _remove_all_but(folder, {COUNTED})
    folders = _count_blocks(folder / COUNTED, passages, analyzer, threads, monitor)
    terms, blocks = _with_places(folders, threads)
    terms.to_frame().write_ipc(folder / TERMS, compression="uncompressed")
    whole = _summed(blocks, len(terms), *parameters)
    _write_merged(folder, blocks, whole, threads, monitor)
    np.save(folder / "pointers.npy", whole.pointers)
    np.save(folder / "blocks.npy", whole.entries.astype(_smallest(whole.entries[-1])))
    np.save(folder / "lengths.npy", whole.lengths)
    np.save(folder / "norms.npy", whole.norms)
    for path in folder.glob("*.*"):
        sync(path)
    write_text(folder / MERGED, f"{len(passages)} passages")
    shutil.rmtree(folder / COUNTED)


def _remove_all_but(folder: Path, kept: set[str]) -> None:
    for path in folder.iterdir():
        if path.name not in kept:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _count_blocks(
    root: Path, passages: PassageStore, analyzer: Analyzer, threads: int, monitor: BuildMonitor
) -> list[Path]:
    root.mkdir(exist_ok=True)
    n = len(passages)
    folders = [root / f"{number:05d}" for number in range(-(-n // BLOCK))]

    def count(number: int) -> None:
        if not folders[number].exists():
            _count_block(folders[number], passages, number * BLOCK, analyzer)

    blocks = range(len(folders))
    with closing(in_order(ThreadPoolExecutor(threads), count, blocks, 2 * threads)) as counted:
        for number, _ in enumerate(counted):
            monitor.report("counting words", min((number + 1) * BLOCK, n), n)
    return folders


def _count_block(folder: Path, passages: PassageStore, low: int, analyzer: Analyzer) -> None:
    passages = passages.reopened()  # what was read of it is given back with it
    high = min(low + BLOCK, len(passages))
    batches = [
        count_terms(passages.texts(start, min(start + _BATCH, high)), analyzer)
        for start in range(low, high, _BATCH)
    ]
    terms = _union([batch.terms for batch in batches])
    term = np.concatenate([_places(terms, batch.terms)[batch.term] for batch in batches])
    order = np.argsort(term, kind="stable")
    place = np.concatenate([batch.passage + i * _BATCH for i, batch in enumerate(batches)])
    count = np.concatenate([batch.count for batch in batches])
    made = folder.with_name(f".{folder.name}")
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir()
    terms.to_frame().write_ipc(made / TERMS, compression="uncompressed")
    np.save(made / "sizes.npy", np.bincount(term, minlength=len(terms)))
    np.save(made / "places.npy", place[order].astype(np.uint16))
    np.save(made / "counts.npy", count[order].astype(_smallest(count.max(initial=0))))
    np.save(made / "lengths.npy", np.concatenate([batch.lengths for batch in batches]))
    publish_folder(made, folder, Path.exists)


def _with_places(folders: Sequence[Path], threads: int) -> tuple[pl.Series, list[_Block]]:
    """The vocabulary of all blocks, sorted, and where the terms of each are in it."""
    terms = _union([_terms(folder) for folder in folders])

    def place(folder: Path) -> _Block:
        sizes = mapped_array(folder / "sizes.npy")
        pointers = np.concatenate(([0], np.cumsum(sizes)))
        return _Block(folder, _places(terms, _terms(folder)), pointers)

    return terms, list(in_order(ThreadPoolExecutor(threads), place, folders, 2 * threads))


def _summed(blocks: Sequence[_Block], n_terms: int, k1: float, b: float) -> _Whole:
    frequency, entries = np.zeros(n_terms, np.int64), np.zeros(n_terms, np.int64)
    for block in blocks:
        frequency[block.terms] += np.diff(block.pointers)
        entries[block.terms] += 1
    lengths = np.concatenate([block.load("lengths") for block in blocks])
    distinct, coded = np.unique(lengths, return_inverse=True)
    return _Whole(
        np.concatenate(([0], np.cumsum(frequency))),
        np.concatenate(([0], np.cumsum(entries))),
        coded.astype(_smallest(len(distinct))),
        norms(distinct, float(lengths.mean()), k1, b),
        max(block.load("counts").dtype for block in blocks),
    )


def _write_merged(
    folder: Path, blocks: Sequence[_Block], whole: _Whole, threads: int, monitor: BuildMonitor
) -> None:
    total = int(whole.pointers[-1])
    cuts = np.searchsorted(whole.pointers, np.arange(0, total, _MERGED))
    cuts = np.unique(np.append(cuts, len(whole.pointers) - 1))
    spans = list(zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True))

    def merge(span: tuple[int, int]) -> dict[str, NDArray[Any]]:
        return _merged(blocks, whole, *span)

    n_entries = int(whole.entries[-1])
    kinds = {"numbers": np.uint16, "sizes": np.uint16, "bounds": np.float32}
    arrays = {name: (np.dtype(kind), n_entries) for name, kind in kinds.items()}
    arrays |= {"places": (np.dtype(np.uint16), total), "counts": (whole.counts, total)}
    with ExitStack() as stack:
        files = {
            name: stack.enter_context(_open_array(folder / f"{name}.npy", *array))
            for name, array in arrays.items()
        }
        merged = in_order(ThreadPoolExecutor(threads), merge, spans, 2 * threads)
        for (_, last), part in zip(spans, stack.enter_context(closing(merged)), strict=True):
            for name, values in part.items():
                files[name].write(values.data)
            monitor.report("weighing words", int(whole.pointers[last]), total)


def _merged(
    blocks: Sequence[_Block], whole: _Whole, low: int, high: int
) -> dict[str, NDArray[Any]]:
    """The postings of some neighbouring terms, those of each one block after the other."""
    free = whole.pointers[low:high] - whole.pointers[low]
    entry_free = whole.entries[low:high] - whole.entries[low]
    n, n_entries = (int(array[high] - array[low]) for array in (whole.pointers, whole.entries))
    inverse = idf(np.diff(whole.pointers[low : high + 1]), len(whole.lengths))
    places, counts = np.empty(n, np.uint16), np.empty(n, whole.counts)
    numbers, sizes = np.empty(n_entries, np.uint16), np.empty(n_entries, np.uint16)
    bounds = np.empty(n_entries, np.float32)
    for number, block in enumerate(blocks):
        first, last = np.searchsorted(block.terms, (low, high)).tolist()
        if first == last:
            continue
        terms = block.terms[first:last] - low
        begin, end = int(block.pointers[first]), int(block.pointers[last])
        starts = block.pointers[first:last] - begin
        size = np.diff(block.pointers[first : last + 1])
        at = np.repeat(free[terms] - starts, size) + np.arange(end - begin)
        place, count = block.load("places")[begin:end], block.load("counts")[begin:end]
        places[at], counts[at] = place, count
        norm = whole.norms[whole.lengths[number * BLOCK : (number + 1) * BLOCK][place]]
        weight = weights(np.repeat(inverse[terms], size), count, norm)
        entry = entry_free[terms]
        numbers[entry], sizes[entry] = number, size - 1
        bounds[entry] = np.maximum.reduceat(weight, starts)
        free[terms] += size
        entry_free[terms] += 1
    return {
        "places": places, "counts": counts, "numbers": numbers, "sizes": sizes, "bounds": bounds
    }  # fmt: skip


def _open_array(path: Path, dtype: np.dtype[Any], n: int) -> BinaryIO:
    """A file in numpy's format whose n values are written one after the other."""
    file = path.open("wb")
    header = {"descr": dtype.str, "fortran_order": False, "shape": (n,)}
    np.lib.format.write_array_header_1_0(file, header)  # type: ignore[no-untyped-call]
    return file


def _terms(folder: Path) -> pl.Series:
    return pl.read_ipc(folder / TERMS)["term"]


def _union(vocabularies: Sequence[pl.Series]) -> pl.Series:
    terms: pl.Series = pl.concat(vocabularies).unique().sort().alias("term").set_sorted()
    return terms


def _places(terms: pl.Series, some: pl.Series) -> NDArray[np.int32]:
    return pl.Series(terms.search_sorted(some)).to_numpy().astype(np.int32)


def _smallest(highest: float) -> DTypeLike:
    return np.min_scalar_type(int(highest))
