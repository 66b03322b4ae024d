"""The answer metrics, each defined once: value, name, label, unit, source.

Everything else (columns of predictions, results, tables, report, page, `compare`) goes through
`METRICS`. To add a metric, write a function of `Pairs` under `@metric(...)` here, in a file
`metric_*.py` of the folder of plug-ins, or in a module of an installed package that has an entry
point in the group `slm_vllm.metrics`; runs that were scored before it get it from their
predictions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from sys import modules
from typing import Any

import polars as pl

from slm_vllm.errors import ConfigError
from slm_vllm.plugins import load_module, module_names

ENTRY_POINT_GROUP = "slm_vllm.metrics"
PLUGIN_FILES = "metric_*.py"

Pairs = pl.DataFrame
"""Pairs of a prediction and one of its row's usable answers, one line each:

* `row`: number of the row.
* `prediction`, `answer`: the texts as they are.
* `prediction_words`, `answer_words`: their words; those of an answer once each, and never none.
* `prediction_tokens`, `answer_tokens`: their SQuAD tokens, as often as they occur.
* `prediction_repeats`, `answer_repeats`: whether one of these occurs more than once.
* `prediction_form`, `answer_form`: their SQuAD forms.
* `stands`: whether the answer stands in the prediction.
* `is_new`: whether no earlier answer of the row has the same SQuAD form.
"""


@dataclass(frozen=True, slots=True)
class Described:
    """What there is to say of a figure, wherever its values come from.

    Attributes:
        name: Its column and its key in `results.json`.
        label: What tables call it.
        unit: What is counted.
        is_binary: Whether its only values are 0 and 1.
        source: Where the definition comes from.
        in_tables: Whether tables of runs have a column for it.
    """

    name: str
    label: str
    unit: str
    is_binary: bool
    source: str
    in_tables: bool


@dataclass(frozen=True, slots=True)
class Metric(Described):
    """A figure for each row, from its prediction and answers.

    Attributes:
        of_pairs: A value in [0, 1] for each pair.
        of_row: From the values of a row's pairs to that of the row.
    """

    of_pairs: Callable[[Pairs], pl.Series]
    of_row: Callable[[pl.Expr], pl.Expr]


SEARCH_DEPTHS = (1, 3, 5, 10)
NDCG_DEPTH = 10
PLAIN = "plain_"
"""What the figures of a search begin with that was made without its stages."""
_NDCG = "Järvelin and Kekäläinen, Cumulated gain-based evaluation of IR techniques (2002)"
_SIMPLE_QA = "Wei et al., Measuring short-form factuality in large language models (2024)"

METRICS: dict[str, Metric] = {}
JUDGED: dict[str, Described] = {
    name: Described(name, label, unit, unit == "0 or 1", _SIMPLE_QA, in_tables)
    for name, label, unit, in_tables in (
        ("judge_correct", "correct (judge)", "0 or 1", True),
        ("judge_incorrect", "incorrect (judge)", "0 or 1", False),
        ("judge_not_attempted", "not attempted (judge)", "0 or 1", False),
        (
            "judge_correct_given_attempted",
            "correct given attempted",
            "share of those attempted",
            False,
        ),
        ("judge_f_score", "F-score (judge)", "harmonic mean of the two shares of correct", True),
    )
}
"""The figures of a judge's grades (`scoring.grades`): only runs that were judged have them."""


def _of_search(by: str) -> dict[str, Described]:
    figures = [
        *((f"hit@{k}", f"hit@{k}", "0 or 1", "") for k in SEARCH_DEPTHS),
        *((f"recall@{k}", f"recall@{k}", "share of what is relevant", "") for k in SEARCH_DEPTHS),
        ("mrr", "MRR", "1 / rank of the first", ""),
    ]
    if by == "document":
        name, label = f"ndcg@{NDCG_DEPTH}", f"nDCG@{NDCG_DEPTH}"
        figures.append((name, label, "share of the best gain", _NDCG))
    return {
        f"{by}_{name}": Described(
            f"{by}_{name}", f"{label} by {by}", unit, unit == "0 or 1", source, in_tables=False
        )
        for name, label, unit, source in figures
    }


SEARCHED = _of_search("answer") | _of_search("document")
"""The figures of a search (`retrieval.evaluation`): only runs that searched have them."""
MAIN = "token_recall"


def in_tables() -> list[Metric]:
    """The metrics that tables of runs show, in their order."""
    return [metric for metric in METRICS.values() if metric.in_tables]


def judged_in_tables(results: Iterable[Mapping[str, Any]]) -> list[Described]:
    """A judge's figures that tables of these runs show: none, if none of them was judged.

    Args:
        results: Contents of `results.json`, as a run is read.
    """
    known = {name for result in results for name in result["metrics"]}
    return [one for one in JUDGED.values() if one.in_tables and one.name in known]


def described(name: str) -> Described:
    """A metric of any kind."""
    return METRICS.get(name) or JUDGED.get(name) or SEARCHED[name]


def best(values: pl.Expr) -> pl.Expr:
    """The highest value over the row's answers."""
    return values.max()


def mean_of_distinct(values: pl.Expr) -> pl.Expr:
    """The mean over the row's answers, each SQuAD form once."""
    return values.filter("is_new").mean()


