"""Configurations of the scripts that came before this package."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from slm_vllm.config import location
from slm_vllm.config.compose import compose_config
from slm_vllm.config.notice import SAID
from slm_vllm.config.schema import Config
from slm_vllm.datasets.catalog import read_catalog
from slm_vllm.errors import ConfigError
from slm_vllm.plugins import use_folder
from support.old_checkout import make_old_checkout


@pytest.fixture(autouse=True)
def nothing_said() -> Iterator[None]:
    SAID.clear()
    yield
    use_folder(None)


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = make_old_checkout(tmp_path / "old")
    monkeypatch.chdir(folder)
    return folder


def test_their_configuration_is_found_and_said(old: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = compose_config(["hardware=v100"])
    assert (config.model.path, config.model.max_model_len, config.model.dtype) == (
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        1024,
        "float16",
    )
    assert config.hardware.name == "v100"
    assert config.hardware.engine_args["max_num_seqs"] == 8
    assert config.generation.max_new_tokens == 24
    assert config.experiment.seed == 7
    assert (config.experiment_mode.context, config.tracking.tracker) == ("none", "auto")
    assert config.dataset.path == "data/nq/nq_full_dataset.json"
    (place, keys) = (record.message for record in caplog.records)
    assert f"yours in {old / 'configs'}" in place
    assert keys.splitlines()[0] == f"Settings of an earlier version in {old / 'configs'}:"
    assert "  model.batch_size=8 is now hardware.engine_args.max_num_seqs=8" in keys.splitlines()
    assert "model.use_flash_attention is not used: vLLM takes" in keys
    compose_config(["hardware=v100"])
    assert len(caplog.records) == 2


def test_groups_they_leave_out_are_ours(old: Path) -> None:
    config = compose_config(["retriever=hybrid", "experiment_mode=retriever", "prompt=few_shot"])
    assert (config.retriever.name, config.prompt.name) == ("hybrid", "few_shot")
    assert config.experiment.name == "smollm2_135m_local_nq_retriever"


def test_their_folder_given_from_elsewhere(
    old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = compose_config()
    monkeypatch.chdir(tmp_path)
    assert compose_config(config_dir=old / "configs") == here
    assert compose_config().model.name == "demo"


def test_what_is_typed_wins_over_their_files(old: Path) -> None:
    config = compose_config(["hardware.engine_args.max_num_seqs=3", "model.max_model_len=99"])
    assert (config.hardware.engine_args["max_num_seqs"], config.model.max_model_len) == (3, 99)


def test_values_of_their_root_win_over_the_groups_that_are_filled_in(old: Path) -> None:
    root = old / "configs" / "config.yaml"
    root.write_text(root.read_text() + "retriever:\n  top_k: 9\n")
    assert compose_config().retriever.top_k == 9


def of(*words: str) -> Config:
    return compose_config(["model=demo", *words])


def test_earlier_keys_on_the_command_line(caplog: pytest.LogCaptureFixture) -> None:
    config = of("batch_size=4", "model.max_length=512", "device=cpu", "use_flash_attention=true")
    assert config.hardware.engine_args["max_num_seqs"] == 4
    assert (config.model.max_model_len, config.hardware.name) == (512, "cpu")
    assert [record.message for record in caplog.records] == [
        "batch_size=4 is now hardware.engine_args.max_num_seqs=4",
        "model.max_length=512 is now model.max_model_len=512",
        "device=cpu is now hardware=cpu",
        "use_flash_attention is not used: vLLM takes the fastest attention kernel that the device "
        "has",
    ]
    with pytest.raises(ConfigError, match="there is no key 'batch_sizes'"):
        of("batch_sizes=4")


def test_output_dir_that_ends_in_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("experiment.name=night", "experiment.output_dir=outputs/${experiment.name}")
    assert of(*words).experiment.output_dir == "outputs"
    (tmp_path / "outputs" / "night" / "night").mkdir(parents=True)
    assert of(*words).experiment.output_dir == "outputs/night"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("other", "defaults:\n  - model: resnet\n  - dataset: imagenet\n"),
        ("broken", "defaults: ["),
    ],
)
def test_configs_of_other_programs_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "config.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    assert location.own_configs() is None


def test_configs_of_a_checkout_of_this_project_are_left_alone(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert location.own_configs() == old / "configs"
    (old / "slm_vllm").mkdir()
    (old / "slm_vllm" / "__init__.py").touch()
    assert location.own_configs() is None


def test_data_commands_see_what_runs_see(old: Path) -> None:
    entries = {entry.name: entry.path for entry in read_catalog()}
    assert entries["local_nq"] == "data/nq/nq_full_dataset.json"
    assert entries["simple_qa"] == "data/simple_qa_test_set_with_documents.csv"
