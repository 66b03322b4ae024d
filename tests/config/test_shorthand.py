from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slm_vllm.config.compose import compose_config
from slm_vllm.config.overrides import quoted
from slm_vllm.config.shorthand import (
    dataset_override,
    mode_override,
    model_override,
    retriever_override,
)
from slm_vllm.errors import ConfigError

HOSTILE = [
    "it's.jsonl",
    '"q".jsonl',
    "a,b.jsonl",
    "{a: b}.jsonl",
    "[x].jsonl",
    "a=b.jsonl",
    " blanks .jsonl ",
    "back\\slash\\",
    "back\\'quote.jsonl",
    "${model.name}.jsonl",
    "\\${oc.env:HOME}.jsonl",
    "$HOME.jsonl",
    "#x: y",
    "\u00e9 \u6f22\u5b57 \U0001f600.jsonl",
    "a\nb",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_paths_arrive_unchanged(name: str) -> None:
    path = f"/data/{name}"
    config = compose_config([*dataset_override(path), *model_override(path)])
    assert (config.dataset.path, config.model.path) == (path, path)


@settings(max_examples=15, deadline=None)
@given(st.text("'\"\\${}[](),:=# ab\u00e9", max_size=12))
def test_any_path_arrives_unchanged(name: str) -> None:
    path = f"./{name}.jsonl"
    assert compose_config(dataset_override(path)).dataset.path == path


def test_quoted_values_keep_interpolation() -> None:
    config = compose_config([f"experiment.name={quoted('${model.name} is it')}"])
    assert config.experiment.name == "demo is it"


def test_models() -> None:
    assert model_override("qwen_4b") == ["model=qwen_4b"]
    assert model_override("Qwen/Qwen3-4B") == ["model=qwen_4b"]
    other = compose_config(model_override("Org/Some-Model.v2")).model
    assert (other.name, other.path) == ("some-model.v2", "Org/Some-Model.v2")


def test_model_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "weights").mkdir()
    monkeypatch.chdir(tmp_path)
    assert compose_config(model_override("weights")).model.path == "weights"
    assert compose_config(model_override(str(tmp_path / "weights"))).model.name == "weights"


def test_datasets() -> None:
    assert dataset_override("nq") == ["dataset=nq"]
    file = compose_config(dataset_override("data/My Questions.jsonl.gz")).dataset
    assert (file.name, file.path) == ("my-questions", "data/My Questions.jsonl.gz")
    assert file.kind is None
    url = "hf://datasets/org/name/data.parquet"
    assert compose_config(dataset_override(url)).dataset.path == url


def test_names_of_own_folder(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "tiny.yaml").write_text("name: tiny\npath: org/tiny\n")
    assert model_override("tiny", tmp_path) == ["model=tiny"]
    assert model_override("org/tiny", tmp_path) == ["model=tiny"]


@pytest.mark.parametrize("content", ["name: [x\n", "- x\n", ""])
def test_broken_file_in_own_folder(tmp_path: Path, content: str) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "bad.yaml").write_text(content)
    with pytest.raises(ConfigError, match=r"bad\.yaml"):
        model_override("org/other", tmp_path)


def test_unknown_names() -> None:
    with pytest.raises(ConfigError, match="--model qwen_4: .*Did you mean 'qwen_4b'"):
        model_override("qwen_4")
    with pytest.raises(ConfigError, match="--dataset simpel_qa: .*Did you mean 'simple_qa'"):
        dataset_override("simpel_qa")
    with pytest.raises(ConfigError, match="--mode orcle: .*Did you mean 'oracle'"):
        mode_override("orcle")
    with pytest.raises(ConfigError, match="--retriever bm2: .*Did you mean 'bm25'"):
        retriever_override("bm2")


def test_names_of_a_folder_that_is_not_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for group in ("dataset", "experiment_mode"):
        folder = tmp_path / "configs" / group
        folder.mkdir(parents=True)
        (folder / "mine.yaml").write_text("name: mine\npath: a\n")
    said = "configs/{}/mine.yaml is read with --config-dir configs"
    with pytest.raises(ConfigError, match=said.format("dataset")):
        dataset_override("mine")
    with pytest.raises(ConfigError, match=said.format("experiment_mode")):
        mode_override("mine")
    with pytest.raises(ConfigError, match=said.format("dataset")):
        compose_config(["dataset=mine"])
    assert dataset_override("mine", "configs") == ["dataset=mine"]
    with pytest.raises(ConfigError, match="Valid: .*mine"):
        dataset_override("other", "configs")
