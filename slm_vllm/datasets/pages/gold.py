"""Gold contexts of a Natural Questions page, found by token offsets."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from slm_vllm.datasets.pages.html import clean_text
from slm_vllm.datasets.pages.tokens import PageTokens
from slm_vllm.datasets.rows.values import unique

_BLOCK = re.compile(r"<(/?)(P|Li|Tr|Dd|Dt|H[1-6])(?:_[^>]*)?>", re.IGNORECASE)
_WINDOW = 100  # tokens on either side of an answer that stands in no block

Span = tuple[int, int]


def gold_contexts(
    tokens: PageTokens,
    annotations: Sequence[Mapping[str, Any]],
    candidates: Callable[[], Sequence[Mapping[str, Any]]],
) -> list[str]:
    """Gives the long answers of a page, without tags and repetitions.

    The slice is taken first and the tags are removed from it then, because the offsets count them.

    Args:
        tokens: The tokens of the page, tags included.
        annotations: The row's annotations.
        candidates: Gives `long_answer_candidates`; called only when an annotation has a
            candidate_index and no offsets of its own.

    Returns:
        One text for each long answer. Where there is none, the paragraph, list item or table row
        around each short answer.
    """
    spans = [_long_answer(annotation, candidates) for annotation in annotations]
    found = [span for span in spans if span is not None and span[1] <= len(tokens)]
    contexts = _texts(tokens, found)
    if contexts:
        return contexts
    shorts = _short_spans(annotations, len(tokens))
    return _texts(tokens, [_around(tokens, *span) for span in shorts])


def short_answers(tokens: PageTokens, annotations: Sequence[Mapping[str, Any]]) -> list[str]:
    """Gives the texts of the short answers, without tags and repetitions."""
    return _texts(tokens, _short_spans(annotations, len(tokens)))


def title_from_url(url: str) -> str:
    """Gives "Oak Island" for ".../index.php?title=Oak_Island&oldid=1" and ".../wiki/Oak_Island"."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    named = parse_qs(parts.query).get("title")
    name = named[0] if named else unquote(parts.path.rsplit("/", 1)[-1])
    return name.replace("_", " ").strip()


def _texts(tokens: PageTokens, spans: Sequence[Span]) -> list[str]:
    return unique(clean_text(tokens.text(start, end)) for start, end in spans)


def _long_answer(
    annotation: Mapping[str, Any], candidates: Callable[[], Sequence[Mapping[str, Any]]]
) -> Span | None:
    answer = annotation.get("long_answer") or {}
    index = answer.get("candidate_index")
    if index is not None and index < 0:
        return None
    span = _span(answer)
    if span is None and index is not None:
        offered = candidates()
        span = _span(offered[index]) if index < len(offered) else None
    return span


def _short_spans(annotations: Sequence[Mapping[str, Any]], n_tokens: int) -> list[Span]:
    answers = (answer for row in annotations for answer in row.get("short_answers") or [])
    spans = (_span(answer) for answer in answers if answer)
    return [span for span in spans if span is not None and span[1] <= n_tokens]


def _span(offsets: Mapping[str, Any]) -> Span | None:
    start, end = offsets.get("start_token"), offsets.get("end_token")
    if start is None or end is None or not 0 <= start < end:
        return None
    return start, end


def _around(tokens: PageTokens, start: int, end: int) -> Span:
    """Finds the smallest block around a span; a window of tokens where there is none."""
    for left in range(start, -1, -1):
        match = _BLOCK.fullmatch(tokens[left])
        if match is not None and not match[1]:
            right = _closing(tokens, match[2].lower(), left)
            if right >= end:
                return left, right
    return max(0, start - _WINDOW), min(len(tokens), end + _WINDOW)


def _closing(tokens: PageTokens, name: str, left: int) -> int:
    """Finds the end of the block that opens at `left`; 0 if it is never closed."""
    depth = 0
    for at in range(left, len(tokens)):
        match = _BLOCK.fullmatch(tokens[at])
        if match is not None and match[2].lower() == name:
            depth += -1 if match[1] else 1
            if depth == 0:
                return at + 1
    return 0
