"""The journal: one durable line for each answer, only ever appended to.

`predictions.jsonl` holds a run's answers, `judgements.jsonl` what a judge replied about them.

Every line is whole in itself and begins with its key, a hash of everything the answer depends on
(`fingerprint.row_keys`). A run that is started again skips the keys it finds here.

What is promised: an answer that was appended survives the death of the process at once (it is
handed to the operating system line by line) and the death of the machine after `SYNC_SECONDS`.
"""

from __future__ import annotations

import json
import logging
import os
import time
from array import array
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from slm_vllm.config.schema import Config
from slm_vllm.errors import StorageError, reason_of
from slm_vllm.json_text import encode
from slm_vllm.rundir.fingerprint import may_search

log = logging.getLogger(__name__)

SYNC_SECONDS = 1.0
_READ_BYTES = 4 << 20

PASSAGE = pl.Struct(
    {
        "passage_id": pl.String,
        "document_id": pl.String,
        "title": pl.String,
        "text": pl.String,
        "score": pl.Float64,
        "rank": pl.Int64,
    }
)

JOURNAL_SCHEMA = pl.Schema(
    {
        "key": pl.String(),
        "question_id": pl.String(),
        "question": pl.String(),
        "answers": pl.List(pl.String),
        "prediction": pl.String(),  # the answer that is scored
        "completion": pl.String(),  # all the model wrote, where that is more than the answer
        "contexts": pl.List(PASSAGE),  # the passages in the prompt, best first
        "context_type": pl.String(),
        "n_passages_used": pl.Int64(),
        "truncated": pl.Boolean(),
        "unterminated_thinking": pl.Boolean(),
        "finish_reason": pl.String(),
        "n_prompt_tokens": pl.Int64(),
        "n_completion_tokens": pl.Int64(),
        "error": pl.String(),
        "search": pl.String(),  # a JSON object: the search metrics of this row
        "metadata": pl.String(),  # a JSON object
    }
)

SAMPLE = pl.Struct(
    {
        "prediction": pl.String,
        "completion": pl.String,
        "unterminated_thinking": pl.Boolean,
        "finish_reason": pl.String,
        "n_completion_tokens": pl.Int64,
        "seed": pl.Int64,
        "logprob": pl.Float64,  # of all its tokens together
    }
)
SAMPLED_SCHEMA = pl.Schema({**JOURNAL_SCHEMA, "samples": pl.List(SAMPLE)})
"""That of runs which keep several answers to a question, or how probable one was."""


def journal_schema(config: Config) -> pl.Schema:
    """What is read of a run's journal."""
    schema = SAMPLED_SCHEMA if config.generation.keeps_samples else JOURNAL_SCHEMA
    return pl.Schema({**schema, **query_column(config)})


def query_column(config: Config) -> dict[str, pl.DataType]:
    """What a question was searched for with, where that is more than the question."""
    is_expanded = config.retriever.expansion is not None and may_search(config)
    return {"query": pl.String()} if is_expanded else {}


def count_answers(path: Path) -> tuple[int, int]:
    """How many keys of a journal have an answer, and how many failed; changes nothing.

    Raises:
        StorageError: It may not be read.
    """
    has_failed: dict[str, bool] = {}
    try:
        with path.open("rb") as file:
            for line in file:
                with suppress(ValueError, KeyError, TypeError):  # damaged or torn: asked again
                    record = json.loads(line)
                    has_failed[record["key"]] = record["error"] is not None
    except FileNotFoundError:
        return 0, 0
    except OSError as error:
        raise StorageError(f"{path}: cannot be read ({reason_of(error)})") from None
    failed = sum(has_failed.values())
    return len(has_failed) - failed, failed


