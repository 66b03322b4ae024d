"""Hugging Face datasets, read through polars' `hf://` paths."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from slm_vllm.datasets.qa_pairs import QaPairsDataset
from slm_vllm.datasets.reading.columnar import ERRORS
from slm_vllm.datasets.reading.records import Form
from slm_vllm.errors import ConfigError, DataError, first_line
from slm_vllm.types import RejectedRow


class HfDataset(QaPairsDataset):
    """Parquet (or JSON Lines, CSV) files of a Hugging Face dataset.

    Of a remote file only columns that hold a field are read, and those that `columns` names as
    metadata.

    Args:
        path: `hf://datasets/OWNER/NAME/**/*.parquet`, `hf://datasets/OWNER/NAME@~parquet/...`, or
            a local file; names with `*` match several files.
        on_reject: See `BaseDataset`.
        columns: See `FieldNames`.
        split: Put in place of `{split}` in the path.
    """

    kind = "hf"
    id_prefix = "hf"

    def __init__(
        self,
        path: str | Path,
        *,
        on_reject: Callable[[RejectedRow], None] | None = None,
        columns: Mapping[str, Any] | None = None,
        split: str | None = None,
    ) -> None:
        text = str(path)
        if "{split}" in text:
            if split is None:
                raise ConfigError(f"{text} needs a split: set dataset.split=train (or another)")
            text = text.replace("{split}", split)
        elif split is not None:
            raise ConfigError(f"dataset.split={split} has no effect: put {{split}} in {text}")
        super().__init__(text, on_reject=on_reject, columns=columns)
        self._remote = "://" in text
        if self._remote and self.names.kept is None:
            self.names.kept = ()

    def files(self) -> Iterator[str]:
        """See `FileDataset.files`; polars itself finds remote ones that match."""
        return iter([self.path]) if self._remote else super().files()

    def open_form(self, path: str) -> Form:
        """See `FileDataset.open_form`; a remote file that cannot be read shows here."""
        if not self._remote:
            return super().open_form(path)
        try:
            if path.endswith((".jsonl", ".ndjson")):
                name, table = "jsonl", pl.scan_ndjson(path)
            elif path.endswith((".csv", ".tsv")):
                separator = "\t" if path.endswith(".tsv") else ","
                # Without types: a text of digits stays the text it is.
                name, table = "csv", pl.scan_csv(path, infer_schema=False, separator=separator)
            else:
                name, table = "parquet", pl.scan_parquet(path)
            columns = tuple(table.collect_schema())
        except ERRORS as error:
            raise DataError(
                f"{path} cannot be read: {first_line(error)}. Check the network, the dataset's "
                "name, and HF_TOKEN where it is private; or download its files and give their "
                "local path."
            ) from error
        return Form(name, columns, table=table)
