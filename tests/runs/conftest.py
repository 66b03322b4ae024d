"""A tiny model folder and runs of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from qa_files import write_rows
from tokenizers import Tokenizer, models, pre_tokenizers

from slm_vllm.config.compose import compose_config
from slm_vllm.config.schema import Config


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that resolves as a model: a word-level tokenizer and weights nobody loads."""
    folder = tmp_path_factory.mktemp("model")
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "question": 1}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "[UNK]"})
    )
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "max_position_embeddings": 256,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
        "hidden_size": 16,
        "vocab_size": 8,
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    return folder


@pytest.fixture
def rows() -> list[dict[str, object]]:
    return [
        {
            "question_id": f"q{i}",
            "question": f"question {'very ' * i}long",
            "answer": ["answer", f"number {i}"],
            "contexts": [f"context {i}"],
            "documents": [{"document_id": f"d{i}", "title": f"t{i}", "text": f"page {i} long"}],
        }
        for i in range(10)
    ]


@pytest.fixture
def make_config(
    tmp_path: Path, tiny_model: Path, rows: list[dict[str, object]]
) -> Callable[..., Config]:
    """Composes a run of the tiny model over `rows`; words are further overrides."""
    dataset = write_rows(tmp_path / "qa.jsonl", rows)

    def make(*words: str) -> Config:
        return compose_config(
            [
                "model=custom",
                "model.name=tiny",
                f"model.path={tiny_model}",
                "dataset=custom",
                "dataset.name=qa",
                f"dataset.path={dataset}",
                f"experiment.output_dir={tmp_path / 'outputs'}",
                f"cache_dir={tmp_path / 'cache'}",
                "hardware=cpu",
                "tracking.tracker=none",
                *words,
            ]
        )

    return make
