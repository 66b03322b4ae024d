from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner

import slm_vllm
from slm_vllm.cli.main import COMMANDS, cli
from slm_vllm.cli.paths import UserPath
from slm_vllm.config.compose import compose_config
from slm_vllm.datasets.catalog import find_dataset
from slm_vllm.errors import ConfigError, SlmVllmError
from slm_vllm.paths import expanded, folder_name, home
from slm_vllm.sweeps.grid import sweep_grid


@pytest.fixture
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without HOME and without an entry in /etc/passwd."""
    monkeypatch.delenv("HOME", raising=False)

    def no_entry(uid: int) -> Any:
        raise KeyError(uid)

    monkeypatch.setattr("pwd.getpwuid", no_entry)


def test_home_is_put_in_front(at_home: Path) -> None:
    assert expanded("~") == str(at_home) and home() == at_home
    assert expanded("~/runs/a~b") == f"{at_home}/runs/a~b"
    for path in ("runs", "./~", "/a/~/b", "s3://bucket/~", "", "~no-such-user", "~notes.jsonl"):
        assert expanded(path) == path
    with pytest.raises(ValueError, match="zero byte"):
        expanded("a\0b")


def test_without_a_home(nobody: None) -> None:
    assert home() is None
    assert expanded("runs") == "runs"
    for path in ("~", "~/runs"):
        with pytest.raises(ValueError, match="no home folder. Set HOME"):
            expanded(path)


PATHS = (
    "experiment.output_dir",
    "cache_dir",
    "dataset.path",
    "model.path",
    "tracking.output_uri",
    "retriever.reranker.model",
)


@pytest.mark.parametrize("key", PATHS)
def test_paths_of_the_configuration(key: str, at_home: Path) -> None:
    value: Any = compose_config([f"{key}=~/x y"])
    for part in key.split("."):
        value = getattr(value, part)
    assert value == f"{at_home}/x y"


def test_paths_of_a_yaml_file(at_home: Path) -> None:
    folder = at_home / "own" / "dataset"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("name: mine\npath: ~/q.jsonl\n")
    assert compose_config(["dataset=mine"], "~/own").dataset.path == f"{at_home}/q.jsonl"
    assert find_dataset("mine", "~/own").path == f"{at_home}/q.jsonl"


def test_without_a_home_a_path_is_a_line(nobody: None) -> None:
    with pytest.raises(ConfigError, match="experiment.output_dir: .*no home folder"):
        compose_config(["experiment.output_dir=~/x"])
    with pytest.raises(ConfigError, match="--config-dir .*no home folder"):
        compose_config([], "~/x")


def commands(group: click.Group, above: str = "") -> list[tuple[str, click.Command]]:
    found = []
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        assert command is not None
        if isinstance(command, click.Group):
            found += commands(command, f"{above}{name} ")
        else:
            found.append((f"{above}{name}", command))
    return found


# Values that the configuration expands, and names that are no paths.
ELSEWHERE = {"model", "models", "dataset", "datasets", "to_stdout"}


def test_every_option_that_is_a_path_is_expanded() -> None:
    assert isinstance(cli, click.Group) and COMMANDS
    words = ("dir", "file", "path", "output", "source", "folder", "runs", "run", "to")
    for command, found in commands(cli):
        for parameter in found.params:
            name = parameter.name or ""
            if name in ELSEWHERE or getattr(parameter, "is_flag", False):
                continue
            if isinstance(parameter.type, click.Path) or name.split("_")[-1] in words:
                assert isinstance(parameter.type, UserPath), f"{command} {name}"


def test_an_unset_variable_is_no_path() -> None:
    result = CliRunner().invoke(cli, ["data", "check", ""])
    assert result.exit_code == 2
    assert "must not be empty" in result.output


def test_a_command_writes_where_it_was_told(at_home: Path) -> None:
    rows = '{"question": "q", "answer": "a", "document_text": "<P> a </P>"}\n'
    (at_home.parent / "nq.jsonl").write_text(rows)
    result = CliRunner().invoke(
        cli, ["data", "prepare", "nq", "--input=nq.jsonl", "--output-dir=~/p"]
    )
    assert not (at_home.parent / "~").exists()
    assert result.exit_code != 2, result.output


def test_paths_from_python(at_home: Path) -> None:
    at_home.mkdir()
    (at_home / "q.jsonl").write_text('{"question": "q", "answer": "a"}\n')
    assert sum(frame.height for frame in slm_vllm.open_dataset("~/q.jsonl").scan()) == 1
    with pytest.raises(SlmVllmError, match=f"{at_home}/no-run"):
        slm_vllm.load_run("~/no-run")


def test_sweeps(at_home: Path, tmp_path: Path) -> None:
    words = {"models": "demo", "datasets": "demo", "modes": "oracle"}
    assert sweep_grid({**words, "output_dir": "~/s"}).output_dir == f"{at_home}/s"
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump({"output_dir": "~/t", "name": "../up"}))
    with pytest.raises(ConfigError, match="name: must be the name of one folder"):
        sweep_grid({**words, "file": str(file)})


NAMES = ["..", ".", "a/b", "/", "", "  ", "a\0b", "a\nb", "x" * 256, "é" * 128, "a/"]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_one_folder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="must be the name of one folder"):
        folder_name(name)
    words = ["eval", "--model=demo", "--dataset=demo", "--overwrite", "--no-clearml"]
    result = CliRunner().invoke(cli, [*words, "--name", name])
    assert isinstance(result.exception, ConfigError)
    assert "experiment.name" in str(result.exception)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a", "..a", "a b", "é" * 127, "no", "001", "x" * 255, "-", "a~"])
def test_other_names(name: str) -> None:
    assert folder_name(name) == name
    assert compose_config([f"experiment.name={name}"]).experiment.name == name
