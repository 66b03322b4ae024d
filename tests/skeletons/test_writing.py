"""What `slm-vllm new` writes works as it is, and is what docs/extending.md shows."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner

from slm_vllm import plugins
from slm_vllm.cli.new import command
from slm_vllm.config.compose import compose_config
from slm_vllm.errors import ConfigError
from slm_vllm.runs.choices import check_choices
from slm_vllm.skeletons.writing import KINDS, skeleton, write_skeleton
from slm_vllm.sweeps.plan import PlannedCell
from slm_vllm.sweeps.sweep import run_sweep
from support.places import REPOSITORY

PAGE = (REPOSITORY / "docs" / "extending.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^    slm-vllm new (\w+) (\w+)\n\n```python\n(.*?)```", PAGE, re.M | re.S)


@pytest.fixture
def configs(tmp_path: Path, plugin: Callable[[str, str], Path]) -> Path:
    """A configuration with the plug-ins of the page."""
    folder = tmp_path / "configs"
    for kind, name, _ in EXAMPLES:
        write_skeleton(kind, name, folder)
    return folder


@pytest.mark.parametrize(("kind", "name", "code"), EXAMPLES, ids=[kind for kind, *_ in EXAMPLES])
def test_the_page_shows_what_is_written(kind: str, name: str, code: str) -> None:
    assert code == next(iter(skeleton(kind, name).values()))


def test_the_page_shows_every_kind() -> None:
    assert [kind for kind, *_ in EXAMPLES] == list(KINDS)


@pytest.mark.slow
def test_their_own_tests_pass(configs: Path) -> None:
    """As their user runs them: anywhere, with pytest's own settings."""
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", "."]
    done = subprocess.run(
        [sys.executable, *words], cwd=configs / "plugins", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^\.{6,} ", done.stdout), done.stdout


@pytest.mark.slow
def test_a_sweep_uses_one_of_each(configs: Path, tmp_path: Path, tiny_model: Path) -> None:
    """In its process, and in that of the tracker."""
    rows = [
        {"id": 1, "prompt": "question of Rome", "gold": "Rome", "ignored": 3},
        {"id": 2, "prompt": "question of Paris", "gold": ["Paris in France", "Lutetia"]},
    ]
    data = tmp_path / "rows.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    words = [
        "model=custom",
        "model.name=tiny",
        f"model.path={tiny_model}",
        "dataset=my_questions",
        f"dataset.path={data}",
        "retriever=shared_words",
        "engine.name=one_answer:OneAnswer",
        "engine.answer=Paris",
        "tracking.tracker=notebook:Notebook",
        "tracking.close_timeout=3600",
        f"experiment.output_dir={tmp_path / 'outputs'}",
        f"cache_dir={tmp_path / 'cache'}",
        "hardware=cpu",
    ]
    plugin_file = configs / "plugins" / "my_questions.py"
    answers = 'answers=answers_of(fields.get("gold")),'
    code = plugin_file.read_text()
    assert answers in code
    plugin_file.write_text(code.replace(answers, f'{answers} contexts=["Paris", "Rome"],'))
    config = compose_config([*words, "experiment_mode=one_passage"], configs)
    (result,) = run_sweep([PlannedCell(config, "new")], tmp_path / "sweep", quiet=True)
    assert "error" not in result, result
    assert result["metrics"]["first_word"]["mean"] == 0.5
    folder = tmp_path / "outputs" / "tiny_my_questions_one_passage"
    assert pl.read_parquet(folder / "predictions.parquet")["context_type"].unique().to_list() == [
        "one_passage"
    ]
    notes = [json.loads(line) for line in (folder / "notebook.jsonl").read_text().splitlines()]
    assert notes[0] == ["start", folder.name] and notes[-1] == ["end", "finished"]


def test_the_prompt_of_the_page(tmp_path: Path) -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.S)
    (tmp_path / "prompt").mkdir()
    (tmp_path / "prompt" / "terse.yaml").write_text(text)
    config = compose_config(["prompt=terse"], tmp_path)
    check_choices(config)
    assert config.prompt.few_shot[0].answer == "Goethe"


@pytest.mark.parametrize("kind", KINDS)
def test_the_command_says_what_to_do_next(kind: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(command, [kind, "mine", "--config-dir", str(tmp_path / "own")])
    written = [line.removeprefix("Written: ") for line in done.output.splitlines()[:-2]]
    assert [Path(path).is_file() for path in written] == [True] * len(written)
    use = done.output.splitlines()[-1]
    words = re.findall(r"\S+:Mine|--\w+ mine", use)
    assert words or kind == "metric"


def test_nothing_is_written_over(configs: Path) -> None:
    kind, name, _ = EXAMPLES[0]
    path = configs / "dataset" / f"{name}.yaml"
    path.write_text("mine")
    (configs / plugins.FOLDER / f"{name}.py").unlink()
    with pytest.raises(ConfigError, match="is there already"):
        write_skeleton(kind, name, configs)
    assert path.read_text() == "mine"
    assert not (configs / plugins.FOLDER / f"{name}.py").exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [("my-data", "no name of a Python module"), ("class", "no name"), ("json", "hide")],
)
def test_a_name_that_no_file_can_have(name: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        write_skeleton("dataset", name, tmp_path)
    assert not any(tmp_path.iterdir())
