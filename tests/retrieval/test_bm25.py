from __future__ import annotations

import math
import re
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slm_vllm.config.schema import PassageConfig
from slm_vllm.retrieval import bm25_build, postings
from slm_vllm.retrieval.arrays import mapped_array
from slm_vllm.retrieval.lexical import _WORDS_1, Analyzer
from slm_vllm.scoring.normalize import is_unusual
from slm_vllm.scoring.normalize import words as words_of
from support.bm25_reference import full_sum
from support.corpora import WORDS, Opener

KERNELS = ["numpy", "numba"] if find_spec("numba") else ["numpy"]


def bm25_by_hand(texts: list[str], question: str, k1: float = 1.5, b: float = 0.75) -> list[float]:
    """The formula of the docstring, one word and one passage at a time."""
    split = [re.findall(r"\w+", text.lower()) for text in texts]
    average = sum(map(len, split)) / len(split)
    scores = []
    for words in split:
        tf, score = Counter(words), 0.0
        for word in re.findall(r"\w+", question.lower()):
            df = sum(word in other for other in split)
            if tf[word]:
                idf = math.log(1 + (len(texts) - df + 0.5) / (df + 0.5))
                norm = k1 * (1 - b + b * len(words) / average)
                score += idf * tf[word] / (tf[word] + norm)
        scores.append(score)
    return scores


