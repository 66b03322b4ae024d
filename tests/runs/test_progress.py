from __future__ import annotations

import sys

import pytest

from slm_vllm.runs.console import Console
from slm_vllm.runs.progress import Progress
from slm_vllm.types import Completion


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        (["Paris"], "token recall 1.000"),
        (["?", "🎉"], "nothing scored: no answer of the dataset has a word so far"),
    ],
)
def test_says_when_nothing_can_be_scored(answers: list[str], said: str) -> None:
    progress = Progress(Console(sys.stderr), "run", 2)
    assert "scored" not in progress.line()
    progress.add("Paris", answers, Completion("0", "Paris", "stop", 1, 1))
    assert said in progress.line()
