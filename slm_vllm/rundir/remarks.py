"""Remarks that qualify the figures of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slm_vllm.rundir.contents import Manifest
from slm_vllm.scoring.metrics import MAIN, METRICS


def remarks(manifest: Manifest, results: Mapping[str, Any]) -> list[str]:
    """All that there is to say of a finished run."""
    remarks = [_adopted(manifest), _unproven(manifest), stopped(results), repeated(results)]
    return list(filter(None, remarks))


def without_context(results: Mapping[str, Any]) -> int:
    """Questions whose prompt showed no passage, in a run whose mode shows some."""
    shows_some = results.get("uses_gold") or results.get("retriever")
    return results["counts"].get("without_passage", 0) if shows_some else 0


def was_stopped(results: Mapping[str, Any]) -> bool:
    """Whether a run ended before all its questions were asked, for what its figures were."""
    until = results.get("until")
    return until is not None and until["questions"] < until["of"]


def stopped(results: Mapping[str, Any]) -> str:
    """What a run found out that was to end when it knew."""
    until = results.get("until")
    if until is None:
        return ""
    low, high = until["interval"]
    side = {"better": "above", "worse": "below"}.get(until["decision"] or "")
    found = "not settled"
    if side:
        found = f"settled: {side} it"
    elif until["decision"]:
        found = f"settled: no difference beyond {until['margin']:g}"
    remark = (
        f"difference from {until['against']} {found}, after {until['questions']} of "
        f"{until['of']} questions ({METRICS[until['metric']].label} {_signed(until['difference'])} "
        f"[{low:+.3f}, {high:+.3f}] at {100 - 100 * until['level']:g} %, valid at any look)"
    )
    if was_stopped(results):
        remark += "; its other intervals take the number of questions as given and do not hold"
    return remark


def repeated(results: Mapping[str, Any]) -> str:
    """What came of the rows that were asked again."""
    check = results.get("repeat_check")
    if check is None or not check["rows"]:
        return ""
    low, high = check["changed_share"]["ci95"]
    text = (
        f"{check['changed']} of {check['rows']} answers were others when asked again one at a time "
        f"({100 * low:.0f} to {100 * high:.0f} %)"
    )
    floor = check["metrics"][MAIN]["floor"]
    if floor is None:
        return text
    return f"{text}, so numerics may move its {METRICS[MAIN].label} by up to {floor:.4f}"


def sampled(results: Mapping[str, Any]) -> str:
    """What several answers to each question came to."""
    found = results.get("sampling")
    if found is None:
        return ""
    label, vote = METRICS[MAIN].label, found["majority"][MAIN]["mean"]
    return (
        f"{found['answers']} answers to each question, of which {found['agreement']['mean']:.0%} "
        f"agree; the majority's {label} is {vote:.3f}"
    )


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.3f}"


def _unproven(manifest: Manifest) -> str:
    """Which servers were not seen to take the run's sampling."""
    proofs = manifest.get("engine", {}).get("sampling_proof", {})
    doubts = [f"{url}: {found}" for url, found in proofs.items() if found != "proven"]
    if not doubts:
        return ""
    return f"servers may have sampled in a way of their own ({'; '.join(doubts)})"


def _adopted(manifest: Manifest) -> str:
    """Where a run of earlier scripts is from."""
    about = manifest.get("adopted")
    if about is None:
        return ""
    before = about["token_recall"]
    text = (
        f"taken over from {about['from']} and rescored (token recall "
        f"{'-' if before is None else f'{before:.3f}'} there)"
    )
    if (own := about["rows"] - about["rows_of_dataset"]) > 0:
        text += f"; {own} of its questions are not in the dataset and keep their own ids"
    return f"{text}; unknown: {', '.join(about['unknown'])}"
