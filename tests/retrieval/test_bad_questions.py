"""Input that a retriever may meet and must get through."""

from __future__ import annotations

import time

import pytest

from slm_vllm.config.schema import PassageConfig
from support.corpora import WORDS, Opener

TEXTS = [
    "the river and the castle",
    "a garden",
    "Москва — столица России",
    "北京是中国的首都",
    "🎉 party",
]
KINDS = ["bm25", "rank_bm25", "dense", "hybrid"]


@pytest.fixture(params=KINDS)
def open_kind(request: pytest.FixtureRequest, opened: Opener):  # type: ignore[no-untyped-def]
    kind = request.param
    options: dict[str, object] = {}
    if kind == "rank_bm25":
        pytest.importorskip("rank_bm25")
    if kind in ("dense", "hybrid"):
        pytest.importorskip("faiss")
        model = {"model": str(request.getfixturevalue("encoder_folder"))}
        options = model if kind == "dense" else {"components": {"dense": model}}
    return lambda texts: opened(kind, texts, **options)


QUESTIONS = [
    "",
    "   ",
    "?!...",
    "the of and",
    "🎉🎊",
    "Где столица?",
    "北京",
    "x" * 100_000,
    "a\x00b",
    "%s {0} \\",
]


def test_odd_questions_are_answered_or_find_nothing(open_kind) -> None:  # type: ignore[no-untyped-def]
    retriever = open_kind(TEXTS)
    found = retriever.retrieve(QUESTIONS, 3)
    assert len(found) == len(QUESTIONS)
    for row in found:
        assert [p.rank for p in row] == list(range(1, len(row) + 1))
        assert len({p.passage.passage_id for p in row}) == len(row)
    assert found[0] == found[1] == []
    assert retriever.retrieve([], 3) == []


def test_top_k_above_the_size_of_the_corpus(open_kind) -> None:  # type: ignore[no-untyped-def]
    result = open_kind(TEXTS).search(["river castle garden party"], 50)
    assert result.indices.shape == (1, 50)
    assert sorted(set(result.indices[0].tolist()) - {-1}) == sorted(
        i for i in result.indices[0].tolist() if i >= 0
    )


def test_top_k_below_one(open_kind) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="top_k is 0"):
        open_kind(TEXTS).search(["river"], 0)


def test_one_passage(open_kind) -> None:  # type: ignore[no-untyped-def]
    assert len(open_kind(["river"]).search(["river"], 3).indices[0]) == 3


def test_empty_documents_among_others(open_kind) -> None:  # type: ignore[no-untyped-def]
    # Three, because Okapi's IDF of a word in exactly half of the passages is 0.
    retriever = open_kind(["", "river castle", "   ", "garden music winter", "letter"])
    assert len(retriever.passages) == 3
    assert retriever.retrieve(["castle"], 1)[0][0].passage.document_id == "d1"


def test_words_by_script(opened: Opener) -> None:
    retriever = opened("bm25", TEXTS)
    ask = lambda q: [p.passage.text for p in retriever.retrieve([q], 1)[0]]  # noqa: E731
    assert ask("СТОЛИЦА") == [TEXTS[2]]
    assert ask("中国") == [TEXTS[3]]
    assert ask("🎉") == []
    assert ask("nowhere found") == []


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("กรุงเทพเป็นเมืองหลวงของไทย", "เมืองหลวงของประเทศไทยคือที่ไหน"),
        ("ວຽງຈັນແມ່ນນະຄອນຫຼວງ", "ນະຄອນຫຼວງແມ່ນຫຍັງ"),
        ("ភ្នំពេញជារាជធានី", "រាជធានីគឺជាអ្វី"),
        ("နေပြည်တော်သည်မြို့တော်ဖြစ်သည်", "မြို့တော်ကဘာလဲ"),
        ("東京タワーは塔です", "ﾀﾜｰ"),
        ("soft\u00adhyphen", "softhyphen"),
    ],
)
def test_scripts_without_blanks_are_found(opened: Opener, text: str, question: str) -> None:
    found = opened("bm25", ["castle garden", text, "river"]).retrieve([question], 3)[0]
    assert [item.passage.text for item in found] == [text]


@pytest.mark.slow
def test_a_document_of_ten_megabytes(opened: Opener) -> None:
    text = " ".join(f"{WORDS[i % 12]} n{i}" for i in range(800_000))
    assert len(text) > 10_000_000
    begin = time.perf_counter()
    retriever = opened("bm25", [text, "small document"], PassageConfig(size=100, stride=50))
    found = retriever.retrieve(["n777777"], 2)[0]
    assert len(retriever.passages) > 30_000
    for item in found:
        start = item.passage.start
        assert text[start : start + len(item.passage.text)] == item.passage.text
    assert found and "n777777" in found[0].passage.text
    assert time.perf_counter() - begin < 60


def test_min_score_leaves_passages_out(opened: Opener) -> None:
    texts = ["river river castle", "river", "castle garden winter music planet"]
    retriever = opened("bm25", texts)
    everything = retriever.retrieve(["river castle"], 3)[0]
    cut = everything[1].score
    assert retriever.retrieve(["river castle"], 3, min_score=cut)[0] == everything[:2]
    assert retriever.retrieve(["river castle"], 3, min_score=1e9) == [[]]
