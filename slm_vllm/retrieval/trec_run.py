"""TREC run files: reads rankings made by others, and writes ours.

A line is ``question Q0 document rank score tag``. As for trec_eval the scores make the order, and
the column of ranks is not read.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, ClassVar

import numpy as np
import polars as pl

from slm_vllm.config.section import UserPath
from slm_vllm.datasets.reading.lines import line_batches
from slm_vllm.datasets.reading.record import ignore
from slm_vllm.durable import replacing, sha256_of
from slm_vllm.errors import ConfigError, DataError, StorageError, reason_of
from slm_vllm.retrieval.base import (
    BuildMonitor,
    SearchResult,
    StoredRetriever,
    check_top_k,
    pad_result,
)
from slm_vllm.retrieval.passage_store import PassageStore, positions_by_name
from slm_vllm.types import RetrievedPassage

_FIELDS = 6
_FOUND = "found.parquet"
_SMALLEST = np.finfo(np.float32).tiny
_RUN_SCHEMA = {"question_id": pl.String, "document_id": pl.String, "score": pl.Float32}


@dataclass(frozen=True, slots=True)
class TrecRunOptions:
    """What `retriever.options` of kind `trec_run` may hold.

    Attributes:
        file: The run, packed or not.
    """

    file: UserPath


class TrecRunRetriever(StoredRetriever):
    """What a run file found for each question of the dataset; nothing is searched.

    Questions are known by their id. A document of the run is looked up by `passage_id`, else by
    `document_id`, and then stands for the first of its passages. Documents that the corpus does
    not have are left out.
    """

    kind: ClassVar[str] = "trec_run"
    options_class: ClassVar[type] = TrecRunOptions
    layout: ClassVar[int] = 2  # 1 kept a passage twice under a question

    def __init__(
        self, passages: PassageStore, fingerprint: str, folder: Path, options: TrecRunOptions
    ) -> None:
        super().__init__(passages, fingerprint, folder, options)
        found = pl.read_parquet(folder / _FOUND)
        self._found = {
            str(name[0]): (part["position"].to_numpy(), part["score"].to_numpy())
            for name, part in found.partition_by(
                "question_id", as_dict=True, maintain_order=True
            ).items()
        }

    def search(self, questions: Sequence[str], top_k: int) -> SearchResult:
        """Not available.

        Raises:
            ConfigError: Always: a run knows questions by their ids, not by their words.
        """
        raise ConfigError(
            "A run file holds what was found for the questions of a dataset, and cannot be asked "
            "others. Choose another retriever"
        )

    def search_rows(self, rows: pl.DataFrame, top_k: int) -> SearchResult:
        """See `BaseRetriever.search_rows`."""
        check_top_k(top_k)
        nothing = (np.empty(0, np.int64), np.empty(0, np.float32))
        found = [self._found.get(name, nothing) for name in rows["question_id"].to_list()]
        return pad_result([(at[:top_k], scores[:top_k]) for at, scores in found], top_k)

    @classmethod
    def identity(cls, options: TrecRunOptions) -> dict[str, Any]:
        """See `StoredRetriever.identity`: the content of the file.

        Raises:
            DataError: It cannot be read.
        """
        try:
            return {"sha256": sha256_of(Path(options.file))}
        except OSError as error:
            raise DataError(f"{options.file} cannot be read ({reason_of(error)})") from None

    @classmethod
    def build(
        cls, folder: Path, passages: PassageStore, options: TrecRunOptions, monitor: BuildMonitor
    ) -> None:
        """See `StoredRetriever.build`.

        Raises:
            DataError: The file is no run, or none of its documents is in the corpus.
        """
        run = read_run(options.file)
        known = _positions(passages, run["document_id"].unique(), monitor)
        found = run.join(known, on="document_id", maintain_order="left")
        if found.is_empty():
            raise DataError(
                f"{options.file}: none of its documents, such as {run['document_id'][0]!r}, is in "
                "the corpus. Are it and --corpus of one collection?"
            )
        # Two of its documents may be stored as one passage.
        found = found.unique(["question_id", "position"], keep="first", maintain_order=True)
        found.select("question_id", "position", "score").write_parquet(folder / _FOUND)


class RunWriter:
    """Writes what was found as a run of documents, each at the rank of its best passage.

    Equal scores would be put into another order by whoever reads the run, so a score that is not
    below the one before it is written as the next smaller number.

    Args:
        file: Open for text.
        tag: Names the run in its last column.
    """

    def __init__(self, file: IO[str], tag: str) -> None:
        self._file = file
        self._tag = "_".join(tag.split()) or "slm-vllm"

    def add(self, question_ids: Sequence[str], found: Sequence[Sequence[RetrievedPassage]]) -> None:
        """Writes the lines of some questions.

        Raises:
            DataError: An id holds white space, which ends a column.
        """
        for question, passages in zip(question_ids, found, strict=True):
            best: dict[str, float] = {}
            for passage in passages:
                best.setdefault(passage.passage.document_id, passage.score)
            lines = zip(best, _falling(best.values()), strict=True)
            for rank, (document, score) in enumerate(lines, start=1):
                for name in (question, document):
                    if len(name.split()) != 1:
                        raise DataError(f"the id {name!r} cannot stand in a run: it has a blank")
                self._file.write(f"{question} Q0 {document} {rank} {score:.9g} {self._tag}\n")


@contextmanager
def written_run(path: str, tag: str) -> Iterator[RunWriter]:
    """A run file to be written, packed where it ends in `.gz`; it is there whole or not at all.

    Raises:
        StorageError: It cannot be written.
    """
    opened = gzip.open if path.endswith(".gz") else open
    place = Path(path)
    # A pipe or a terminal is written to as it is.
    is_kept = place.exists() and not place.is_file()
    try:
        with (
            nullcontext(place) if is_kept else replacing(place.resolve()) as whole,
            opened(whole, "wt", encoding="utf-8") as file,
        ):
            yield RunWriter(file, tag)
    except OSError as error:
        raise StorageError(f"{path} cannot be written ({reason_of(error)})") from None


def read_run(path: str) -> pl.DataFrame:
    """Reads a run.

    Returns:
        question_id, document_id, score (Float32), best first within each question; equal scores in
        the order of the file.

    Raises:
        DataError: The file is missing, a line has not the six columns, or a document stands twice
            under a question.
    """
    rows: list[tuple[str, str, float]] = []
    for batch in line_batches(path, ignore):
        for line in batch:
            fields = line.text.split()
            try:
                question, _, document, _, score, _ = fields
                rows.append((question, document, float(score)))
            except ValueError:
                raise DataError(
                    f"{path}, line {line.number}: not a line of a run (question, Q0, document, "
                    f"rank, score, tag): {line.text[:80]!r}"
                ) from None
    if not rows:
        raise DataError(f"{path} holds no line of a run")
    run = pl.DataFrame(rows, schema=_RUN_SCHEMA, orient="row")
    if run["score"].is_nan().any():
        raise DataError(f"{path}: a score is not a number")
    twice = run.select("question_id", "document_id").is_duplicated()
    if twice.any():
        first = run.filter(twice).row(0)
        raise DataError(f"{path}: document {first[1]!r} stands twice under question {first[0]!r}")
    return run.sort("score", descending=True, maintain_order=True)


def _positions(passages: PassageStore, names: pl.Series, monitor: BuildMonitor) -> pl.DataFrame:
    """document_id (as the run has it) and the position of its passage."""
    aliases = passages.aliases
    wanted = pl.DataFrame(
        {"document_id": names, "name": [aliases.get(name, name) for name in names]}
    )
    found = []
    for part in passages.names():
        found.append(part.join(wanted, on="name", how="semi"))
        monitor.report("looking up the documents of the run", part["position"][-1], len(passages))
    return wanted.join(positions_by_name(found), on="name").select("document_id", "position")


def _falling(scores: Iterable[float]) -> Iterator[np.float32]:
    """The scores, each below the one before it."""
    before = np.float32(np.inf)
    for score in scores:
        below = np.nextafter(before, np.float32(-np.inf))
        if abs(below) < _SMALLEST:  # readers may take what is smaller for 0
            below = np.float32(0) if before > 0 else -_SMALLEST
        before = min(np.float32(score), below)
        yield before
