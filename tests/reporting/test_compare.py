from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner, Result

from slm_vllm.cli.main import cli
from slm_vllm.errors import ConfigError, DataError, StorageError
from slm_vllm.reporting.comparison import compare_runs
from slm_vllm.rundir.reading import load_run
from slm_vllm.scoring.paired import compare_pairs
from support.run_folders import make_run, mark_stopped, write_judgement

Compare = Callable[..., Result]

#                 0    1    2    3    4    5    6    7
CLOSED = [1.0, 1.0, 1.0, 0.0, 0.0, 0.5, 0.0, None]
RETRIEVER = [1.0, 0.5, 0.0, 1.0, 0.0, 1.0, 0.5, None]
ORACLE = [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, None]
# The rank of the first passage with an answer; three passages are in the prompt.
RANKS = [1, 3, 0, 2, 4, 1, 0, None]


def scored(values: list[float | None], metric: str = "token_recall") -> list[dict[str, Any]]:
    return [{metric: value} for value in values]


def searched(values: list[float | None]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for value, rank in zip(values, RANKS, strict=True):
        reciprocal = {} if rank is None else {"answer_mrr": 1 / rank if rank else 0.0}
        rows.append({"token_recall": value, "search": reciprocal})
    return rows


@pytest.fixture
def compare(tmp_path: Path) -> Compare:
    def run(*words: str) -> Result:
        return CliRunner().invoke(cli, ["compare", *words, "--output-dir", str(tmp_path)])

    return run


@pytest.fixture
def three_modes(tmp_path: Path) -> Path:
    make_run(tmp_path / "closed", rows=scored(CLOSED))
    make_run(tmp_path / "found", mode="retriever", rows=searched(RETRIEVER))
    make_run(tmp_path / "gold", mode="oracle", rows=scored(ORACLE))
    return tmp_path


def as_json(result: Result) -> dict[str, Any]:
    assert result.exception is None, result.exception
    content: dict[str, Any] = json.loads(result.stdout)
    return content


# -- figures by hand ------------------------------------------------------------------------------


def test_means_and_rates(three_modes: Path, compare: Compare) -> None:
    (dataset,) = as_json(compare("closed", "found", "gold", "--json"))["datasets"]
    assert (dataset["dataset"], dataset["n_questions"], dataset["baseline"]) == (
        "demo",
        8,
        "closed",
    )
    closed, found, gold = dataset["runs"]
    assert [run["mean"] for run in dataset["runs"]] == pytest.approx(
        [3.5 / 7, 4 / 7, 6 / 7], abs=1e-6
    )
    assert {run["n"] for run in dataset["runs"]} == {7}
    assert (found["mode"], found["retriever"], gold["retriever"]) == ("retriever", "bm25", None)
    assert (closed["questions_per_second"], closed["tokens_per_second"]) == (12.5, 62.5)
    assert (closed["peak_rss_mib"], closed["peak_gpu_mib"]) == (2048.0, None)
    # The same figure, from the same seed, as the run's own results.
    assert (
        closed["ci95"]
        == load_run(three_modes / "closed").results["metrics"]["token_recall"]["ci95"]
    )


def test_pairs(three_modes: Path, compare: Compare) -> None:
    content = as_json(compare("closed", "found", "gold", "--json"))
    found, gold = content["datasets"][0]["pairs"]
    # 0, -1/2, -1, +1, 0, +1/2, +1/2
    assert (found["wins"], found["ties"], found["losses"]) == (3, 2, 2)
    assert found["difference"]["mean"] == pytest.approx(0.5 / 7, abs=1e-6)
    assert (gold["wins"], gold["ties"], gold["losses"]) == (3, 4, 0)
    assert found["mcnemar"] is None and found["mcnemar_p_holm"] is None
    # Two tests: the smaller p twice, the larger as it is, but not below the other.
    small, large = sorted((found, gold), key=lambda pair: pair["p_value"])
    assert small["p_holm"] == pytest.approx(min(1.0, 2 * small["p_value"]))
    assert large["p_holm"] == pytest.approx(max(small["p_holm"], large["p_value"]))


def test_context_effect(three_modes: Path, compare: Compare) -> None:
    found, gold = as_json(compare("closed", "found", "gold", "--json"))["datasets"][0]["context"]
    assert (found["closed_book"], found["oracle"], gold["oracle"]) == ("closed", "gold", None)
    assert found["oracle_gap"]["mean"] == pytest.approx(2 / 7, abs=1e-6)
    assert gold["oracle_gap"] is None

    def counts(changes: dict[str, Any]) -> tuple[Any, ...]:
        names = ("questions", "n", "right_closed_book", "destroyed", "gained")
        return tuple(changes[name] for name in names)

    # Destroyed: questions 1 (half right is not right) and 2. Gained: 3 and 5.
    # Rank 4 was not in the prompt: a miss. The unscored question 7 is in neither.
    assert [counts(changes) for changes in found["changes"]] == [
        ("all", 7, 3, 2, 2),
        ("hit", 4, 2, 1, 2),
        ("miss", 3, 1, 1, 0),
    ]
    assert found["changes"][1]["gain"]["mean"] == pytest.approx(1.0 / 4)
    assert [counts(changes) for changes in gold["changes"]] == [("all", 7, 3, 0, 3)]


def test_mcnemar_only_for_whole_answers(tmp_path: Path, compare: Compare) -> None:
    make_run(tmp_path / "a", rows=scored([0, 0, 0, 0, 0, 1, 1], "contains"))
    make_run(tmp_path / "b", model="other", rows=scored([1, 1, 1, 1, 1, 0, 1], "contains"))
    (pair,) = as_json(compare("a", "b", "--metric", "contains", "--json"))["datasets"][0]["pairs"]
    assert pair["mcnemar"] == {"gained": 5, "lost": 1, "p_value": pytest.approx(14 / 64)}
    assert "McNemar p" in compare("a", "b", "--metric", "contains").stdout


def test_closed_book_run_of_the_same_settings_is_taken(tmp_path: Path, compare: Compare) -> None:
    longer = {"generation": {"max_new_tokens": 64}}
    make_run(tmp_path / "short", rows=scored([1.0, 0.0]))
    make_run(tmp_path / "long", rows=scored([0.0, 0.0]), config=longer)
    make_run(tmp_path / "gold", mode="oracle", rows=scored([1.0, 1.0]), config=longer)
    make_run(tmp_path / "other", model="other", rows=scored([1.0, 1.0]))
    (dataset,) = as_json(compare("short", "long", "gold", "other", "--json"))["datasets"]
    (effect,) = dataset["context"]
    assert effect["closed_book"] == "long" and not dataset["notes"]
    (dataset,) = as_json(compare("short", "gold", "--json"))["datasets"]
    assert dataset["context"][0]["closed_book"] == "short"
    assert "but they differ in generation.max_new_tokens" in dataset["notes"][0]


def test_rows_are_paired_by_id_whatever_their_order(tmp_path: Path, compare: Compare) -> None:
    draw = np.random.default_rng(0)
    ours, base = draw.integers(0, 3, 60) / 2, draw.integers(0, 3, 60) / 2
    rows = [
        [
            {"question_id": f"q{i}", "question": f"{i}?", "answers": ["x"], "f1": value}
            for i, value in enumerate(values)
        ]
        for values in (base, ours)
    ]
    make_run(tmp_path / "base", rows=rows[0])
    make_run(tmp_path / "ours", rows=[rows[1][i] for i in draw.permutation(60)])
    (pair,) = as_json(compare("base", "ours", "--metric", "f1", "--json"))["datasets"][0]["pairs"]
    expected = compare_pairs(ours, base, seed=42).to_json()
    assert {name: pair[name] for name in expected} == expected


def test_output_repeats(three_modes: Path, compare: Compare) -> None:
    assert compare("closed", "found", "gold").stdout == compare("closed", "found", "gold").stdout


# -- which runs -----------------------------------------------------------------------------------


def test_baseline(three_modes: Path, compare: Compare) -> None:
    (dataset,) = as_json(compare("closed", "found", "--baseline", "found", "--json"))["datasets"]
    assert dataset["baseline"] == "found"
    assert [pair["run"] for pair in dataset["pairs"]] == ["closed"]
    # A baseline that is not among the runs joins them.
    (dataset,) = as_json(compare("closed", "--baseline", "gold", "--json"))["datasets"]
    assert [run["name"] for run in dataset["runs"]] == ["gold", "closed"]


def test_each_dataset_has_the_baseline_of_the_same_role(tmp_path: Path, compare: Compare) -> None:
    for dataset in ("x", "y"):
        for mode in ("no_context", "oracle"):
            make_run(
                tmp_path / "night" / f"{dataset}_{mode}",
                dataset=dataset,
                mode=mode,
                rows=scored([1.0, 0.0]),
            )
    content = as_json(compare("night", "--baseline", "night/x_oracle", "--json"))
    assert [d["baseline"] for d in content["datasets"]] == ["x_oracle", "y_oracle"]


def test_runs_of_one_name_are_told_apart(tmp_path: Path, compare: Compare) -> None:
    for sweep in ("one", "two"):
        make_run(tmp_path / sweep / "run", rows=scored([1.0, 0.0]))
    (dataset,) = as_json(compare("one", "two", "--json"))["datasets"]
    names = [run["name"] for run in dataset["runs"]]
    assert names == ["one/run", "two/run"]
    make_run(tmp_path / "deeper" / "one" / "run", rows=scored([1.0, 0.0]))
    make_run(tmp_path / "deeper" / "one" / "other", rows=scored([1.0, 0.0]))
    words = ("one", "two", "deeper/one/run", "deeper/one/other")
    (dataset,) = as_json(compare(*words, "--json"))["datasets"]
    names = [run["name"] for run in dataset["runs"]]
    assert sorted(names) == ["deeper/one/run", "other", f"{tmp_path.name}/one/run", "two/run"]


def test_unfinished_run_of_a_sweep_is_left_out(tmp_path: Path, compare: Compare) -> None:
    for name in ("a", "b"):
        make_run(tmp_path / "night" / name, rows=scored([1.0, 0.0]))
    make_run(tmp_path / "night" / "c", rows=scored([1.0, 0.0]), phase="failed")
    (dataset,) = as_json(compare("night", "--json"))["datasets"]
    assert [run["name"] for run in dataset["runs"]] == ["a", "b"]


# -- what must not differ -------------------------------------------------------------------------


def test_different_questions(tmp_path: Path, compare: Compare) -> None:
    make_run(tmp_path / "a", rows=scored([1.0, 0.0, 0.0, 0.0]))
    make_run(tmp_path / "b", rows=scored([0.0, 1.0]))
    error = compare("a", "b").exception
    assert isinstance(error, ConfigError)
    assert "a has 4 questions, b has 2 questions; 2 are in all" in str(error)
    assert "--intersect" in str(error)
    (dataset,) = as_json(compare("a", "b", "--intersect", "--json"))["datasets"]
    assert dataset["n_questions"] == 2
    assert [run["mean"] for run in dataset["runs"]] == [0.5, 0.5]
    assert "Only shared questions" in dataset["notes"][0]


def test_no_shared_question(tmp_path: Path, compare: Compare) -> None:
    make_run(tmp_path / "a", rows=[{"question_id": "x", "token_recall": 1.0}])
    make_run(tmp_path / "b", rows=[{"question_id": "y", "token_recall": 1.0}])
    error = compare("a", "b", "--intersect").exception
    assert isinstance(error, DataError) and "share no question" in str(error)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"config": {"prompt": {"system": "Be brief."}}}, "prompts .* differ: prompt.system"),
        ({"dataset_hash": "f00d"}, "dataset files .* b f00d"),
    ],
)
def test_different_prompts_and_files(
    tmp_path: Path, compare: Compare, change: dict[str, Any], said: str
) -> None:
    make_run(tmp_path / "a", rows=scored([1.0, 0.0]))
    make_run(tmp_path / "b", rows=scored([1.0, 0.0]), **change)
    with pytest.raises(ConfigError, match=said) as error:
        compare_runs([load_run(tmp_path / name) for name in "ab"])
    assert "--allow-different" in str(error.value)
    (dataset,) = as_json(compare("a", "b", "--allow-different", "--json"))["datasets"]
    assert len(dataset["notes"]) == 1


