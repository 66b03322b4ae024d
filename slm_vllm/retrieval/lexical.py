"""Words, and how often each occurs in each passage."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from slm_vllm.durable import write_text
from slm_vllm.errors import MissingExtraError
from slm_vllm.parallel import in_order, usable_cores
from slm_vllm.retrieval.passage_store import PassageStore
from slm_vllm.scoring.normalize import WORDS_VERSION, is_unusual, words

# What indexes of version 1 hold the words of.
_WORDS_1 = r"[\p{Han}\p{Hiragana}\p{Katakana}]|[\w--[\p{Han}\p{Hiragana}\p{Katakana}]]+"
_CHECKED = "words.json"
_BATCH = 10_000

Stopwords = Literal["none", "english"]
Stemmer = Literal["none", "english"]

# Lucene's English stop words (EnglishAnalyzer.ENGLISH_STOP_WORDS_SET).
ENGLISH_STOPWORDS = (
    "a an and are as at be but by for if in into is it no not of on or such that the their then "
    "there these they this to was will with"
).split()


@dataclass(frozen=True, slots=True)
class Analyzer:
    """How a text becomes words. The same for passages and questions.

    Attributes:
        stopwords: `english` leaves out the 33 stop words of Lucene.
        stemmer: `english` cuts words to Snowball stems (needs PyStemmer).
    """

    stopwords: Stopwords = "none"
    stemmer: Stemmer = "none"

    def words(self, texts: Sequence[str]) -> pl.Series:
        """A list of words for each text, as `scoring.normalize.words` finds them."""
        return words(pl.Series("words", texts, dtype=pl.String))

    def _filtered(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Applies stop words and stems to the column `word` of a frame with one word per row."""
        if self.stopwords == "english":
            frame = frame.filter(~pl.col("word").is_in(ENGLISH_STOPWORDS))
        if self.stemmer == "english":
            words = frame["word"].unique(maintain_order=True)
            stems = pl.Series("word", self._stem(words.to_list()), dtype=pl.String)
            frame = frame.with_columns(pl.col("word").replace_strict(words, stems))
        return frame

    def exploded(self, texts: Sequence[str]) -> pl.DataFrame:
        """One row for each word: `row` (int32, position of the text) and `word`."""
        rows = pl.Series("row", np.arange(len(texts), dtype=np.int32))
        frame = pl.DataFrame({"row": rows, "word": self.words(texts)})
        exploded = frame.filter(pl.col("word").list.len() > 0).explode("word")
        return self._filtered(exploded)

    def _stem(self, words: list[str]) -> list[str]:
        try:
            from Stemmer import Stemmer as Snowball  # type: ignore[import-not-found,unused-ignore]
        except ImportError:
            raise MissingExtraError("PyStemmer", "retrieval", "retriever.options.stemmer") from None
        return list(Snowball("english").stemWords(words))


@dataclass(frozen=True, slots=True)
class TermCounts:
    """Occurrences in a batch of passages, ordered by term, then passage.

    Attributes:
        terms: The distinct words of the batch.
        term: int64 (n,), position in `terms`.
        passage: int32 (n,), position of the passage in the batch.
        count: float32 (n,), occurrences of the term in the passage.
        lengths: int64 (n_passages,), words in each passage.
    """

    terms: pl.Series
    term: NDArray[np.int64]
    passage: NDArray[np.int32]
    count: NDArray[np.float32]
    lengths: NDArray[np.int64]


def words_identity(passages: PassageStore) -> dict[str, int]:
    """What the words of passages add to the fingerprint of an index of them.

    Nothing where they are those of version 1, so that indexes of most corpora, and the answers
    given by them, stay valid.
    """
    return {"words": WORDS_VERSION} if _differs_from_version_1(passages) else {}


