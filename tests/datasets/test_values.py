"""Values as they stand: understood, or the field is lost and said, never taken for a word."""

from __future__ import annotations

import csv
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slm_vllm.datasets.registry import open_dataset
from slm_vllm.datasets.rows.evidence import paragraphs_of
from slm_vllm.datasets.rows.literals import literal
from slm_vllm.datasets.rows.values import ValueProblem, answers_of, choices_of, chosen, mapping_of
from support.dataset_samples import jsonl, write


def ignore(what: str) -> None:
    pass


def never(reason: str) -> None:
    raise AssertionError(reason)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("Paris", ["Paris"]),
        (["a", None, " ", "a"], ["a", "a"]),
        ("['Danube', 'the Danube']", ["Danube", "the Danube"]),
        ('["Danube", "caf\\u00e9"]', ["Danube", "café"]),
        ('["It\'s", null]', ["It's"]),
        ("['a' 'b'\n 'c']", ["a", "b", "c"]),
        ("array(['a', 'b'], dtype=object)", ["a", "b"]),
        ("[np.str_('a'), np.str_('b')]", ["a", "b"]),
        ("[np.float64(1.5), Decimal('2.50')]", ["1.5", "2.50"]),
        ("[list(['a', 'b']) list(['c'])]", ["a", "b", "c"]),
        ("Index(['a'], dtype='object')", ["a"]),
        ("[b'caf\\xc3\\xa9']", ["café"]),
        ("('a', 'b')", ["a", "b"]),
        ("['42']", ["42"]),
        ("['a', nan, 1.10]", ["a", "1.10"]),
        ("[]", []),
        ("{'text': ['a', 'b'], 'answer_start': [1, 2]}", ["a", "b"]),
        ("{'text': array(['a'], dtype=object), 'answer_start': array([1], dtype=int32)}", ["a"]),
        ('(list (description "Jazz \\"B\\"") (description 42))', ['Jazz "B"', "42"]),
        ({"value": "Danube", "aliases": ["Danube", "Donau"]}, ["Danube", "Donau"]),
        ({"Value": "x", "Aliases": ["y"], "NormalizedAliases": ["z"]}, ["x", "y"]),
        ({"text": ["a", "b"], "answer_start": [0, 1]}, ["a", "b"]),
        ({"spans": ["a", "b"], "number": "", "date": {"day": ""}}, ["a", "b"]),
        ({"spans": [], "number": "", "date": {"day": "3", "month": "May", "year": ""}}, ["3 May"]),
        (datetime(2020, 1, 2), ["2020-01-02"]),
        (datetime(2020, 1, 2, 3), ["2020-01-02 03:00:00"]),
        ([{"text": "a", "answer_start": 0}, {"text": "b", "answer_start": 3}], ["a", "b"]),
        (1990, ["1990"]),
        (1990.0, ["1990"]),
        (-0.0, ["0"]),
        (1.5, ["1.5"]),
        (1e21, ["1e+21"]),
        ([8.0, 0.5, "8.0"], ["8", "0.5", "8.0"]),
        ({"value": 8.0}, ["8"]),
        (float("nan"), []),
        ([float("nan"), "a"], ["a"]),
        (None, []),
        (b"bytes", ["bytes"]),
    ],
)
def test_answers_in_every_shape(value: Any, expected: list[str]) -> None:
    assert answers_of(value) == expected


@pytest.mark.parametrize(
    "text",
    ["[Redacted]", "[0, 1)", "[sic", "(a)", "('a')", "{x}", "()", "{}", "[1, 2]", "[a, b]"]
    + ["{1, 2}", "[it's]", "['a' + 'b']", "[__import__('os')]", '["\\ud800"]', "array(x)", "[...]"],
)
def test_other_texts_stay_as_they_are(text: str) -> None:
    assert answers_of(text) == [text]


def test_numbers_are_a_list_only_where_nothing_but_text_can_be_written(tmp_path: Path) -> None:
    assert answers_of("[042, 1990]", only_text=True) == ["042", "1990"]
    assert answers_of("[1.10, 1990]", only_text=True) == ["1.10", "1990"]
    assert answers_of("[1990 1991]", only_text=True) == ["1990", "1991"]
    assert answers_of("(1, 2)", only_text=True) == ["(1, 2)"]
    (tmp_path / "a.csv").write_text('question,answer\nq,"[1.10, 42]"\n')
    (frame,) = open_dataset(None, tmp_path / "a.csv").scan()
    assert frame["answers"].to_list() == [["1.10", "42"]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[Danube, the Danube]", ["Danube", "the Danube"]),
        ('{Danube,"the Danube, a river"}', ["Danube", "the Danube, a river"]),
        ("[O'Neil, 'a, b', Ann (the elder)]", ["O'Neil", "a, b", "Ann (the elder)"]),
        ('{NULL,"say \\"no\\""}', ['say "no"']),
        ("{1990,1991}", ["1990", "1991"]),
        ("[42]", ["42"]),
        ("[北京, Peking]", ["北京", "Peking"]),
    ],
)
def test_lists_without_quotes_are_lists_where_nothing_but_text_can_be_written(
    text: str, expected: list[str]
) -> None:
    assert answers_of(text, only_text=True) == expected


