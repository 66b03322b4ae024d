"""What the report says in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from slm_vllm.reporting.answer_sections import verdict_section
from slm_vllm.reporting.cautions import cautions
from slm_vllm.reporting.pairing import DatasetPairs, paired_datasets
from slm_vllm.reporting.report import build_report
from slm_vllm.reporting.run_view import view_runs
from slm_vllm.reporting.verdicts import verdicts
from slm_vllm.rundir.names import MANIFEST
from slm_vllm.rundir.reading import load_run
from support.run_folders import make_run, mark_stopped


def rows(right: int, n: int = 100, *, first: int = 0) -> list[dict[str, Any]]:
    """n questions, those from `first` to `first + right` answered right."""
    return [{"token_recall": float(first <= i < first + right)} for i in range(n)]


def paired(folder: Path) -> list[DatasetPairs]:
    return paired_datasets(view_runs([load_run(path) for path in sorted(folder.iterdir())]))


def test_a_clear_difference_with_what_it_cost(tmp_path: Path) -> None:
    make_run(tmp_path / "a", mode="no_context", rows=rows(30))
    make_run(tmp_path / "b", mode="retriever", rows=rows(60, first=10))
    (verdict,) = verdicts(paired(tmp_path))
    assert verdict.kind == "clear"
    assert verdict.text.startswith("retriever (bm25) beats closed book by 0.300 [0.")
    assert verdict.text.endswith("; 10 of 30 right answers were lost, 40 gained.")


def test_one_lost_answer_was_lost(tmp_path: Path) -> None:
    make_run(tmp_path / "a", mode="no_context", rows=rows(30))
    make_run(tmp_path / "b", mode="retriever", rows=rows(60, first=1))
    (verdict,) = verdicts(paired(tmp_path))
    assert verdict.text.endswith("; 1 of 30 right answers was lost, 31 gained.")


def test_the_better_one_comes_first_whatever_its_place(tmp_path: Path) -> None:
    make_run(tmp_path / "a", mode="no_context", rows=rows(60))
    make_run(tmp_path / "b", mode="retriever", rows=rows(10))
    (verdict,) = verdicts(paired(tmp_path))
    assert verdict.text.startswith("closed book beats retriever (bm25) by 0.500 [0.")


def test_what_may_be_chance_is_no_win(tmp_path: Path) -> None:
    make_run(tmp_path / "a", mode="no_context", rows=rows(50))
    make_run(tmp_path / "b", mode="retriever", rows=rows(51))
    datasets = paired(tmp_path)
    (verdict,) = verdicts(datasets)
    assert verdict.kind == "open"
    assert "cannot be told apart" in verdict.text and "+0.010" in verdict.text
    assert any("100 questions of demo do not settle" in text for text in cautions(datasets))


def test_no_difference_has_no_sign(tmp_path: Path) -> None:
    make_run(tmp_path / "a", mode="no_context", rows=rows(50))
    for retriever in ("bm25", "dense"):
        make_run(tmp_path / retriever, mode="retriever", retriever=retriever, rows=rows(50))
    said = " ".join(verdict.text for verdict in verdicts(paired(tmp_path)))
    assert "+0.000 [" in said and "-0.000" not in said


def test_the_oracle_is_a_bound_and_wins_nothing(tmp_path: Path) -> None:
    make_run(tmp_path / "a", mode="no_context", rows=rows(10))
    make_run(tmp_path / "b", mode="retriever", rows=rows(50))
    make_run(tmp_path / "c", mode="oracle", rows=rows(90))
    best, bound = verdicts(paired(tmp_path))
    assert best.text.startswith("highest token recall: retriever (bm25), 0.500 [")
    # The pair is said once.
    assert "; it beats closed book, the next, by 0.400 [" in best.text
    assert best.text.endswith("; 0 of 10 right answers were lost, 40 gained.")
    assert "oracle" not in best.text
    assert bound.kind == "bound"
    assert "reaches 0.900; retriever (bm25) leaves 0.400 [" in bound.text


def test_models_are_compared_in_one_mode(tmp_path: Path) -> None:
    make_run(tmp_path / "a", model="small", mode="no_context", rows=rows(20))
    make_run(tmp_path / "b", model="large", mode="no_context", rows=rows(70))
    make_run(tmp_path / "c", model="large", mode="retriever", rows=rows(95))
    (dataset,) = paired(tmp_path)
    said = [verdict.text for verdict in verdicts([dataset])]
    assert any(text.startswith("closed book: large beats small by 0.500") for text in said)
    assert [(p.run.run.name, p.against.run.name) for p in dataset.pairs] == [("b", "a"), ("c", "b")]
    lacking = [text for text in cautions([dataset]) if text.startswith("Without")]
    assert lacking == [
        "Without an oracle run of small, large it is not known how much better passages could gain."
    ]


def test_p_values_are_corrected_over_all_datasets(tmp_path: Path) -> None:
    for dataset in ("nq", "trivia"):
        make_run(tmp_path / f"{dataset}a", dataset=dataset, mode="no_context", rows=rows(40))
        make_run(tmp_path / f"{dataset}b", dataset=dataset, mode="retriever", rows=rows(45))
    first, second = paired(tmp_path)
    for pair in (*first.pairs, *second.pairs):
        assert pair.p_holm == min(1.0, 2 * pair.paired.p_value)


def test_runs_that_cannot_be_paired_are_named(tmp_path: Path) -> None:
    twice = [{"question_id": "q", "token_recall": 1.0}] * 2
    make_run(tmp_path / "a", mode="no_context", rows=twice)
    make_run(tmp_path / "b", mode="retriever", rows=rows(2, 2))
    datasets = paired(tmp_path)
    assert verdicts(datasets) == []
    assert any("Not compared" in text and "occurs 2 times" in text for text in cautions(datasets))


def test_one_run_has_nothing_beside_it(tmp_path: Path) -> None:
    make_run(tmp_path / "a", mode="no_context", rows=rows(4, 10))
    assert verdicts(paired(tmp_path)) == []
    assert "only run on demo" in " ".join(cautions(paired(tmp_path)))


def test_runs_with_other_answers_under_the_same_ids_are_said_first(tmp_path: Path) -> None:
    other = [row | {"answers": ["another"]} for row in rows(60)]
    make_run(tmp_path / "a", mode="no_context", rows=rows(30))
    make_run(tmp_path / "b", mode="retriever", rows=other)
    datasets = paired(tmp_path)
    assert cautions(datasets)[0].startswith("100 of 100 questions have another text")
    assert '<details class="limits" open>' in verdict_section(datasets)


def test_names_are_text(tmp_path: Path) -> None:
    for n, model in enumerate(("<img src=x onerror=alert(1)>", "b")):
        for mode, right in (("no_context", 30), ("retriever", 60)):
            made = rows(right + n)
            make_run(tmp_path / f"{n}{mode}<i>", model=model, mode=mode, rows=made)
    html = build_report([load_run(path) for path in sorted(tmp_path.iterdir())]).html
    assert "&lt;img src=x onerror" in html
    assert "<img" not in html and "<i>" not in html


def test_what_several_models_say_is_summed_up(tmp_path: Path) -> None:
    for model, closed, searched in (("a", 20, 60), ("b", 30, 80), ("c", 90, 50), ("d", 31, 32)):
        make_run(tmp_path / f"{model}0", model=model, mode="no_context", rows=rows(closed))
        make_run(tmp_path / f"{model}1", model=model, mode="retriever", rows=rows(searched))
    said = {verdict.text: verdict for verdict in verdicts(paired(tmp_path))}
    (context,) = [one for one in said.values() if "against closed book" in one.text]
    assert context.text == (
        "retriever (bm25) against closed book, 4 models: ahead in 2, by 0.400 to 0.500; "
        "behind in 1, by 0.400; not told apart in 1 (d); "
        "40 of 171 right answers were lost, 91 gained."
    )
    assert context.kind == "mixed"
    assert [one.kind for one in context.members] == ["clear", "clear", "clear", "open"]
    (models,) = [one for one in said.values() if one.text.startswith("closed book: ")]
    assert models.text.startswith(
        "closed book: c 0.900, d 0.310, b 0.300, a 0.200; not told apart: "
    )
    assert "b and d" in models.text and "and c" not in models.text
    assert len(models.members) == 6


def with_metric(recall: int, other: int) -> list[dict[str, Any]]:
    """200 questions: so many right by token recall, and so many by exact match."""
    return [
        {"token_recall": float(i < recall), "exact_match": float(i < other)} for i in range(200)
    ]


@pytest.mark.parametrize(
    ("closed", "searched", "said"),
    [
        ((40, 100), (90, 60), "; exact match says the opposite, -0.200 [-0.2"),
        ((40, 100), (90, 99), "; exact match does not follow, -0.005 ["),
        ((40, 60), (41, 100), "; exact match tells them apart, +0.200 [+0.1"),
        # From the side of the one that is named first.
        ((90, 60), (40, 100), "; exact match says the opposite, -0.200 [-0.2"),
    ],
)
def test_a_metric_that_says_something_else_is_named(
    tmp_path: Path, closed: tuple[int, int], searched: tuple[int, int], said: str
) -> None:
    make_run(tmp_path / "a", mode="no_context", rows=with_metric(*closed))
    make_run(tmp_path / "b", mode="retriever", rows=with_metric(*searched))
    (verdict,) = verdicts(paired(tmp_path))
    assert said in verdict.text


@pytest.mark.parametrize(("closed", "searched"), [((40, 60), (90, 100)), ((40, 60), (42, 61))])
def test_a_metric_that_follows_is_not(
    tmp_path: Path, closed: tuple[int, int], searched: tuple[int, int]
) -> None:
    make_run(tmp_path / "a", mode="no_context", rows=with_metric(*closed))
    make_run(tmp_path / "b", mode="retriever", rows=with_metric(*searched))
    (verdict,) = verdicts(paired(tmp_path))
    assert "exact match" not in verdict.text


def test_runs_of_different_machines_do_not_compare_in_speed(tmp_path: Path) -> None:
    make_run(tmp_path / "a", mode="no_context", rows=rows(30))
    path = make_run(tmp_path / "b", mode="retriever", rows=rows(60))
    assert not any("devices" in text for text in cautions(paired(tmp_path)))
    manifest = json.loads((path / MANIFEST).read_text())
    manifest["device"]["name"] = "Tesla V100"
    (path / MANIFEST).write_text(json.dumps(manifest))
    assert (
        "Runs of different devices do not compare in speed and memory (Some CPU: a; Tesla V100: b)."
        in cautions(paired(tmp_path))
    )


def test_a_model_that_a_race_dropped_wins_nothing(tmp_path: Path) -> None:
    """Its mean is of the few questions that it was asked: 0.75 here, where the other has 1."""
    make_run(tmp_path / "a", model="a", rows=rows(40))
    make_run(tmp_path / "b", model="b", rows=rows(30))
    make_run(tmp_path / "c", model="c", rows=rows(15, 20))
    mark_stopped(tmp_path / "c", against="a", of=100, decision="worse")
    best, *_ = verdicts(paired(tmp_path))
    assert best.text.startswith("highest token recall: a · closed book, 0.400 [")


def test_the_next_best_is_told_by_the_questions_that_both_were_asked(tmp_path: Path) -> None:
    """b was asked 40 easy questions and has the higher mean, but a has all of those right."""
    make_run(tmp_path / "a", model="a", rows=rows(40))
    make_run(tmp_path / "b", model="b", rows=rows(20, 40))
    make_run(tmp_path / "c", model="c", rows=rows(10))
    mark_stopped(tmp_path / "b", against="c", of=100, decision="better")
    best, *_ = verdicts(paired(tmp_path))
    assert best.text.startswith("highest token recall: a · closed book, 0.400 [")
    assert "it beats b · closed book, the next, by 0.500 [" in best.text


def test_another_metric_of_a_stopped_run_is_tested_at_any_look(tmp_path: Path) -> None:
    """8 questions gained and none lost: p = 0.008 by flipped signs, not clear at any look."""
    gained = [{**row, "exact_match": float(i < 8)} for i, row in enumerate(rows(10, 40))]
    make_run(tmp_path / "a", mode="no_context", rows=rows(10))
    make_run(tmp_path / "b", mode="retriever", rows=gained)
    (datasets,) = paired(tmp_path)
    assert datasets.pairs[0].dissents
    mark_stopped(tmp_path / "b", against="a", of=100, decision="no difference")
    (datasets,) = paired(tmp_path)
    assert not datasets.pairs[0].dissents
