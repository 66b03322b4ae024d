"""Checks the datasets of a command before anything large is loaded."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from slm_vllm.amounts import counted
from slm_vllm.errors import SlmVllmError
from slm_vllm.runs.cell import Cell
from slm_vllm.runs.console import Console
from slm_vllm.runs.services import Services

Fail = Callable[[Sequence[Cell], SlmVllmError], None]


def check_datasets(cells: Sequence[Cell], fail: Fail) -> list[list[Cell]]:
    """Reads a row of each dataset: a bad file is known before anything large is imported.

    Args:
        cells: The cells of the command.
        fail: Told of the cells whose dataset cannot be used.

    Returns:
        The other cells, by dataset.
    """
    by_dataset: dict[int, list[Cell]] = {}
    for cell in cells:
        by_dataset.setdefault(id(cell.questions), []).append(cell)
    for asking in by_dataset.values():
        try:
            asking[0].questions.check()
        except SlmVllmError as error:
            fail(asking, error)
    return [asking for asking in by_dataset.values() if asking[0].error is None]


def survey_datasets(
    by_dataset: Sequence[Sequence[Cell]],
    fail: Fail,
    services: Services,
    import_engine: Callable[[], None],
) -> None:
    """Passes over each dataset once while the engine's packages are imported.

    Args:
        by_dataset: What `check_datasets` returned.
        fail: Told of the cells whose dataset cannot be used.
        services: Its console is told what of it cannot.
        import_engine: Imports what the engine needs.
    """

    def import_timed() -> None:
        with services.part("imports"):
            import_engine()

    importing = threading.Thread(target=import_timed, name="import", daemon=True)
    importing.start()
    try:
        with services.part("survey"):
            for cells in by_dataset:
                _survey(cells, fail, services.console)
    finally:
        # Two threads importing parts of the same packages can see them half made.
        importing.join()


def _survey(cells: Sequence[Cell], fail: Fail, console: Console) -> None:
    questions = cells[0].questions
    try:
        questions.survey([cell.folder.rejected for cell in cells])
    except SlmVllmError as error:
        fail(cells, error)
    else:
        questions.identity  # noqa: B018 - a hash, made while packages are imported
    for notice in questions.notices:
        console.say(notice)
    if questions.rejected:
        console.say(
            f"{counted(questions.rejected, 'row')} of {questions.path} cannot be used; "
            f"{cells[0].folder.rejected} says why"
        )