@pytest.mark.parametrize(
    "text", ["['a' 'b' ... 'y' 'z']", "['a', ... 'z']", "[a, f(b, c)]", "[a,, b]", "[a, [b]]", "[a"]
)
def test_what_may_not_be_a_list_without_quotes_stays_as_it_is(text: str) -> None:
    assert answers_of(text, only_text=True) == [text]


@pytest.mark.parametrize("word", ["NaN", "nan", "<NA>", "NaT"])
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_the_word_for_a_missing_value_is_an_answer_that_is_told(
    name: str, word: str, tmp_path: Path
) -> None:
    lines = {"a.csv": f"question,answer\nq,{word}\nr,Nan\n".encode()}
    lines["a.jsonl"] = jsonl(
        [{"question": "q", "answer": word}, {"question": "r", "answer": "Nan"}]
    )
    dataset = open_dataset(None, write(tmp_path / name, lines[name]))
    (frame,) = dataset.scan()
    assert frame["answers"].to_list() == [[word], ["Nan"]]
    (notice,) = dataset.notices
    assert f"the word {word!r}" in notice and "in 1 row (" in notice


@pytest.mark.parametrize("value", [float("inf"), {"b": 1}, {"start": 3, "end": 4}, b"\xff"])
def test_what_is_no_answer_is_a_problem(value: Any) -> None:
    with pytest.raises(ValueProblem, match="'answer'"):
        answers_of(value)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=6))
def test_lists_are_read_back_from_what_python_json_and_numpy_write(texts: list[str]) -> None:
    assert literal(repr(texts)) == texts
    assert literal(json.dumps(texts)) == texts
    assert literal(json.dumps(texts, ensure_ascii=False)) == texts
    if texts:
        assert literal(str(np.array(texts, dtype=object))) == texts
        assert literal(repr(np.array(texts, dtype=object))) == texts


@given(st.text())
def test_any_text_is_an_answer_or_a_list_of_them(text: str) -> None:
    for answer in answers_of(text, only_text=True):
        assert answer.strip()
    paragraphs_of(text, "context", lambda reason: None)


