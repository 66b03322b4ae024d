"""Do the statistics of `compare` hold what they promise? Simulated, with the shipped functions.

    python benchmarks/bench_statistics.py --markdown figures.md
    python benchmarks/bench_statistics.py power --simulations 500

Draws pairs of runs whose true means are known. `intervals`: how often the permutation test and
McNemar's test find a difference at 5 % that is not there, and how often the 95 % intervals hold
the true mean. `power`: how often the questions that `compare --plan` asks for find a difference.
`floor`: how often another pass over the same questions stays within the numeric floor.
`stopping`: when runs end under `--until decided`, and how often wrongly; `looks`: how often a
confidence sequence that is looked at after every question ever leaves the true difference out.
`race`: which models `sweep --race` drops. `several`: variance parts of several answers.
`kappa`: judges of known quality, against the shipped labels.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from slm_vllm.judging.labelled import SHIPPED, read_labelled
from slm_vllm.runs.until_decided import looks_at
from slm_vllm.scoring.agreement import agreement
from slm_vllm.scoring.grades import GRADES
from slm_vllm.scoring.intervals import estimate_mean
from slm_vllm.scoring.numeric_floor import numeric_change, numeric_floor
from slm_vllm.scoring.paired import compare_pairs, paired_differences, sign_flip_p_value
from slm_vllm.scoring.power import PairedSpread, questions_needed
from slm_vllm.scoring.sample_statistics import variance_parts
from slm_vllm.scoring.sequential import STAKES, always_valid_p_value, confidence_sequence

Values = npt.NDArray[np.float64]
Pair = tuple[Values, Values]
Draw = Callable[[np.random.Generator, int], Pair]

LEVEL = 0.05
SIZES = (50, 300, 3610)
# Shares of answers of one word, two words and so on; about those of short answers.
_LENGTHS = (0.42, 0.31, 0.14, 0.07, 0.03, 0.02, 0.005, 0.005)
# For the true means; their error is under a thirtieth of the error of 3,610 rows.
_LARGE = 4_000_000


def _questions(draw: np.random.Generator, n: int, right: float) -> tuple[Values, Values]:
    """Length of each answer, and the chance that a run has it right."""
    length = draw.choice(np.arange(1.0, len(_LENGTHS) + 1), size=n, p=_LENGTHS)
    return length, draw.beta(0.5 * right, 0.5 * (1 - right), n)


def _recall(draw: np.random.Generator, length: Values, chance: Values) -> Values:
    """Right, or wrong with a few of the words."""
    words = draw.binomial((length - 1).astype(np.int64), 0.12)
    return np.where(draw.random(len(chance)) < chance, 1.0, words / length)


def recall_pair(draw: np.random.Generator, n: int) -> Pair:
    """Token recall of two runs that are equally good; one answer in three is the very same."""
    length, chance = _questions(draw, n, 0.3)
    first, second = _recall(draw, length, chance), _recall(draw, length, chance)
    return first, np.where(draw.random(n) < 1 / 3, first, second)


def unequal_shapes(draw: np.random.Generator, n: int) -> Pair:
    """Equal means, but one run is right or wrong where the other has some of the words.

    Differences are not symmetric about 0, which the sign-flip test assumes of small samples.
    """
    length, chance = _questions(draw, n, 0.2)
    return (draw.random(n) < chance) * 1.0, draw.binomial(length.astype(np.int64), chance) / length


def rare_right(draw: np.random.Generator, n: int) -> Pair:
    """A 0/1 metric of two weak runs: one answer in ten is right."""
    _, chance = _questions(draw, n, 0.1)
    return (draw.random(n) < chance) * 1.0, (draw.random(n) < chance) * 1.0


def hardly_ever_right(draw: np.random.Generator, n: int) -> Pair:
    """A 0/1 metric, one answer in a hundred is right: of 50 often none."""
    _, chance = _questions(draw, n, 0.01)
    return (draw.random(n) < chance) * 1.0, (draw.random(n) < chance) * 1.0


def half_right(draw: np.random.Generator, n: int) -> Pair:
    """A 0/1 metric, one answer in two is right."""
    _, chance = _questions(draw, n, 0.5)
    return (draw.random(n) < chance) * 1.0, (draw.random(n) < chance) * 1.0


def with_context(draw: np.random.Generator, n: int) -> Pair:
    """Token recall with and without context: a true difference."""
    length, chance = _questions(draw, n, 0.3)
    return _recall(draw, length, chance + (1 - chance) * 0.3), _recall(draw, length, chance)


def shifted_pair(draw: np.random.Generator, n: int, share: float) -> Pair:
    """Token recall; the first run has this share of the other's wrong answers right in addition.

    One answer in three is the very same but for that.
    """
    length, chance = _questions(draw, n, 0.3)
    first, second = _recall(draw, length, chance), _recall(draw, length, chance)
    first = np.where(draw.random(n) < 1 / 3, second, first)
    return np.where(draw.random(n) < share, 1.0, first), second


def share_for(difference: float) -> float:
    """The share of `shifted_pair` whose true difference is this one."""
    first, _ = shifted_pair(np.random.default_rng(99), _LARGE, 0.0)
    return difference / (1 - float(first.mean()))


@dataclass(frozen=True, slots=True)
class Case:
    """A way to draw two runs; `null`: their true means are equal."""

    name: str
    draw: Draw
    null: bool


CASES = (
    Case("token recall, equal runs", recall_pair, null=True),
    Case("equal means, unequal shapes", unequal_shapes, null=True),
    Case("0/1 metric, half right", half_right, null=True),
    Case("0/1 metric, a tenth right", rare_right, null=True),
    Case("0/1 metric, a hundredth right", hardly_ever_right, null=True),
    Case("token recall, context helps", with_context, null=False),
)


@dataclass(frozen=True, slots=True)
class Figures:
    """Shares of the simulations.

    Attributes:
        case: What was drawn.
        n: Questions.
        permutation: Rejected at 5 % by the permutation test.
        mcnemar: By McNemar's test; None where it does not apply.
        difference: Intervals of the difference that hold the true one.
        mean: Intervals of the first run's mean that hold the true one.
    """

    case: str
    n: int
    permutation: float
    mcnemar: float | None
    difference: float
    mean: float


def simulate(case: Case, n: int, simulations: int, resamples: int, seed: int = 0) -> Figures:
    """Counts over `simulations` pairs of runs."""
    first, second = case.draw(np.random.default_rng((seed, 99)), _LARGE)
    true_mean = float(first.mean())
    true_difference = 0.0 if case.null else float((first - second).mean())
    rejected, exact, covered, mean_covered = 0, [], 0, 0
    for trial in range(simulations):
        values, baseline = case.draw(np.random.default_rng((seed, n, trial)), n)
        is_binary = case.draw in (hardly_ever_right, rare_right, half_right)
        found = compare_pairs(
            values, baseline, is_binary=is_binary, seed=trial, resamples=resamples
        )
        rejected += found.p_value <= LEVEL
        if found.mcnemar is not None:
            exact.append(found.mcnemar.p_value <= LEVEL)
        interval = found.difference
        covered += interval.low <= true_difference <= interval.high
        mean = estimate_mean(pl.Series(values), seed=trial, resamples=resamples)
        mean_covered += mean.low <= true_mean <= mean.high
    return Figures(
        case.name,
        n,
        rejected / simulations,
        sum(exact) / simulations if exact else None,
        covered / simulations,
        mean_covered / simulations,
    )


def markdown(figures: list[Figures], simulations: int) -> str:
    """The figures as a table; null cases and others differ in what a rejection means."""
    null = {case.name: case.null for case in CASES}
    lines = [
        "| data | n | permutation | McNemar | difference covered | mean covered |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for one in figures:
        permutation = _percent(one.permutation)
        lines.append(
            f"| {one.case} | {one.n:,} | {permutation if null[one.case] else f'({permutation})'} | "
            f"{'-' if one.mcnemar is None else _percent(one.mcnemar)} | "
            f"{_percent(one.difference)} | {_percent(one.mean)} |"
        )
    errors = [100 * math.sqrt(p * (1 - p) / simulations) for p in (0.05,)]
    lines.append("")
    lines.append(
        f"{simulations:,} simulations each: a share of 5 or 95 % has a standard error of "
        f"{errors[0]:.2f} points."
    )
    return "\n".join(lines)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def power_table(simulations: int, resamples: int) -> str:
    """How often the planned number of questions finds the difference."""
    lines = [
        "| true difference | variance known | found | planned from 500 | found |",
        "| --- | --- | --- | --- | --- |",
    ]
    for difference in (0.02, 0.05, 0.10):
        share = share_for(difference)
        first, second = shifted_pair(np.random.default_rng(7), _LARGE, share)
        known = questions_needed(PairedSpread(float((first - second).var())), difference)
        sizes, found = [], [0, 0]
        for trial in range(simulations):
            draw = np.random.default_rng((int(1000 * difference), trial))
            # Two earlier runs, between which there is no difference.
            one, other = shifted_pair(draw, 500, 0.0)
            earlier = one - other
            spread = PairedSpread(float(earlier.var(ddof=1)), float(earlier.mean()))
            sizes.append(questions_needed(spread, difference))
            for which, n in enumerate((known, sizes[-1])):
                ours, theirs = shifted_pair(draw, n, share)
                p = sign_flip_p_value(ours - theirs, seed=trial, resamples=resamples)
                found[which] += p <= LEVEL
        lines.append(
            f"| {difference:.2f} | {known:,} | {_percent(found[0] / simulations)} | "
            f"{np.mean(sizes):,.0f} ({min(sizes):,} to {max(sizes):,}) | "
            f"{_percent(found[1] / simulations)} |"
        )
    error = 100 * math.sqrt(0.8 * 0.2 / simulations)
    lines += [
        "",
        f"{simulations:,} simulations each: 80 % has a standard error of {error:.1f} points.",
    ]
    return "\n".join(lines)


def floor_table(simulations: int) -> str:
    """How often another pass over all questions stays within the numeric floor."""
    lines = [
        "| answers that can change | rows asked again | questions | within the floor |",
        "| --- | --- | --- | --- |",
    ]
    for share in (0.05, 0.4):
        for rows, n in ((50, 491), (100, 491), (300, 3610)):
            inside = 0
            for trial in range(simulations):
                draw = np.random.default_rng((int(100 * share), rows, trial))
                length, _ = _questions(draw, n, 0.3)
                # Near-ties: right with a chance in each pass; all others stay as they are.
                chance = np.where(draw.random(n) < share, draw.beta(2, 2, n), draw.random(n) < 0.3)
                first, other, again = (_recall(draw, length, chance) for _ in range(3))
                is_steady = (chance == 0) | (chance == 1)
                other, again = (np.where(is_steady, first, one) for one in (other, again))
                square = numeric_change(first[:rows], again[:rows]).mean_square
                inside += abs(other.mean() - first.mean()) <= numeric_floor(square, n)
            lines.append(f"| {share:.0%} | {rows} | {n:,} | {_percent(inside / simulations)} |")
    error = 100 * math.sqrt(0.05 * 0.95 / simulations)
    said = f"{simulations:,} simulations each: 95 % has a standard error of {error:.1f} points."
    return "\n".join([*lines, "", said])


def stopping_table(simulations: int, questions: int = 3610) -> str:
    """When runs end under `--until decided`, and how often wrongly."""
    lines = [
        "| data | true difference | margin | better | worse | no difference | asked | saved |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    shifts = [(0.0, 0.01), (0.0, 0.03), (0.02, 0.01), (0.05, 0.01), (0.10, 0.01), (0.30, 0.01)]
    cases: list[tuple[str, float, float, Callable[[np.random.Generator], Pair]]] = [
        (
            "token recall",
            difference,
            margin,
            partial(shifted_pair, n=questions, share=share_for(difference)),
        )
        for difference, margin in shifts
    ]
    cases += [
        (case.name, 0.0, 0.01, partial(case.draw, n=questions))
        for case in CASES
        if case.null and case.draw is not recall_pair
    ]
    for name, difference, margin, draw_pair in cases:
        asked, decisions = [], Counter[str | None]()
        for trial in range(simulations):
            ours, theirs = draw_pair(np.random.default_rng((int(1000 * difference), trial)))
            differences = paired_differences(ours, theirs)
            for n in looks_at(questions, 64):
                decision = confidence_sequence(differences[:n]).decision(margin)
                if decision:
                    break
            asked.append(n)
            decisions[decision] += 1
        shares = [
            _percent(decisions[one] / simulations) for one in ("better", "worse", "no difference")
        ]
        saved = _percent(1 - float(np.mean(asked)) / questions)
        lines.append(
            f"| {name} | {difference:.2f} | {margin:g} | {' | '.join(shares)} | "
            f"{np.mean(asked):,.0f} | {saved} |"
        )
    said = f"{simulations:,} simulations each, of {questions:,} questions."
    return "\n".join([*lines, "", said])


def looks_table(simulations: int, questions: int = 3610) -> str:
    """How often the true difference is ever left out, looked at after every question."""
    lines = ["| differences | true | ever left out |", "| --- | --- | --- |"]
    signs = np.array([-1.0, 0.0, 1.0])
    for name, values, shares in (
        ("0/1, as often up as down", signs, (0.15, 0.70, 0.15)),
        ("0/1, rare", signs, (0.01, 0.98, 0.01)),
        ("skewed", np.array([-0.1, 0.9]), (0.9, 0.1)),
        ("0/1, at the default margin", signs, (0.05, 0.89, 0.06)),
        ("0/1, small", signs, (0.10, 0.77, 0.13)),
        ("0/1, large", signs, (0.05, 0.40, 0.55)),
    ):
        true, left_out = float(values @ shares), 0
        for trial in range(simulations):
            draw = np.random.default_rng((trial, len(name)))
            found = draw.choice(values, questions, p=shares)
            # The sequence leaves it out where the capital that is bet against it reaches 20.
            gains = [
                np.cumsum(np.log1p(STAKES[:, None] * side * (found - true) / (1 + side * true)), 1)
                for side in (1, -1)
            ]
            capital = np.logaddexp.reduce(np.concatenate(gains)) - math.log(2 * len(STAKES))
            left_out += bool(capital.max() >= -math.log(LEVEL))
        lines.append(f"| {name} | {true:.2f} | {_percent(left_out / simulations)} |")
    said = f"{simulations:,} simulations each, of {questions:,} questions."
    return "\n".join([*lines, "", said])


def race_table(simulations: int, questions: int = 3610) -> str:
    """Which models a race drops, and how many questions it spares."""
    lines = [
        "| share right | order | best dropped | others dropped | asked |",
        "| --- | --- | --- | --- | --- |",
    ]
    fields = {
        "0.30, 0.30, 0.30, 0.30": (0.30,) * 4,
        "0.35, 0.30, 0.25, 0.20": (0.35, 0.30, 0.25, 0.20),
        "0.32, 0.31, 0.30, 0.29": (0.32, 0.31, 0.30, 0.29),
        "0.35, 0.30": (0.35, 0.30),
        "twelve of 0.30": (0.30,) * 12,
    }
    for named, shares in fields.items():
        for order in ("best first", "by chance", "best last"):
            best_dropped, dropped, asked = 0, 0, 0
            for trial in range(simulations):
                draw = np.random.default_rng((trial, len(order)))
                models = list(range(len(shares)))
                if order != "best first":
                    models = (
                        models[::-1] if order == "best last" else list(draw.permutation(models))
                    )
                chance = draw.beta(0.5, 0.5, questions)
                right = [(draw.random(questions) < _tilted(chance, one)) * 1.0 for one in shares]
                whole: list[int] = []
                for model in models:
                    n = questions
                    if whole:
                        best = max(whole, key=lambda one: float(right[one].mean()))
                        n = _raced(right[model] - right[best], len(shares))
                    asked += n
                    if n == questions:
                        whole.append(model)
                    elif shares[model] == max(shares):
                        best_dropped += 1
                    else:
                        dropped += 1
            n_best = shares.count(max(shares))
            others = len(shares) - n_best
            lines.append(
                f"| {named} | {order} | {_percent(best_dropped / simulations / n_best)} | "
                f"{_percent(dropped / simulations / others) if others else '-'} | "
                f"{_percent(asked / simulations / questions / len(shares))} |"
            )
    said = f"{simulations:,} simulations each, {questions:,} questions."
    return "\n".join([*lines, "", said])


def _tilted(chance: Values, share: float) -> Values:
    """Chances with this mean, hard questions being hard for all."""
    return chance * share / 0.5 if share <= 0.5 else 1 - (1 - chance) * (1 - share) / 0.5


def _raced(differences: Values, n_models: int) -> int:
    """Questions asked of a model that ends when it is behind."""
    for n in looks_at(len(differences), 64):
        # The confidence sequence is below 0 where this is so: capital is convex in the mean.
        seen = differences[:n]
        if seen.mean() < 0 and always_valid_p_value(seen) <= LEVEL / (n_models - 1):
            return n
    return len(differences)


def several_table(simulations: int, resamples: int) -> str:
    """Variance parts and intervals of runs with several answers, against the true ones."""
    lines = [
        "| questions | answers | between (0.16) | within (0.08) | s.e. / true | covered |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    # Beta(a, b) with mean 0.4 and variance 0.16; the answers to a question are 0/1 with its chance.
    a, b = 0.4 * 0.5, 0.6 * 0.5
    for n in (50, 200, 1000):
        for answers in (2, 5):
            found, covered = [], 0
            true_error = math.sqrt((0.16 + 0.08 / answers) / n)
            for trial in range(simulations):
                draw = np.random.default_rng((n, answers, trial))
                values = (draw.random((n, answers)) < draw.beta(a, b, (n, 1))) * 1.0
                means = values.mean(axis=1)
                parts = variance_parts(means, values.var(axis=1, ddof=1), answers)
                found.append((parts.between, parts.within, parts.stderr() / true_error))
                mean = estimate_mean(pl.Series(means), seed=trial, resamples=resamples)
                covered += mean.low <= 0.4 <= mean.high
            between, within, error = np.mean(found, axis=0)
            lines.append(
                f"| {n:,} | {answers} | {between:.4f} | {within:.4f} | {error:.3f} | "
                f"{_percent(covered / simulations)} |"
            )
    return "\n".join([*lines, "", f"{simulations:,} simulations each."])


def kappa_table(simulations: int) -> str:
    """Kappa of judges that know a share of the labels and guess the others, with its interval."""
    labels = read_labelled(SHIPPED)["label"].to_numpy()
    shares = np.array([(labels == grade).mean() for grade in GRADES])
    lines = [
        "| knows | rows | true kappa | mean | range | covered |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for knows in (1.0, 0.9, 0.6, 0.0):
        by_chance = float(shares @ (knows * shares + (1 - knows) / 3))
        true = (knows + (1 - knows) / 3 - by_chance) / (1 - by_chance)
        for n in (50, len(labels)):
            kappas, covered = [], 0
            for trial in range(simulations):
                draw = np.random.default_rng((int(100 * knows), n, trial))
                # Of any size: labels in the shares of the shipped ones.
                truth = labels if n == len(labels) else draw.choice(GRADES, n, p=shares)
                given = np.where(draw.random(n) < knows, truth, draw.choice(GRADES, n))
                found = agreement(truth.tolist(), given.tolist(), GRADES)
                kappas.append(found.kappa)
                covered += found.low <= true + 1e-12 and true - 1e-12 <= found.high
            lines.append(
                f"| {knows:.0%} | {n} | {true:.3f} | {np.mean(kappas):.3f} | "
                f"{min(kappas):.3f} to {max(kappas):.3f} | {_percent(covered / simulations)} |"
            )
    return "\n".join([*lines, "", f"{simulations:,} simulations each."])


def intervals_part(arguments: argparse.Namespace) -> str:
    """The table of tests and intervals."""
    figures = []
    for case in CASES:
        for n in arguments.sizes:
            started = time.perf_counter()
            figures.append(simulate(case, n, arguments.simulations, arguments.resamples))
            print(f"{figures[-1]} {time.perf_counter() - started:.0f} s", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(one) for one in figures], indent=2) + "\n")
    return markdown(figures, arguments.simulations)


PARTS: dict[str, Callable[[argparse.Namespace], str]] = {
    "intervals": intervals_part,
    "power": lambda given: power_table(given.simulations, given.resamples),
    "floor": lambda given: floor_table(given.simulations),
    "stopping": lambda given: stopping_table(given.simulations),
    "looks": lambda given: looks_table(given.simulations),
    "race": lambda given: race_table(given.simulations),
    "several": lambda given: several_table(given.simulations, given.resamples),
    "kappa": lambda given: kappa_table(given.simulations),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"some of {', '.join(PARTS)}")
    parser.add_argument("--simulations", type=int, default=2000)
    parser.add_argument("--resamples", type=int, default=1999)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()
    texts = []
    for part in arguments.parts or PARTS:
        if part not in PARTS:
            parser.error(f"there is no part {part}")
        started = time.perf_counter()
        texts.append(PARTS[part](arguments))
        print(f"{texts[-1]}\n{part}: {time.perf_counter() - started:.0f} s\n", flush=True)
    if arguments.markdown:
        arguments.markdown.write_text("\n\n".join(texts) + "\n")


if __name__ == "__main__":
    main()
