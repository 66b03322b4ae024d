from __future__ import annotations

from slm_vllm.text_table import text_table


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert text_table(("run", "n"), [("long name", "1"), ("b", "200")]).splitlines() == [
        "run        n",
        "---------  ---",
        "long name  1",
        "b          200",
    ]


def test_a_header_alone() -> None:
    assert text_table(["run", "n"], []) == "run  n\n---  -"


def test_a_cell_cannot_move_the_cursor_or_break_the_line() -> None:
    assert text_table(["run"], [["a\nb\x1b[2J"]]).splitlines()[2] == "a b [2J"
