from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from slm_vllm.retrieval.evaluation import Mean, SearchMetrics
from slm_vllm.retrieval.qrels import Grades
from slm_vllm.scoring.answers import score_answers
from slm_vllm.types import Passage, RetrievedPassage


def found(*passages: tuple[str, str]) -> list[RetrievedPassage]:
    """Ranked passages given as (document id, text)."""
    return [
        RetrievedPassage(Passage(f"{d}:{i}", d, "", text), 1.0 / i, i)
        for i, (d, text) in enumerate(passages, 1)
    ]


def measured(
    retrieved: list[list[RetrievedPassage]],
    answers: list[list[str]],
    judged: list[Grades],
    depth: int | None = None,
) -> dict[str, Mean]:
    metrics = SearchMetrics(depth, {})
    metrics.add(retrieved, answers, judged)
    return metrics.result()


TEXT = st.lists(
    st.sampled_from(
        ["a", "the", "art", "Sun", "北京", "น้ำ", " ", "-", "–", "’", "“", "。", "\u200b"]
    ),
    max_size=8,
).map("".join)


@settings(deadline=None, max_examples=100)
@given(TEXT, TEXT, st.lists(TEXT, min_size=1, max_size=3))
@example("", "“Paris” is", ["Paris"])
@example("", "lived 1990–1995", ["1995"])
@example("", "Rock ’n’ Roll", ["Rock 'n' Roll"])
@example("", "grade A", ["A"])
@example("", "The", ["the"])
@example("", "_", ["_"])
def test_an_answer_stands_in_a_passage_as_in_a_prediction(
    title: str, text: str, answers: list[str]
) -> None:
    passage = RetrievedPassage(Passage("x:0", "x", title, text), 1.0, 1)
    result = measured([[passage]], [answers], [{}])
    frame = pl.DataFrame({"prediction": [f"{title} {text}"], "answers": [answers]})
    scored = score_answers(frame).row(0, named=True)
    assert result["answer_hit@1"]["mean"] == scored["contains"]
    assert result["answer_recall@1"]["mean"] == scored["substring_recall"]


def test_by_answer_by_hand() -> None:
    texts = ("A party.", "the Art of War", "nothing", "Sun-Tzu wrote it")
    retrieved = [found(*(("x", text) for text in texts))]
    result = measured(retrieved, [["art", "Sun Tzu!", "SunTzu"]], [{}])
    values = {name: value["mean"] for name, value in result.items()}
    assert values["answer_hit@1"] == 0.0  # "art" is not found in "party"
    assert values["answer_hit@3"] == 1.0
    assert values["answer_recall@3"] == pytest.approx(1 / 3)
    assert values["answer_recall@5"] == pytest.approx(2 / 3)
    assert values["answer_mrr"] == 0.5
    assert values["document_mrr"] is None


def test_by_document_by_hand() -> None:
    retrieved = [found(("a", ""), ("a", ""), ("b", ""), ("c", ""))]
    result = measured(retrieved, [[]], [{"b": 1, "c": 1, "q": 1, "a": 0}])
    values = {name: value["mean"] for name, value in result.items()}
    assert (values["document_hit@1"], values["document_hit@3"]) == (0.0, 1.0)
    assert values["document_recall@5"] == pytest.approx(2 / 3)
    assert values["document_mrr"] == pytest.approx(1 / 3)
    # b and c are the second and third document, whatever the number of passages before them.
    gain = 1 / np.log2(3) + 1 / np.log2(4)
    assert values["document_ndcg@10"] == pytest.approx(gain / (1 + 1 / np.log2(3) + 1 / np.log2(4)))


def test_rows_without_gold_are_left_out_and_counted() -> None:
    retrieved = [found(("a", "yes")), found(("b", "yes")), []]
    result = measured(retrieved, [["yes"], [], ["yes"]], [{"a": 1}, {"b": 1}, {}])
    assert result["answer_hit@1"] == {"mean": 0.5, "n": 2}
    assert result["document_hit@1"] == {"mean": 1.0, "n": 2}


def test_answers_of_punctuation_alone_are_no_answers() -> None:
    result = measured([found(("a", "text"))], [["?!"]], [{"a": 1}])
    assert result["answer_hit@1"] == {"mean": None, "n": 0}


def test_cut_offs_beyond_the_search_are_left_out() -> None:
    result = measured([found(("a", "x"))], [["x"]], [{"a": 1}], depth=3)
    assert "answer_hit@3" in result and "answer_hit@5" not in result
    assert "document_ndcg@10" not in result


def test_aliases_stand_for_the_document_that_was_kept() -> None:
    metrics = SearchMetrics(None, {"copy": "kept"})
    metrics.add([found(("kept", "x"))], [["x"]], [{"copy": 1}])
    assert metrics.result()["document_hit@1"]["mean"] == 1.0


DOCUMENT = st.sampled_from("abcdefgh")
GRADES = st.dictionaries(DOCUMENT, st.integers(-1, 3), max_size=5)
ROW = st.tuples(st.lists(DOCUMENT, max_size=12), GRADES)
Rows = list[tuple[list[str], dict[str, int]]]


@settings(deadline=None, max_examples=60)
@given(st.lists(ROW, min_size=1, max_size=8))
def test_agrees_with_trec_eval(rows: Rows) -> None:
    pytrec_eval = pytest.importorskip("pytrec_eval")
    # One passage for each document, so that passages and documents rank alike.
    unique = [(list(dict.fromkeys(ranked)), gold) for ranked, gold in rows]
    ours = measured(
        [found(*[(d, "") for d in ranked]) for ranked, _ in unique],
        [[] for _ in unique],
        [gold for _, gold in unique],
    )
    # Where nothing is relevant there is no figure, and 0 by trec_eval.
    qrels = {str(i): g for i, (_, g) in enumerate(unique) if any(v > 0 for v in g.values())}
    run = {
        str(i): {d: 100.0 - at for at, d in enumerate(ranked)}
        for i, (ranked, _) in enumerate(unique)
        if str(i) in qrels
    }
    # The names are trec_eval's own.
    names = {
        "recip_rank": "document_mrr",
        "ndcg_cut_10": "document_ndcg@10",
        "recall_5": "document_recall@5",
        "success_5": "document_hit@5",
    }
    measures = {"recip_rank", "ndcg_cut.10", "recall.5", "success.5"}
    theirs = pytrec_eval.RelevanceEvaluator(qrels, measures).evaluate(run) if qrels else {}
    for peer, name in names.items():
        # trec_eval leaves out questions for which nothing was retrieved; they count as 0.
        expected = [theirs.get(query, {}).get(peer, 0.0) for query in qrels]
        assert ours[name]["n"] == len(qrels)
        if qrels:
            assert ours[name]["mean"] == pytest.approx(np.mean(expected)), name


@settings(deadline=None, max_examples=30)
@given(st.lists(ROW, min_size=2, max_size=9), st.data())
def test_batches_add_up(rows: Rows, data: st.DataObject) -> None:
    retrieved = [found(*[(d, f"text {d}") for d in ranked]) for ranked, _ in rows]
    answers = [[f"TEXT {d}" for d in gold] for _, gold in rows]
    gold = [g for _, g in rows]
    whole = measured(retrieved, answers, gold)
    cut = data.draw(st.integers(0, len(rows)))
    metrics = SearchMetrics(None, {})
    metrics.add(retrieved[:cut], answers[:cut], gold[:cut])
    metrics.add(retrieved[cut:], answers[cut:], gold[cut:])
    for name, value in metrics.result().items():
        assert value["n"] == whole[name]["n"]
        assert value["mean"] == pytest.approx(whole[name]["mean"])
