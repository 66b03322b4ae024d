from __future__ import annotations

import errno
import json
import logging
import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from slm_vllm.config.schema import PassageConfig, RetrieverConfig
from slm_vllm.errors import DataError, StorageError
from slm_vllm.retrieval import bm25_build, index_store, passage_store, passages, postings
from slm_vllm.retrieval.base import BaseRetriever, IndexCancelled
from slm_vllm.retrieval.bm25 import BM25Retriever
from slm_vllm.retrieval.index_files import write_seal
from slm_vllm.retrieval.index_store import open_index, stored_indexes
from slm_vllm.retrieval.lexical import Analyzer
from slm_vllm.retrieval.passage_store import PassageStore, PassageWriter
from slm_vllm.types import Passage
from support.bm25_reference import full_sum
from support.child import read_until, run_python, start_python
from support.corpora import WORDS, documents

BM25 = RetrieverConfig(name="bm25", kind="bm25")
TEXTS = [f"{a} {b} of the {c}" for a in WORDS for b in WORDS[:4] for c in WORDS[:3]]


class Source:
    """A corpus that counts how often it is read."""

    def __init__(self, texts: list[str]) -> None:
        self.texts, self.reads = texts, 0

    def __call__(self) -> list[pl.DataFrame]:
        self.reads += 1
        return [documents(self.texts)]


def opened(
    source: Source, cache: Path, key: str = "key", config: RetrieverConfig = BM25, **more: object
) -> BaseRetriever:
    return open_index(config, source, corpus_key=key, cache_dir=cache, **more)  # type: ignore[arg-type]


def folder_of(cache: Path, prefix: str) -> Path:
    (found,) = (cache / "indexes").glob(f"{prefix}-*")
    return found


def hidden(cache: Path) -> list[str]:
    left = (cache / "indexes").rglob(".*")
    return [p.name for p in left if not p.name.endswith(".lock")]


def test_a_second_run_reads_and_builds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Source(TEXTS)
    first = opened(source, tmp_path)
    monkeypatch.setattr(BM25Retriever, "build", lambda *a: pytest.fail("built again"))
    second = opened(source, tmp_path)
    assert source.reads == 1
    assert first.fingerprint == second.fingerprint
    np.testing.assert_array_equal(
        first.search(TEXTS[:20], 5).indices, second.search(TEXTS[:20], 5).indices
    )
    assert hidden(tmp_path) == []


def test_the_same_content_under_another_key_is_not_built_again(tmp_path: Path) -> None:
    opened(Source(TEXTS), tmp_path, "before")
    other = Source(TEXTS)
    opened(other, tmp_path, "after")
    assert other.reads == 1
    assert len(stored_indexes(tmp_path)) == 2  # one of passages, one of bm25
    assert hidden(tmp_path) == []


def test_every_setting_that_decides_the_content_makes_another_index(tmp_path: Path) -> None:
    configs = [
        BM25,
        RetrieverConfig(name="x", kind="bm25", options={"k1": 0.9}),
        RetrieverConfig(name="x", kind="bm25", options={"stopwords": "english"}),
        RetrieverConfig(name="x", kind="bm25", passage=PassageConfig(size=2, stride=2)),
        RetrieverConfig(name="x", kind="bm25", passage=PassageConfig(size=2, stride=1)),
    ]
    names = {opened(Source(TEXTS), tmp_path, config=c).fingerprint for c in configs}
    names.add(opened(Source(TEXTS[1:]), tmp_path, "other").fingerprint)
    assert len(names) == 6
    same = RetrieverConfig(name="y", kind="bm25", top_k=9, min_score=1.0, options={"threads": 3})
    assert opened(Source(TEXTS), tmp_path, config=same).fingerprint in names