def test_lists_that_pandas_wrote_to_csv(tmp_path: Path) -> None:
    answers = [["Danube", "the Danube"], np.array(["42", "forty two"]), ["Ende"]]
    contexts = [["c1", "c2"], ["c3"], []]
    with (tmp_path / "a.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["", "question", "answer", "contexts"])
        for n, row in enumerate(zip(answers, contexts, strict=True)):
            writer.writerow([n, f"q{n}", *map(str, row)])
    rows = pl.concat(open_dataset(None, tmp_path / "a.csv").scan())
    assert rows["answers"].to_list() == [["Danube", "the Danube"], ["42", "forty two"], ["Ende"]]
    assert rows["contexts"].to_list() == [["c1", "c2"], ["c3"], []]


def test_whole_numbers_of_a_table_with_gaps_have_no_fraction(tmp_path: Path) -> None:
    answers = [1969, None, 8]
    frame = pl.DataFrame({"question": ["a?", "b?", "c?"], "answer": answers})
    frame.with_columns(pl.col("answer").cast(pl.Float64)).write_parquet(tmp_path / "a.parquet")
    text = b"".join(
        b'{"question": "%s?", "answer": %s}\n' % row
        for row in ((b"a", b"1969.0"), (b"b", b"null"), (b"c", b"8.0"))
    )
    for path in (tmp_path / "a.parquet", write(tmp_path / "a.jsonl", text)):
        rows = pl.concat(open_dataset(None, path).scan())
        assert rows["answers"].to_list() == [["1969"], [], ["8"]]


def test_small_floats_of_a_table_are_written_as_they_are_shown(tmp_path: Path) -> None:
    frame = pl.DataFrame({"question": ["a?", "b?"], "answer": [0.1, 3.0]})
    frame.with_columns(pl.col("answer").cast(pl.Float32)).write_parquet(tmp_path / "a.parquet")
    rows = pl.concat(open_dataset(None, tmp_path / "a.parquet").scan())
    assert rows["answers"].to_list() == [["0.1"], ["3"]]


def test_answers_that_are_truth_values_are_told(tmp_path: Path) -> None:
    rows = [{"question": f"q{value}", "answer": value} for value in (True, False, "true")]
    dataset = open_dataset(None, write(tmp_path / "a.jsonl", jsonl(rows)))
    (frame,) = dataset.scan()
    assert frame["answers"].list.first().str.to_lowercase().to_list() == ["true", "false", "true"]
    assert [notice.split(",")[0] for notice in dataset.notices] == [
        "the answer is true",
        "the answer is false",
    ]
    assert all("in 1 row" in notice for notice in dataset.notices)


def test_ids_of_mongodb_are_ids(tmp_path: Path) -> None:
    rows = [{"_id": {"$oid": name}, "question": "q", "answer": "a"} for name in ("64a", "64b")]
    dataset = open_dataset(None, write(tmp_path / "a.jsonl", jsonl(rows)))
    (frame,) = dataset.scan()
    assert frame["question_id"].to_list() == ["64a", "64b"] and not dataset.notices


def test_what_a_model_said_is_no_gold_answer_even_where_that_is_missing(tmp_path: Path) -> None:
    row = {"question": "q", "answer": "generated", "ground_truth": None}
    (frame,) = open_dataset(None, write(tmp_path / "a.jsonl", jsonl([row]))).scan()
    assert frame["answers"].to_list() == [[]]
    assert json.loads(frame["metadata"][0]) == {"answer": "generated"}


@pytest.mark.parametrize(
    ("value", "choices", "expected"),
    [
        (1, ["a", "b"], "b"),
        ("B", ["a", "b"], "b"),
        ("1", "['a' 'b']", "b"),
        ("2", ["1", "2"], "2"),
        ("A", {"A": "a", "B": "b"}, "a"),
        ("b", {"A": "a", "B": "b"}, "b"),
        ("2", {"label": ["1", "2"], "text": ["a", "b"]}, "b"),
        (7, ["a", "b"], 7),
        (True, ["a", "b"], True),
        (["a"], ["a", "b"], ["a"]),
        ("A", None, "A"),
        ("A", "none", "A"),
        ("A", {"label": ["A"], "text": "a"}, "A"),
        (0, [{"x": 1}], 0),
    ],
)
def test_the_choice_that_an_answer_points_to(value: Any, choices: Any, expected: Any) -> None:
    assert chosen(value, choices_of(choices), ignore) == expected


@pytest.mark.parametrize(
    ("value", "expected", "told"),
    [
        ("2", "2", ["taken for its text"]),
        (2, "4", ["taken for its number"]),
        ("4", "4", []),
        ("1", "0", []),
        (["B"], ["0"], []),
        ("7", "7", ["none of the choices"]),
        ("E", "E", ["none of the choices"]),
        ("", "", []),
        (None, None, []),
    ],
)
def test_an_answer_that_may_be_another_choice_is_told(
    value: Any, expected: Any, told: list[str]
) -> None:
    said: list[str] = []
    assert chosen(value, choices_of(["2", "0", "4", "6"]), said.append) == expected
    assert len(said) == len(told) and all(part in said[0] for part in told)


def test_a_run_hears_of_answers_that_are_no_choice(tmp_path: Path) -> None:
    rows = [{"question": f"q{i}", "choices": ["x", "y"], "answer": i} for i in range(4)]
    dataset = open_dataset(None, write(tmp_path / "a.jsonl", jsonl(rows)))
    (frame,) = dataset.scan()
    assert frame["answers"].to_list() == [["x"], ["y"], ["2"], ["3"]]
    assert dataset.notices == [
        "the answer is none of the choices and points to none of them in 2 rows (first at line 3)"
    ]


@pytest.mark.parametrize(
    ("answers", "is_told"),
    [(["서울", "부산", "Rome"], True), (["서울", "Rome", "Paris"], False), ([], False)],
)
def test_that_words_are_joined_in_korean_is_said(
    answers: list[str], is_told: bool, tmp_path: Path
) -> None:
    rows = [{"question": f"q{n}", "answer": answer} for n, answer in enumerate(answers)]
    rows += [{"question": "unscored", "answer": None}]
    dataset = open_dataset(None, write(tmp_path / "a.jsonl", jsonl(rows)))
    list(dataset.scan())
    assert any("Korean" in notice for notice in dataset.notices) == is_told


def test_values_that_json_does_not_have_are_no_words(tmp_path: Path) -> None:
    lines = [
        b'{"question": "q1", "answer": NaN, "year": NaN}\n',
        b'{"question": "q2", "answer": [Infinity], "context": NaN}\n',
        b'{"question": "q3", "answer": "Ann"}\n',
    ]
    dataset = open_dataset(None, write(tmp_path / "a.jsonl", b"".join(lines)))
    rows = pl.concat(dataset.scan()).to_dicts()
    assert [row["answers"] for row in rows] == [[], [], ["Ann"]]
    assert [row["contexts"] for row in rows] == [[], [], []]
    assert json.loads(rows[0]["metadata"]) == {"year": None}
    (notice,) = dataset.notices
    assert "'answer' is inf" in notice and "first at line 2" in notice


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("one", [("", "one")]),
        (["one", " ", "two"], [("", "one"), ("", "two")]),
        ([["T", ["A b.", " C d."]], ["U", ["E."]]], [("T", "A b. C d."), ("U", "E.")]),
        (["T", ["A b.", " C d."]], [("T", "A b. C d.")]),
        ({"contexts": ["one", "two"], "labels": ["x", "y"]}, [("", "one"), ("", "two")]),
        ("array(['p1', 'p2'], dtype=object)", [("", "p1"), ("", "p2")]),
        ({"title": ["T"], "sentences": [["A.", "B."]]}, [("T", "A. B.")]),
        ({"title": "T", "text": "x"}, [("T", "x")]),
        ([{"title": "T", "paragraph_text": "x"}], [("T", "x")]),
        ([{"contents": '"T"\nx y'}, {"contents": "one line"}], [("T", "x y"), ("", "one line")]),
        ('[["T", ["A."]]]', [("T", "A.")]),
        ("['p1', 'p2']", [("", "p1"), ("", "p2")]),
        ("[1] According to him, it is so.", [("", "[1] According to him, it is so.")]),
        ([{"filename": "x.txt", "title": "T"}, None, {}], []),
        (float("nan"), []),
    ],
)
def test_paragraphs_in_every_shape(value: Any, expected: list[tuple[str, str]]) -> None:
    found = paragraphs_of(value, "context", never)
    assert [(paragraph.title, paragraph.text) for paragraph in found] == expected


