"""Natural Questions, raw and converted."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import polars as pl

from slm_vllm.datasets.file_dataset import FileDataset, NumberedFrame, SourceRow, in_frames
from slm_vllm.datasets.identity import content_id, document_id
from slm_vllm.datasets.pages.gold import gold_contexts, short_answers, title_from_url
from slm_vllm.datasets.pages.html import clean_text, has_tags, page_title
from slm_vllm.datasets.pages.tokens import PageTokens
from slm_vllm.datasets.reading.columnar import canonical_frames
from slm_vllm.datasets.reading.json_documents import JsonRow, array_rows, decode_lines
from slm_vllm.datasets.reading.lines import MAX_BATCH_BYTES, Line, line_batches
from slm_vllm.datasets.reading.records import find_layout, require_columns
from slm_vllm.datasets.rejects import EXCERPT_CHARACTERS
from slm_vllm.datasets.rows.values import (
    ValueProblem,
    first_of,
    require_key,
    text_of,
    texts_of,
    unique,
)
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
_NEEDED = ("question", "answer", "document_text")


class NqDataset(FileDataset):
    """Natural Questions with pages: `NQ-open.dev.merged.jsonl` (.gz, .zst) or a converted form.

    The page becomes the row's one document, the long answers its contexts. Converted forms are the
    JSON arrays and the Parquet file of `data prepare nq`. Which form it is shows in the content.
    """

    kind = "nq"

    def frames(self, batch_size: int, with_documents: bool) -> Iterator[NumberedFrame]:
        """See `FileDataset.frames`."""
        layout = find_layout(self.path)
        if layout.form == "parquet":
            yield from canonical_frames(self.path, layout, batch_size, with_documents)
            return
        require_columns(self.path, layout, ("question",), ("answer",))
        converted = "long_context" in layout.columns or "context" in layout.columns
        if not converted:
            require_columns(self.path, layout, ("document_text",))
        read = self._converted_rows if converted else self._raw_rows
        yield from in_frames(
            read(layout.form, with_documents),
            batch_size,
            MAX_BATCH_BYTES,
        )

    def _raw_rows(self, form: str, with_documents: bool) -> Iterator[SourceRow]:
        for row, line in self._raw_objects(form):
            try:
                yield _raw_row(row, line, with_documents)
            except ValueProblem as problem:
                self._reject(row, problem)

    def _raw_objects(self, form: str) -> Iterator[tuple[JsonRow, Line | None]]:
        """Yields decoded rows, each with its line where that holds more keys than were decoded."""
        if form == "json":
            for row in array_rows(self.path, self.reject):
                yield row, None
            return
        for batch in line_batches(self.path, self.reject, max_bytes=_DECODED_BYTES):
            by_number = {line.number: line for line in batch}
            for row in decode_lines(self.path, batch, self.reject, _RAW):
                yield row, by_number[row.line]

    def _converted_rows(self, form: str, with_documents: bool) -> Iterator[SourceRow]:
        for row in self._converted_objects(form):
            try:
                yield _converted_row(row, with_documents)
            except ValueProblem as problem:
                self._reject(row, problem)

    def _converted_objects(self, form: str) -> Iterator[JsonRow]:
        if form == "json":
            yield from array_rows(self.path, self.reject, ("train", "eval"))
            return
        for batch in line_batches(self.path, self.reject):
            yield from decode_lines(self.path, batch, self.reject)

    def _reject(self, row: JsonRow, problem: ValueProblem) -> None:
        excerpt = str(row.value.get("question") or "")[:EXCERPT_CHARACTERS]
        self.reject(RejectedRow(self.path, row.line, str(problem), excerpt))


def _raw_row(row: JsonRow, line: Line | None, with_documents: bool) -> SourceRow:
    value = row.value
    if any(value.get(key) is None for key in _NEEDED):
        whole = value if line is None else json.loads(line.text)
        for key in _NEEDED:
            require_key(whole, (key,))
    page = text_of(value["document_text"], "document_text")
    url = text_of(value.get("document_url"), "document_url")
    tokens = PageTokens(page)
    annotations = _annotations(value.get("annotations"))

    def candidates() -> Sequence[Mapping[str, Any]]:
        whole = value if line is None else json.loads(line.text)
        offered = whole.get("long_answer_candidates")
        return offered if isinstance(offered, list) else []

    try:
        contexts = gold_contexts(tokens, annotations, candidates)
        shorts = short_answers(tokens, annotations)
    except (TypeError, AttributeError) as error:
        raise ValueProblem(f"wrong type within 'annotations': {error}") from error
    title = page_title(page) or title_from_url(url)
    page = clean_text(page) if with_documents else ""
    return _row(row.line, value.get("example_id"), value, (url, title, page), contexts, shorts)


def _annotations(value: Any) -> list[Mapping[str, Any]]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise ValueProblem("'annotations' is not a list")
    return [annotation for annotation in value if annotation is not None]


def _converted_row(row: JsonRow, with_documents: bool) -> SourceRow:
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
    return _row(row.line, name, value, (url, title, page), contexts, shorts)


def _row(
    line: int,
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
        line=line,
        question_id=text_of(name, "id") or content_id("nq", question, url),
        question=question,
        answers=texts_of(first_of(value, ("answer", "answers")), "answer"),
        contexts=contexts,
        documents=documents,
        metadata={"url": url, "title": title, "short_answers": shorts},
    )
