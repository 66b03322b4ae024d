"""Collects rejected rows in a file beside the results, or raises under `--strict`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TextIO

from slm_vllm.errors import DataError, StorageError, reason_of
from slm_vllm.types import RejectedRow

EXCERPT_CHARACTERS = 120
_KEPT = 20


class RejectLog:
    """Counts rejected rows and writes them to a file, one JSON object a line.

    Use it as the `on_reject` of a dataset. The file is made with the first rejected row; one of an
    earlier call is removed.

    Args:
        path: The `rejected.jsonl` to write, or None to count only.
        strict: Raise `DataError` at the first rejected row.

    Attributes:
        count: Of the rejected rows.
        first: The first 20 of them.
    """

    def __init__(self, path: Path | None = None, *, strict: bool = False) -> None:
        self.count = 0
        self.first: list[RejectedRow] = []
        self._path = path
        self._strict = strict
        self._file: TextIO | None = None
        if path is not None:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise StorageError(f"cannot replace {path}: {reason_of(error)}") from error

    def __call__(self, row: RejectedRow) -> None:
        """Takes one rejected row."""
        if self._strict:
            raise DataError(
                f"{row.path}, line {row.line}: {row.reason}. Mend the row, or leave out --strict "
                "to skip such rows."
            )
        self.count += 1
        if len(self.first) < _KEPT:
            self.first.append(row)
        if self._path is not None:
            self._write(self._path, row)

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, path: Path, row: RejectedRow) -> None:
        try:
            if self._file is None:
                self._file = path.open("w", encoding="utf-8", errors="backslashreplace")
            self._file.write(json.dumps(asdict(row), ensure_ascii=False) + "\n")
            self._file.flush()
        except OSError as error:
            raise StorageError(f"cannot write {path}: {reason_of(error)}") from error
