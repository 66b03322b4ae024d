"""Who may write to a run folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from slm_vllm.config.compose import compose_config
from slm_vllm.config.schema import Config
from slm_vllm.errors import ConfigError, StorageError
from slm_vllm.rundir.folder import RunFolder

WORDS = ("model=custom", "model.path=./model", "dataset=custom", "dataset.path=questions.jsonl")


def config(*words: str) -> Config:
    return compose_config([*WORDS, *words])


@pytest.fixture
def begun(tmp_path: Path) -> Callable[..., Path]:
    """A folder with an answer of a configuration."""

    def begin(*words: str) -> Path:
        folder = RunFolder(tmp_path / "run")
        folder.open(config(*words))
        folder.write_config(config(*words))
        folder.journal.write_text("an answer\n")
        folder.close()
        return folder.path

    return begin


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        ((), ("generation.max_new_tokens=64",), "generation.max_new_tokens is 64 and was 32"),
        (
            (),
            ("experiment_mode=oracle_context",),
            "experiment_mode.context is oracle and was none",
        ),
        (
            ("experiment_mode=retriever_context",),
            ("experiment_mode=retriever_context", "retriever.top_k=7"),
            "retriever.top_k is 7 and was 3",
        ),
        (
            ("engine.name=openai", "engine.base_url=[http://localhost:1/v1]"),
            (
                "engine.name=openai",
                "engine.base_url=[http://localhost:1/v1]",
                "engine.endpoint=chat",
            ),
            r"engine.endpoint is chat and was \(not set\)",
        ),
    ],
)
def test_a_refusal_names_the_setting_and_both_values(
    begun: Callable[..., Path], before: tuple[str, ...], now: tuple[str, ...], said: str
) -> None:
    folder = RunFolder(begun(*before))
    with pytest.raises(ConfigError, match=rf"holds a run of another configuration \({said}\)\. "):
        folder.open(config(*now))


def test_a_refusal_names_what_matters_and_no_more_than_three(begun: Callable[..., Path]) -> None:
    folder = RunFolder(begun())
    changed = ["generation.max_new_tokens=1", "generation.top_p=0.5", "generation.top_k=2"]
    system = "w" * 200
    with pytest.raises(ConfigError) as error:
        folder.open(
            config(*changed, f"prompt.system={system}", "tracking.project=x", "cache_dir=x")
        )
    message = str(error.value)
    assert message.count(" and was ") == 3 and "; and 1 more)" in message
    assert "tracking" not in message and "cache_dir" not in message
    assert f"prompt.system is {'w' * 60}... (200 characters) and was Answer" in message


def test_a_refusal_without_a_readable_configuration(begun: Callable[..., Path]) -> None:
    path = begun()
    (path / "config.yaml").write_text("a: [1")
    with pytest.raises(ConfigError, match=r"holds a run of another configuration\. Give"):
        RunFolder(path).open(config("generation.max_new_tokens=64"))


def test_results_of_another_program_are_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text("{}")
    folder = RunFolder(tmp_path)
    with pytest.raises(ConfigError, match=r"results of another program.*slm-vllm adopt"):
        folder.open(config())
    folder.close()
    assert (tmp_path / "results.json").read_text() == "{}"


def test_what_changes_no_answer_is_taken_up(begun: Callable[..., Path]) -> None:
    path = begun()
    assert RunFolder(path).open(config("tracking.project=other", "experiment.max_samples=2"))


def test_two_processes_cannot_have_one_folder(tmp_path: Path) -> None:
    first, second = RunFolder(tmp_path), RunFolder(tmp_path)
    first.open(config())
    with pytest.raises(StorageError, match="another process is running in this folder"):
        second.open(config())
    first.close()
    second.open(config())


def test_overwriting_leaves_what_is_not_the_runs(begun: Callable[..., Path]) -> None:
    path = begun()
    (path / "notes.txt").write_text("mine")
    (path / "tracking").mkdir()
    (path / "tracking" / "events.jsonl").write_text("")
    folder = RunFolder(path)
    assert not folder.open(config("generation.max_new_tokens=64"), overwrite=True)
    assert sorted(p.name for p in path.iterdir()) == [".lock", "config.hash", "notes.txt"]
