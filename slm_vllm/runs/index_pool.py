"""Opens the retrieval indexes of a command once each, ahead of their cells."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from slm_vllm.retrieval.base import BaseRetriever
from slm_vllm.retrieval.build_progress import BuildProgress
from slm_vllm.retrieval.index_store import open_index
from slm_vllm.runs.cell import Cell


class IndexLoader:
    """Opens the index of a cell, or builds it, while the engine starts.

    Attributes:
        seconds: How long that took.
    """

    def __init__(self, cell: Cell, say: Callable[[str], None]) -> None:
        self._say = say
        self.seconds = 0.0
        self._cancelled = threading.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="index")
        self._retriever = self._thread.submit(self._load, cell)

    def wait(self) -> BaseRetriever:
        """The retriever, when it is ready.

        Raises:
            SlmVllmError: What `open_index` raised.
        """
        return self._retriever.result()

    def close(self) -> None:
        """Stops building and closes the index."""
        self._cancelled.set()
        self._thread.shutdown()
        if self._retriever.exception() is None:
            self._retriever.result().close()

    def _load(self, cell: Cell) -> BaseRetriever:
        started, corpus = time.monotonic(), cell.questions.corpus
        try:
            retriever = open_index(
                cell.config.retriever,
                corpus.documents,
                corpus_key=corpus.key,
                cache_dir=Path(cell.config.cache_dir),
                progress=BuildProgress(lambda line, _: self._say(line)),
                cancelled=self._cancelled.is_set,
            )
        finally:
            self.seconds = time.monotonic() - started
        for notice in corpus.notices:
            self._say(notice)
        return retriever


class IndexPool:
    """Index loaders by what they hold.

    Args:
        say: Told now and then how far the build of an index is.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._loaders: dict[str, IndexLoader] = {}

    def start(self, cells: Sequence[Cell]) -> None:
        """Begins to open or build the index of the first of these cells that searches."""
        first = next((cell for cell in cells if cell.searches), None)
        if first is not None and first.index_key not in self._loaders:
            self._loaders[first.index_key] = IndexLoader(first, self._say)

    def loader(self, cell: Cell) -> IndexLoader:
        """The loader of a cell's index, begun if it was not."""
        self.start([cell])
        return self._loaders[cell.index_key]

    def keep(self, cells: Sequence[Cell]) -> None:
        """Closes every index that none of the cells still to come searches."""
        needed = {cell.index_key for cell in cells if cell.searches}
        for key in set(self._loaders) - needed:
            self._loaders.pop(key).close()

    def close(self) -> None:
        """Stops what is being built and closes everything."""
        self.keep([])