@pytest.mark.parametrize("kernel", KERNELS)
def test_scores_are_those_of_the_formula(opened: Opener, kernel: str) -> None:
    texts = [
        "The castle by the river, the old castle",
        "A bridge over the river",
        "Winter music in the garden of the castle by the river and the forest",
        "copper",
    ]
    retriever = opened("bm25", texts, kernel=kernel)
    for question in ("castle river", "the the bridge", "Winter copper!", "river"):
        result = retriever.search([question], 4)
        expected = bm25_by_hand(texts, question)
        order = [i for i in np.argsort(-np.array(expected), kind="stable") if expected[i] > 0]
        assert result.indices[0][: len(order)].tolist() == order
        assert result.indices[0][len(order) :].tolist() == [-1] * (4 - len(order))
        np.testing.assert_allclose(
            result.scores[0][: len(order)], [expected[i] for i in order], rtol=1e-6
        )


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 64 passages, so that small corpora have several."""
    monkeypatch.setattr(postings, "BLOCK", 64)
    monkeypatch.setattr(bm25_build, "BLOCK", 64)
    monkeypatch.setattr(bm25_build, "_MERGED", 500)


@pytest.mark.slow
@pytest.mark.parametrize("kernel", KERNELS)
@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(seed=st.integers(0, 2**32), k=st.integers(1, 120), spread=st.sampled_from([0.6, 1, 1.6]))
def test_results_have_the_bits_of_the_full_sum(
    opened: Opener, small_blocks: None, kernel: str, seed: int, k: int, spread: float
) -> None:
    """Over blocks with and without a word, of rare and of frequent ones, with many ties."""
    rng = np.random.default_rng(seed)
    words = np.array([f"w{i}" for i in range(int(rng.integers(1, 60)))])
    share = (np.arange(len(words)) + 1.0) ** -spread
    share /= share.sum()
    texts = [
        " ".join(rng.choice(words, int(rng.integers(1, 25)), p=share)) + f" only{i}"
        for i in range(int(rng.integers(1, 400)))
    ]
    questions = [" ".join(rng.choice(words, int(rng.integers(1, 9)))) for _ in range(8)]
    found = opened("bm25", texts, kernel=kernel, threads=2).search(questions, k)
    expected = full_sum(texts, questions, k)
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_array_equal(found.scores, expected.scores)


@pytest.mark.parametrize("kernel", KERNELS)
def test_long_passages_of_one_word(opened: Opener, kernel: str) -> None:
    passage = PassageConfig(size=2_000, stride=2_000)
    texts = [f"{'river ' * n}x{n}" for n in (1, 255, 256, 300, 1_500)]
    found = opened("bm25", texts, passage, kernel=kernel).search(["river"], 5)
    expected = full_sum(texts, ["river"], 5)
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_array_equal(found.scores, expected.scores)


@pytest.mark.skipif(len(KERNELS) < 2, reason="numba is not installed")
def test_both_kernels_give_the_same_bits(opened: Opener) -> None:
    rng = np.random.default_rng(3)
    words = [f"w{i}" for i in range(300)]
    texts = [" ".join(rng.choice(words, 30, p=_zipf(300))) for _ in range(700)]
    questions = [" ".join(rng.choice(words, 7, p=_zipf(300))) for _ in range(100)]
    slow = opened("bm25", texts, kernel="numpy", threads=2).search(questions, 10)
    fast = opened("bm25", texts, kernel="numba", threads=2).search(questions, 10)
    np.testing.assert_array_equal(slow.indices, fast.indices)
    np.testing.assert_array_equal(slow.scores, fast.scores)


def test_agrees_with_bm25s(opened: Opener) -> None:
    bm25s = pytest.importorskip("bm25s")
    rng = np.random.default_rng(4)
    words = [f"w{i}" for i in range(200)]
    texts = [" ".join(rng.choice(words, rng.integers(5, 60), p=_zipf(200))) for _ in range(300)]
    questions = [" ".join(rng.choice(words, 5, p=_zipf(200))) for _ in range(40)]
    peer = bm25s.BM25(method="lucene", k1=1.5, b=0.75)
    peer.index([t.split() for t in texts], show_progress=False)
    result = opened("bm25", texts).search(questions, 10)
    for question, scores in zip(questions, result.scores, strict=True):
        expected = np.sort(peer.get_scores(question.split()))[::-1][:10]
        np.testing.assert_allclose(scores, expected, rtol=1e-4)


def test_threads_do_not_change_results(opened: Opener) -> None:
    texts = [f"{a} {b}" for a in WORDS for b in WORDS]
    questions = [f"{a} {b} {b}" for a in WORDS for b in WORDS]
    one = opened("bm25", texts, threads=1).search(questions, 5)
    many = opened("bm25", texts, threads=7).search(questions, 5)
    np.testing.assert_array_equal(one.indices, many.indices)


def test_equal_scores_come_in_the_order_of_the_passages(opened: Opener) -> None:
    # Contents differ in words nobody asks for, else they would be stored once.
    texts = [f"castle x{i}" for i in range(20)]
    for kernel in KERNELS:
        result = opened("bm25", texts, kernel=kernel).search(["castle"], 5)
        assert result.indices[0].tolist() == [0, 1, 2, 3, 4]


def test_words_are_unicode_words_in_lower_case() -> None:
    words = Analyzer().words(["Beyonce\u0301's ÉCOLE_2, 北京 Привет!", "👍 ?!", ""]).to_list()
    assert words == [["beyoncé", "s", "école_2", "北", "京", "привет"], [], []]


def test_stop_words_and_stems(opened: Opener) -> None:
    texts = ["the rivers", "the castles"]
    assert opened("bm25", texts, stopwords="english").search(["the"], 2).indices.tolist() == [
        [-1, -1]
    ]
    pytest.importorskip("Stemmer")
    assert opened("bm25", texts, stemmer="english").search(["river"], 1).indices.tolist() == [[0]]


def test_rank_bm25_is_the_library(opened: Opener) -> None:
    rank_bm25 = pytest.importorskip("rank_bm25")
    texts = [f"{a} {b} {b}" for a in WORDS for b in WORDS[:5]]
    okapi = rank_bm25.BM25Okapi([t.split() for t in texts])
    result = opened("rank_bm25", texts).search(["castle river river", "nothing"], 6)
    expected = okapi.get_scores(["castle", "river", "river"])
    np.testing.assert_allclose(result.scores[0], np.sort(expected)[::-1][:6], rtol=1e-6)
    assert result.indices[1].tolist() == [-1] * 6


def test_agrees_with_rank_bm25_under_the_same_idf(opened: Opener) -> None:
    rank_bm25 = pytest.importorskip("rank_bm25")

    class Lucene(rank_bm25.BM25Okapi):
        def _calc_idf(self, nd: dict[str, int]) -> None:
            n = self.corpus_size
            self.idf = {word: math.log1p((n - df + 0.5) / (df + 0.5)) for word, df in nd.items()}

    rng = np.random.default_rng(5)
    words = [f"w{i}" for i in range(200)]
    texts = [" ".join(rng.choice(words, rng.integers(5, 60), p=_zipf(200))) for _ in range(300)]
    peer = Lucene([text.split() for text in texts])
    questions = [" ".join(rng.choice(words, 5, p=_zipf(200))) for _ in range(40)]
    found = opened("bm25", texts).search(questions, 10)
    for question, indices, scores in zip(questions, found.indices, found.scores, strict=True):
        expected = peer.get_scores(question.split())
        np.testing.assert_allclose(scores * 2.5, np.sort(expected)[::-1][:10], rtol=1e-5)
        np.testing.assert_allclose(scores * 2.5, expected[indices], rtol=1e-5)


def _zipf(n: int) -> np.ndarray:
    p = 1 / np.arange(1, n + 1)
    return p / p.sum()


def test_unknown_words_among_known_ones_change_nothing(opened: Opener) -> None:
    retriever = opened("bm25", [f"{a} {b}" for a in WORDS for b in WORDS])
    found = retriever.search(["river castle", "aaa river zzz castle \uffff"], 5)
    assert found.indices[0].tolist() == found.indices[1].tolist()
    np.testing.assert_array_equal(found.scores[0], found.scores[1])


@given(st.text(st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs"]), max_size=30))
def test_only_unusual_texts_can_have_other_words_than_version_1(text: str) -> None:
    series = pl.Series("words", [text], dtype=pl.String)
    before = series.str.normalize("NFKC").str.to_lowercase().str.extract_all(_WORDS_1)
    assert is_unusual(series)[0] or before.equals(words_of(series))


def test_one_thread_at_a_time_reads_the_head_of_an_array(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python before 3.12 ends a thread that parses beside another with a SystemError."""
    np.save(tmp_path / "array.npy", np.arange(3))
    inside: list[int] = []
    most = []
    plain = np.load

    def load(*given: object, **named: object) -> object:
        inside.append(1)
        threads_met.wait(0.05)
        most.append(len(inside))
        found = plain(*given, **named)  # type: ignore[arg-type]
        inside.pop()
        return found

    threads_met = threading.Event()  # never set: gives others the time to come in
    monkeypatch.setattr(np, "load", load)
    with ThreadPoolExecutor(4) as pool:
        arrays = list(pool.map(mapped_array, [tmp_path / "array.npy"] * 4))
    assert max(most) == 1
    assert all(array.tolist() == [0, 1, 2] for array in arrays)
