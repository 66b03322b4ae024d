from __future__ import annotations

import polars as pl

from slm_vllm.scoring.answer_length import answer_length

SHORT = ["?", "two words", "three of them"]
ANSWERS = [["one"], SHORT, [], None, ["北京大学"], ["w " * 12], ["!"]]


def test_words_of_the_shortest_usable_answer() -> None:
    lengths = answer_length(pl.Series(ANSWERS, dtype=pl.List(pl.String)))
    assert lengths.to_list() == [1, 2, None, None, 4, 12, None]
