from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slm_vllm.config.compose import has_blanks
from slm_vllm.config.schema import RetrieverConfig
from slm_vllm.errors import ConfigError
from slm_vllm.retrieval.base import SearchResult, pad_result
from slm_vllm.retrieval.fusion import fuse, min_max, reciprocal_rank
from slm_vllm.retrieval.registry import retriever_class, retriever_kinds, validate_options
from support.child import run_python
from support.corpora import WORDS, Opener

pytestmark = pytest.mark.slow

RANKING = st.lists(st.integers(0, 15), unique=True, max_size=8)


def ranked(rows: list[list[int]], width: int = 8) -> SearchResult:
    """Results whose scores fall from 8 by one."""
    return pad_result(
        [(np.array(r, np.int64), np.arange(8, 8 - len(r), -1).astype(np.float32)) for r in rows],
        width,
    )


@given(st.lists(st.tuples(RANKING, RANKING), min_size=1, max_size=4), st.integers(1, 20))
def test_reciprocal_rank_fusion_is_the_plain_loop(
    rows: list[tuple[list[int], list[int]]], top_k: int
) -> None:
    one, two = ranked([a for a, _ in rows]), ranked([b for _, b in rows])
    found = fuse([one, two], [reciprocal_rank(one, 60), reciprocal_rank(two, 60)], [1, 0.5], top_k)
    for i, (a, b) in enumerate(rows):
        sums: dict[int, float] = defaultdict(float)
        for ranking, weight in ((a, 1.0), (b, 0.5)):
            for rank, passage in enumerate(ranking, 1):
                sums[passage] += weight / (60 + rank)
        best = sorted(sums, key=lambda p: (-np.float32(sums[p]), p))[:top_k]
        assert found.indices[i].tolist() == best + [-1] * (top_k - len(best))
        np.testing.assert_allclose(found.scores[i][: len(best)], [sums[p] for p in best], rtol=1e-6)


def test_min_max_scales_each_question() -> None:
    result = ranked([[3, 1, 2], [5], []])
    np.testing.assert_allclose(min_max(result)[:, :3], [[1, 0.5, 0], [1, 0, 0], [0, 0, 0]])


def test_hybrid_finds_what_either_finds(opened: Opener, encoder_folder: Path) -> None:
    pytest.importorskip("faiss")
    texts = [f"{a} {b}" for a in WORDS for b in WORDS]
    parts = {"dense": {"model": str(encoder_folder)}}
    for fusion in ("convex", "rrf"):
        hybrid = opened("hybrid", texts, fusion=fusion, components=parts)
        found = hybrid.search(["river castle", "unknownword", ""], 3)
        assert (found.indices[0] >= 0).all()
        assert (found.indices[1] >= 0).all()  # by meaning alone
        assert (found.indices[2] == -1).all()
        assert (np.diff(found.scores[0]) <= 0).all()
        assert [part["kind"] for part in hybrid.describe()["parts"]] == ["bm25", "dense"]


def test_three_searches_are_joined_and_one_kind_twice(opened: Opener) -> None:
    names = {"plain": {"kind": "bm25"}, "flat": {"kind": "bm25", "b": 0.0}}
    hybrid = opened(
        "hybrid",
        ["river castle", "river", "music castle garden"],
        retrievers=["plain", "flat", "rank_bm25"],
        weights=[1, 2, 0],
        components=names,
    )
    parts = [opened("bm25", ["river castle", "river", "music castle garden"], **options)
             for options in ({}, {"b": 0.0})]  # fmt: skip
    question = ["castle garden river"]
    expected = fuse(
        results := [part.search(question, 100) for part in parts],
        [min_max(result) for result in results],
        [1, 2],
        3,
    )
    found = hybrid.search(question, 3)
    assert found.indices.tolist() == expected.indices.tolist()
    np.testing.assert_allclose(found.scores, expected.scores)


def config(kind: str, **options: object) -> RetrieverConfig:
    return RetrieverConfig(name="x", kind=kind, options=options)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (config("bm52"), "no such retriever. Did you mean 'bm25'"),
        (config("bm25", k2=1), "retriever.options.k2.*Did you mean 'k1'"),
        (config("bm25", k1=-1), "retriever.options.k1.*greater than or equal to 0"),
        (config("bm25", b="much"), "retriever.options.b"),
        (config("bm25", stopwords="klingon"), "retriever.options.stopwords"),
        (config("dense", index="faiss"), "retriever.options.index"),
        (config("dense", modell="x"), "Did you mean 'model'"),
        (
            config("hybrid", retrievers=["bm25", "bm25"]),
            "two or more different ones, not bm25 twice",
        ),
        (config("hybrid", retrievers=["bm25", "hybrid"]), "cannot be part"),
        (config("hybrid", retrievers=["bm25", "dens"]), "Did you mean 'dense'"),
        (config("hybrid", retrievers=["bm25"]), "two or more different ones, not only bm25"),
        (config("hybrid", retrievers=["bm25", "dense", "rank_bm25"]), "as many as retrievers, 3"),
        (config("hybrid", weights=[0, 0]), "not all be 0"),
        (config("hybrid", components={"rank_bm25": {}}), "not one of the retrievers"),
        (config("hybrid", components={"bm25": {"k9": 1}}), "retriever.options.k9"),
    ],
)
def test_bad_options_are_named(bad: RetrieverConfig, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate_options(bad)


def test_shipped_configurations_are_valid() -> None:
    import yaml

    folder = Path(__file__).resolve().parents[2] / "configs" / "retriever"
    for path in folder.glob("*.yaml"):
        if not has_blanks(path):
            validate_options(RetrieverConfig(**yaml.safe_load(path.read_text("utf-8"))))
    assert {p.stem for p in folder.glob("*.yaml")} >= {"bm25", "rank_bm25", "dense", "hybrid"}


def test_validation_imports_nothing_heavy() -> None:
    code = """
        import sys
        from slm_vllm.config.schema import RetrieverConfig
        from slm_vllm.retrieval.registry import retriever_kinds, validate_options
        for kind in ("bm25", "rank_bm25", "dense", "hybrid"):
            validate_options(RetrieverConfig(name="x", kind=kind))
        heavy = {"torch", "faiss", "sentence_transformers", "numba", "rank_bm25", "transformers"}
        print("heavy:", sorted(heavy & set(sys.modules)))
    """
    done = run_python(code)
    assert "heavy: []" in done.stdout, done.stderr


def test_entry_points_add_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    from slm_vllm import plugins
    from slm_vllm.retrieval import registry

    value = "slm_vllm.retrieval.bm25:BM25Retriever"
    points = [
        EntryPoint("mine", value, registry.ENTRY_POINT_GROUP),
        EntryPoint("broken", "no.such.module:Class", registry.ENTRY_POINT_GROUP),
        EntryPoint("other", "slm_vllm.types:Passage", registry.ENTRY_POINT_GROUP),
    ]
    monkeypatch.setattr(plugins, "entry_points", lambda group: points)
    assert "mine" in retriever_kinds()
    assert retriever_class("mine").__name__ == "BM25Retriever"
    with pytest.raises(ConfigError, match="cannot be loaded"):
        retriever_class("broken")
    with pytest.raises(ConfigError, match="Passage is no StoredRetriever or CompositeRetriever"):
        retriever_class("other")