@pytest.mark.parametrize("change", [{"question": "Another?"}, {"answers": ["another"]}])
def test_other_text_under_the_same_id(
    tmp_path: Path, compare: Compare, change: dict[str, Any]
) -> None:
    make_run(tmp_path / "a", rows=scored([1.0, 0.0]))
    make_run(tmp_path / "b", rows=[{"token_recall": 1.0}, {"token_recall": 0.0, **change}])
    error = compare("a", "b").exception
    assert isinstance(error, ConfigError) and "1 of 2 questions have another text" in str(error)
    assert compare("a", "b", "--allow-different").exception is None


def test_configuration_differences(tmp_path: Path, compare: Compare) -> None:
    make_run(tmp_path / "a", rows=scored([1.0]))
    make_run(tmp_path / "b", rows=scored([1.0]), config={"generation": {"max_new_tokens": 64}})
    make_run(tmp_path / "c", rows=scored([1.0]), config={"retriever": {"top_k": 9}})
    differences = as_json(compare("a", "b", "c", "--json"))["differences"]
    # Names and places are left out, and so is a retriever that nobody used.
    assert differences == [
        {
            "key": "generation.max_new_tokens",
            "values": [{"value": "32", "runs": ["a", "c"]}, {"value": "64", "runs": ["b"]}],
        }
    ]


