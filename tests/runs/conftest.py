"""Runs of the tiny model."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from slm_vllm.config.compose import compose_config
from slm_vllm.config.schema import Config
from support.qa_files import write_rows


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


@pytest.fixture
def signals_arrive() -> Iterator[None]:
    """The tests may have been started under nohup or in the background of a script."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGHUP)}
    for number in before:
        signal.signal(number, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
