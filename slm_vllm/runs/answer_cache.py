"""Greedy answers shared between runs: one SQLite file, keyed by model and prompt.

The key covers the weights, their data type, the generation settings and the token ids of the
prompt, but not the dataset, mode or run that the prompt came from. Sampled answers are never kept:
asking again is meant to give another one.
"""

from __future__ import annotations

import hashlib
import logging
import sqlite3
import time
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TypeVar

from slm_vllm.config.schema import Config
from slm_vllm.errors import StorageError
from slm_vllm.rundir.fingerprint import digest
from slm_vllm.types import Completion, GenerationRequest

log = logging.getLogger(__name__)

_COMMIT_SECONDS, _COMMIT_ROWS = 1.0, 1024
_BUSY_SECONDS = 30.0
_BATCH = 256  # SQLite takes some hundred keys at once
_TABLE = """
CREATE TABLE IF NOT EXISTS answers (
    key BLOB PRIMARY KEY,
    text TEXT NOT NULL,
    finish_reason TEXT NOT NULL,
    n_prompt_tokens INTEGER NOT NULL,
    n_completion_tokens INTEGER NOT NULL
) WITHOUT ROWID
"""
# Keys of answers with `Completion.is_whole`; a table of its own, as 0.2.0 knows the other one.
_WHOLE = "CREATE TABLE IF NOT EXISTS whole (key BLOB PRIMARY KEY) WITHOUT ROWID"


Item = TypeVar("Item")


class AnswerCache(AbstractContextManager["AnswerCache"]):
    """Answers of one model under one set of generation settings.

    A cache that cannot be written costs the run nothing but the cache: it says so in the log once.

    Args:
        path: The SQLite file; it is made if it does not exist. Any number of processes may use it.
        config: The run's configuration.
        model_revision: The commit or content hash of the weights.
        dtype: The data type they are run in.

    Raises:
        StorageError: The file cannot be opened, or it is no answer cache.
    """

    def __init__(self, path: Path, config: Config, model_revision: str, dtype: str) -> None:
        self._scope = hashlib.blake2b(_scope(config, model_revision, dtype).encode())
        self._waiting: list[tuple[bytes, str, str, int, int]] = []
        self._whole: list[tuple[bytes]] = []
        self._written_at = time.monotonic()
        self._usable = True
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # One thread at a time uses it; what is asked before a search is read by the one that
            # searches.
            self._database = sqlite3.connect(path, timeout=_BUSY_SECONDS, check_same_thread=False)
            # Readers and one writer at once; a power cut may cost the last answers, never the file.
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=NORMAL")
            self._database.execute(_TABLE)
            self._database.execute(_WHOLE)
        except (OSError, sqlite3.Error) as error:
            raise StorageError(
                f"{path}: cannot be used as answer cache ({error}). Remove the file, or run "
                "without experiment.answer_cache"
            ) from None

    def __exit__(self, *_: object) -> None:
        self.close()

    def find(self, requests: Iterable[GenerationRequest]) -> Iterator[Completion]:
        """Completions of those requests that were answered before."""
        if self._waiting:
            self._write()
        for batch in batches(requests):
            yield from self._found(batch)

    def _found(self, requests: list[GenerationRequest]) -> list[Completion]:
        by_key = {self._key(request.prompt_token_ids): request for request in requests}
        marks = ",".join("?" * len(by_key))
        try:
            query = f"SELECT * FROM answers WHERE key IN ({marks})"
            found = {row[0]: row[1:] for row in self._database.execute(query, tuple(by_key))}
            query = f"SELECT key FROM whole WHERE key IN ({marks})"
            whole = {row[0] for row in self._database.execute(query, tuple(by_key))}
        except sqlite3.Error as error:
            self._give_up(error)
            return []
        return [
            replace(Completion(request.request_id, *found[key]), is_whole=key in whole)
            for request in requests
            if (key := self._key(request.prompt_token_ids)) in found
        ]

    def add(self, prompt_token_ids: Sequence[int], completion: Completion) -> None:
        """Keeps the answer to a prompt; one with an error is not kept."""
        if completion.error is not None or not self._usable:
            return
        key = self._key(prompt_token_ids)
        if completion.is_whole:
            self._whole.append((key,))
        self._waiting.append(
            (
                key,
                completion.text,
                completion.finish_reason,
                completion.n_prompt_tokens,
                completion.n_completion_tokens,
            )
        )
        late = time.monotonic() - self._written_at >= _COMMIT_SECONDS
        if late or len(self._waiting) >= _COMMIT_ROWS:
            self._write()

    def close(self) -> None:
        """Writes what waits; may be called more than once."""
        if self._waiting:
            self._write()
        self._database.close()

    def _write(self) -> None:
        try:
            with self._database:
                self._database.executemany(
                    "INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?)", self._waiting
                )
                self._database.executemany("INSERT OR IGNORE INTO whole VALUES (?)", self._whole)
        except (sqlite3.Error, UnicodeEncodeError) as error:
            self._give_up(error)
        self._waiting, self._whole = [], []
        self._written_at = time.monotonic()

    def _give_up(self, error: Exception) -> None:
        if self._usable:
            log.warning("the answer cache is not used any more: %s", error)
        self._usable = False

    def _key(self, prompt_token_ids: Sequence[int]) -> bytes:
        key = self._scope.copy()
        key.update(array("q", prompt_token_ids).tobytes())
        return key.digest()


def _scope(config: Config, model_revision: str, dtype: str) -> str:
    """What an answer depends on beside its prompt."""
    asked_of = config.engine.changes_answers()
    return digest(
        {
            **({"engine": asked_of} if asked_of else {}),
            "model": config.model.model_dump(include={"quantization", "load_in_8bit"}),
            "revision": model_revision,
            "dtype": dtype,
            "generation": config.generation.changes_answers(),
            "stop": config.prompt.stop,
        }
    )


def batches(items: Iterable[Item]) -> Iterator[list[Item]]:
    """The items, some hundred at a time."""
    left = iter(items)
    while batch := list(islice(left, _BATCH)):
        yield batch
