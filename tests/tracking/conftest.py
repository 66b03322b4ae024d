"""A finished run with a spool to be, and the server it is published to."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from clearml_loopback import Loopback

sys.path.append(str(Path(__file__).parents[1] / "runs"))
sys.path.append(str(Path(__file__).parents[1] / "reporting"))


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that resolves as a model; nobody loads its weights."""
    from tokenizers import Tokenizer, models

    folder = tmp_path_factory.mktemp("model")
    words = Tokenizer(models.WordLevel({"[UNK]": 0, "question": 1}, unk_token="[UNK]"))
    words.save(str(folder / "tokenizer.json"))
    kind = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "[UNK]"}
    (folder / "tokenizer_config.json").write_text(json.dumps(kind))
    sizes = {"num_attention_heads": 2, "num_hidden_layers": 1, "hidden_size": 16, "vocab_size": 8}
    llama = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    config = {**llama, **sizes, "max_position_embeddings": 256}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    return folder


@pytest.fixture
def server() -> Iterator[Loopback]:
    loopback = Loopback()
    loopback.start()
    yield loopback
    loopback.go_on()
    loopback.stop()


@pytest.fixture
def unconfigured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No trace of ClearML in the environment, the home or the working directory."""
    import os

    for name in list(os.environ):
        if name.startswith(("CLEARML_", "TRAINS_", "AWS_")):
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)


@pytest.fixture
def configured(unconfigured: None, server: Loopback, monkeypatch: pytest.MonkeyPatch) -> Loopback:
    """The environment names the loopback server."""
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    return server


@dataclass
class StepProgress:
    done: int = 0
    tokens: int = 0
    running_recall: float | None = None

    @property
    def total_done(self) -> int:
        return self.done


@dataclass(frozen=True)
class Memory:
    rss_bytes: int = 512 << 20
    gpu_bytes: int | None = None


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    from run_folders import make_run

    rows = [
        {"question_id": f"q{n}", "token_recall": float(n % 2), "prediction": f"<b>answer {n}</b>"}
        for n in range(150)
    ]
    path = make_run(tmp_path / "outputs" / "tracked", mode="retriever", rows=rows)
    (path / "experiment.log").write_text("first line\nsecond line\n")
    return path


@pytest.fixture
def config(run_folder: Path) -> Callable[..., Any]:
    from slm_vllm.config.compose import compose_config

    def make(*words: str) -> Any:
        return compose_config(
            [
                "experiment_mode=retriever",
                "hardware=cpu",
                "experiment.name=tracked",
                f"experiment.output_dir={run_folder.parent}",
                *words,
            ]
        )

    return make
