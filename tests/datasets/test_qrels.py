from __future__ import annotations

from pathlib import Path

import pytest

from slm_vllm.datasets.qrels import read_qrels
from slm_vllm.errors import DataError


@pytest.mark.parametrize(
    "text",
    [
        "q1 0 d1 2\nq1 0 d2 -1\n\nq2\t0\td1\t0\n",
        "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t-1.0\nq2\td1\t0\n",
    ],
)
def test_both_forms(text: str, tmp_path: Path) -> None:
    path = tmp_path / "qrels"
    path.write_text(text)
    assert read_qrels(str(path)) == {"q1": {"d1": 2, "d2": -1}, "q2": {"d1": 0}}


@pytest.mark.parametrize("line", ["q d", "q 0 d good", "a b c d 1", "q 0 d inf", "q 0 d nan"])
def test_a_line_that_is_no_judgement(line: str, tmp_path: Path) -> None:
    path = tmp_path / "qrels"
    path.write_text(f"q1 0 d1 1\n{line}\n")
    with pytest.raises(DataError, match="line 2"):
        read_qrels(str(path))
