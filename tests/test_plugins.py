"""Classes of plain files: found by name, checked before anything is made, told in one line."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from slm_vllm import plugins
from slm_vllm.cli.main import main
from slm_vllm.config.compose import compose_config
from slm_vllm.datasets.registry import dataset_class, open_dataset
from slm_vllm.engines.registry import engine_class
from slm_vllm.errors import ConfigError
from slm_vllm.retrieval.registry import retriever_class
from slm_vllm.scoring.metrics import METRICS, load_added
from slm_vllm.tracking.registry import tracker_class
from support.child import run_python

Write = Callable[[str, str], Path]
Command = Callable[..., tuple[int, str, str]]

DATASET = """
from slm_vllm.datasets.qa_pairs import QaPairsDataset


class Mine(QaPairsDataset):
    kind = "mine"
"""
METRIC = """
from slm_vllm.scoring.metrics import metric


@metric("always", "always", unit="1", source="a test")
def always(pairs):
    return pairs["stands"].cast(int) * 0 + 1
"""
FINDERS = {
    "dataset": dataset_class,
    "retriever": retriever_class,
    "engine": engine_class,
    "tracker": tracker_class,
}


def refusal(kind: str, name: str) -> str:
    with pytest.raises(ConfigError) as caught:
        FINDERS[kind](name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        ("dataset", "x = (", r"dataset.kind=my:Mine: .*/my.py, line 1: SyntaxError"),
        ("dataset", "\n1 / 0", r"/my.py, line 2: ZeroDivisionError: division by zero"),
        ("dataset", "import no_such", r"/my.py, line 1: .*No module named 'no_such'"),
        ("dataset", "import sys\nsys.exit(3)", r"/my.py, line 2: SystemExit: 3"),
        ("dataset", "class Mime: pass", r"/my.py has no 'Mine'. Did you mean 'Mime'"),
        ("dataset", "from pathlib import Path", r"has no 'Mine'. It defines none"),
        ("dataset", "class Mine: pass", r"/my.py: Mine is no BaseDataset\. docs/extending.md"),
        (
            "dataset",
            "from slm_vllm.datasets.base import BaseDataset as B\nclass Mine(B): pass",
            r"/my.py: Mine lacks scan, kind\.",
        ),
        (
            "dataset",
            DATASET + "    def __init__(self, path): pass",
            r"/my.py: Mine cannot be made with \(path, on_reject=\): .*'on_reject'",
        ),
        (
            "retriever",
            "from slm_vllm.retrieval.base import BaseRetriever as B\nclass Mine(B): pass",
            "Mine is no StoredRetriever or CompositeRetriever",
        ),
        (
            "engine",
            "from slm_vllm.engines.base import BaseEngine as B\nclass Mine(B): pass",
            "engine.name=my:Mine: .*/my.py: Mine lacks close, start, stream",
        ),
        (
            "tracker",
            "from slm_vllm.tracking.base import BaseTracker as B\nclass Mine(B): pass",
            "Mine lacks attach, end, missing, report, start",
        ),
    ],
)
def test_what_a_class_lacks_is_one_line(plugin: Write, kind: str, text: str, said: str) -> None:
    plugin("my", text)
    assert re.search(said, refusal(kind, "my:Mine")), refusal(kind, "my:Mine")


def test_a_module_that_is_not_there(plugin: Write) -> None:
    folder = plugin("my", DATASET).parent
    assert f"no module 'your' in {folder} or among" in refusal("dataset", "your:Mine")
    assert "'my file' is no name of a module" in refusal("dataset", "my file:Mine")
    plugins.use_folder(None)
    assert "beside the configuration (plugins/)" in refusal("dataset", "my:Mine")


def test_a_package_that_would_hide_another_is_refused(plugin: Write) -> None:
    package = plugin("my", DATASET).parent / "polars"
    package.mkdir()
    (package / "__init__.py").write_text("")
    assert f"{package}: there is a module 'polars' already" in refusal("dataset", "my:Mine")


@pytest.mark.parametrize("name", ["json", "polars"])
def test_a_file_that_would_hide_another_module_is_refused(plugin: Write, name: str) -> None:
    plugin(name, DATASET)
    assert f"there is a module '{name}' already" in refusal("dataset", f"{name}:Mine")


def test_a_class_of_an_installed_package_needs_no_file() -> None:
    found = dataset_class("slm_vllm.datasets.qa_pairs:QaPairsDataset")
    assert found.kind == "qa_pairs"


def test_files_beside_the_data_are_not_run(
    plugin: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither from a dataset's folder nor from the working folder."""
    plugin("my", DATASET)
    place = tmp_path / "data"
    (place / "plugins").mkdir(parents=True)
    for path in (place / "evil.py", place / "plugins" / "evil.py", place / "plugins" / "my.py"):
        path.write_text("raise SystemExit('was run')")
    rows = place / "rows.jsonl"
    rows.write_text('{"question": "q", "answer": "a"}\n')
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(str(place))  # as `python -m` does
    assert "no module 'evil'" in refusal("dataset", "evil:Mine")
    assert next(open_dataset("my:Mine", rows).scan())["question"].to_list() == ["q"]


