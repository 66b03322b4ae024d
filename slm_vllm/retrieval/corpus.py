"""What a retriever may search: documents in batches, and the key under which they are known.

Every source of documents is a class with the two members of `Corpus`. `open_index` takes them,
reads the documents once, and makes passages and index of them in bounded memory.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import cached_property
from typing import Protocol

import polars as pl

from slm_vllm.config.schema import DatasetConfig
from slm_vllm.datasets.identity import dataset_identity
from slm_vllm.datasets.registry import open_configured


class Corpus(Protocol):
    """A source of documents."""

    @property
    def key(self) -> str:
        """Changes whenever the documents may have changed, and with how they are read.

        Equal keys mean equal documents in the same order, which are then not read again.
        """

    def documents(self) -> Iterator[pl.DataFrame]:
        """Frames of bounded size with document_id, title and text (`DOCUMENT_FIELDS`), in order.

        Called again, it gives the same documents: an interrupted build goes on that way.
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

    @cached_property
    def key(self) -> str:
        """Changes whenever the documents may have changed.

        It covers the content of a local file and how it is read, not what the dataset is called,
        so every command finds the passages that another one made. Of a URL that is read where it
        is, the content is not known.
        """
        read = self._dataset.model_dump(exclude={"name", "path"})
        known = json.dumps([dataset_identity(self._file), read], sort_keys=True, default=str)
        return hashlib.sha256(known.encode("utf-8", "surrogatepass")).hexdigest()

    def documents(self) -> Iterator[pl.DataFrame]:
        """Frames with document_id, title and text; those of rows that are not asked included."""
        return open_configured(self._dataset, self._file).corpus()


def gold_document_ids(frame: pl.DataFrame) -> list[list[str]]:
    """The ids of each canonical row's own documents."""
    ids = frame.select(
        pl.col("documents").list.eval(pl.element().struct.field("document_id"))
    ).to_series()
    return [[] if row is None else row for row in ids.to_list()]
