"""Which settings of a run had an effect."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from slm_vllm.reporting.config_diff import applies, config_differences
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


def test_a_setting_that_earlier_versions_did_not_know_differs_where_it_says_something(
    tmp_path: Path,
) -> None:
    before = load_run(make_run(tmp_path / "before", rows=[{}]))

    def with_settings(section: str, **keys: object) -> list[str]:
        changed = {**before.config.get(section, {}), **keys}
        now = replace(before, config={**before.config, section: changed})
        return [difference.key for difference in config_differences([before, now])]

    assert with_settings("engine", replicas_per_gpu="auto") == []
    assert with_settings("hardware", start="auto", deterministic=False) == []
    assert with_settings("engine", replicas_per_gpu=2) == ["engine.replicas_per_gpu"]
    assert with_settings("hardware", deterministic=True) == ["hardware.deterministic"]
