"""Natural Questions, raw and converted."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import Any, NamedTuple

import polars as pl

from slm_vllm.datasets.file_dataset import FileDataset, require_columns
from slm_vllm.datasets.frames import NumberedFrame, SourceRow, in_frames
from slm_vllm.datasets.identity import content_id, document_id
from slm_vllm.datasets.pages.gold import gold_contexts, short_answers, title_from_url
from slm_vllm.datasets.pages.html import clean_text, has_tags, page_title
from slm_vllm.datasets.pages.tokens import PageTokens
from slm_vllm.datasets.reading.json_lines import decode_lines
from slm_vllm.datasets.reading.lines import MAX_BATCH_BYTES, Line, line_batches
from slm_vllm.datasets.reading.record import Place, Record
from slm_vllm.datasets.reading.records import Form
from slm_vllm.datasets.rows.values import (
    ValueProblem,
    answers_of,
    first_of,
    require_key,
    text_of,
    texts_of,
    unique,
)
from slm_vllm.parallel import Workers, usable_cores
from slm_vllm.types import RejectedRow

_OFFSETS = {"start_token": pl.Int64, "end_token": pl.Int64}
_ANNOTATION = pl.Struct(
    {
        "long_answer": pl.Struct({**_OFFSETS, "candidate_index": pl.Int64}),
        "short_answers": pl.List(pl.Struct(_OFFSETS)),
    }
)
# Without long_answer_candidates: a page has hundreds, and nearly no row needs them.
_RAW = pl.Struct(
    {
        "question": pl.String,
        "answer": pl.List(pl.String),
        "document_text": pl.String,
        "document_url": pl.String,
        "example_id": pl.String,
        "annotations": pl.List(_ANNOTATION),
    }
)
_DECODED_BYTES = 1 << 20  # at a time: more leave the processor's cache, and take longer
_CORES_PAY_BYTES = 16 << 20  # processes are there after half a second
_MOST_WORKERS = 8  # what one process can read, take over and write is less
_NEEDED = ("question", "answer", "document_text")


class NqDataset(FileDataset):
    """Natural Questions with pages: `NQ-open.dev.merged.jsonl` (.gz, .zst) or a converted form.

    The page becomes the row's one document, the long answers its contexts. Converted forms are the
    JSON arrays and the Parquet file of `data prepare nq`. Which form it is shows in the content.
    """

    kind = "nq"
    _converted = False

    def check_columns(self, path: str, form: Form) -> None:
        """See `FileDataset.check_columns`."""
        require_columns(path, form, ("question",), ("answer",))
        self._converted = "long_context" in form.columns or "context" in form.columns
        if not self._converted:
            require_columns(path, form, ("document_text",))

    def records(self, path: str, form: Form, with_documents: bool) -> Iterator[Record]:
        """See `FileDataset.records`; raw lines are decoded in part."""
        if self._converted or form.name != "jsonl":
            yield from super().records(path, form, with_documents)
            return
        for batch in line_batches(path, self.reject, max_bytes=_DECODED_BYTES):
            yield from decode_lines(path, batch, self.reject, _RAW)

    def frames(
        self, path: str, form: Form, batch_size: int, with_documents: bool
    ) -> Iterator[NumberedFrame]:
        """See `FileDataset.frames`; where many pages are to be cleaned, on all cores."""
        if self._converted or form.name != "jsonl" or not with_documents or usable_cores() == 1:
            return super().frames(path, form, batch_size, with_documents)
        return in_frames(self._rows_of_all_cores(path), batch_size, MAX_BATCH_BYTES)

    def _rows_of_all_cores(self, path: str) -> Iterator[SourceRow]:
        lots = _lots(path)
        size = 0
        for lot in lots:
            yield from self._admitted(_outcomes(path, lot))
            size += sum(len(line.text) for line in lot.lines)
            if size > _CORES_PAY_BYTES:
                break
        else:
            return
        workers = Workers(partial(_outcomes, path), min(usable_cores(), _MOST_WORKERS))
        with closing(workers.map(lots)) as results:
            for outcomes in results:
                yield from self._admitted(outcomes)

    def _admitted(self, outcomes: list[SourceRow | RejectedRow]) -> Iterator[SourceRow]:
        for outcome in outcomes:
            if isinstance(outcome, RejectedRow):
                self.reject(outcome)
            else:
                yield outcome

    def row(self, record: Record, with_documents: bool) -> SourceRow:
        """See `FileDataset.row`."""
        make = _converted_row if self._converted else _raw_row
        return make(record, with_documents)


class _Lot(NamedTuple):
    """Some lines of a file, and those before them that cannot be decoded."""

    rejected: list[RejectedRow]
    lines: list[Line]


def _lots(path: str) -> Iterator[_Lot]:
    rejected: list[RejectedRow] = []
    for lines in line_batches(path, rejected.append, max_bytes=_DECODED_BYTES):
        yield _Lot(rejected.copy(), lines)
        rejected.clear()
    if rejected:
        yield _Lot(rejected, [])


def _outcomes(path: str, lot: _Lot) -> list[SourceRow | RejectedRow]:
    """What becomes of some raw lines, in the order in which they are read and reported."""
    found: list[SourceRow | RejectedRow] = list(lot.rejected)
    dataset = NqDataset(path, on_reject=found.append)
    records = decode_lines(path, lot.lines, found.append, _RAW)
    for row in dataset.rows_of(path, records, with_documents=True):
        # Not `extend`: rejected ones come in between.
        found.append(row)  # noqa: PERF402
    return found


def _raw_row(row: Record, with_documents: bool) -> SourceRow:
    value = row.value
    if any(value.get(key) is None for key in _NEEDED):
        whole = json.loads(row.text) if row.text else value
        for key in _NEEDED:
            require_key(whole, (key,))
    page = text_of(value["document_text"], "document_text")
    url = text_of(value.get("document_url"), "document_url")
    tokens = PageTokens(page)
    annotations = _annotations(value.get("annotations"))

    def candidates() -> Sequence[Mapping[str, Any]]:
        whole = json.loads(row.text) if row.text else value
        offered = whole.get("long_answer_candidates")
        return offered if isinstance(offered, list) else []

    try:
        contexts = gold_contexts(tokens, annotations, candidates)
        shorts = short_answers(tokens, annotations)
    except (TypeError, AttributeError) as error:
        raise ValueProblem(f"wrong type within 'annotations': {error}") from error
    title = page_title(page) or title_from_url(url)
    page = clean_text(page) if with_documents else ""
    return _row(row.place, value.get("example_id"), value, (url, title, page), contexts, shorts)


def _annotations(value: Any) -> list[Mapping[str, Any]]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise ValueProblem("'annotations' is not a list")
    return [annotation for annotation in value if annotation is not None]


def _converted_row(row: Record, with_documents: bool) -> SourceRow:
    value = row.value
    require_key(value, ("question",))
    require_key(value, ("answer", "answers"))
    shorts = texts_of(value.get("short_context"), "short_context")
    contexts = texts_of(value.get("long_context"), "long_context") or shorts
    page = text_of(value.get("context"), "context")
    url = text_of(value.get("url"), "url")
    title = text_of(value.get("title"), "title") or title_from_url(url)
    name = first_of(value, ("id", "example_id", "question_id"))
    # Files of other converters may have kept the tags.
    contexts = unique(clean_text(text) if has_tags(text) else text for text in contexts)
    if not with_documents:
        page = ""
    elif has_tags(page):
        page = clean_text(page)
    return _row(row.place, name, value, (url, title, page), contexts, shorts)


def _row(
    place: Place,
    name: Any,
    value: Mapping[str, Any],
    source: tuple[str, str, str],
    contexts: list[str],
    shorts: list[str],
) -> SourceRow:
    """Puts together what raw and converted rows have in common; `source` is URL, title, page.

    An empty page gives no document.
    """
    url, title, page = source
    question = text_of(value.get("question"), "question")
    documents = []
    if page:
        name_of_page = document_id(url, title, page)
        documents.append({"document_id": name_of_page, "title": title, "text": page})
    return SourceRow(
        place=place,
        question_id=text_of(name, "id") or content_id("nq", question, url),
        question=question,
        answers=answers_of(first_of(value, ("answer", "answers")), "answer"),
        contexts=contexts,
        documents=documents,
        metadata={"url": url, "title": title, "short_answers": shorts},
    )
