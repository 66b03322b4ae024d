"""Fixtures that several packages' tests share."""

from __future__ import annotations

import gc
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from support.composed_once import compose_raw
from support.places import REPOSITORY, TESTS
from support.qa_files import write_rows

if TYPE_CHECKING:
    from slm_vllm.config.schema import Config

# Programs of tests/support run as `python -m support.NAME`, wherever a test has gone.
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]
)

# Two processes run tests: threads of both that wait for one another take most of the machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A machine that is busy for a moment makes no test wrong.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Names the group of a test in its id, as pytest-xdist 3.8 fails to do under pytest 9.2."""
    if not getattr(config.option, "loadgroup", False):
        return
    for item in items:
        group = item.get_closest_marker("xdist_group")
        if group is not None and not item.nodeid.endswith(f"@{group.args[0]}"):
            item._id = type(item._id).parse(f"{item.nodeid}@{group.args[0]}")


def pytest_collection_finish() -> None:
    """Every run ends in a collection, which objects of tests and packages would prolong."""
    gc.freeze()
    gc.unfreeze = lambda: None  # type: ignore[assignment]


@pytest.fixture(autouse=True)
def composed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slm_vllm.config.compose._compose_raw", compose_raw)


@pytest.fixture(autouse=True)
def commands_end_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exit code of a command that runs in here is not that of all tests."""
    monkeypatch.setattr("slm_vllm.process_exit._code", None)


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], Path]]:
    """Writes a plug-in beside the configuration `configs` of the test's folder."""
    from slm_vllm import plugins
    from slm_vllm.scoring.metrics import load_added

    monkeypatch.delenv(plugins.FOLDER_VARIABLE, raising=False)
    folder = tmp_path / "configs" / plugins.FOLDER
    folder.mkdir(parents=True)

    def write(name: str, text: str) -> Path:
        path = folder / f"{name}.py"
        path.write_text(text)
        plugins.use_folder(folder)
        return path

    yield write
    plugins.use_folder(None)
    load_added()


@pytest.fixture(scope="session")
def demo_model_path() -> Path:
    """The demo model's folder; made once into the repository's .cache, then found there."""
    from slm_vllm.models.demo import prepare_demo_model

    return prepare_demo_model(REPOSITORY / ".cache")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that resolves as a model: a word-level tokenizer and weights nobody loads."""
    from tokenizers import Tokenizer, models, pre_tokenizers

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
    """The dataset that `make_config` asks."""
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
    from slm_vllm.config.compose import compose_config

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
