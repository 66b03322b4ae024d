"""Finds runs by name, path, glob, or a folder that holds runs."""

from __future__ import annotations

import glob
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from slm_vllm.errors import ConfigError, DataError, SlmVllmError
from slm_vllm.nearest import nearest
from slm_vllm.rundir import names
from slm_vllm.rundir.files import read_state, unreadable

log = logging.getLogger(__name__)

_MARKS = (names.STATE, names.CONFIG_HASH, names.RESULTS)


def is_run(path: Path) -> bool:
    """Whether a run was ever started in this folder, or its results were copied there.

    Raises:
        StorageError: That cannot be looked up.
    """
    try:
        return path.is_dir() and any((path / mark).exists() for mark in _MARKS)
    except OSError as error:
        raise unreadable(path, error) from None


def runs_in(folder: Path) -> list[Path]:
    """The runs directly in a folder and those in its sweeps.

    Raises:
        StorageError: It cannot be read.
    """
    found = []
    for path in _children(folder):
        if is_run(path):
            found.append(path)
        elif path.is_dir():
            found += [inner for inner in _children(path) if is_run(inner)]
    return found


def find_runs(patterns: Sequence[str], output_dir: Path) -> list[Path]:
    """The run folders that are meant, each once, in the order they are named in.

    Args:
        patterns: Names under `output_dir`, paths, globs of either, or folders that hold runs
            (sweeps).
        output_dir: Where run folders are kept.

    Raises:
        ConfigError: Nothing matches a pattern.
        StorageError: A folder cannot be read.
    """
    return _each_once(
        run for pattern in _without_files(patterns) for run in _matches(pattern, output_dir)
    )


def find_run(pattern: str, output_dir: Path) -> Path:
    """The one run that is meant.

    Raises:
        ConfigError: There is none, or there are several.
        StorageError: A folder cannot be read.
    """
    runs = find_runs([pattern], output_dir)
    if len(runs) > 1:
        raise ConfigError(
            f"'{pattern}' names {len(runs)} runs, it must be one: "
            f"{', '.join(str(run) for run in runs)}"
        )
    return runs[0]


def find_finished(patterns: Sequence[str], output_dir: Path) -> list[Path]:
    """As `find_runs`, for those who read results.

    Of a glob or a folder, runs that are not finished are left out with a warning; a run that is
    named itself is kept, so that reading it says what is wrong.

    Raises:
        ConfigError: Nothing matches a pattern.
        DataError: What matches is a folder or a glob of which no run is finished.
        StorageError: A folder cannot be read.
    """
    return _each_once(
        run
        for pattern in _without_files(patterns)
        for run in _finished(pattern, _matches(pattern, output_dir), output_dir)
    )


def why_unfinished(run: Path) -> str | None:
    """Why a run has no results to be read, None if it has.

    Raises:
        DataError: Its state is damaged.
        StorageError: Its state may not be read.
    """
    # Copied results may lack the state; where there is one, it counts: a run that was taken up
    # again still has the files of its earlier end.
    state = read_state(run)
    if state is not None and state.get("phase") != "finished":
        return f"its state is '{state.get('phase')}'"
    for name in (names.RESULTS, names.PREDICTIONS, names.CONFIG, names.MANIFEST):
        if not (run / name).exists():
            return f"there is no {name}"
    return None


def _matches(pattern: str, output_dir: Path) -> list[Path]:
    if run := _named(pattern, output_dir):
        return [run]
    places = _places(pattern, output_dir)
    for place in places:
        if place.is_dir() and (runs := runs_in(place)):
            return runs
    if glob.has_magic(pattern):
        for root in (output_dir, Path()):
            hits = [root / hit for hit in sorted(glob.glob(pattern, root_dir=root))]
            found = [run for hit in hits for run in ([hit] if is_run(hit) else _inside(hit))]
            if found:
                return found
    for place in places:
        if place.is_dir():
            raise ConfigError(
                f"{place} is not a run folder and holds none: a run has {' or '.join(_MARKS)}. "
                f"`slm-vllm runs list --output-dir {output_dir}` shows the runs"
            )
    raise ConfigError(_no_match(pattern, output_dir))


def _named(pattern: str, output_dir: Path) -> Path | None:
    """The run folder that is called just so."""
    return next((place for place in _places(pattern, output_dir) if is_run(place)), None)


def _places(pattern: str, output_dir: Path) -> list[Path]:
    return [output_dir / pattern, Path(pattern)] if pattern else []


def _inside(path: Path) -> list[Path]:
    return runs_in(path) if path.is_dir() else []


def _finished(pattern: str, runs: list[Path], output_dir: Path) -> list[Path]:
    if _named(pattern, output_dir):
        return runs
    problems = {run: _problem(run) for run in runs}
    finished = [run for run in runs if problems[run] is None]
    if not finished:
        raise DataError(f"'{pattern}': none of its {len(runs)} runs is finished")
    for run, problem in problems.items():
        if problem is not None:
            log.warning("%s is left out: it is not finished (%s)", run, problem)
    return finished


def _problem(run: Path) -> str | None:
    try:
        return why_unfinished(run)
    except SlmVllmError as error:
        return str(error)


def _without_files(patterns: Sequence[str]) -> list[str]:
    """A shell writes out `night/*` with the sweep's log among the runs."""
    kept = [pattern for pattern in patterns if not Path(pattern).is_file()]
    return kept or list(patterns)


def _each_once(runs: Iterable[Path]) -> list[Path]:
    found: dict[Path, Path] = {}
    for run in runs:
        found.setdefault(run.resolve(), run)
    return list(found.values())


def _children(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise unreadable(folder, error) from None


def _no_match(pattern: str, output_dir: Path) -> str:
    runs = runs_in(output_dir) if output_dir.is_dir() else []
    known = [run.relative_to(output_dir).as_posix() for run in runs]
    hint = nearest(pattern, known) if known else "There is none in it; see --output-dir"
    return f"'{pattern}': no run and no folder of runs of that name in {output_dir} or here. {hint}"
