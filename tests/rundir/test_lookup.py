from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from slm_vllm.errors import ConfigError, DataError
from slm_vllm.rundir.lookup import find_finished, find_run, find_runs
from support.run_folders import make_run

ROWS = [{"token_recall": 1.0}, {"token_recall": 0.5}]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "first", rows=ROWS)


def test_found_by_name_path_and_glob(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = tmp_path / "outputs"
    a, b = (make_run(outputs / name, rows=ROWS) for name in ("a", "b"))
    elsewhere = make_run(tmp_path / "elsewhere", rows=ROWS)
    assert find_runs(["b", "a"], outputs) == [b, a]
    assert find_runs([str(elsewhere)], outputs) == [elsewhere]
    assert find_runs(["?"], outputs) == [a, b]
    assert find_runs(["b", "*", str(outputs / "a"), str(a) + "/."], outputs) == [b, a]
    assert find_runs([str(outputs / "[b]")], outputs) == [b]
    monkeypatch.chdir(tmp_path)
    assert find_runs(["elsewhere"], outputs) == [Path("elsewhere")]


def test_sweep_folder_leaves_out_what_is_not_finished(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sweep = tmp_path / "outputs" / "night"
    done = make_run(sweep / "b", rows=ROWS)
    failed = make_run(sweep / "a", rows=ROWS, phase="failed")
    (sweep / "notes").mkdir()
    with caplog.at_level(logging.WARNING):
        assert find_finished(["night"], sweep.parent) == [done]
    assert f"{failed} is left out" in caplog.text
    assert find_finished(["ni*"], sweep.parent) == [done]
    assert find_finished(["night/*"], sweep.parent) == [done]
    # Named itself, it is kept: reading it says what is wrong.
    assert find_finished(["night/a"], sweep.parent) == [failed]
    (done / "state.json").write_text(json.dumps({"phase": "failed"}))
    with pytest.raises(DataError, match="none of its 2 runs is finished"):
        find_finished(["night"], sweep.parent)


@pytest.mark.parametrize("pattern", ["frist", "", "x*", "[", "\x00"])
def test_nothing_of_that_name(run: Path, pattern: str) -> None:
    with pytest.raises(ConfigError, match="no run and no folder of runs") as error:
        find_runs([pattern], run.parent)
    assert "Valid: first" in str(error.value)


def test_no_output_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="There is none in it"):
        find_runs(["a"], tmp_path / "nothing")


def test_a_folder_of_sweeps_holds_their_runs(tmp_path: Path) -> None:
    single = make_run(tmp_path / "b", rows=ROWS)
    cells = [make_run(tmp_path / "a" / name, rows=ROWS, phase="failed") for name in "cd"]
    assert find_runs([str(tmp_path)], Path("outputs")) == [*cells, single]
    assert find_runs(["a"], tmp_path) == cells
    with pytest.raises(ConfigError, match="Valid: a/c, a/d, b"):
        find_runs(["a/e"], tmp_path)


def test_one_is_one(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name, rows=ROWS) for name in ("a1", "a2")]
    assert find_run("a1", tmp_path) == runs[0]
    with pytest.raises(ConfigError, match=r"'a\*' names 2 runs, it must be one: .*a1, .*a2"):
        find_run("a*", tmp_path)


def test_files_among_the_runs_a_shell_wrote_out_are_no_runs(tmp_path: Path) -> None:
    run = make_run(tmp_path / "night" / "a", rows=ROWS)
    log = tmp_path / "night" / "sweep.log"
    log.write_text("")
    assert find_runs([str(run), str(log)], tmp_path) == [run]
    with pytest.raises(ConfigError, match="no run and no folder of runs"):
        find_runs([str(log)], tmp_path)


@pytest.mark.parametrize("left", ["state.json", "config.hash", "results.json"])
def test_any_of_three_files_makes_a_run(tmp_path: Path, left: str) -> None:
    run = make_run(tmp_path / "first", rows=ROWS)
    for name in {"state.json", "config.hash", "results.json"} - {left}:
        (run / name).unlink()
    assert find_runs(["first"], tmp_path) == [run]
    (run / left).unlink()
    with pytest.raises(ConfigError, match="first is not a run folder and holds none"):
        find_runs(["first"], tmp_path)
