"""Lines that all look alike are read as `row` reads them one by one, or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from slm_vllm.datasets.plain_lines import PlainLines
from slm_vllm.datasets.reading.lines import Line
from slm_vllm.datasets.rows.fields import FieldNames
from support.row_by_row import assert_same

Rows = list[dict[str, Any]]
USUAL, TIGHT = (", ", ": "), (",", ":")
TEXT = st.text(max_size=6) | st.sampled_from(
    ["[1]", "(a", " {", "x array(1)", "\u00a0", "\x1c", "\x1f ", "\x85", "\u2028", "\ufeff", "\x00"]
    + ["\U0001f600", "\\u0041", '"', "\\", "/", "\n", "\r", "é", "\u3000a", "a", "a"]
)
TEXTS = st.lists(TEXT, max_size=3)
# What files hold under each name, a text or a list of texts in all rows of one.
FIELDS = {
    "question_id": [TEXT], "id": [TEXT], "question": [TEXT], "answer": [TEXT, TEXTS],
    "contexts": [TEXT, TEXTS], "title": [TEXT], "topic": [TEXT, TEXTS], "documents": [TEXTS],
    "qas": [TEXTS], "metadata": [TEXT], "Ünï": [TEXT],
}  # fmt: skip


@st.composite
def alike(draw: st.DrawFn) -> Rows:
    """Rows with the same keys in the same order."""
    keys = draw(st.permutations(list(FIELDS)))[: draw(st.integers(1, 6))]
    keys = list(dict.fromkeys([*keys, "question"]))
    row = st.fixed_dictionaries({key: draw(st.sampled_from(FIELDS[key])) for key in keys})
    return draw(st.lists(row, min_size=1, max_size=6))


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    deadline=None,
    max_examples=150,
)
@given(
    alike(), st.booleans(), st.sampled_from([USUAL, TIGHT]), st.booleans(),
    st.none() | st.tuples(st.integers(0), st.sampled_from([b"", b"\\", b'"', b",", b"1", b"\xff"])),
)  # fmt: skip
@example([{"question": "q", "answer": ["a", "\u00a0"]}], True, USUAL, False, None)
@example([{"question": "q", "answer": text} for text in ("[1]", "b")], True, TIGHT, True, None)
@example([{"id": "1", "question": "q"}, {"id": "1", "question": "q"}], True, TIGHT, True, None)
@example([{"question": ""}] * 5, True, TIGHT, True, (3 * len('{"question":""}\n'), b""))
def test_lines_that_look_alike(
    tmp_path: Path,
    rows: Rows,
    is_ascii: bool,
    separators: tuple[str, str],
    with_documents: bool,
    damage: tuple[int, bytes] | None,
) -> None:
    lines = [json.dumps(row, ensure_ascii=is_ascii, separators=separators) for row in rows]
    content = "\n".join(lines).encode("utf-8", "surrogatepass")
    if damage is not None:
        place = damage[0] % len(content)
        content = content[:place] + damage[1] + content[place + 1 :]
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    assert_same(path, 3, with_documents)


def read(*lines: str, columns: dict[str, Any] | None = None) -> Any:
    plain = PlainLines(FieldNames(columns), "qa", with_documents=False)
    return plain.frame("f", [Line(n, line) for n, line in enumerate(lines, 5)])


def test_usual_lines_are_read_at_once() -> None:
    lines = [
        json.dumps({"question": f"who é {n}", "answer": ["a", "b"], "topic": "x"}) for n in range(3)
    ]
    found = read(*lines)
    assert found.frame["answers"].to_list() == [["a", "b"]] * 3
    assert found.frame["metadata"].to_list() == ['{"topic": "x"}'] * 3
    assert [place.line for place in found.places] == [5, 6, 7]
    assert read('{"query":"q","answers":"a"}').frame["answers"].to_list() == [["a"]]


@pytest.mark.parametrize(
    "line",
    [
        '{"question": "a", "answer": ["b"], "question": "c"}',
        '{"question": 1, "answer": ["b"]}',
        '{"question": "a", "answer": [1]}',
        '{"question": "a", "answer": null}',
        '{"question": "a", "answer": ["b"], "more": 1}',
        '{"answer": ["b"], "question": "a"}',
        '{"question": "a"}',
        '{"question": "\\ud800", "answer": ["b"]}',
        '{"question": "\\u001c", "answer": ["b"]}',
        '{"question": "a\tb", "answer": ["b"]}',
        '{"question": "a", "answer": ["\u00a0"]}',
        '{"question": "a", "answer": ["b"],}',
        '{"question": "a", "answer": ["b"]} {}',
        "",
    ],
)
def test_a_line_that_is_not_sure_is_left_with_those_beside_it(line: str) -> None:
    usual = '{"question": "q", "answer": ["a"]}'
    assert read(usual, usual) is not None
    assert read(usual, line, usual) is None


@pytest.mark.parametrize(
    "row",
    [
        {"question": "q", "answer": "[1]"},
        {"question": "q", "qas": ["a"]},
        {"question": "q", "metadata": "m"},
        {"question": "q", "query": "r"},
        {"answer": ["a"]},
    ],
)
def test_rows_that_are_told_one_by_one(row: dict[str, Any]) -> None:
    assert read(json.dumps(row)) is None


def test_columns_that_are_kept_are_told_one_by_one() -> None:
    assert read('{"question": "q", "x": "y"}', columns={"metadata": ["x"]}) is None
    assert read('{"q": "q", "x": "y"}', columns={"question": "q"}) is not None