def test_retrievers_are_compared_among_their_users(tmp_path: Path, compare: Compare) -> None:
    make_run(tmp_path / "a", rows=scored([1.0]))
    make_run(tmp_path / "b", mode="retriever", rows=scored([1.0]))
    make_run(tmp_path / "c", mode="retriever", rows=scored([1.0]), retriever="dense")
    differences = as_json(compare("a", "b", "c", "--json"))["differences"]
    values = {d["key"]: [v["runs"] for v in d["values"]] for d in differences}
    assert values["retriever.name"] == [["b"], ["c"]]


# -- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "kind", "said"),
    [
        (("a",), ConfigError, "one run only"),
        (("a", "a"), ConfigError, "one run only"),
        (("a", "other"), ConfigError, "only one on its dataset"),
        (("a", "b", "--metric", "token_recal"), ConfigError, "Did you mean 'token_recall'"),
        (("a", "b", "--metric", "question_id"), ConfigError, "no such metric"),
        (("a", "nothing"), ConfigError, "'nothing': no run and"),
        (("a", "b", "--baseline", "?"), ConfigError, "it must be one"),
        (("a", "failed"), DataError, "not finished"),
        (("a", "unscored"), DataError, "none of its 2 rows has a value of token_recall"),
        (("a", "twice"), DataError, "question_id 'q' occurs 2 times"),
        (("a", "damaged"), DataError, "predictions.parquet is damaged"),
        (("a", "b", "--output", "x/damaged/state.json/t.md"), StorageError, "cannot be made"),
    ],
)
def test_errors(
    tmp_path: Path,
    compare: Compare,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    kind: type[Exception],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = scored([1.0, 0.0])
    make_run(tmp_path / "a", rows=rows)
    make_run(tmp_path / "b", rows=rows)
    make_run(tmp_path / "x" / "other", dataset="other", rows=rows)
    make_run(tmp_path / "x" / "failed", rows=rows, phase="failed")
    make_run(tmp_path / "x" / "unscored", rows=scored([None, None]))
    make_run(tmp_path / "x" / "twice", rows=[{"question_id": "q", "token_recall": 1.0}] * 2)
    damaged = make_run(tmp_path / "x" / "damaged", rows=rows)
    (damaged / "predictions.parquet").write_bytes(b"PAR1")
    placed = [f"x/{word}" if (tmp_path / "x" / word).exists() else word for word in words]
    error = compare(*placed).exception
    assert isinstance(error, kind), error
    assert said in str(error)


def test_nothing_scored_in_both(tmp_path: Path, compare: Compare) -> None:
    make_run(tmp_path / "a", rows=scored([1.0, None]))
    make_run(tmp_path / "b", rows=scored([None, 1.0]))
    error = compare("a", "b").exception
    assert isinstance(error, DataError) and "no question that is scored in both" in str(error)


def test_failed_rows_are_said(tmp_path: Path, compare: Compare) -> None:
    make_run(tmp_path / "a", rows=scored([1.0, 0.0]))
    make_run(tmp_path / "b", rows=[{"token_recall": 1.0}, {"error": "too long"}])
    make_run(tmp_path / "c", rows=[{"error": "too long"}, {"error": "too long"}])
    said = "Questions that failed count as answered with nothing: b 1, c 2."
    assert said in compare("a", "b", "c").stdout


# -- forms ----------------------------------------------------------------------------------------


def test_csv_has_one_line_for_each_run(three_modes: Path, compare: Compare) -> None:
    content = as_json(compare("closed", "found", "gold", "--json"))["datasets"][0]
    result = compare("closed", "found", "gold", "--format", "csv")
    lines = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [line["run"] for line in lines] == ["closed", "found", "gold"]
    assert lines[0]["difference"] == "" and lines[0]["baseline"] == "closed"
    assert float(lines[1]["p_holm"]) == content["pairs"][0]["p_holm"]
    assert (lines[1]["wins"], lines[1]["ties"], lines[1]["losses"]) == ("3", "2", "2")


@pytest.mark.parametrize("form", ["terminal", "markdown", "csv", "json", "latex"])
def test_output_file_is_what_is_printed(three_modes: Path, compare: Compare, form: str) -> None:
    printed = compare("closed", "found", "--format", form).stdout
    target = three_modes / "out.txt"
    result = compare("closed", "found", "--format", form, "--output", str(target))
    assert result.exception is None and result.stdout == ""
    assert target.read_text(encoding="utf-8") == printed


def test_missing_rates_and_gpu_memory(tmp_path: Path, compare: Compare) -> None:
    make_run(tmp_path / "a", rows=scored([1.0]), questions_per_second=None, peak_gpu=3072.0)
    bare = make_run(tmp_path / "b", rows=scored([1.0]))
    (bare / "memory_usage.json").unlink()
    lines = compare("a", "b").stdout.splitlines()
    assert lines[3].endswith("2,048, GPU 3,072 MiB") and lines[3].split()[-6:-4] == ["-", "-"]
    assert lines[4].split()[-3:] == ["12.5", "62", "-"]


def test_search_that_is_not_readable_is_not_known(tmp_path: Path, compare: Compare) -> None:
    make_run(tmp_path / "a", rows=scored([1.0, 0.0]))
    searched = make_run(tmp_path / "b", mode="retriever", rows=scored([1.0, 0.0]))
    predictions = load_run(searched).predictions.with_columns(search=pl.lit("{torn"))
    predictions.write_parquet(searched / "predictions.parquet")
    (effect,) = as_json(compare("a", "b", "--json"))["datasets"][0]["context"]
    assert [(c["questions"], c["n"]) for c in effect["changes"]] == [
        ("all", 2),
        ("hit", 0),
        ("miss", 0),
    ]


def test_two_runs_of_one_model_and_mode_are_told_apart(tmp_path: Path, compare: Compare) -> None:
    for name, tokens in (("short", 32), ("long", 64)):
        config = {"generation": {"max_new_tokens": tokens}}
        make_run(tmp_path / name, rows=scored([1.0, 0.0]), config=config)
    table = compare("short", "long").stdout.split("\n\n")[0].splitlines()
    assert table[3].startswith("short ") and table[4].startswith("long ")


def test_latex_says_the_notes(tmp_path: Path, compare: Compare) -> None:
    make_run(tmp_path / "a", rows=scored([1.0, 0.0, 0.0]))
    make_run(tmp_path / "b", rows=scored([0.0, 1.0]))
    assert "Only shared questions" in compare("a", "b", "--intersect", "--format", "latex").stdout


def test_means_of_several_answers_have_no_mcnemar_test(tmp_path: Path, compare: Compare) -> None:
    make_run(tmp_path / "one", rows=scored([1.0, 0.0, 1.0, 0.0], "exact_match"))
    make_run(tmp_path / "several", rows=scored([1.0, 0.5, 0.0, 0.0], "exact_match"))
    words = ("--metric", "exact_match", "--json")
    (dataset,) = as_json(compare("one", "several", *words))["datasets"]
    assert dataset["pairs"][0]["mcnemar"] is None


# -- the numeric floor ----------------------------------------------------------------------------


def checked(folder: Path, mean_square: float) -> None:
    """Adds to a run's results that rows were asked again."""
    path = folder / "results.json"
    results = json.loads(path.read_text())
    moved = {"mean_change": None, "mean_square": mean_square, "floor": 0.0123}
    share = {"mean": 0.4, "stderr": None, "ci95": [0.313, 0.498], "n": 100}
    results["repeat_check"] = {
        "rows": 100,
        "failed": 0,
        "changed": 40,
        "changed_share": share,
        "metrics": {"token_recall": moved},
    }
    path.write_text(json.dumps(results))


def test_a_difference_within_the_numeric_floor_is_said(tmp_path: Path, compare: Compare) -> None:
    one, other = [1.0, 0.0] * 50, [0.0, 1.0] + [1.0, 0.0] * 49
    make_run(tmp_path / "one", rows=scored(one))
    make_run(tmp_path / "other", rows=scored([*other[:-1], 1.0]))  # 0.01 more
    checked(tmp_path / "one", 0.04)  # 1.96 * sqrt(0.04 / 100) = 0.0392
    text = compare("one", "other").stdout
    assert (
        "The difference of +0.0100 between other and one is within the numeric floor of one (0.0392"
    ) in text
    assert "one: 40 of 100 answers were others when asked again one at a time (31 to 50 %)" in text
    assert "floor of" not in compare("one", "other", "--metric", "exact_match").stdout


def test_a_difference_beyond_the_numeric_floor_is_not(tmp_path: Path, compare: Compare) -> None:
    make_run(tmp_path / "one", rows=scored([1.0, 0.0] * 50))
    make_run(tmp_path / "other", rows=scored([1.0] * 100))
    checked(tmp_path / "one", 0.04)
    assert "within the numeric floor" not in compare("one", "other").stdout
    assert "within the numeric floor" not in compare("other", "one").stdout


def test_searches_are_compared_by_question(tmp_path: Path, compare: Compare) -> None:
    better = [{"token_recall": 0.0, "search": {"answer_mrr": 1.0}} for _ in RANKS[:-1]]
    make_run(tmp_path / "one", mode="retriever", rows=searched(RETRIEVER))
    make_run(tmp_path / "two", mode="retriever", rows=[*better, {"search": {}}])
    found = as_json(compare("one", "two", "--metric", "answer_mrr", "--json"))
    reciprocals = [1 / rank if rank else 0.0 for rank in RANKS if rank is not None]
    (dataset,) = found["datasets"]
    assert [run["mean"] for run in dataset["runs"]] == pytest.approx([np.mean(reciprocals), 1.0])
    (difference,) = dataset["pairs"]
    assert difference["difference"]["mean"] == pytest.approx(1 - np.mean(reciprocals))


def test_a_run_without_the_figure_is_named(three_modes: Path, compare: Compare) -> None:
    result = compare("found", "gold", "--metric", "answer_mrr")
    assert isinstance(result.exception, DataError)
    assert "gold: it has no answer_mrr, for it searched nothing" in str(result.exception)
    result = compare("found", "--metric", "document_mrr")
    assert "was not judged by that" in str(result.exception)


# -- runs that were stopped -----------------------------------------------------------------------


def rows(right: int, n: int) -> list[dict[str, Any]]:
    """Right answers first."""
    return scored([float(i < right) for i in range(n)])


def searched_rows(right: int, n: int) -> list[dict[str, Any]]:
    """The same; every second search found an answer."""
    return [
        {**row, "search": {"answer_mrr": float(number % 2)}}
        for number, row in enumerate(rows(right, n))
    ]


def test_a_stopped_run_leaves_no_question_out_of_other_pairs(
    tmp_path: Path, compare: Compare
) -> None:
    make_run(tmp_path / "a", rows=rows(30, 100))
    make_run(tmp_path / "b", model="other", rows=rows(45, 100))
    make_run(tmp_path / "c", model="third", rows=rows(0, 40))
    mark_stopped(tmp_path / "c", against="a", of=100, decision="worse")
    without = as_json(compare("a", "b", "--json"))["datasets"][0]
    (dataset,) = as_json(compare("a", "b", "c", "--json"))["datasets"]
    b, c = dataset["pairs"]
    assert {**b, "p_holm": None} == {**without["pairs"][0], "p_holm": None}
    assert [one["mean"] for one in dataset["runs"]] == [0.3, 0.45, 0.0]
    assert c["is_always_valid"] and not b["is_always_valid"]
    assert (c["difference"]["n"], c["difference"]["mean"]) == (40, -0.75)
    assert "c was stopped after 40 of these 100 questions" in dataset["notes"][-1]


def test_what_context_did_in_a_stopped_run_holds_at_any_look(
    tmp_path: Path, compare: Compare
) -> None:
    make_run(tmp_path / "closed", rows=rows(10, 100))
    make_run(tmp_path / "found", mode="retriever", rows=searched_rows(30, 40))
    make_run(tmp_path / "gold", mode="oracle", rows=rows(90, 100))
    mark_stopped(tmp_path / "found", against="closed", of=100, decision="better")
    (dataset,) = as_json(compare("closed", "found", "gold", "--json"))["datasets"]
    found, gold = dataset["context"]
    everything, hit, miss = found["changes"]
    assert everything["gain"]["ci95"] == dataset["pairs"][0]["difference"]["ci95"]
    assert (everything["n"], hit["n"], miss["n"]) == (40, 20, 20)
    assert gold["changes"][0]["gain"]["ci95"] == dataset["pairs"][1]["difference"]["ci95"]
    text = compare("closed", "found", "gold").stdout
    assert text.count("]*") == 5  # the difference, three gains, the oracle gap


def test_runs_that_were_all_stopped_are_paired_as_far_as_both_came(
    tmp_path: Path, compare: Compare
) -> None:
    for name, n in (("a", 40), ("b", 20), ("c", 60)):
        make_run(tmp_path / name, model=name, rows=rows(10, n))
        mark_stopped(tmp_path / name, against="away", of=100, decision="better")
    (dataset,) = as_json(compare("a", "b", "c", "--json"))["datasets"]
    assert [pair["difference"]["n"] for pair in dataset["pairs"]] == [20, 40]
    assert [run["n"] for run in dataset["runs"]] == [40, 20, 60]


def test_other_texts_of_a_stopped_run_are_seen(tmp_path: Path, compare: Compare) -> None:
    make_run(tmp_path / "a", rows=rows(3, 10))
    make_run(tmp_path / "b", model="b", rows=[{**row, "question": "Else?"} for row in rows(3, 5)])
    mark_stopped(tmp_path / "b", against="a", of=10, decision="better")
    for order in (("a", "b"), ("b", "a")):
        assert "5 of" in str(compare(*order).exception)


def test_different_judges_are_named_once(tmp_path: Path, compare: Compare) -> None:
    for name in ("a", "b"):
        path = make_run(tmp_path / name, model=name, rows=rows(3, 4))
        write_judgement(path, ["correct", "incorrect", "correct", "correct"])
    content = json.loads((tmp_path / "b" / "judgement.json").read_text())
    content["judge"]["fingerprint"] = "g"
    (tmp_path / "b" / "judgement.json").write_text(json.dumps(content))
    found = compare("a", "b", "--metric", "judge_correct", "--allow-different", "--json")
    (dataset,) = as_json(found)["datasets"]
    assert sum("the judges of these runs differ" in note for note in dataset["notes"]) == 1


def test_what_right_means_of_several_answers_is_told_once(
    three_modes: Path, compare: Compare
) -> None:
    path = three_modes / "closed" / "results.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "sampling": {"answers": 5}}))
    (dataset,) = as_json(compare("closed", "found", "gold", "--json"))["datasets"]
    told = "Right answers of closed are questions of which all answers are."
    assert [note for note in dataset["notes"] if note.startswith("Right")] == [told]
