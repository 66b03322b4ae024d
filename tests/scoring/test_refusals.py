"""Answers that say they are none."""

from __future__ import annotations

import polars as pl
import pytest

from slm_vllm.scoring.refusals import is_refusal


def _found(*texts: str | None) -> list[bool]:
    frame = pl.DataFrame({"text": pl.Series(texts, dtype=pl.String)})
    return frame.select(is_refusal("text")).to_series().to_list()


@pytest.mark.parametrize(
    "text",
    [
        "I don’t know.",
        "I'm sorry, but I do not have enough information to answer that.",
        "As a language model, I cannot provide this.",
        "unknown",
        "Я не знаю ответа.",
        "Das weiß ich leider nicht.",
        "Je ne sais pas.",
        "No lo sé.",
        "Não sei.",
        "Non lo so.",
        "我不知道",
        "わかりません。",
        "모르겠습니다.",
    ],
)
def test_refusals_are_found(text: str) -> None:
    assert _found(text) == [True]


@pytest.mark.parametrize(
    "text",
    [
        "Paris",
        "I am not sure, but I think it was 1961.",
        "The Unknown Soldier",
        "Кажется, в 1961 году, но могу ошибаться.",
        "Vermutlich 1991, aber ich bin mir nicht sicher.",
        "Quizá en 1500, no estoy seguro.",
        "可能是罗贯中，我不太确定。",
        "{braces} \\ and \U0001f600",
    ],
)
def test_answers_are_none(text: str) -> None:
    assert _found(text) == [False]


def test_nothing_is_a_refusal() -> None:
    assert _found("", "  \n", None) == [True, True, True]
