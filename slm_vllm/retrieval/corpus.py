"""The documents a retriever may search, in batches, and the key that identifies them.

Every source of documents is a class with the two members of `Corpus`. `open_index` takes them,
reads the documents once, and makes passages and index of them in bounded memory.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, Protocol

import polars as pl

from slm_vllm.amounts import counted
from slm_vllm.config.schema import Config, CorpusConfig, DatasetConfig
from slm_vllm.datasets.corpus_file import CorpusFile
from slm_vllm.datasets.identity import dataset_identity
from slm_vllm.datasets.registry import fetched_path, open_configured
from slm_vllm.datasets.rejects import RejectLog


class Corpus(Protocol):
    """A source of documents.

    Attributes:
        notices: What the user should know of it, known once all documents were read.
    """

    notices: list[str]

    @property
    def key(self) -> str:
        """Changes whenever the documents may have changed, and with how they are read.

        Equal keys mean equal documents in the same order, which are then not read again.
        """

    def documents(self) -> Iterator[pl.DataFrame]:
        """Frames of bounded size with document_id, title and text (`DOCUMENT_FIELDS`), in order.

        Called again, it gives the same documents: an interrupted build is resumed that way.
        """


class DatasetCorpus:
    """The documents that come with the rows of a dataset.

    Args:
        dataset: Its section of the configuration.
        file: Where its rows are read: the local copy, where the section names a URL.
    """

    def __init__(self, dataset: DatasetConfig, file: str) -> None:
        self._dataset = dataset
        self._file = file
        self.notices: list[str] = []

    @cached_property
    def key(self) -> str:
        """Changes whenever the documents may have changed.

        It covers the content of a local file and how it is read, not what the dataset is called,
        so every command finds the passages that another one made. Of a URL that is read where it
        is, the content is not known.
        """
        return _key(self._file, self._dataset.model_dump(exclude={"name", "path"}))

    def documents(self) -> Iterator[pl.DataFrame]:
        """Frames with document_id, title and text; those of rows that are not asked included."""
        return open_configured(self._dataset, self._file).corpus()


class FileCorpus:
    """A collection of its own (`corpus=`), searched in place of the dataset's documents.

    Args:
        section: Its section of the configuration.
        cache_dir: Where the copy of a URL is kept.
    """

    def __init__(self, section: CorpusConfig, cache_dir: str) -> None:
        self._section = section
        self._cache_dir = cache_dir
        self.notices: list[str] = []

    @cached_property
    def key(self) -> str:
        """See `Corpus.key`; what the corpus is called is no part of it."""
        return _key(self._file, {"corpus": self._section.columns})

    def documents(self) -> Iterator[pl.DataFrame]:
        """See `Corpus.documents`.

        Raises:
            DataError: They cannot be read.
        """
        lost = RejectLog()
        columns = self._section.columns
        yield from CorpusFile(self._file, columns=columns, on_reject=lost).documents()
        if lost.count:
            first, rows = lost.first[0], counted(lost.count, "row")
            self.notices = [
                f"{self._section.path}: {rows} without a document left out "
                f"(first: {first.path}, line {first.line}: {first.reason})"
            ]

    @cached_property
    def _file(self) -> str:
        return fetched_path(self._section.path, self._cache_dir)


def find_corpus(config: Config, dataset_file: str) -> Corpus:
    """What the searches of a configuration go through.

    Args:
        config: Its section `corpus`, or where there is none `dataset`, counts.
        dataset_file: Where the rows of the dataset are read.
    """
    if config.corpus is not None:
        return FileCorpus(config.corpus, config.cache_dir)
    return DatasetCorpus(config.dataset, dataset_file)


def _key(file: str, read: Mapping[str, Any]) -> str:
    known = json.dumps([dataset_identity(file), read], sort_keys=True, default=str)
    return hashlib.sha256(known.encode("utf-8", "surrogatepass")).hexdigest()
