"""Small corpora and a tiny embedding model made on the spot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl
import pytest

from slm_vllm.retrieval.base import BaseRetriever

WORDS = "river bridge castle garden winter music engine planet copper forest island letter".split()

Opener = Callable[..., BaseRetriever]


def documents(texts: Sequence[str]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "document_id": [f"d{i}" for i in range(len(texts))],
            "title": [""] * len(texts),
            "text": list(texts),
        },
        schema={"document_id": pl.String, "title": pl.String, "text": pl.String},
    )


def make_encoder(folder: Path, hidden: int = 32) -> Path:
    """A sentence-transformers model with random weights over a dozen words."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    st = pytest.importorskip("sentence_transformers")
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    torch.manual_seed(0)
    base = folder / "base"
    base.mkdir(parents=True)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (base / "vocab.txt").write_text("\n".join(vocabulary), "utf-8")
    transformers.BertTokenizerFast(str(base / "vocab.txt")).save_pretrained(base)
    config = transformers.BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=hidden,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=hidden,
        max_position_embeddings=128,
    )
    transformers.BertModel(config).save_pretrained(base)
    transformer = Transformer(str(base))
    model = st.SentenceTransformer(modules=[transformer, Pooling(hidden)], device="cpu")
    model.save(str(folder / "model"))
    return folder / "model"