def test_another_folder_takes_the_place_of_the_first(plugin: Write, tmp_path: Path) -> None:
    plugin("my", DATASET)
    plugin("metric_always", METRIC)
    load_added()
    first = dataset_class("my:Mine")
    assert "always" in METRICS
    other = tmp_path / "other"
    (other / "plugins").mkdir(parents=True)
    (other / "plugins" / "my.py").write_text(DATASET + "    title = 'other'\n")
    compose_config([], other)
    load_added()
    second = dataset_class("my:Mine")
    assert second is not first and second.title == "other"  # type: ignore[attr-defined]
    assert "always" not in METRICS
    assert str(tmp_path / "configs" / "plugins") not in sys.path


def test_the_folder_of_an_own_configuration_wins(
    plugin: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One without plug-ins has none, whatever lies beside the working folder."""
    plugin("my", DATASET)
    (tmp_path / "bare").mkdir()
    monkeypatch.chdir(tmp_path)
    compose_config([], tmp_path / "bare")
    assert "no module 'my'" in refusal("dataset", "my:Mine")


def test_processes_that_are_started_find_them(plugin: Write) -> None:
    plugin("my", DATASET)
    done = run_python(
        "from slm_vllm.datasets.registry import dataset_class; print(dataset_class('my:Mine').kind)"
    )
    assert done.stdout == "mine\n", done.stderr


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Gives the exit code, standard output and standard error of `slm-vllm WORDS`."""

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["slm-vllm", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


def test_the_folder_beside_the_working_folders_configs_is_found(
    plugin: Write,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: Command,
) -> None:
    plugin("my", "import no_such")
    plugins.use_folder(None)
    monkeypatch.chdir(tmp_path)
    code, _, err = command("config", "validate", "dataset.kind=my:Mine")
    assert code == 2 and "my.py, line 1: ModuleNotFoundError" in err


@pytest.mark.slow
def test_config_validate_checks_plugins(
    plugin: Write,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: Command,
) -> None:
    plugin("my", DATASET)
    folder = tmp_path / "configs" / "dataset"
    folder.mkdir()
    mine = folder / "mine.yaml"
    for kind, code, said in (
        ("my:Mine", 0, "Valid: this configuration"),
        ("my:Other", 2, f"{mine}: dataset.kind=my:Other: "),
    ):
        mine.write_text(f"name: mine\nkind: {kind}\npath: mine.jsonl\n")
        found = command("config", "validate", "--config-dir", str(tmp_path / "configs"))
        assert found[0] == code and said in found[1] + found[2]


def test_what_a_plugin_raises_is_one_line(
    plugin: Write,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: Command,
) -> None:
    path = plugin("my", DATASET + "    def scan(self, *words, **named):\n        return {}['x']\n")
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"question": "q", "answer": "a"}\n')
    monkeypatch.chdir(tmp_path)
    code, _, err = command("data", "check", str(rows), "--kind", "my:Mine")
    assert (code, err) == (2, f"Error: {path}, line 8, in scan: KeyError: 'x'\n")


def test_an_engine_has_settings_of_its_own(plugin: Write) -> None:
    plugin(
        "my",
        "from slm_vllm.config.engine import EngineConfig\n"
        "from support.fake_engine import FakeEngine\n"
        "class Settings(EngineConfig):\n    warmth: int = 3\n"
        "class Mine(FakeEngine):\n    config_class = Settings\n",
    )
    config = compose_config(["engine.name=my:Mine", "engine.warmth=5"])
    assert json.loads(config.engine.model_dump_json())["warmth"] == 5
    with pytest.raises(ConfigError, match="warm: there is no such key. Did you mean 'warmth"):
        compose_config(["engine.name=my:Mine", "engine.warm=5"])