def test_a_paragraph_of_no_use_costs_itself(tmp_path: Path) -> None:
    lost: list[str] = []
    found = paragraphs_of([{"page": 3}, "kept", {"text": {"x": 1}}], "context", lost.append)
    assert [paragraph.text for paragraph in found] == ["kept"]
    assert len(lost) == 2 and all("'context'" in reason for reason in lost)


def test_documents_of_flashrag_keep_their_text(tmp_path: Path) -> None:
    row = {"question": "q", "answer": "a", "documents": [{"id": "7", "contents": '"T"\nx'}]}
    (frame,) = open_dataset(None, write(tmp_path / "a.jsonl", jsonl([row]))).scan()
    assert frame["documents"].to_list() == [[{"document_id": "7", "title": "T", "text": "x"}]]


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1, "b": [1.5, null, "x"]}',
        "{'a': 1, 'b': [1.5, None, 'x']}",
        " {'a':1,'b':(1.5,None,'x')}",
    ],
)
def test_an_object_written_into_a_text_keeps_its_numbers(text: str) -> None:
    assert json.dumps(mapping_of(text, "metadata")) == '{"a": 1, "b": [1.5, null, "x"]}'


@pytest.mark.parametrize("text", ["{'a'", "[1]", "word"])
def test_a_text_that_is_no_object(text: str) -> None:
    with pytest.raises(ValueProblem):
        mapping_of(text, "metadata")


def test_metadata_written_into_a_text(tmp_path: Path) -> None:
    lines = ['"{""year"": 1914}"', "\"{'topic': 'Art'}\"", "plain", ""]
    content = "question,answer,metadata\n" + "".join(
        f"q{n},a,{text}\n" for n, text in enumerate(lines)
    )
    (tmp_path / "a.csv").write_text(content)
    (frame,) = open_dataset(None, tmp_path / "a.csv").scan()
    found = [json.loads(text) for text in frame["metadata"]]
    assert found == [{"year": 1914}, {"topic": "Art"}, {"metadata": "plain"}, {}]


@pytest.mark.parametrize("kind", ["qa_pairs", "simple_qa"])
@pytest.mark.parametrize("text", ["{'topic': '\\ud83d'}", '{""topic"": ""\\ud83d""}'])
def test_half_a_surrogate_pair_in_metadata(kind: str, text: str, tmp_path: Path) -> None:
    content = f'question,answer,metadata\nq,a,"{text}"\n'
    (tmp_path / "a.csv").write_text(content)
    (frame,) = open_dataset(kind, tmp_path / "a.csv").scan()
    assert frame.height == 1
