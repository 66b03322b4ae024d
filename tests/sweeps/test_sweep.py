"""Sweeps: the plan, the processes, what is left when something fails."""

from __future__ import annotations

import io
import json
import shutil
import signal
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

from slm_vllm.errors import ConfigError
from slm_vllm.runs.options import RunOptions
from slm_vllm.runs.signals import Interrupted
from slm_vllm.sweeps import group
from slm_vllm.sweeps.grid import SweepGrid, sweep_grid
from slm_vllm.sweeps.plan import PlannedCell, groups, plan_sweep, seconds_left
from slm_vllm.sweeps.sweep import run_sweep
from support.qa_files import write_rows

PROGRAM = (sys.executable, "-m", "support.fake_sweep_group")
Rows = list[dict[str, object]]


@pytest.fixture
def grid(tmp_path: Path, tiny_model: Path, rows: Rows) -> SweepGrid:
    """Two models, two datasets, two modes and two retrievers: 12 cells."""
    other = tmp_path / "other-model"
    shutil.copytree(tiny_model, other)
    first = write_rows(tmp_path / "first.jsonl", rows)
    second = write_rows(tmp_path / "second.jsonl", rows[:4])
    return SweepGrid(
        models=(str(tiny_model), str(other)),
        datasets=(str(first), str(second)),
        modes=("no_context", "retriever"),
        retrievers=("bm25", "rank_bm25"),
        overrides=("hardware=cpu", "tracking.tracker=none", f"cache_dir={tmp_path / 'cache'}"),
        output_dir=str(tmp_path / "out"),
    )


@pytest.fixture
def small(grid: SweepGrid) -> SweepGrid:
    """Two models, one dataset, one mode: 2 cells."""
    return grid.model_copy(update={"datasets": grid.datasets[:1], "modes": grid.modes[:1]})


def sweep(grid: SweepGrid, cells: list[PlannedCell] | None = None) -> list[dict[str, object]]:
    return run_sweep(cells or plan_sweep(grid), grid.folder, quiet=True, program=PROGRAM)


def state(cell: PlannedCell) -> dict[str, object]:
    content = json.loads((cell.folder / "state.json").read_text())
    assert isinstance(content, dict)
    return content


@pytest.mark.slow
def test_every_cell_is_run_once_with_one_process_for_each_model(grid: SweepGrid) -> None:
    cells = plan_sweep(grid)
    assert len(cells) == 12 and [len(group) for group in groups(cells)] == [6, 6]
    assert {cell.status for cell in cells} == {"new"}
    results = sweep(grid)
    assert [result["name"] for result in results] == [cell.name for cell in cells]
    assert [result["num_examples"] for result in results] == [10, 10, 10, 4, 4, 4] * 2
    pids = [state(cell)["pid"] for cell in cells]
    assert len(set(pids[:6])) == len(set(pids[6:])) == 1 and pids[0] != pids[6]


@pytest.mark.slow
def test_the_same_sweep_again_does_nothing_and_a_changed_file_is_asked_again(
    small: SweepGrid, rows: Rows
) -> None:
    small = small.model_copy(update={"models": small.models[:1]})
    before = sweep(small)
    cells = plan_sweep(small)
    assert [cell.status for cell in cells] == ["done"]
    assert seconds_left(cells) == 0.0
    started = [state(cell)["started"] for cell in cells]
    assert sweep(small) == before
    assert [state(cell)["started"] for cell in cells] == started
    write_rows(Path(small.datasets[0]), rows[:5])
    (changed,) = plan_sweep(small)
    assert (changed.status, changed.rows, changed.left) == ("begun", None, None)
    assert [result["num_examples"] for result in sweep(small)] == [5]
    for samples, left in ((4, 0), (9, 4)):
        (cell,) = plan_sweep(small.model_copy(update={"samples": samples}))
        assert (cell.status, cell.rows, cell.left) == ("begun", samples, left)


