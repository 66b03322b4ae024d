"""Runs of modes that this package does not have."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from slm_vllm.reporting.context_role import role_of
from slm_vllm.reporting.pairing import paired_datasets, ranked
from slm_vllm.reporting.run_view import view_runs
from slm_vllm.rundir.reading import RunData, load_run
from support.run_folders import make_run

MODES = """
from slm_vllm.runs.contexts import Context, OracleContext


class OnePassage(OracleContext):
    name = "one_passage"


class Notebook(Context):
    name = "notebook"

    def rows(self, frame):
        return []
"""
Runs = Callable[[], dict[str, RunData]]


@pytest.fixture
def runs(tmp_path: Path, plugin: Callable[[str, str], Path]) -> Runs:
    """A run of each mode of the package and of the two above, then no plug-in any more."""
    path = plugin("modes", MODES)
    right = {"no_context": 20, "retriever": 40, "notebook": 50, "one_passage": 70, "oracle": 90}
    for mode, count in right.items():
        rows = [{"token_recall": float(n < count)} for n in range(100)]
        like = mode if mode in ("no_context", "retriever") else "oracle"
        own = {"notebook": "modes:Notebook", "one_passage": "modes:OnePassage"}.get(mode)
        config = {"experiment_mode": {"name": mode, "context": own}} if own else None
        make_run(tmp_path / "runs" / mode, mode=like, rows=rows, config=config)
    path.unlink()
    return lambda: {one.name: load_run(one) for one in sorted((tmp_path / "runs").iterdir())}


def test_roles(runs: Runs) -> None:
    assert {name: role_of(run) for name, run in runs().items()} == {
        "no_context": "closed book",
        "retriever": "context",
        "notebook": "context",
        "one_passage": "bound",
        "oracle": "bound",
    }


def test_a_run_of_an_earlier_version_has_the_role_of_its_context(
    runs: Runs, tmp_path: Path
) -> None:
    for path in tmp_path.glob("runs/*/results.json"):
        results = json.loads(path.read_text())
        del results["uses_gold"]
        path.write_text(json.dumps(results))
    roles = {name: role_of(run) for name, run in runs().items()}
    assert (roles["no_context"], roles["oracle"]) == ("closed book", "bound")
    assert roles["retriever"] == "context"


def test_what_a_mode_of_a_plug_in_did_is_reported(runs: Runs) -> None:
    views = view_runs(list(runs().values()))
    assert [view.mode.partition(" ")[0] for view in views] == [
        "no_context", "notebook", "retriever", "one_passage", "oracle",
    ]  # fmt: skip
    (dataset,) = paired_datasets(views)
    effects = {effect.run: effect for effect in dataset.effects}
    assert set(effects) == {"notebook", "retriever", "one_passage", "oracle"}
    assert effects["notebook"].changes[0].gained == 30
    # The oracle is the bound of the others, whatever else was given gold passages.
    assert effects["notebook"].oracle == effects["retriever"].oracle == "oracle"
    assert [view.run.name for view in ranked(views)] == ["notebook", "retriever", "no_context"]
