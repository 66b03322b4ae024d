"""Opens or builds the retrieval index while the engine starts."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import polars as pl

from slm_vllm.config.schema import RetrieverConfig
from slm_vllm.retrieval.base import BaseRetriever
from slm_vllm.retrieval.index_store import open_index


class IndexLoader:
    """Runs `open_index` in a thread of its own.

    Args:
        config: Which index.
        documents: The corpus, read only if the index has to be built.
        corpus_key: See `open_index`.
        cache_dir: Where indexes are kept.
    """

    def __init__(
        self,
        config: RetrieverConfig,
        documents: Callable[[], Iterable[pl.DataFrame]],
        *,
        corpus_key: str,
        cache_dir: Path,
    ) -> None:
        self.seconds = 0.0
        self._arguments = (config, documents, corpus_key, cache_dir)
        self._cancelled = threading.Event()
        self._retriever: BaseRetriever | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._load, name="index", daemon=True)
        self._thread.start()

    def wait(self) -> BaseRetriever:
        """The retriever, when it is ready.

        Raises:
            SlmVllmError: What `open_index` raised.
        """
        while self._thread.is_alive():
            self._thread.join(0.2)  # lets signals through
        if self._error is not None:
            raise self._error
        assert self._retriever is not None
        return self._retriever

    def close(self) -> None:
        """Stops building and closes the index."""
        self._cancelled.set()
        self._thread.join()
        if self._retriever is not None:
            self._retriever.close()

    def _load(self) -> None:
        config, documents, corpus_key, cache_dir = self._arguments
        started = time.monotonic()
        try:
            self._retriever = open_index(
                config,
                documents,
                corpus_key=corpus_key,
                cache_dir=cache_dir,
                cancelled=self._cancelled.is_set,
            )
        except BaseException as error:  # raised again where it is waited for
            self._error = error
        self.seconds = time.monotonic() - started