@pytest.mark.slow
def test_a_failed_cell_does_not_stop_the_others(grid: SweepGrid) -> None:
    grid = grid.model_copy(update={"models": grid.models[:1], "modes": grid.modes[:1]})
    Path(grid.datasets[0]).write_text("not json\n")
    cells = plan_sweep(grid)
    results = sweep(grid)
    assert [result.get("exit_code") for result in results] == [3, None]
    assert "first.jsonl" in str(results[0]["error"])
    assert [state(cell)["phase"] for cell in cells] == ["failed", "finished"]


@pytest.mark.slow
def test_a_process_that_is_lost_leaves_the_next_model_its_turn(
    small: SweepGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_SWEEP", "killed")
    cells = plan_sweep(small)
    results = sweep(small)
    assert [result["exit_code"] for result in results] == [4, 4]
    assert all("signal 9" in str(result["error"]) for result in results)
    assert state(cells[0])["pid"] != state(cells[1])["pid"]
    monkeypatch.delenv("FAKE_SWEEP")
    assert plan_sweep(small)[0].status == "begun"
    finished = sweep(small.model_copy(update={"models": small.models[:1]}))
    assert finished[0]["num_examples"] == 10
    assert finished[0]["counts"]["resumed"] >= 2  # type: ignore[index]


@pytest.mark.slow
def test_what_an_earlier_process_left_is_not_taken_for_the_end_of_this_one(
    small: SweepGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = small.model_copy(update={"models": small.models[:1]})
    cells = plan_sweep(grid)
    sweep(grid)
    assert state(cells[0])["phase"] == "finished"
    monkeypatch.setenv("FAKE_SWEEP", "no start")
    results = run_sweep(
        cells, grid.folder, RunOptions(retry_errors=True), quiet=True, program=PROGRAM
    )
    assert results[0]["exit_code"] == 3
    assert "its process ended with exit code 3" in results[0]["error"]


@pytest.mark.slow
def test_a_signal_is_handed_on_and_stops_the_sweep(
    small: SweepGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_SWEEP", "stopped")
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted) as stopped:
        sweep(small)
    assert stopped.value.exit_code == 143
    assert signal.getsignal(signal.SIGTERM) == before
    cells = plan_sweep(small)
    assert state(cells[0])["phase"] == "interrupted"
    assert not cells[1].folder.exists()


def test_a_group_is_told_to_stop_when_its_sweep_is_killed() -> None:
    group = (
        # Blocked before the import, whose libraries start threads: one of them would be ended.
        "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})\n"
        "from slm_vllm.sweeps.sweep import die_with_parent; die_with_parent()\n"
        "print('ready', flush=True); print(signal.sigtimedwait({signal.SIGTERM}, 60), flush=True)"
    )
    code = f"import subprocess, sys; subprocess.call([sys.executable, '-c', {group!r}])"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as sweep:
        assert sweep.stdout is not None and sweep.stdout.readline() == "ready\n"
        sweep.kill()
        assert f"si_signo={int(signal.SIGTERM)}" in sweep.stdout.readline()


@pytest.mark.slow
def test_the_plan_refuses_what_would_collide(grid: SweepGrid, tmp_path: Path, rows: Rows) -> None:
    twin = tmp_path / "twin" / "first.jsonl"
    twin.parent.mkdir()
    write_rows(twin, rows)
    with pytest.raises(ConfigError, match="both be called"):
        plan_sweep(grid.model_copy(update={"datasets": (grid.datasets[0], str(twin))}))
    folder = plan_sweep(grid)[0].folder
    folder.mkdir(parents=True)
    (folder / "predictions.jsonl").write_text("{}\n")
    (folder / "config.hash").write_text("another\n")
    with pytest.raises(ConfigError, match="--overwrite"):
        plan_sweep(grid)
    assert plan_sweep(grid, overwrite=True)[0].status == "new"


def test_the_time_left_is_rows_over_the_rate_of_the_same_model(grid: SweepGrid) -> None:
    cells = plan_sweep(grid)
    config = cells[0].config
    known = [
        PlannedCell(config, "done", rows=100, left=0, rate=5.0),
        PlannedCell(config, "new", rows=None, left=None),
        PlannedCell(config, "begun", rows=100, left=50),
    ]
    assert seconds_left(known) == pytest.approx(100 / 5 + 50 / 5)
    assert seconds_left([*known, cells[-1]]) is None


def test_a_sweep_file_says_the_same_as_options(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text("models: [a, b]\ndatasets: demo\nmodes: [oracle]\nsamples: 3\nname: night\n")
    written = sweep_grid({"file": str(file), "output_dir": None, "overrides": ()})
    given = sweep_grid(
        {"models": "a, b", "datasets": "demo", "modes": "oracle", "samples": 3, "name": "night"}
    )
    assert written == given
    file.write_text(file.read_text() + "overrides: prompt.system=Short, please\n")
    won = sweep_grid({"file": str(file), "modes": "no_context", "samples": None})
    assert won.overrides == ("prompt.system=Short, please",)
    assert (won.modes, won.samples) == (("no_context",), 3)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("models: [a]\ndatasets: [x]\nmodes: [y]\nretriever: [b]", "Did you mean 'retrievers'"),
        ("models: {a: b}\ndatasets: [x]\nmodes: [y]", "models: .*found {'a': 'b'}"),
        ("models: [a]\ndatasets: [x]\nmodes: [y]\nsamples: 0", "samples: .*greater.*found 0"),
        ("models: [a]\ndatasets: [x]\nmodes: [y]\nsamples: yes", "samples: must be a number"),
        ("models: [a, a]\ndatasets: [x]\nmodes: [oracle]", "a is named twice"),
        ("models: [a]", "needs --datasets, --modes"),
        ("models: ','\ndatasets: [x]\nmodes: [y]", "needs --models"),
        ("- a", "must hold keys"),
        ("models: [", "not valid YAML"),
    ],
)
def test_a_sweep_file_with_a_mistake_says_which(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=said):
        sweep_grid({"file": str(file)})


def test_a_wrong_option_beside_a_sweep_file_is_not_its_fault_alone(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text("models: [a]\ndatasets: [x]\nmodes: [y]")
    with pytest.raises(ConfigError, match="The sweep of --file .* and of options is not valid"):
        sweep_grid({"file": str(file), "name": "a/b"})


def test_a_missing_sweep_file_is_named() -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml"):
        sweep_grid({"file": "nowhere.yaml"})


def test_cells_have_the_day_the_sweep_began(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[RunOptions] = []

    def note(configs: object, options: RunOptions) -> list[dict[str, object]]:
        given.append(options)
        return []

    monkeypatch.setattr("slm_vllm.sweeps.group.evaluate", note)
    monkeypatch.setattr("slm_vllm.sweeps.group.die_with_parent", lambda: None)
    monkeypatch.setattr("sys.stdin", io.StringIO("[]"))
    monkeypatch.setattr("sys.argv", ["group", "--today=2026-01-31"])
    assert group.main() == 0
    assert given[0].today == date(2026, 1, 31)


def test_each_retriever_is_crossed_with_each_number_of_passages(
    grid: SweepGrid, tmp_path: Path
) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text("top_k: [1, 5]\n")
    words = {
        "models": grid.models[0],
        "datasets": grid.datasets[0],
        "modes": "no_context,retriever",
        "retrievers": "bm25,rank_bm25",
        "overrides": grid.overrides,
    }
    from_file = plan_sweep(sweep_grid({**words, "file": str(file)}))
    assert [cell.config for cell in from_file] == [
        cell.config for cell in plan_sweep(sweep_grid({**words, "top_k": "1,5"}))
    ]
    searching = [cell.config for cell in from_file[1:]]
    assert [(config.retriever.name, config.retriever.top_k) for config in searching] == [
        ("bm25", 1), ("bm25", 5), ("rank_bm25", 1), ("rank_bm25", 5),
    ]  # fmt: skip
    assert searching[1].experiment.name.endswith("_bm25_top5")


@pytest.mark.parametrize("word", ["0", "-1", "three", "1.5"])
def test_a_number_of_passages_that_is_none(grid: SweepGrid, word: str) -> None:
    words = {"models": "demo", "datasets": "demo", "modes": "retriever", "top_k": word}
    with pytest.raises(ConfigError, match=f"top_k.*found .{word}"):
        sweep_grid(words)
