"""The parts of the page that answer: verdicts, paired differences, destroyed answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from slm_vllm.reporting.cautions import cautions
from slm_vllm.reporting.context_effect import ContextEffect
from slm_vllm.reporting.estimates import estimate_text, p_text
from slm_vllm.reporting.harm import CAUSES, Harm
from slm_vllm.reporting.html_table import table
from slm_vllm.reporting.pairing import SIGNIFICANCE, DatasetPairs, Pair
from slm_vllm.reporting.plain_text import escaped
from slm_vllm.reporting.verdicts import Verdict, verdicts
from slm_vllm.scoring.metrics import MAIN, METRICS

# More than this does not fit the first screen.
_MOST_VERDICTS = 8
_MOST_LIMITS = 6


def verdict_section(datasets: Sequence[DatasetPairs]) -> str:
    """The verdicts in words, and what cannot be said; empty for runs with nothing to compare."""
    found, limits = verdicts(datasets), cautions(datasets)
    parts = []
    if found:
        parts.append(f'<ul class="verdicts">{_listed(found[:_MOST_VERDICTS])}</ul>')
        if more := found[_MOST_VERDICTS:]:
            parts.append(
                f"<details><summary>{len(more)} more</summary>"
                f'<ul class="verdicts">{_listed(more)}</ul></details>'
            )
        parts.append(
            f'<p class="fine">{escaped(METRICS[MAIN].label)} paired by question, 95 % bootstrap '
            f"intervals. Clear: p below {SIGNIFICANCE} in a sign-flip permutation test, Holm-"
            "corrected over all pairs of this page. Other metrics are named where they say "
            "something else. Bound: an oracle run is given the right passage, so it is a limit and "
            "no rival.</p>"
        )
    if limits:
        listed = "".join(f"<li>{escaped(text)}</li>" for text in limits)
        noted = any(dataset.notes for dataset in datasets)
        is_open = " open" if noted or (found and len(limits) <= _MOST_LIMITS) else ""
        parts.append(
            f'<details class="limits"{is_open}><summary>What cannot be said ({len(limits)})'
            f'</summary><ul class="notes">{listed}</ul></details>'
        )
    return "".join(parts)


def _listed(found: Iterable[Verdict]) -> str:
    return "".join(
        f'<li><b class="kind {one.kind}">{one.kind}</b> <div>{escaped(one.text)}'
        f"{_members(one)}</div></li>"
        for one in found
    )


def _members(verdict: Verdict) -> str:
    if not verdict.members:
        return ""
    listed = f'<ul class="verdicts">{_listed(verdict.members)}</ul>'
    return f"<details><summary>each of the {len(verdict.members)}</summary>{listed}</details>"


def differences_section(datasets: Sequence[DatasetPairs]) -> str:
    """Paired differences, and what context did."""
    parts = []
    for dataset in datasets:
        suffix = f" on {dataset.dataset}" if len(datasets) > 1 else ""
        if dataset.pairs:
            parts.append(_pairs_table(dataset.pairs, suffix))
        if dataset.effects:
            parts.append(_effects_table(dataset.effects, suffix))
    return "".join(parts)


def _pairs_table(pairs: Sequence[Pair], suffix: str) -> str:
    rows = []
    for pair in pairs:
        paired = pair.paired
        rows.append(
            [
                pair.run.run.name,
                pair.against.run.name,
                f"{estimate_text(paired.difference, signed=True)}{'*' * paired.is_always_valid}",
                p_text(paired.p_value),
                p_text(pair.p_holm),
                f"{paired.wins:,}",
                f"{paired.ties:,}",
                f"{paired.losses:,}",
                f"{paired.difference.n:,}",
            ]
        )
    return table(
        ["run", "against", "difference", "p", "p (Holm)", "better", "equal", "worse", "n"],
        rows,
        caption=f"Paired differences in {METRICS[MAIN].label}{suffix}{_valid(pairs)}",
        text_columns={"run", "against"},
        tools="differences",
    )


def _valid(pairs: Sequence[Pair]) -> str:
    if not any(pair.paired.is_always_valid for pair in pairs):
        return ""
    return "; *: a run was stopped at its figures, so interval and p are those valid at any look"


def _effects_table(effects: Sequence[ContextEffect], suffix: str) -> str:
    rows = []
    for effect in effects:
        gap, mark = "-", "*" * effect.is_always_valid
        if effect.oracle_gap is not None:
            gap = f"{estimate_text(effect.oracle_gap, signed=True)}{mark}"
        if not effect.changes:
            rows.append([effect.run, "all", *["-"] * 5, gap])
        for change in effect.changes:
            rows.append(
                [
                    effect.run,
                    change.questions,
                    f"{estimate_text(change.gain, signed=True)}{mark}",
                    f"{change.right_closed_book:,}",
                    f"{change.destroyed:,}",
                    f"{change.gained:,}",
                    f"{change.n:,}",
                    gap if change.questions == "all" else "-",
                ]
            )
    return table(
        [
            "run", "questions", "gain over closed book", "right closed book", "destroyed",
            "gained", "n", "oracle gap",
        ],
        rows,
        caption=f"What context did{suffix}; hit: a passage with an answer went into the prompt",
        text_columns={"run", "questions"},
        tools="context",
    )  # fmt: skip


def harm_section(harms: Sequence[Harm]) -> str:
    """How many answers context destroyed, by cause; the script lists them under it."""
    if not harms:
        return ""
    shown = [cause for cause in CAUSES if any(harm.counts.get(cause) for harm in harms)]
    rows = [
        [
            harm.run,
            f"{harm.right_closed_book:,}",
            f"{len(harm.rows):,}",
            *(f"{harm.counts.get(cause, 0):,}" for cause in shown),
            f"{harm.gained:,}",
        ]
        for harm in harms
    ]
    counted = table(
        ["run", "right closed book", "destroyed", *(CAUSES[cause] for cause in shown), "gained"],
        rows,
        caption="Answers that were right closed book and are not with context, by cause",
        text_columns={"run"},
        tools="destroyed",
    )
    return (
        f'{counted}<div id="harm-lists"></div><p class="fine">The first cause that applies: cut '
        "off, where the answer ended at its limit and the closed-book one did not, or a passage "
        "with the answer did not fit; then no passage of the prompt holds an expected answer; then "
        "the prediction stands in a passage that holds none; else a passage held the answer and "
        "it was not used. Whether a passage supports an answer is more than whether it holds its "
        "words.</p>"
    )
