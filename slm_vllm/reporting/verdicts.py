"""What the runs of a report say, in sentences, and what they do not say."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from slm_vllm.reporting.context_role import Role, role_of
from slm_vllm.reporting.estimates import metric_text
from slm_vllm.reporting.pairing import DatasetPairs, Pair, ranked
from slm_vllm.reporting.run_view import RunView
from slm_vllm.scoring.intervals import MeanEstimate
from slm_vllm.scoring.metrics import MAIN, METRICS

SIGNIFICANCE = 0.05

Kind = Literal["clear", "open", "bound"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """One sentence.

    Attributes:
        kind: "clear" where a difference is significant, "open" where it is not, "bound" for what
            better passages could gain at most.
        text: The sentence.
    """

    kind: Kind
    text: str


def verdicts(datasets: Sequence[DatasetPairs]) -> list[Verdict]:
    """The verdicts: the best run, context, models, retrievers, the oracle's bound."""
    several = len(datasets) > 1
    found = []
    for dataset in datasets:
        where = f"On {dataset.dataset}: " if several else ""
        for verdict in _Words(dataset).all():
            found.append(Verdict(verdict.kind, f"{where}{verdict.text}"))
    return found


def cautions(datasets: Sequence[DatasetPairs]) -> list[str]:
    """What the figures do not tell."""
    found = [note for dataset in datasets for note in dataset.notes]
    for dataset in datasets:
        if len(dataset.views) == 1:
            found.append(
                f"{dataset.views[0].run.name} is the only run on {dataset.dataset}: whether it is "
                "good for that dataset is not seen here."
            )
        found += _limits(dataset)
    if any(dataset.pairs for dataset in datasets):
        found.append("Speeds and memory are of one pass each and have no interval.")
    return found


def _limits(dataset: DatasetPairs) -> Iterator[str]:
    if dataset.pairs:
        widest = max(
            (pair.paired.difference for pair in dataset.pairs), key=lambda one: one.high - one.low
        )
        yield (
            f"{widest.n:,} questions of {dataset.dataset} do not settle differences below about "
            f"{(widest.high - widest.low) / 2:.3f}."
        )
    models = dict.fromkeys(view.model for view in dataset.views)
    lacks: tuple[tuple[Role, str, str], ...] = (
        ("closed book", "a closed-book", "which right answers context destroyed"),
        ("bound", "an oracle", "how much better passages could gain"),
    )
    for role, name, what in lacks:
        lacking = [
            model
            for model in models
            if not any(v.model == model and role_of(v.run) == role for v in dataset.views)
        ]
        if lacking and any(role_of(view.run) == "context" for view in dataset.views):
            yield f"Without {name} run of {', '.join(lacking)} it is not known {what}."


class _Words:
    """The sentences about one dataset."""

    def __init__(self, dataset: DatasetPairs) -> None:
        self._dataset = dataset
        self._effects = {effect.run: effect for effect in dataset.effects}
        self._several_models = len({view.model for view in dataset.views}) > 1

    def all(self) -> Iterator[Verdict]:
        yield from self._best()
        pairs = self._dataset.pairs
        within = [pair for pair in pairs if pair.run.model == pair.against.model]
        against_none = [pair for pair in within if _is_closed_book(pair.against)]
        for pair in against_none:
            yield self._pair(pair, self._of_model(pair.run.model), _condition)
        for pair in pairs:
            if pair.run.model != pair.against.model and pair.run.mode == pair.against.mode:
                yield self._pair(pair, f"{_spoken_mode(pair.run)}: ", lambda view: view.model)
        for pair in within:
            if pair not in against_none:
                yield self._pair(pair, self._of_model(pair.run.model), _condition)
        yield from self._bounds()

    def _best(self) -> Iterator[Verdict]:
        rivals = ranked(self._dataset.views)
        if len(rivals) < 2 or len(self._dataset.views) < 3:
            return
        best, second = rivals[:2]
        pairs = self._dataset.pairs
        pair = next((p for p in pairs if {p.run, p.against} == {best, second}), None)
        if pair is None:
            return
        kind: Kind = "clear" if _is_clear(pair) else "open"
        text = (
            f"Highest {METRICS[MAIN].label}: {self._named(best)}, "
            f"{metric_text(best.run.results['metrics'][MAIN])}; "
        )
        text += "ahead of" if kind == "clear" else "not told apart from"
        yield Verdict(kind, f"{text} the next, {self._named(second)}, {_said(pair, best)}.")

    def _pair(self, pair: Pair, before: str, name: Callable[[RunView], str]) -> Verdict:
        difference = pair.paired.difference
        better, worse = pair.run, pair.against
        if difference.mean < 0:
            better, worse = worse, better
        if not _is_clear(pair):
            return Verdict(
                "open",
                f"{before}{name(pair.run)} and {name(pair.against)} cannot be told apart: "
                f"{_said(pair, pair.run)}{self._lost(pair)}.",
            )
        return Verdict(
            "clear",
            f"{before}{name(better)} beats {name(worse)} by "
            f"{_amount(difference, flip=better is pair.against)}{self._lost(pair)}.",
        )

    def _lost(self, pair: Pair) -> str:
        effect = self._effects.get(pair.run.run.name)
        if effect is None or effect.closed_book != pair.against.run.name or not effect.changes:
            return ""
        change = effect.changes[0]
        return (
            f"; {change.destroyed:,} of {change.right_closed_book:,} right answers were lost, "
            f"{change.gained:,} gained"
        )

    def _bounds(self) -> Iterator[Verdict]:
        views = {view.run.name: view for view in self._dataset.views}
        for effect in self._dataset.effects:
            if effect.oracle is None or effect.oracle_gap is None:
                continue
            view, oracle = views[effect.run], views[effect.oracle]
            mean = oracle.run.results["metrics"][MAIN]["mean"]
            yield Verdict(
                "bound",
                f"{self._of_model(view.model)}an oracle run, with the right passage at hand, "
                f"reaches {mean:.3f}; {_condition(view)} leaves {_amount(effect.oracle_gap)} of "
                "that to better passages.",
            )

    def _of_model(self, model: str) -> str:
        return f"{model}: " if self._several_models else ""

    def _named(self, view: RunView) -> str:
        return f"{view.model} · {_condition(view)}" if self._several_models else _condition(view)


def _condition(view: RunView) -> str:
    return view.condition if view.condition != view.mode else _spoken_mode(view)


def _spoken_mode(view: RunView) -> str:
    retriever = view.run.results.get("retriever")
    if retriever:
        return f"retriever ({retriever})"
    return "closed book" if _is_closed_book(view) else view.mode


def _is_closed_book(view: RunView) -> bool:
    return role_of(view.run) == "closed book"


def _is_clear(pair: Pair) -> bool:
    return pair.p_holm < SIGNIFICANCE


def _said(pair: Pair, first: RunView) -> str:
    """The difference from the side of one of the two, with its p-value."""
    difference = _amount(pair.paired.difference, flip=first is pair.against, sign="+")
    p = "p < 0.001" if pair.p_holm < 0.001 else f"p = {pair.p_holm:.3f}"
    return f"{difference}, {p}".replace("p ", "p\N{NO-BREAK SPACE}")


def _amount(estimate: MeanEstimate, *, flip: bool = False, sign: str = "") -> str:
    mean, low, high = estimate.mean, estimate.low, estimate.high
    if flip:
        mean, low, high = -mean, -high, -low
    return f"{mean:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"
