"""What the runs of a report say, in sentences."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from slm_vllm.reporting.context_role import role_of
from slm_vllm.reporting.estimates import metric_text
from slm_vllm.reporting.pairing import DatasetPairs, Pair, mean_of, ranked
from slm_vllm.reporting.run_view import RunView
from slm_vllm.scoring.intervals import MeanEstimate
from slm_vllm.scoring.metrics import MAIN, METRICS

Kind = Literal["clear", "open", "mixed", "bound"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """One sentence.

    Attributes:
        kind: "clear" where a difference is significant, "open" where it is not, "mixed" where some
            are, "bound" for what better passages could gain at most.
        text: The sentence.
        members: What it sums up.
    """

    kind: Kind
    text: str
    members: tuple[Verdict, ...] = ()


def verdicts(datasets: Sequence[DatasetPairs]) -> list[Verdict]:
    """The verdicts: the best run, context, models, retrievers, the oracle's bound."""
    several = len(datasets) > 1
    found = []
    for dataset in datasets:
        where = f"On {dataset.dataset}: " if several else ""
        for verdict in _Words(dataset).all():
            found.append(replace(verdict, text=f"{where}{verdict.text}"))
    return found


class _Words:
    """The sentences about one dataset."""

    def __init__(self, dataset: DatasetPairs) -> None:
        self._dataset = dataset
        self._effects = {effect.run: effect for effect in dataset.effects}
        self._several_models = len({view.model for view in dataset.views}) > 1

    def all(self) -> Iterator[Verdict]:
        best = self._best_pair()
        if best is not None:
            yield self._best(best)
        pairs = self._dataset.pairs
        within = [pair for pair in pairs if pair.run.model == pair.against.model]
        with_closed = [pair for pair in within if _is_closed_book(pair.against)]
        contexts = [pair for pair in within if pair not in with_closed]
        models = [
            pair
            for pair in pairs
            if pair.run.model != pair.against.model and pair.run.mode == pair.against.mode
        ]
        yield from self._over_models(with_closed, best)
        for mode in dict.fromkeys(pair.run.mode for pair in models):
            yield self._models([pair for pair in models if pair.run.mode == mode])
        yield from self._over_models(contexts, best)
        yield from self._bounds()

    def _best_pair(self) -> Pair | None:
        """The best two of at least three runs, where they could be compared."""
        rivals = ranked(self._dataset.views)[:2]
        if len(rivals) < 2 or len(self._dataset.views) < 3:
            return None
        pairs = self._dataset.pairs
        return next((pair for pair in pairs if {pair.run, pair.against} == set(rivals)), None)

    def _best(self, pair: Pair) -> Verdict:
        best, second = ranked(self._dataset.views)[:2]
        if pair.is_clear and (pair.paired.difference.mean < 0) == (best is pair.run):
            # Their means are of other questions than those that both were asked.
            best, second = second, best
        text = (
            f"highest {METRICS[MAIN].label}: {self._named(best)}, "
            f"{metric_text(best.run.results['metrics'][MAIN])}; "
        )
        if pair.is_clear:
            amount = _amount(pair.paired.difference, flip=best is pair.against)
            text += f"it beats {self._named(second)}, the next, by {amount}"
        else:
            text += f"not told apart from the next, {self._named(second)}, {_in_words(pair, best)}"
        return Verdict(_kind(pair), f"{text}{self._lost([pair])}{_dissent(pair, best)}.")

    def _over_models(self, pairs: Sequence[Pair], best: Pair | None) -> Iterator[Verdict]:
        """Two conditions against each other: a sentence, and one for each model under it."""
        groups: dict[tuple[str, str], list[Pair]] = {}
        for pair in pairs:
            groups.setdefault((_condition(pair.run), _condition(pair.against)), []).append(pair)
        for (first, second), group in groups.items():
            members = tuple(self._pair(p, self._of_model(p.run.model), _condition) for p in group)
            if len(members) > 1:
                parts = "; ".join(_counted(group))
                text = f"{first} against {second}, {len(group)} models: {parts}{self._lost(group)}."
                yield Verdict(_kind_of(members), text, members)
            elif group[0] is not best:
                yield members[0]

    def _models(self, pairs: Sequence[Pair]) -> Verdict:
        """Models in one condition: the pair, or their order and who is not told apart."""
        mode = _spoken_mode(pairs[0].run)
        members = tuple(self._pair(pair, f"{mode}: ", lambda view: view.model) for pair in pairs)
        if len(members) == 1:
            return members[0]
        views = {view: mean_of(view) for pair in pairs for view in (pair.run, pair.against)}
        order = sorted(views, key=lambda view: -(views[view] or 0.0))
        parts = ", ".join(f"{view.model} {views[view]:.3f}" for view in order)
        alike = [f"{p.against.model} and {p.run.model}" for p in pairs if not p.is_clear]
        ties = f"not told apart: {', '.join(alike)}" if alike else "all told apart"
        return Verdict(_kind_of(members), f"{mode}: {parts}; {ties}.", members)

    def _pair(self, pair: Pair, before: str, name: Callable[[RunView], str]) -> Verdict:
        difference = pair.paired.difference
        better, worse = pair.run, pair.against
        if difference.mean < 0:
            better, worse = worse, better
        after = f"{self._lost([pair])}{_dissent(pair, better if pair.is_clear else pair.run)}"
        if not pair.is_clear:
            return Verdict(
                "open",
                f"{before}{name(pair.run)} and {name(pair.against)} cannot be told apart: "
                f"{_in_words(pair, pair.run)}{after}.",
            )
        return Verdict(
            "clear",
            f"{before}{name(better)} beats {name(worse)} by "
            f"{_amount(difference, flip=better is pair.against)}{after}.",
        )

    def _lost(self, pairs: Sequence[Pair]) -> str:
        """What the runs with context lost and gained against closed book, "" for other pairs."""
        changes = []
        for pair in pairs:
            effect = self._effects.get(pair.run.run.name)
            if effect is None or effect.closed_book != pair.against.run.name or not effect.changes:
                return ""
            changes.append(effect.changes[0])
        lost = sum(one.destroyed for one in changes)
        return (
            f"; {lost:,} of {sum(one.right_closed_book for one in changes):,} right answers "
            f"{'was' if lost == 1 else 'were'} lost, {sum(one.gained for one in changes):,} gained"
        )

    def _bounds(self) -> Iterator[Verdict]:
        views = {view.run.name: view for view in self._dataset.views}
        groups: dict[str, list[tuple[Verdict, float, float]]] = {}
        for effect in self._dataset.effects:
            if effect.oracle is None or effect.oracle_gap is None:
                continue
            view, mean = views[effect.run], mean_of(views[effect.oracle]) or 0.0
            text = (
                f"{self._of_model(view.model)}an oracle run, with the right passage at hand, "
                f"reaches {mean:.3f}; {_condition(view)} leaves {_amount(effect.oracle_gap)} of "
                "that to better passages."
            )
            bound = (Verdict("bound", text), mean, effect.oracle_gap.mean)
            groups.setdefault(_condition(view), []).append(bound)
        for condition, group in groups.items():
            members, means, gaps = zip(*group, strict=True)
            if len(members) == 1:
                yield members[0]
                continue
            text = (
                f"{condition}, {len(members)} models: oracle runs, with the right passage at hand, "
                f"reach {_range(means)}; {_range(gaps)} of that is left to better passages."
            )
            yield Verdict("bound", text, members)

    def _of_model(self, model: str) -> str:
        return f"{model}: " if self._several_models else ""

    def _named(self, view: RunView) -> str:
        return f"{view.model} · {_condition(view)}" if self._several_models else _condition(view)