class Journal(AbstractContextManager["Journal"]):
    """An open journal, and where in it each key stands.

    Memory: 16 bytes for each answer.

    Args:
        path: The file; it is made if it does not exist, a torn last line is dropped.
        schema: The columns of its lines, "key" and "error" among them.

    Raises:
        StorageError: It cannot be opened or written.
    """

    def __init__(self, path: Path, schema: pl.Schema = JOURNAL_SCHEMA) -> None:
        self._path, self._schema = path, schema
        self._body = tuple(name for name in schema if name != "key")
        self._keys, self._offsets = array("Q"), array("Q")
        self._is_sorted = True
        self._failed_keys: set[int] = set()
        try:
            self._end = self._recover()
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        except OSError as error:
            raise StorageError(
                f"{path}: cannot be opened for writing ({reason_of(error)})"
            ) from None
        self._synced_at = time.monotonic()
        self._unsynced = False

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        """Number of lines, those written again counted again."""
        return len(self._keys)

    def keys(self, *, with_failed: bool = True) -> npt.NDArray[np.uint64]:
        """The distinct keys that have an answer, sorted; without failed ones if asked."""
        keys = np.array(self._keys, dtype=np.uint64)
        keys.sort()  # np.unique takes several times the memory
        if (keys[1:] == keys[:-1]).any():
            keys = keys[np.append(True, keys[1:] != keys[:-1])]
        if with_failed or not self._failed_keys:
            return keys
        return keys[~np.isin(keys, np.array(sorted(self._failed_keys), dtype=np.uint64))]

    def append(self, record: Mapping[str, Any]) -> None:
        """Writes one answer.

        Args:
            record: The columns of the schema, "key" as 16 hexadecimal digits.

        Raises:
            StorageError: It could not be written, because the disk is full for example. What was
                written before stays valid.
        """
        body = {name: record[name] for name in self._body}
        # The key is first, so that it can be read without parsing the line.
        line = f'{{"key":"{record["key"]}",{encode(body)[1:]}\n'
        data = line.encode("utf-8", errors="replace")
        try:
            written = os.write(self._file, data)
            if written != len(data):
                os.ftruncate(self._file, self._end)
                raise StorageError(f"{self._path}: the disk is full")
        except OSError as error:
            raise StorageError(
                f"{self._path}: cannot be written ({reason_of(error)}). All answers so far are "
                "kept; make room and give the same command again"
            ) from None
        self._index(int(record["key"], 16), self._end, failed=record["error"] is not None)
        self._end += len(data)
        self._unsynced = True
        if time.monotonic() - self._synced_at >= SYNC_SECONDS:
            self.sync()

    def sync(self) -> None:
        """Puts everything on the disk."""
        if self._unsynced:
            os.fsync(self._file)
            self._unsynced = False
        self._synced_at = time.monotonic()

    def close(self) -> None:
        """Syncs and closes; may be called more than once."""
        if self._file >= 0:
            self.sync()
            os.close(self._file)
            self._file = -1

    def read(self, keys: npt.NDArray[np.uint64], batch_size: int = 1024) -> Iterator[pl.DataFrame]:
        """The answers to `keys`, in that order; keys without an answer are left out.

        Yields:
            Frames of the schema with at most `batch_size` rows, fewer where lines are long.
        """
        if not len(self._keys):
            return
        with self._path.open("rb") as file:
            for start in range(0, len(keys), batch_size):
                lines: list[bytes] = []
                size = 0
                for offset in self._offsets_of(keys[start : start + batch_size]):
                    if size >= _READ_BYTES:
                        yield self._decoded(lines)
                        lines, size = [], 0
                    file.seek(offset)
                    lines.append(file.readline())
                    size += len(lines[-1])
                if lines:
                    yield self._decoded(lines)

    def _decoded(self, lines: list[bytes]) -> pl.DataFrame:
        # A quarter of the time that reading them as a file takes.
        texts = pl.Series([line.decode() for line in lines])
        return texts.str.json_decode(pl.Struct(dict(self._schema))).struct.unnest()

    def _offsets_of(self, wanted: npt.NDArray[np.uint64]) -> list[int]:
        """Where the lines of these keys stand, of several lines the last one."""
        self._sort()
        # No view outlives this call: an array that is looked at cannot grow.
        keys, offsets = (np.frombuffer(part, np.uint64) for part in (self._keys, self._offsets))
        places = np.searchsorted(keys, wanted, side="right") - 1
        found = (places >= 0) & (keys[places] == wanted)
        standing: list[int] = offsets[places[found]].tolist()
        return standing

    def _sort(self) -> None:
        """Brings the index into the order of its keys, where it stands."""
        if self._is_sorted:
            return
        keys, offsets = (np.frombuffer(part, np.uint64) for part in (self._keys, self._offsets))
        # Stable, so that of several lines with one key the last one stays behind the others.
        order = np.argsort(keys, kind="stable")
        for column in (keys, offsets):
            column[:] = column[order]
        self._is_sorted = True

    def _recover(self) -> int:
        """Indexes what is there, cuts a torn end off and returns the length."""
        if not self._path.exists():
            return 0
        end = 0
        with self._path.open("r+b") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    log.warning("%s: dropped a torn last line of %d bytes", self._path, len(line))
                    file.truncate(end)
                    os.fsync(file.fileno())
                    break
                self._recover_line(line, end)
                end += len(line)
        return end

    def _recover_line(self, line: bytes, offset: int) -> None:
        try:
            record = json.loads(line)
            self._index(int(record["key"], 16), offset, failed=record["error"] is not None)
        except (ValueError, KeyError, TypeError):
            # Its question is asked again.
            log.warning("%s: skipped a damaged line at byte %d", self._path, offset)

    def _index(self, key: int, offset: int, *, failed: bool) -> None:
        self._keys.append(key)
        self._offsets.append(offset)
        self._is_sorted = False
        if failed:
            self._failed_keys.add(key)
        else:
            self._failed_keys.discard(key)
