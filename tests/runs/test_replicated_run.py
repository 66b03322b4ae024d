"""A run over several engines: killed at every moment it loses, doubles and repeats nothing."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from slm_vllm.config.schema import Config
from support.counting_engine import all_ended
from support.qa_files import write_rows

ROWS, BATCH, REPLICAS = 200, 4, 2
IN_FLIGHT = REPLICAS * 2 * BATCH
KILLS = ("load", "0", "1", "7", "8", "16", "3", "40", "25", "0")

pytestmark = pytest.mark.slow


@pytest.fixture
def words(make_config: Callable[..., Config], tmp_path: Path) -> list[str]:
    rows = [{"question_id": f"q{i}", "question": f"number {i}", "answer": "x"} for i in range(ROWS)]
    write_rows(tmp_path / "qa.jsonl", rows)
    config = make_config()
    given = ("model.name", "model.path", "dataset.name", "dataset.path", "cache_dir")
    sections = config.model_dump()

    def value(key: str) -> str:
        section, _, name = key.partition(".")
        return str(sections[section][name] if name else sections[section])

    return [
        "model=custom",
        "dataset=custom",
        *(f"{key}={value(key)}" for key in given),
        f"experiment.output_dir={config.experiment.output_dir}",
        "hardware=cpu",
        "tracking.tracker=none",
        f"hardware.engine_args.max_num_seqs={BATCH}",
    ]


@pytest.fixture
def temporary() -> Iterator[Path]:
    """For temporary files; a short path, as sockets are among them."""
    with tempfile.TemporaryDirectory(prefix="t") as folder:
        yield Path(folder)


def journal(words: list[str]) -> list[str]:
    (folder,) = {word.partition("=")[2] for word in words if "output_dir" in word}
    found = list(Path(folder).glob("*/predictions.jsonl"))
    return [json.loads(line)["key"] for path in found for line in path.read_text().splitlines()]


def asked(folder: Path) -> Counter[str]:
    return Counter(key for path in folder.glob("*.asked") for key in path.read_text().split())


def test_ten_kills_of_the_driver(
    words: list[str], tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines = tmp_path / "engines"
    engines.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    answered: list[str] = []
    for moment in (*KILLS, "none"):
        before = asked(engines)
        command = [sys.executable, "-m", "support.replicated_run", str(engines), moment]
        done = subprocess.run(
            [*command, str(REPLICAS), *words], capture_output=True, text=True, check=False
        )
        assert done.returncode == (0 if moment == "none" else -9), done.stderr
        assert all_ended(engines)
        assert not list(temporary.rglob("left_by_*"))
        lines = journal(words)
        assert lines[: len(answered)] == answered
        assert not (asked(engines) - before).keys() & set(answered)
        assert sum((asked(engines) - before).values()) <= len(lines) - len(answered) + IN_FLIGHT
        answered = lines
    assert len(answered) == len(set(answered)) == ROWS


def test_a_signal_to_every_process_finishes_what_is_in_flight(
    words: list[str], tmp_path: Path
) -> None:
    """As a scheduler stops a job: the engines leave it to the driver."""
    engines = tmp_path / "engines"
    engines.mkdir()
    command = [sys.executable, "-m", "support.replicated_run", str(engines), "stop"]
    stopped = subprocess.run([*command, str(REPLICAS), *words], capture_output=True, text=True)
    assert stopped.returncode != 0 and "stopped by SIGTERM" in stopped.stderr
    first = journal(words)
    assert sorted(asked(engines)) == sorted(first) and 40 < len(first) < ROWS
    command[-1] = "none"
    subprocess.run([*command, str(REPLICAS), *words], check=True, capture_output=True)
    assert len(set(journal(words))) == len(journal(words)) == ROWS
    assert asked(engines) == Counter(journal(words))


def test_the_answers_are_those_of_one_engine(words: list[str], tmp_path: Path) -> None:
    found = {}
    for n in (1, 2):
        folder = tmp_path / str(n)
        folder.mkdir()
        own = [*words, f"experiment.name=run{n}"]
        command = [sys.executable, "-m", "support.replicated_run", str(folder), "none", str(n)]
        subprocess.run([*command, *own], check=True, capture_output=True)
        run = tmp_path / "outputs" / f"run{n}"
        results = json.loads((run / "results.json").read_text())
        rows = (json.loads(line) for line in (run / "predictions.jsonl").open())
        found[n] = {row["key"]: row["prediction"].partition(" by ")[0] for row in rows}
        memory = json.loads((run / "memory_usage.json").read_text())
        assert sorted(memory["replicas"]) == [f"replica {number}" for number in range(n)]
        assert results["counts"]["total"] == ROWS
    assert found[1] == found[2]
