from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click
import pytest
import yaml

from slm_vllm import __version__
from slm_vllm.cli import main as entry
from slm_vllm.config.compose import compose_config


class Answer(NamedTuple):
    code: int
    out: str
    err: str


class Command:
    """Runs the console script's entry point in this process."""

    def __init__(self, patch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]) -> None:
        self._patch, self._capture = patch, capture

    def __call__(self, *words: str) -> Answer:
        self._patch.setattr(sys, "argv", ["slm-vllm", *words])
        with pytest.raises(SystemExit) as stop:
            entry.main()
        code = stop.value.code
        return Answer(0 if code is None else int(code), *self._capture.readouterr())


@pytest.fixture
def slm(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(monkeypatch, capsys)


def test_help_lists_the_commands_and_imports_none() -> None:
    code = (
        "import sys\n"
        "from slm_vllm.cli.main import main\n"
        "sys.argv = ['slm-vllm', '--help']\n"
        "try:\n    main()\n"
        "finally:\n"
        "    heavy = {'torch', 'vllm', 'transformers', 'polars', 'numpy', 'hydra', 'pydantic'}\n"
        "    own = {n for n in sys.modules if n.startswith('slm_vllm.')}\n"
        "    light = 'cli cli.main cli.process errors paths process_exit proxies version'.split()\n"
        "    own -= {f'slm_vllm.{name}' for name in light}\n"
        "    print(sorted(own | heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0
    for name in entry.COMMANDS:
        assert f"  {name} " in done.stdout
    assert done.stderr.strip() == "[]"


def test_every_listed_command_exists(slm: Command) -> None:
    for name in entry.COMMANDS:
        answer = slm(name, "--help")
        assert answer.code == 0
        assert answer.out.startswith(f"Usage: slm-vllm {name} ")


def commands(found: click.Command, *words: str) -> Iterator[tuple[str, click.Command]]:
    yield " ".join(words), found
    if isinstance(found, click.Group):
        context = click.Context(found)
        for name in found.list_commands(context):
            inner = found.get_command(context, name)
            if inner is not None and not inner.hidden:
                yield from commands(inner, *words, name)


COMMANDS = dict(commands(entry.cli))


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example_and_cuts_no_line_off(slm: Command, name: str) -> None:
    said = slm(*name.split(), "--help").out
    assert "Example" in said and f"slm-vllm {name}".rstrip() in said.partition("Example")[2]
    if isinstance(COMMANDS[name], click.Group):
        _, _, listed = said.partition("Commands:")
        cut = [line for line in listed.splitlines() if line.endswith("...")]
        assert all(line.endswith(", ...") for line in cut), cut


def test_version(slm: Command) -> None:
    assert slm("--version") == (0, f"slm-vllm, version {__version__}\n", "")


def test_unknown_command(slm: Command) -> None:
    answer = slm("confg", "list")
    assert answer.code == 2
    assert "No such command 'confg'. Did you mean 'config'?" in answer.err


def test_unknown_option(slm: Command) -> None:
    answer = slm("eval", "--modle", "demo")
    assert answer.code == 2
    assert "--modle" in answer.err and "--model" in answer.err


def test_config_list(slm: Command) -> None:
    answer = slm("config", "list")
    assert answer.code == 0
    assert "experiment_mode: no_context, oracle" in answer.out
    found = json.loads(slm("config", "list", "model", "--json").out)
    assert set(found) == {"model"} and "qwen_4b" in found["model"]


def test_config_list_of_no_group(slm: Command) -> None:
    answer = slm("config", "list", "models")
    assert answer.code == 2
    assert answer.err.startswith("Error: there is no group 'models'. Did you mean 'model'?")


def test_config_show(slm: Command) -> None:
    words = ["model=qwen_4b", "hardware=v100", "experiment.seed=7"]
    expected = compose_config(words).model_dump(mode="json")
    assert yaml.safe_load(slm("config", "show", *words).out) == expected
    assert json.loads(slm("config", "show", "--json", *words).out) == expected
    assert expected["experiment"]["seed"] == 7


@pytest.mark.slow
def test_config_validate_finds_the_bad_file(slm: Command, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    good, bad = tmp_path / "model" / "good.yaml", tmp_path / "model" / "bad.yaml"
    good.write_text("name: good\npath: org/good\n")
    options = ["config", "validate", "--config-dir", str(tmp_path)]
    answer = slm(*options)
    assert answer.code == 0 and answer.out.startswith("Valid: ")
    bad.write_text("name: bad\npath: org/bad\ndytpe: float16\n")
    answer = slm(*options)
    assert answer.code == 2
    assert f"{bad}: " in answer.err and "Did you mean 'dtype'?" in answer.err
    assert str(good) not in answer.err


@pytest.mark.parametrize(
    "words",
    [
        ["config", "show", "generation.max_new_tokens=none"],
        ["config", "show", "nonsense"],
        ["eval", "--mode", "orcle"],
        ["eval", "--mode", "oracle,oracle"],
        ["eval", "--model", "qwn"],
        ["eval", "--model", "demo", "--dataset", "demo", "--margin", "0.02"],
    ],
)
def test_configuration_errors(slm: Command, words: list[str]) -> None:
    answer = slm(*words)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("Error: ")
    assert "Traceback" not in answer.err


@pytest.mark.slow
def test_missing_dataset_is_a_data_error(tmp_path: Path) -> None:
    words = ["eval", "--dataset", "missing.jsonl", "--output-dir", "out", "hardware=cpu"]
    code = "from slm_vllm.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 3
    assert done.stdout == ""
    assert "Error: " in done.stderr and "missing.jsonl" in done.stderr
    assert "Traceback" not in done.stderr


def test_exit_codes_of_commands_arrive(slm: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupted `eval` ends with 130: click's Exit must not be lost."""
    for raised, code in [(click.exceptions.Exit(130), 130), (click.Abort(), 130)]:

        @click.command()
        def stopped(raised: BaseException = raised) -> None:
            raise raised

        monkeypatch.setattr(entry.LazyGroup, "get_command", lambda *_, c=stopped: c)
        assert slm("eval").code == code
