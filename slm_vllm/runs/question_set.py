"""The questions of a command: each dataset is read once for all its cells."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from slm_vllm.config.schema import Config
from slm_vllm.datasets.base import BaseDataset, limited_scan
from slm_vllm.datasets.identity import dataset_identity
from slm_vllm.datasets.registry import fetched_path, open_configured
from slm_vllm.datasets.rejects import RejectLog
from slm_vllm.retrieval.corpus import Corpus, find_corpus
from slm_vllm.retrieval.qrels import Qrels, find_qrels
from slm_vllm.rundir.fingerprint import digest
from slm_vllm.runs.row_cache import RowCache
from slm_vllm.runs.survey import Survey, survey


class QuestionSet:
    """One dataset section with the number of its rows that are asked.

    Args:
        config: The configuration of any cell that asks it.

    Attributes:
        rejected: Rows that cannot be used, known after `survey`.
        notices: What the user should know about the file, such as that a copy may be old.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._found: Survey | None = None
        self._kept: RowCache | None = None
        self.rejected = 0
        self.notices: list[str] = []

    @staticmethod
    def key(config: Config) -> str:
        """Equal for cells that ask the same rows of the same dataset over the same corpus."""
        asked = [config.dataset.model_dump(), config.max_samples, config.experiment.strict]
        corpus = config.corpus
        return digest([*asked, None if corpus is None else corpus.model_dump()])

    @property
    def path(self) -> str:
        """The dataset as the user named it."""
        return self._config.dataset.path

    @cached_property
    def file(self) -> str:
        """Where its rows are read; a URL is fetched once, so all cells read the same version."""
        kind = self._config.dataset.kind
        return fetched_path(self.path, self._config.cache_dir, self.notices, kind=kind)

    @property
    def found(self) -> Survey:
        """What `survey` found."""
        assert self._found is not None
        return self._found

    @cached_property
    def identity(self) -> dict[str, Any]:
        """See `dataset_identity`."""
        return dataset_identity(self.file)

    @cached_property
    def corpus(self) -> Corpus:
        """What a retriever may search; of the dataset also documents of rows that are not asked."""
        return find_corpus(self._config, self.file)

    @cached_property
    def qrels(self) -> Qrels:
        """What a search for them is judged by, beside the answers."""
        return find_qrels(self.open(), self._config.corpus, self._config.cache_dir)

    def open(self, rejects: RejectLog | None = None) -> BaseDataset:
        """The dataset, to be scanned."""
        return open_configured(self._config.dataset, self.file, on_reject=rejects)

    def check(self) -> None:
        """Reads one row, and one document of a corpus of its own with all its judgements.

        Raises:
            DataError: The dataset or the corpus cannot be used.
        """
        next(limited_scan(self.open(), 1), None)
        if self._config.corpus is not None:
            next(self.corpus.documents())
            self.qrels  # noqa: B018 - read, so that what is wrong with them is said now

    def survey(self, rejected_files: Sequence[Path]) -> None:
        """Passes over the dataset once and writes the rows that cannot be used.

        Args:
            rejected_files: `rejected.jsonl` of each run folder that asks these questions.

        Raises:
            DataError: The dataset cannot be used, or a row cannot under `--strict`.
        """
        first, *others = rejected_files
        rejects = RejectLog(first, strict=self._config.experiment.strict)
        with closing(rejects):
            dataset = self.open(rejects)
            self._found = survey(self._keeping(limited_scan(dataset, self._config.max_samples)))
        self.rejected = rejects.count
        self.notices += dataset.notices
        for other in others:
            if rejects.count:
                shutil.copyfile(first, other)
            else:
                other.unlink(missing_ok=True)  # an earlier command's

    def keeps(self, *, with_documents: bool) -> bool:
        """Whether `scan` gives what was surveyed, whatever became of the file."""
        return self._kept is not None and not with_documents

    def scan(self, *, with_documents: bool = False) -> Iterator[pl.DataFrame]:
        """The rows that are asked, in the order of the dataset.

        Args:
            with_documents: Read their documents too, which cost the most.
        """
        if self.keeps(with_documents=with_documents) and self._kept is not None:
            yield from self._kept.frames()
            return
        most = self._config.max_samples
        yield from limited_scan(self.open(), most, with_documents=with_documents)

    def _keeping(self, frames: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
        """Keeps what is read, so that it is not parsed again; without room it is."""
        kept: RowCache | None = None
        with suppress(OSError):
            kept = RowCache(Path(self._config.cache_dir))
        for frame in frames:
            if kept is not None:
                try:
                    kept.add(frame)
                except OSError:
                    kept = None
            yield frame
        self._kept = kept