DAMAGE = {
    "cut short": lambda path: os.truncate(path, path.stat().st_size // 2),
    "missing": lambda path: path.unlink(),
    "empty": lambda path: os.truncate(path, 0),
    "altered": lambda path: path.write_bytes(b"x" * path.stat().st_size),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("file", ["index.json", "places.npy", "terms.arrow", "pointers.npy"])
def test_a_damaged_index_is_rebuilt(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str, file: str
) -> None:
    expected = opened(Source(TEXTS), tmp_path).search(TEXTS, 3)
    DAMAGE[damage](folder_of(tmp_path, "bm25") / file)
    assert any("damaged" in entry for entry in stored_indexes(tmp_path))
    with caplog.at_level(logging.WARNING):
        again = opened(Source(TEXTS), tmp_path)
    assert "damaged and will be rebuilt" in caplog.text
    np.testing.assert_array_equal(again.search(TEXTS, 3).indices, expected.indices)
    assert not any("damaged" in entry for entry in stored_indexes(tmp_path))
    assert hidden(tmp_path) == []


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("file", ["text.bin", "title.offsets.npy", "start.npy", "aliases.json"])
def test_damaged_passages_are_rebuilt(tmp_path: Path, damage: str, file: str) -> None:
    named = [documents(TEXTS).with_columns(title=pl.lit("T"))]
    open_index(BM25, lambda: named, corpus_key="k", cache_dir=tmp_path)
    DAMAGE[damage](folder_of(tmp_path, "passages") / file)
    again = open_index(BM25, lambda: named, corpus_key="k", cache_dir=tmp_path)
    assert again.retrieve(["river castle"], 1)[0][0].passage.text
    assert not any("damaged" in entry for entry in stored_indexes(tmp_path))


def test_another_format_version_is_rebuilt(tmp_path: Path) -> None:
    opened(Source(TEXTS), tmp_path)
    seal = folder_of(tmp_path, "bm25") / "index.json"
    seal.write_text(json.dumps({**json.loads(seal.read_text()), "format_version": 0}))
    assert "format 0" in stored_indexes(tmp_path)[0]["damaged"]
    opened(Source(TEXTS), tmp_path)
    assert "damaged" not in stored_indexes(tmp_path)[0]


def test_an_index_of_0_2_0_is_built_again_under_its_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name = opened(Source(TEXTS), tmp_path).fingerprint
    folder = folder_of(tmp_path, "bm25")
    for path in folder.iterdir():
        path.unlink()
    np.save(folder / "weights.npy", np.zeros(3, np.float32))
    write_seal(folder, {"kind": "bm25", "fingerprint": name, "n_passages": len(TEXTS)})
    with caplog.at_level(logging.WARNING):
        again = opened(Source(TEXTS), tmp_path)
    assert "has the files of another version" in caplog.text and "damaged" not in caplog.text
    assert again.fingerprint == name
    assert (again.search(TEXTS[:5], 1).indices[:, 0] >= 0).all()
    assert not (folder / "weights.npy").exists() and hidden(tmp_path) == []


def test_leftovers_of_a_killed_build_do_no_harm(tmp_path: Path) -> None:
    name = opened(Source(TEXTS), tmp_path).fingerprint
    folder = folder_of(tmp_path, "bm25")
    left = folder.with_name(f".building-bm25-{name}")
    for missing in ([], [bm25_build.MERGED, "places.npy"]):
        folder.rename(left)
        (left / "stray").write_text("x")
        for file in missing:
            (left / file).unlink()
        again = opened(Source(TEXTS), tmp_path)
        assert again.search(["castle"], 1).indices[0, 0] >= 0
        assert hidden(tmp_path) == []
        assert not (folder / "stray").exists()


def interrupted(source: Source, cache: Path, after: int) -> None:
    """Stops a build while it cuts passages, after so many batches."""
    asked = iter([False] * after + [True])
    with pytest.raises(IndexCancelled, match="cutting"):
        opened(source, cache, cancelled=lambda: next(asked))


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Passages are cut a few at a time and kept after every 30; gives how many were cut."""
    cut: list[int] = []
    monkeypatch.setattr(passages, "BATCH_CHARACTERS", 200)
    monkeypatch.setattr(index_store, "_KEPT_PASSAGES", 30)
    append = PassageWriter.append
    monkeypatch.setattr(
        PassageWriter, "append", lambda self, frame: cut.append(frame.height) or append(self, frame)
    )
    return cut


# A repeated document, two texts under one id, one without text: all before and after a stop.
MIXED = [*TEXTS[:60], TEXTS[3], "", *TEXTS[60:], TEXTS[100], TEXTS[9]]


@pytest.mark.parametrize("after", [1, 7, 15])
def test_interrupted_passages_go_on_from_what_was_kept(
    tmp_path: Path, small_batches: list[int], after: int
) -> None:
    opened(Source(MIXED), tmp_path / "whole")
    interrupted(Source(MIXED), tmp_path / "stopped", after)
    left = hidden(tmp_path / "stopped")
    small_batches.clear()
    store = opened(Source(MIXED), tmp_path / "stopped").passages
    assert hidden(tmp_path / "stopped") == []
    assert bool(left) == (after > 1) and (sum(small_batches) < len(store)) == (after > 1)
    whole = folder_of(tmp_path / "whole", "passages")
    for path in whole.iterdir():
        assert (store.folder / path.name).read_bytes() == path.read_bytes(), path.name


def everything(store: PassageStore) -> list[Passage]:
    return store.take(range(len(store)))


@pytest.mark.parametrize("others", [["new", *MIXED[1:]], MIXED[:40]])
def test_passages_of_other_documents_are_not_gone_on_with(
    tmp_path: Path, small_batches: list[int], others: list[str]
) -> None:
    interrupted(Source(MIXED), tmp_path, 15)
    interrupted(Source(others), tmp_path, 1)
    interrupted(Source(MIXED), tmp_path, 1)
    store = opened(Source(others), tmp_path).passages
    expected = opened(Source(others), tmp_path / "alone").passages
    assert store.fingerprint == expected.fingerprint
    assert everything(store) == everything(expected)


def test_offsets_take_four_bytes_until_they_need_eight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = pl.DataFrame({name: ["a", "bcd"] for name in passage_store.TEXT_COLUMNS})
    for limit, dtype in ((1 << 32, np.uint32), (4, np.int64)):
        monkeypatch.setattr(passage_store, "_FOUR_BYTES", limit)
        (tmp_path / str(limit)).mkdir()
        with PassageWriter(tmp_path / str(limit)) as writer:
            writer.append(frame.with_columns(start=pl.Series([0, 7])))
        assert np.load(tmp_path / str(limit) / "text.offsets.npy").dtype == dtype
        store = PassageStore(tmp_path / str(limit), "name")
        assert [(one.text, one.start) for one in everything(store)] == [("a", 0), ("bcd", 7)]


def test_passages_that_were_cut_short_are_not_gone_on_with(
    tmp_path: Path, small_batches: list[int]
) -> None:
    interrupted(Source(MIXED), tmp_path, 15)
    (left,) = (tmp_path / "indexes").glob(".building-*")
    os.truncate(left / "text.bin", 10)
    store = opened(Source(MIXED), tmp_path).passages
    assert everything(store) == everything(opened(Source(MIXED), tmp_path / "alone").passages)


def test_a_killed_build_goes_on_with_the_blocks_that_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = """
        import json, sys
        from pathlib import Path
        from slm_vllm.config.schema import RetrieverConfig
        from slm_vllm.retrieval import bm25_build, index_store, passage_store, passages, postings
        from slm_vllm.retrieval.index_store import open_index
        from support.corpora import documents
        bm25_build.BLOCK = postings.BLOCK = 64
        def progress(phase, done, total):
            if phase == "counting words" and done >= 64:
                print("IN THE MIDDLE", flush=True)
                sys.stdin.readline()
        config = RetrieverConfig(name="x", kind="bm25", options={"threads": 1})
        open_index(config, lambda: [documents(json.loads(sys.argv[2]))], corpus_key="key",
                   cache_dir=Path(sys.argv[1]), progress=progress)
    """
    job = start_python(code, str(tmp_path), json.dumps(TEXTS))
    read_until(job, "IN THE MIDDLE")
    job.kill()
    job.communicate()
    monkeypatch.setattr(bm25_build, "BLOCK", 64)
    monkeypatch.setattr(postings, "BLOCK", 64)
    counted: list[int] = []
    count = bm25_build._count_block

    def counting(folder: Path, passages: PassageStore, low: int, analyzer: Analyzer) -> None:
        counted.append(low // 64)
        count(folder, passages, low, analyzer)

    monkeypatch.setattr(bm25_build, "_count_block", counting)
    source = Source(TEXTS)
    retriever = opened(source, tmp_path)
    assert source.reads == 0 and 0 not in counted and 2 in counted
    found, expected = retriever.search(TEXTS[::9], 5), full_sum(TEXTS, TEXTS[::9], 5)
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_array_equal(found.scores, expected.scores)
    assert hidden(tmp_path) == []


def test_a_build_killed_before_it_has_its_name_is_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(index_store, "write_seal", interrupt_index)
        with pytest.raises(KeyboardInterrupt):
            opened(Source(TEXTS), tmp_path)
    monkeypatch.setattr(bm25_build, "count_terms", lambda *_: pytest.fail("counted again"))
    found = opened(Source(TEXTS), tmp_path).search(TEXTS[::9], 5)
    np.testing.assert_array_equal(found.scores, full_sum(TEXTS, TEXTS[::9], 5).scores)
    assert hidden(tmp_path) == []


def interrupt_index(folder: Path, facts: dict[str, object]) -> None:
    if facts["kind"] == "bm25":
        raise KeyboardInterrupt
    write_seal(folder, facts)


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(PassageWriter, "append", full)
        with pytest.raises(StorageError, match="no room.*cache_dir"):
            opened(Source(TEXTS), tmp_path)
    assert stored_indexes(tmp_path) == [] and hidden(tmp_path) == []
    with monkeypatch.context() as patch:
        patch.setattr("slm_vllm.retrieval.bm25_build.np.save", full)
        with pytest.raises(StorageError, match="no room"):
            opened(Source(TEXTS), tmp_path)
    assert [e["kind"] for e in stored_indexes(tmp_path)] in ([], ["passages"])
    assert hidden(tmp_path) == []
    opened(Source(TEXTS), tmp_path)


def test_a_limit_on_file_size_is_a_full_disk_in_earnest(tmp_path: Path) -> None:
    """The kernel refuses the write, in a process of its own."""
    code = """
        import resource, signal, sys
        from pathlib import Path
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
        from slm_vllm.config.schema import RetrieverConfig
        from slm_vllm.errors import StorageError
        from slm_vllm.retrieval.index_store import open_index
        import polars as pl
        texts = [f"word{i} " * 50 for i in range(2000)]
        ids = [str(i) for i in range(2000)]
        frame = pl.DataFrame({"document_id": ids, "title": "", "text": texts})
        try:
            open_index(RetrieverConfig(name="x", kind="bm25"), lambda: [frame], corpus_key="k",
                       cache_dir=Path(sys.argv[1]))
        except StorageError as error:
            print("refused:", error)
    """
    done = run_python(code, str(tmp_path))
    assert "refused: Writing the passages failed, there is no room" in done.stdout, done.stderr
    assert stored_indexes(tmp_path) == [] and hidden(tmp_path) == []


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "indexes").write_text("a file where a folder should be")
    with pytest.raises(StorageError, match="cache_dir"):
        opened(Source(TEXTS), tmp_path)


def test_cancelling_stops_the_build(tmp_path: Path) -> None:
    with pytest.raises(IndexCancelled):
        opened(Source(TEXTS), tmp_path, cancelled=lambda: True)
    assert stored_indexes(tmp_path) == [] and hidden(tmp_path) == []


def test_progress_is_told(tmp_path: Path) -> None:
    told: list[tuple[str, int, int | None]] = []
    opened(Source(TEXTS), tmp_path, progress=lambda *what: told.append(what))
    assert ("cutting passages", len(TEXTS), None) in told
    assert ("counting words", len(TEXTS), len(TEXTS)) in told


@pytest.mark.parametrize(
    ("texts", "message"), [([], "it has no documents"), (["", " "], "2 documents have no text")]
)
def test_nothing_to_search_is_an_error(tmp_path: Path, texts: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        opened(Source(texts), tmp_path)
    assert hidden(tmp_path) == []


@pytest.mark.slow
def test_two_processes_build_one_index_once(tmp_path: Path) -> None:
    code = """
        import logging, sys, time
        from pathlib import Path
        import polars as pl
        logging.basicConfig(level="INFO", stream=sys.stdout)
        from slm_vllm.config.schema import RetrieverConfig
        from slm_vllm.retrieval.index_store import open_index
        frame = pl.DataFrame({"document_id": [str(i) for i in range(3000)], "title": "",
                              "text": [f"word{i} river castle" for i in range(3000)]})
        def documents():
            print("READ", flush=True)
            sys.stdin.readline()
            yield frame
        r = open_index(RetrieverConfig(name="x", kind="bm25"), documents, corpus_key="k",
                       cache_dir=Path(sys.argv[1]))
        print("FOUND", r.retrieve(["word77"], 1)[0][0].passage.document_id)
    """
    first = start_python(code, str(tmp_path))
    text = read_until(first, "READ")
    second = start_python(code, str(tmp_path))
    text += read_until(second, "Another process is building")
    text += "".join([*first.communicate("go on\n"), *second.communicate("go on\n")])
    assert (first.returncode, second.returncode) == (0, 0), text
    assert text.count("FOUND 77") == 2
    assert text.count("READ") == 1 and text.count("Built bm25-") == 1
    assert hidden(tmp_path) == []


@pytest.mark.parametrize(
    ("kind", "options", "passage", "expected"),
    [
        ("bm25", {}, {}, "243ce50be14521ad"),
        ("bm25", {"k1": 1.2, "b": 0.5}, {"size": 2, "stride": 1}, "860ffa23e0b376c3"),
        ("rank_bm25", {}, {}, "12dcfad64d6ba3e3"),
        (
            "hybrid",
            {"retrievers": ["bm25", "rank_bm25"], "weights": [0.3, 0.7]},
            {},
            "a4f26c815c22c65b",
        ),
    ],
)
def test_an_index_keeps_its_fingerprint_from_version_to_version(
    tmp_path: Path, kind: str, options: dict[str, object], passage: dict[str, int], expected: str
) -> None:
    """With another one, every index is built and every question asked anew."""
    source = Source(["river bridge", "castle garden winter", "rivière 東京"])
    config = RetrieverConfig(
        name=kind, kind=kind, options=options, passage=PassageConfig(**passage)
    )
    assert opened(source, tmp_path, config=config).fingerprint == expected


@pytest.mark.parametrize("kind", ["bm25", "rank_bm25"])
def test_an_index_of_other_words_than_in_version_1_is_another_one(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = RetrieverConfig(name=kind, kind=kind)
    old = Source(["river bridge", "rivie\u0300re 東京"])
    thai = Source(["river bridge", "ภาษาไทย"])
    with monkeypatch.context() as before:
        before.setattr(f"slm_vllm.retrieval.{kind}.words_identity", lambda passages: {})
        version_1 = [
            opened(source, tmp_path, f"{kind}{n}", config=config).fingerprint
            for n, source in enumerate((old, thai))
        ]
    for _ in range(2):  # the second time from what the first one noted
        now = [
            opened(source, tmp_path, f"{kind}{n}", config=config).fingerprint
            for n, source in enumerate((old, thai))
        ]
        assert now[0] == version_1[0]
        assert now[1] != version_1[1]
