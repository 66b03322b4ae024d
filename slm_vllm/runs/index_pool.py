"""The retrieval indexes of a command: each is opened once, ahead of the cells that search it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from slm_vllm.runs.cell import Cell
from slm_vllm.runs.index_loader import IndexLoader


class IndexPool:
    """Index loaders by what they hold."""

    def __init__(self) -> None:
        self._loaders: dict[str, IndexLoader] = {}

    def start(self, cells: Sequence[Cell]) -> None:
        """Begins to open or build the index of the first of these cells that searches."""
        for cell in cells:
            if not cell.searches:
                continue
            if cell.index_key not in self._loaders:
                self._loaders[cell.index_key] = IndexLoader(
                    cell.config.retriever,
                    cell.questions.documents,
                    corpus_key=cell.questions.corpus_key,
                    cache_dir=Path(cell.config.cache_dir),
                )
            return

    def loader(self, cell: Cell) -> IndexLoader:
        """The loader of a cell's index, begun if it was not."""
        self.start([cell])
        return self._loaders[cell.index_key]

    def keep(self, following: Sequence[Cell]) -> None:
        """Closes every index that none of the cells still to come searches."""
        needed = {cell.index_key for cell in following if cell.searches}
        for key in set(self._loaders) - needed:
            self._loaders.pop(key).close()

    def close(self) -> None:
        """Stops what is being built and closes everything."""
        self.keep([])
