"""The parts of the page that say what was run: settings, machines, versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from slm_vllm.json_text import as_mapping
from slm_vllm.reporting.config_diff import Difference, config_differences, flat_settings
from slm_vllm.reporting.html_table import table
from slm_vllm.reporting.run_view import RunView
from slm_vllm.rundir.settings import NOT_SET


def configuration_section(views: Sequence[RunView]) -> str:
    """What differs between the runs, then what is the same in all."""
    runs = [view.run for view in views]
    flat = [flat_settings(run) for run in runs]
    different = config_differences(runs)
    parts = []
    if different:
        lines = [["key", *(run.name for run in runs)]]
        lines += [_difference_row(one, len(runs)) for one in different]
        parts.append(_wide_table(lines, "What differs"))
    elif len(views) > 1:
        parts.append("<p>All runs have the same settings.</p>")
    named = {one.key for one in different}
    # What is left may still differ where it had no effect: settings of a search that was not made.
    keys = [key for key in dict.fromkeys(key for one in flat for key in one) if key not in named]
    same = [[key, " / ".join(dict.fromkeys(one.get(key, NOT_SET) for one in flat))] for key in keys]
    title = "Settings that are the same in all runs" if len(views) > 1 else "All settings"
    parts.append(
        f"<details><summary>{title} ({len(same)})</summary>"
        f"{table(['key', 'value'], same, caption=title, text_columns=None)}</details>"
    )
    return "".join(parts)


def _difference_row(difference: Difference, n_runs: int) -> list[str]:
    """The key, and the value of each run; a dash where it had no effect."""
    cells = ["-"] * n_runs
    for value, numbers in difference.values:
        for number_of_run in numbers:
            cells[number_of_run] = value
    return [difference.key, *cells]


def origin_section(views: Sequence[RunView]) -> str:
    """Models, data, machines and versions: what is the same in all runs, then what is not."""
    facts = [_facts(view.run.manifest) for view in views]
    names = [name for name in facts[0] if any(one[name] != "-" for one in facts)]
    same = [name for name in names if len({one[name] for one in facts}) == 1]
    shared = table(
        ["fact", "all runs" if len(views) > 1 else views[0].run.name],
        [[name, facts[0][name]] for name in same],
        caption="Models, data, machines and versions",
        text_columns=None,
    )
    if len(same) == len(names):
        return shared
    lines = [["fact", *(view.run.name for view in views)]]
    lines += [[name, *(one[name] for one in facts)] for name in names if name not in same]
    return shared + _wide_table(lines, "Facts that are not the same in all runs")


def _wide_table(lines: Sequence[Sequence[str]], caption: str) -> str:
    """Lines with a head, turned where that makes fewer columns.

    Args:
        lines: The head, then a line for each key with a value for each run.
        caption: The table's.
    """
    if len(lines[0]) > len(lines):
        lines = [list(line) for line in zip(*lines, strict=True)]
        lines[0] = ["run", *lines[0][1:]]
    return table(lines[0], lines[1:], caption=caption, text_columns=None)


def _facts(manifest: Mapping[str, Any]) -> dict[str, str]:
    model, dataset, engine, device, git = (
        as_mapping(manifest.get(key)) for key in ("model", "dataset", "engine", "device", "git")
    )
    commit = f"{git['commit']}{' (changed)' if git.get('dirty') else ''}" if git else None
    found = {
        "started": manifest.get("created"),
        "command": " ".join(map(str, manifest.get("command") or [])),
        "model": model.get("repo") or model.get("source"),
        "revision": model.get("revision"),
        "dataset file": dataset.get("path"),
        "dataset sha256": dataset.get("sha256"),
        "device": device.get("name"),
        "engine": " ".join(str(engine[key]) for key in ("name", "vllm") if engine.get(key)),
        "longest prompt and answer": engine.get("max_model_len"),
        "slm-vllm": manifest.get("slm_vllm"),
        "commit": commit,
        "Python": manifest.get("python"),
        "platform": manifest.get("platform"),
    }
    return {name: "-" if value in (None, "") else str(value) for name, value in found.items()}