def metric(
    name: str,
    label: str,
    *,
    unit: str,
    source: str,
    is_binary: bool = False,
    in_tables: bool = True,
    of_row: Callable[[pl.Expr], pl.Expr] = best,
) -> Callable[[Callable[[Pairs], pl.Series]], Callable[[Pairs], pl.Series]]:
    """Registers a function that gives a value for each pair."""

    def register(of_pairs: Callable[[Pairs], pl.Series]) -> Callable[[Pairs], pl.Series]:
        if name in METRICS:
            raise ConfigError(f"there are two metrics of the name {name}; give one another name")
        METRICS[name] = Metric(name, label, unit, is_binary, source, in_tables, of_pairs, of_row)
        return of_pairs

    return register


_SQUAD = "Rajpurkar et al., SQuAD: 100,000+ Questions for Machine Comprehension of Text (2016)"


@metric(
    "token_recall",
    "token recall",
    unit="share of the answer's words",
    source="Adlakha et al., Evaluating Correctness and Faithfulness of Instruction-Following "
    "Models for Question Answering (2024), over sets of words",
)
def token_recall(pairs: Pairs) -> pl.Series:
    """|T(p) & T(a)| / |T(a)|, T = the set of words."""
    shared = _shared("prediction_words", "answer_words")
    return pairs.select(shared / pl.col("answer_words").list.len()).to_series()


@metric("exact_match", "exact match", unit="0 or 1", is_binary=True, source=_SQUAD)
def exact_match(pairs: Pairs) -> pl.Series:
    """Whether both have the same SQuAD form."""
    # An answer of underscores is a word, yet punctuation to SQuAD: it must not match "".
    has_form = pl.col("answer_form") != ""
    return pairs.select(has_form & (pl.col("prediction_form") == pl.col("answer_form"))).to_series()


@metric("f1", "F1", unit="harmonic mean of precision and recall of tokens", source=_SQUAD)
def f1(pairs: Pairs) -> pl.Series:
    """2 * overlap / (tokens predicted + tokens expected), over multisets of SQuAD tokens.

    Where a side has no token twice, the overlap of the multisets is that of the sets.
    """
    sizes = pairs.select(
        pl.int_range(pl.len(), dtype=pl.UInt32).alias("pair"),
        _shared("prediction_tokens", "answer_tokens").alias("overlap"),
        pl.sum_horizontal(pl.col("prediction_tokens", "answer_tokens").list.len()).alias("total"),
        (pl.col("prediction_repeats") & pl.col("answer_repeats")).alias("repeats"),
    )
    repeating = (
        pairs.select("prediction_tokens", "answer_tokens").with_columns(sizes).filter("repeats")
    )
    overlap = pl.col("overlap")
    if repeating.height:
        sizes = sizes.join(
            _multiset_overlap(repeating), on="pair", how="left", maintain_order="left"
        )
        overlap = pl.coalesce("multiset_overlap", "overlap")
    value = pl.when(pl.col("total") > 0).then(2.0 * overlap / pl.col("total")).otherwise(0.0)
    return sizes.select(value).to_series()


@metric(
    "contains",
    "contains",
    unit="0 or 1",
    is_binary=True,
    source="Mallen et al., When Not to Trust Language Models (2023), with borders of words",
)
def contains(pairs: Pairs) -> pl.Series:
    """Whether the answer stands in the prediction."""
    return pairs["stands"]


@metric(
    "substring_recall",
    "substring recall",
    unit="share of the row's answers",
    source="Stelmakh et al., ASQA (2022), `STR-EM`, with borders of words",
    in_tables=False,
    of_row=mean_of_distinct,
)
def substring_recall(pairs: Pairs) -> pl.Series:
    """Whether the answer stands in the prediction: a share over the row's answers."""
    return pairs["stands"]


def _shared(left: str, right: str) -> pl.Expr:
    return pl.col(left).list.set_intersection(right).list.len()


def _multiset_overlap(pairs: pl.DataFrame) -> pl.DataFrame:
    """Tokens both sides have, each as often as the side with fewer: pair, multiset_overlap."""
    counts = [
        pairs.select("pair", pl.col(side).alias("token"))
        .explode("token")
        .group_by("pair", "token")
        .agg(pl.len().alias("count"))
        for side in ("prediction_tokens", "answer_tokens")
    ]
    return (
        counts[0]
        .join(counts[1], on=["pair", "token"])
        .group_by("pair")
        .agg(pl.min_horizontal("count", "count_right").sum().alias("multiset_overlap"))
    )


def load_added() -> None:
    """Imports what adds metrics: entry points of packages, `metric_*.py` among the plug-ins.

    Their functions register themselves. May be called again, when other plug-ins are in use.

    Raises:
        ConfigError: One of them cannot be loaded.
    """
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        try:
            entry.load()
        except Exception as error:
            raise ConfigError(
                f"the metrics of the entry point '{entry.name}' ({entry.value}) cannot be loaded: "
                f"{error}. Mend or uninstall that package"
            ) from error
    names = module_names(PLUGIN_FILES)
    for name in [one.name for one in METRICS.values() if one.of_pairs.__module__ not in modules]:
        del METRICS[name]
    for name in names:
        load_module(name)


load_added()
