"""The documents of a dataset as a corpus."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import polars as pl

from slm_vllm.config.schema import DatasetConfig
from slm_vllm.datasets.schema import DOCUMENT
from slm_vllm.durable import samples

_ENDS = 65_536


def corpus_key(dataset: DatasetConfig) -> str:
    """Changes whenever the documents of a dataset may have changed.

    Of a local file: its path, size, time of change and first and last 64 KiB. Of anything else,
    such as a URL: what the configuration says, so a changed remote file is not noticed.
    """
    from slm_vllm.datasets.registry import local_path

    said = [dataset.kind, dataset.path, dataset.split, dataset.options]
    path = Path(local_path(dataset.path))
    if not path.is_file():
        return json.dumps(said, sort_keys=True, default=str)
    stat = path.stat()
    digest = hashlib.sha256(b"".join(samples(path, 2, _ENDS)))
    state = [str(path.resolve()), stat.st_size, stat.st_mtime_ns, digest.hexdigest()]
    return json.dumps([*said, *state], sort_keys=True, default=str)


def scan_documents(rows: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """The documents of canonical rows: frames with document_id, title and text."""
    for frame in rows:
        documents = frame.select(pl.col("documents").explode()).drop_nulls()
        if documents.height:
            yield documents.unnest("documents")
        else:
            yield pl.DataFrame(schema={field.name: pl.String for field in DOCUMENT.fields})


def gold_document_ids(frame: pl.DataFrame) -> list[list[str]]:
    """The ids of each canonical row's own documents."""
    ids = frame.select(
        pl.col("documents").list.eval(pl.element().struct.field("document_id"))
    ).to_series()
    return [[] if row is None else row for row in ids.to_list()]
