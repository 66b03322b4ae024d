"""Relevance judgements (qrels) in the layouts of trec_eval and BEIR."""

from __future__ import annotations

from collections.abc import Iterator

from slm_vllm.datasets.reading.lines import Line, line_batches
from slm_vllm.datasets.reading.record import ignore
from slm_vllm.errors import DataError

_HEADER = ("query-id", "corpus-id")


def read_qrels(path: str) -> dict[str, dict[str, int]]:
    """Reads grades by question and document.

    Args:
        path: Lines of question, iteration, document, grade (TREC), or of question, document,
            grade under a header (BEIR); packed or not.

    Raises:
        DataError: The file is missing or damaged, or a line is of neither form.
    """
    found: dict[str, dict[str, int]] = {}
    for line in _lines(path):
        fields = line.text.split()
        if line.number == 1 and tuple(fields[:2]) == _HEADER:
            continue
        try:
            question, *_, document, grade = fields
            # BEIR's grades are whole numbers, in some files written as 1.0.
            found.setdefault(question, {})[document] = int(float(grade))
        except (ValueError, OverflowError):
            raise DataError(
                f"{path}, line {line.number}: not a judgement (question, iteration, document, "
                f"grade): {line.text[:80]!r}"
            ) from None
        if len(fields) not in (3, 4):
            raise DataError(f"{path}, line {line.number}: {len(fields)} fields, not 3 or 4")
    return found


def _lines(path: str) -> Iterator[Line]:
    for batch in line_batches(path, ignore):
        yield from batch
