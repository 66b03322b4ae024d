"""Gold contexts and documents of a question, in the shapes of public files."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from slm_vllm.datasets.identity import document_id
from slm_vllm.datasets.rows.literals import literal
from slm_vllm.datasets.rows.values import Document, ValueProblem, first_of, kind_of, text_of

_TEXT = (
    "text", "content", "context", "contents", "contexts", "paragraph_text", "passage_text",
    "passage", "body", "wiki_context", "search_context", "sentences", "paragraph", "description",
    "Description",
)  # fmt: skip
_TITLE = ("title", "Title", "wikipedia_title", "page_title")
_ID = ("document_id", "id", "_id", "docid", "doc_id", "psg_id", "passage_id", "pid")
_URL = ("url", "Url")
_ELSEWHERE = ("filename", "Filename")
_GOLD = ("is_supporting", "isgold", "is_gold", "is_selected", "gold")


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A text beside a question.

    Attributes:
        text: Without its title.
        title: Of its page, may be empty.
        url: Of its page, may be empty.
        name: Its id in the file, may be empty.
        gold: Whether the file says that it holds the answer; None where it says nothing.
    """

    text: str
    title: str = ""
    url: str = ""
    name: str = ""
    gold: bool | None = None

    @property
    def context(self) -> str:
        """The text as a prompt shows it: below its title where the layout parts the two."""
        return f"{self.title}\n{self.text}" if self.title else self.text

    @property
    def document(self) -> Document:
        """The text as a retriever searches it; without an id it gets one from its content."""
        name = self.name or document_id(self.url, self.title, self.text)
        return {"document_id": name, "title": self.title, "text": self.text}


def holds_text(value: Mapping[str, Any]) -> bool:
    """Whether one of the keys is a known name of a paragraph's text."""
    return any(name in value for name in _TEXT)


def paragraphs_of(value: Any, key: str, lose: Callable[[str], object]) -> list[Paragraph]:
    """Gives the paragraphs of a field; blank ones are left out.

    Understood are a text; an object with a text; [title, sentences] (HotpotQA); an object of
    parallel lists (its Hugging Face form); lists of such; and all these written into a text.

    Args:
        value: What the field holds.
        key: Its name, for messages.
        lose: Told why, for each item that is of no use.
    """
    found = []
    for item in _items(value):
        try:
            paragraph = _paragraph(item, key)
        except ValueProblem as problem:
            lose(str(problem))
        else:
            if paragraph is not None:
                found.append(paragraph)
    return found


def supporting_titles(value: Any) -> set[str]:
    """The titles of `supporting_facts`: [[title, sentence], ...], or an object of lists."""
    if isinstance(value, str):
        value = literal(value)
    if isinstance(value, Mapping):
        titles = value.get("title")
        return {str(title) for title in titles} if isinstance(titles, list) else set()
    if not isinstance(value, list):
        return set()
    return {str(fact[0]) for fact in value if isinstance(fact, list) and fact}


def _items(value: Any) -> Iterator[Any]:
    if isinstance(value, str):
        found = literal(value)
        value = (
            found if isinstance(found, list) or (found and isinstance(found, Mapping)) else value
        )
    if isinstance(value, Mapping):
        yield from _parallel(value)
    elif isinstance(value, (list, tuple)) and not _is_titled(value):
        yield from value
    else:
        yield value


def _parallel(value: Mapping[str, Any]) -> Iterator[Any]:
    """Takes {"title": [a, b], "text": [c, d]} apart; other objects are one item."""
    named = [name for name in _TEXT if isinstance(value.get(name), list)]
    titles = first_of(value, _TITLE)
    if not named or isinstance(titles, str):
        yield value
        return
    if named == ["sentences"] and titles is None and _all_texts(value["sentences"]):
        yield value
        return
    for at in range(max(len(value[name]) for name in named)):
        yield {
            name: column[at]
            for name, column in value.items()
            if isinstance(column, list) and at < len(column)
        }


def _is_titled(value: Any) -> bool:
    """Whether a list is one paragraph of HotpotQA: [title, [sentence, ...]]."""
    return (
        isinstance(value, (list, tuple))
        and len(value) == 2
        and isinstance(value[0], str)
        and isinstance(value[1], (list, tuple))
        and _all_texts(value[1])
    )


def _all_texts(values: Iterable[Any]) -> bool:
    return all(isinstance(value, str) for value in values)


def _paragraph(item: Any, key: str) -> Paragraph | None:
    if item is None or (isinstance(item, float) and math.isnan(item)):
        return None
    if _is_titled(item):
        text = _joined(item[1])
        return Paragraph(text, item[0]) if text else None
    if not isinstance(item, Mapping):
        text = text_of(item, key)
        return Paragraph(text) if text.strip() else None
    name = next((name for name in _TEXT if item.get(name) not in (None, "")), None)
    if name is None:
        if not item or any(known in item for known in (*_TEXT, *_ELSEWHERE)):
            return None  # blank, or in a file of its own
        raise ValueProblem(f"{key!r} holds {kind_of(item)}, and no text under a known one")
    found = item[name]
    text = _joined(found) if isinstance(found, list) and _all_texts(found) else text_of(found, key)
    if not text.strip():
        return None
    title = text_of(first_of(item, _TITLE), key)
    if name == "contents" and not title and "\n" in text:
        first, _, text = text.partition("\n")  # FlashRAG: the title in quotes, then the text
        title = first.strip().strip('"')
    gold = first_of(item, _GOLD)
    return Paragraph(
        text,
        title,
        text_of(first_of(item, _URL), key),
        text_of(first_of(item, _ID), key),
        None if gold is None else gold in (True, 1, "1", "true", "True"),
    )


def _joined(sentences: Iterable[str]) -> str:
    return " ".join(sentence.strip() for sentence in sentences if sentence.strip())
