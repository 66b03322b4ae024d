from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slm_vllm.runs import cell_rows
from slm_vllm.runs.cell_rows import CellRows, Plan
from slm_vllm.runs.contexts import RowContext
from slm_vllm.types import RenderedPrompt

KEYS = st.lists(st.integers(0, 9) | st.just(2**64 - 1), max_size=12)


@given(KEYS, KEYS, st.integers(1, 5))
def test_which_keys_are_known(keys: list[int], known: list[int], at_once: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cell_rows, "_LOOKED_UP", at_once)
        asked = np.array(keys, dtype=np.uint64)
        found = cell_rows._are_in(asked, np.sort(np.array(known, dtype=np.uint64)))
    assert found.tolist() == [key in known for key in keys]


class Rows:
    """Five rows in two frames, and a search that says for which of them it was asked."""

    searches = False
    path = "rows"

    def __init__(self, fails_at: int | None = None) -> None:
        self.searched: list[list[str]] = []
        self.second = threading.Event()
        self._fails_at = fails_at

    def keeps(self, **_: object) -> bool:
        return True

    def scan(self, **_: object) -> Iterator[pl.DataFrame]:
        for names in ("abc", "de"):
            texts = pl.Series(list(names))
            yield pl.DataFrame(
                {"question_id": texts, "question": texts, "answers": [[""]] * len(names)}
            ).with_columns(metadata=pl.lit("{}"))

    def rows(self, frame: pl.DataFrame) -> list[RowContext]:
        if len(self.searched) == self._fails_at:
            raise ValueError("no index")
        self.searched.append(frame["question"].to_list())
        if len(self.searched) == 2:
            self.second.set()
        return [RowContext()] * frame.height

    def stream(self, inputs: list[Any]) -> Iterator[RenderedPrompt]:
        return (RenderedPrompt([ord(item.question)]) for item in inputs)

    def turns(self, prompt: RenderedPrompt) -> tuple[()]:
        return ()

    def run(self) -> CellRows:
        any_of: Any = SimpleNamespace()
        return CellRows(any_of, self, self, "", self, any_of)  # type: ignore[arg-type]


def plan(is_open: str) -> Plan:
    return Plan(np.arange(5, dtype=np.uint64), np.array([letter == "1" for letter in is_open]))


def test_rows_are_searched_for_while_those_before_them_are_asked() -> None:
    rows = Rows()
    requests = rows.run().requests(plan("11111"))
    first = next(requests)
    assert rows.second.wait(60)
    asked = [first, *requests]
    assert [chr(request.prompt_token_ids[0]) for request in asked] == list("abcde")
    assert [int(request.request_id, 16) for request in asked] == [0, 1, 2, 3, 4]


def test_only_open_rows_are_searched_for() -> None:
    rows = Rows()
    assert len(list(rows.run().requests(plan("01001")))) == 2
    assert rows.searched == [["b"], ["e"]]


def test_few_rows_are_searched_for_at_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cell_rows, "_FIRST_ROWS", 1)
    monkeypatch.setattr(cell_rows, "_MOST_ROWS", 2)
    rows = Rows()
    requests = rows.run().requests(plan("11111"))
    assert [chr(request.prompt_token_ids[0]) for request in requests] == list("abcde")
    assert rows.searched == [["a"], ["b", "c"], ["d", "e"]]


def test_a_search_that_fails_ends_the_run_behind_what_was_found() -> None:
    rows = Rows(fails_at=1)
    requests = rows.run().requests(plan("11111"))
    assert len([next(requests) for _ in range(3)]) == 3
    with pytest.raises(ValueError, match="no index"):
        next(requests)


def test_a_run_that_stops_asks_no_more() -> None:
    rows = Rows()
    run = rows.run()
    requests = run.requests(plan("11111"))
    next(requests)
    run.stop()
    assert list(requests) == []
