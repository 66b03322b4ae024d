"""Which settings of a run had an effect."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from slm_vllm.reporting.config_diff import applies
from slm_vllm.rundir.reading import load_run
from support.run_folders import make_run


def test_the_retriever_counts_in_every_mode_that_searches(tmp_path: Path) -> None:
    closed, searching = (
        load_run(make_run(tmp_path / mode, mode=mode, rows=[{}]))
        for mode in ("no_context", "retriever")
    )
    mode = {"name": "own", "context": "mine:Mode"}
    own = replace(searching, config={**searching.config, "experiment_mode": mode})
    assert [applies("retriever.top_k", run) for run in (closed, searching, own)] == [
        False,
        True,
        True,
    ]