def _counted(pairs: Sequence[Pair]) -> Iterator[str]:
    """How the pairs of one kind went: in how many models which way, and by how much."""
    for way, sign in (("ahead", 1), ("behind", -1)):
        amounts = [
            abs(pair.paired.difference.mean)
            for pair in pairs
            if pair.is_clear and pair.paired.difference.mean * sign > 0
        ]
        if amounts:
            yield f"{way} in {len(amounts)}, by {_range(amounts)}"
    if alike := [pair.run.model for pair in pairs if not pair.is_clear]:
        yield f"not told apart in {len(alike)} ({', '.join(alike)})"
    if other := sum(bool(pair.dissents) for pair in pairs):
        yield f"another metric says something else in {other}"


def _range(values: Sequence[float]) -> str:
    low, high = f"{min(values):.3f}", f"{max(values):.3f}"
    return low if low == high else f"{low} to {high}"


def _kind(pair: Pair) -> Kind:
    return "clear" if pair.is_clear else "open"


def _kind_of(members: Sequence[Verdict]) -> Kind:
    kinds = {member.kind for member in members}
    return members[0].kind if len(kinds) == 1 else "mixed"


def _dissent(pair: Pair, first: RunView) -> str:
    """What other metrics say, from the side of the run that is named first."""
    parts = []
    for one in pair.dissents:
        if not pair.is_clear:
            verb = "tells them apart"
        else:
            verb = "says the opposite" if one.is_clear else "does not follow"
        amount = _amount(one.difference, flip=first is pair.against, sign="+")
        parts.append(f"; {one.label} {verb}, {amount}")
    return "".join(parts)


def _condition(view: RunView) -> str:
    return view.condition if view.condition != view.mode else _spoken_mode(view)


def _spoken_mode(view: RunView) -> str:
    retriever = view.run.results.get("retriever")
    if retriever:
        return f"retriever ({retriever})"
    return "closed book" if _is_closed_book(view) else view.mode


def _is_closed_book(view: RunView) -> bool:
    return role_of(view.run) == "closed book"


def _in_words(pair: Pair, first: RunView) -> str:
    """The difference from the side of one of the two, with its p-value."""
    difference = _amount(pair.paired.difference, flip=first is pair.against, sign="+")
    p = "p < 0.001" if pair.p_holm < 0.001 else f"p = {pair.p_holm:.3f}"
    return f"{difference}, {p}".replace("p ", "p\N{NO-BREAK SPACE}")


def _amount(estimate: MeanEstimate, *, flip: bool = False, sign: str = "") -> str:
    mean, low, high = estimate.mean, estimate.low, estimate.high
    if flip:
        # -0.0 would be shown with its sign.
        mean, low, high = 0.0 - mean, 0.0 - high, 0.0 - low
    return f"{mean:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"
