"""Retrievers over small corpora."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from slm_vllm.config.schema import PassageConfig, RetrieverConfig
from slm_vllm.retrieval.base import BaseRetriever
from slm_vllm.retrieval.index_store import open_index
from support.corpora import Opener, documents, make_encoder


@pytest.fixture
def opened(tmp_path: Path) -> Opener:
    """Opens a retriever over some texts, one document each."""

    def open_(
        kind: str, texts: Sequence[str], passage: PassageConfig | None = None, **options: object
    ) -> BaseRetriever:
        config = RetrieverConfig(
            name=kind, kind=kind, options=options, passage=passage or PassageConfig()
        )
        return open_index(
            config, lambda: [documents(texts)], corpus_key=repr(texts)[: 10**6], cache_dir=tmp_path
        )

    return open_


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_encoder(tmp_path_factory.mktemp("encoder"))