def _differs_from_version_1(passages: PassageStore) -> bool:
    known = passages.folder / _CHECKED
    try:
        checked = json.loads(known.read_text("utf-8"))
        if checked["words"] == WORDS_VERSION:
            return bool(checked["differs"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    n = len(passages)
    spans = ((low, min(low + _BATCH, n)) for low in range(0, n, _BATCH))
    threads = usable_cores()
    found = in_order(
        ThreadPoolExecutor(threads), lambda span: _differ(passages.texts(*span)), spans, 2 * threads
    )
    with closing(found):
        differs = any(found)
    with contextlib.suppress(OSError):  # a store that cannot be written is checked each time
        write_text(known, json.dumps({"words": WORDS_VERSION, "differs": differs}))
    return differs


def _differ(texts: Sequence[str]) -> bool:
    special = pl.Series("words", [text for text in texts if not text.isascii()], dtype=pl.String)
    special = special.filter(is_unusual(special))  # the words of others are the same in both
    before = special.str.normalize("NFKC").str.to_lowercase().str.extract_all(_WORDS_1)
    return not before.equals(words(special))


def count_terms(texts: Sequence[str], analyzer: Analyzer) -> TermCounts:
    """Counts the words of a batch of passages."""
    rows = analyzer.exploded(texts)
    lengths = np.bincount(rows["row"].to_numpy(), minlength=len(texts))
    terms = rows["word"].unique().sort()
    places = pl.DataFrame({"word": terms, "term": np.arange(len(terms), dtype=np.int64)})
    coded = rows.join(places, on="word", how="left")
    # One number for term and passage: sorting it orders and groups by both at once.
    span = max(len(texts), 1)
    keys = np.sort(coded["term"].to_numpy() * span + coded["row"].to_numpy())
    first = np.flatnonzero(np.diff(keys, prepend=-1))
    counts = np.diff(np.append(first, len(keys)))
    term, passage = np.divmod(keys[first], span)
    return TermCounts(
        terms, term, passage.astype(np.int32), counts.astype(np.float32), lengths.astype(np.int64)
    )


@dataclass(frozen=True, slots=True)
class QueryTerms:
    """Known words of a batch of questions.

    Attributes:
        pointers: int64 (n_questions + 1,), where each question's terms begin.
        terms: int64 (n,), positions in the vocabulary, each once per question.
        counts: float32 (n,), occurrences in the question.
    """

    pointers: NDArray[np.int64]
    terms: NDArray[np.int64]
    counts: NDArray[np.float32]


class Vocabulary:
    """A sorted list of terms that remembers where the words it was asked for are. Thread-safe."""

    def __init__(self, terms: pl.Series) -> None:
        self._terms = terms
        self._known: dict[str, int] = {}

    def positions(self, words: list[str]) -> NDArray[np.int64]:
        """The position of each word, -1 for those that are not in it."""
        new = list(set(words).difference(self._known))
        if new and len(self._terms):
            series = pl.Series("word", new, dtype=pl.String)
            place = pl.Series(self._terms.search_sorted(series)).cast(pl.Int64)
            place = place.clip(0, len(self._terms) - 1)
            found = (self._terms.gather(place) == series).to_numpy()
            self._known.update(
                zip(new, np.where(found, place.to_numpy(), -1).tolist(), strict=True)
            )
        known = self._known
        return np.fromiter((known.get(word, -1) for word in words), np.int64, len(words))


def look_up(questions: Sequence[str], analyzer: Analyzer, vocabulary: Vocabulary) -> QueryTerms:
    """Finds the words of questions; unknown words are left out."""
    rows = analyzer.exploded(questions)
    terms = vocabulary.positions(rows["word"].to_list())
    known = terms >= 0
    span = int(terms.max(initial=0)) + 1
    keys = rows["row"].to_numpy()[known].astype(np.int64) * span + terms[known]
    unique, counts = np.unique(keys, return_counts=True)
    pointers = np.searchsorted(unique, np.arange(len(questions) + 1) * span)
    return QueryTerms(pointers, unique % span, counts.astype(np.float32))
