"""What the model is asked before a search: passages in its order, texts to search with."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from slm_vllm.config.retriever_stages import RerankerConfig
from slm_vllm.config.schema import Config
from slm_vllm.errors import ConfigError, EngineDiedError, EngineError
from slm_vllm.retrieval import reranker
from slm_vllm.retrieval.index_store import open_index
from slm_vllm.retrieval.reranker import Pair, PairScorer
from slm_vllm.rundir.fingerprint import config_hash
from slm_vllm.rundir.journal import JOURNAL_SCHEMA, journal_schema
from slm_vllm.runs import auxiliary, index_pool
from slm_vllm.runs.command_plan import plan_command
from slm_vllm.runs.options import RunOptions
from slm_vllm.runs.session import evaluate
from slm_vllm.runs.stages import search
from slm_vllm.types import Completion
from support.qa_files import write_rows
from support.staged_engine import StagedEngine

MakeConfig = Callable[..., Config]

RERANKED = ("experiment_mode=retriever", "retriever=reranked")
HYDE = ("experiment_mode=retriever", "retriever=hyde", "retriever.expansion.repeat=2")


@pytest.fixture
def tiny_model(tiny_model: Path, tmp_path: Path) -> Path:
    """The tiny model with room for a reranking prompt, and words for what it may reply."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder = shutil.copytree(tiny_model, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 4096}))
    vocabulary = {word: i for i, word in enumerate(("[UNK]", "Yes", "yes", "No"))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture
def rows() -> list[dict[str, object]]:
    """Twelve pages that BM25 finds for every question, the last and shortest one first."""
    pages = [f"page{i} long fact{i}" + " filler" * (11 - i) for i in range(12)]
    return [
        {
            "question_id": f"q{i}",
            "question": f"what is long about {i * i}",
            "answer": [f"fact{i}"],
            "documents": [{"document_id": f"d{i}", "title": "", "text": pages[i]}],
        }
        for i in range(12)
    ]


def run(config: Config, engine: StagedEngine, **options: Any) -> dict[str, Any]:
    options = {"make_engine": engine.factory(), "own_process": True, **options}
    return evaluate([config], RunOptions(**options))[0]


def predictions(config: Config) -> pl.DataFrame:
    folder = config.experiment.folder
    return pl.read_parquet(folder / "predictions.parquet")


def number(turn: str, word: str) -> int:
    found = re.search(rf"{word}(\d+)", turn)
    assert found is not None, turn
    return int(found[1])


def likes(turn: str) -> float:
    """The page of the question's own number first, then those of even numbers."""
    page = number(turn, "page")
    return 9.0 if number(turn, "about ") == page**2 else float(page % 2 == 0)


def documents(config: Config) -> list[list[str]]:
    return [[p["document_id"] for p in row] for row in predictions(config)["contexts"].to_list()]


def test_passages_come_in_the_order_of_the_margins_and_equal_ones_in_that_of_the_search(
    make_config: MakeConfig,
) -> None:
    config, engine = make_config(*RERANKED, "retriever.top_k=5"), StagedEngine(likes)
    result = run(config, engine)
    even = [f"d{i}" for i in range(10, -1, -2)]
    assert documents(config) == [
        [f"d{i}", *(d for d in even if d != f"d{i}")][:5] for i in range(12)
    ]
    scores = [[p["score"] for p in row] for row in predictions(config)["contexts"].to_list()]
    assert scores == [[9.0, 1.0, 1.0, 1.0, 1.0]] * 12
    assert engine.starts == 1
    assert len(engine.weighed) == len(set(engine.weighed)) == 144
    assert result["stages"]["rerank"]["asked"] == 144
    assert result["stages"]["rerank"]["prompt_tokens"] > 144 * 20
    assert "rerank" in result["timing"]


def test_the_search_is_judged_with_the_stage_and_without(make_config: MakeConfig) -> None:
    plain = run(make_config("experiment_mode=retriever", "experiment.name=plain"), StagedEngine())
    reranked = run(make_config(*RERANKED), StagedEngine(likes))
    assert "stages" not in plain and not any("plain" in name for name in plain["retrieval"])
    for name in ("document_hit@1", "answer_hit@3", "document_ndcg@10", "answer_mrr"):
        assert reranked["retrieval"][f"plain_{name}"] == plain["retrieval"][name]
    assert reranked["retrieval"]["document_hit@1"]["mean"] == 1.0
    assert plain["retrieval"]["document_hit@1"]["mean"] < 0.2


def test_only_so_many_candidates_are_read(make_config: MakeConfig) -> None:
    engine = StagedEngine(likes)
    config = make_config(*RERANKED, "retriever.reranker.candidates=10", "experiment.max_samples=1")
    run(config, engine)
    assert len(engine.weighed) == 10


def test_the_question_stands_before_the_passage(make_config: MakeConfig) -> None:
    engine = StagedEngine(likes)
    run(make_config(*RERANKED, "experiment.max_samples=1"), engine)
    common = engine.weighed[0][: engine.weighed[0].index("page")]
    assert "what is long about 0" in common
    assert all(turn.startswith(common) for turn in engine.weighed)


def test_what_was_replied_is_not_asked_again_after_the_engine_died(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    elsewhere = f"cache_dir={tmp_path / 'elsewhere'}"
    undisturbed = make_config(*RERANKED, "experiment.name=whole", elsewhere)
    run(undisturbed, StagedEngine(likes))
    config = make_config(*RERANKED)
    first = StagedEngine(likes, dies_after=50)
    with pytest.raises(EngineDiedError):
        run(config, first)
    second = StagedEngine(likes, dies_after=94 + 3)  # in the middle of the answers
    with pytest.raises(EngineDiedError):
        run(config, second)
    third = StagedEngine(likes)
    result = run(config, third)
    turns = first.weighed + second.weighed + third.weighed
    assert len(turns) == len(set(turns)) == 144
    assert (len(second.asked), len(third.asked)) == (3, 9)
    assert result["counts"]["resumed"] == 3
    assert predictions(config)["contexts"].equals(predictions(undisturbed)["contexts"])


def test_answered_rows_need_no_reply_even_where_the_kept_ones_are_gone(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    run(make_config(*RERANKED, "experiment.max_samples=2"), StagedEngine(likes))
    for path in (tmp_path / "cache").glob("search_stages.sqlite*"):
        path.unlink()
    engine = StagedEngine(likes)
    run(make_config(*RERANKED, "experiment.max_samples=3"), engine)
    assert len(engine.weighed) == 12 and {number(t, "about ") for t in engine.weighed} == {4}


def test_other_runs_and_more_candidates_pay_only_for_what_is_new(make_config: MakeConfig) -> None:
    few = make_config(*RERANKED, "retriever.reranker.candidates=10")
    run(few, StagedEngine(likes))
    engine = StagedEngine(likes)
    more = make_config(*RERANKED, "experiment.name=more", "retriever.top_k=1")
    result = run(more, engine)
    assert len(engine.weighed) == 12 * 2
    assert result["stages"]["rerank"]["from_cache"] == 120


def test_cells_with_stages_and_without_share_an_index_and_an_engine(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []

    def counted(*args: Any, **more: Any) -> Any:
        opened.append(args)
        return open_index(*args, **more)

    monkeypatch.setattr(index_pool, "open_index", counted)
    engine = StagedEngine(likes, writes=lambda turn: "page3")
    configs = [
        make_config("experiment_mode=retriever", f"retriever={name}", f"experiment.name={name}")
        for name in ("bm25", "reranked", "hyde", "keywords")
    ]
    evaluate(configs, RunOptions(make_engine=engine.factory(), own_process=True))
    assert (len(opened), engine.starts) == (1, 1)
    assert (len(engine.weighed), len(engine.written), len(engine.asked)) == (144, 24, 48)


def test_a_run_whose_answers_are_all_known_loads_no_engine(make_config: MakeConfig) -> None:
    words = (*RERANKED, "experiment.answer_cache=true")
    run(make_config(*words), StagedEngine(likes))
    engine = StagedEngine(likes)
    result = run(make_config(*words, "experiment.name=again"), engine)
    assert engine.starts == 0 and result["counts"]["from_cache"] == 12


def test_passages_of_failed_prompts_are_left_out_and_said(
    make_config: MakeConfig, capfd: pytest.CaptureFixture[str]
) -> None:
    engine = StagedEngine(lambda turn: None if number(turn, "page") == 4 else likes(turn))
    config = make_config(*RERANKED, "retriever.top_k=12")
    result = run(config, engine)
    assert result["stages"]["rerank"]["failed"] == 12
    said = "rerank failed for 12 prompts (refused). Their passages are left out"
    assert said in capfd.readouterr().err
    assert all(len(row) == 11 and "d4" not in row for row in documents(config))
    assert "Infinity" not in (config.experiment.folder / "predictions.jsonl").read_text()


def test_how_far_a_stage_is_is_told_by_questions(
    make_config: MakeConfig, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "_RERANKED_ROWS", 5)
    monkeypatch.setattr(auxiliary, "_SAY_SECONDS", 0.0)
    engine = StagedEngine(likes)
    run(make_config(*RERANKED), engine)
    said = capfd.readouterr().err
    for done, prompts in ((5, 60), (10, 60), (12, 24)):
        assert f"rerank up to question {done} of 12: {prompts}/{prompts} " in said
    assert len(engine.weighed) == 144


def test_a_failed_prompt_ends_a_strict_run(make_config: MakeConfig) -> None:
    engine = StagedEngine(lambda turn: None if number(turn, "page") == 4 else likes(turn))
    with pytest.raises(EngineError, match="rerank: refused"):
        run(make_config(*RERANKED, "experiment.strict=true"), engine)


def test_an_engine_that_tells_no_margin_is_not_taken_for_a_search_that_finds_nothing(
    make_config: MakeConfig,
) -> None:
    engine = StagedEngine()
    engine._completion = lambda request: Completion(  # type: ignore[method-assign]
        request.request_id, "Yes", "length", 1, 1
    )
    with pytest.raises(EngineError, match="not one of 144 .* how probable Yes and No are"):
        run(make_config(*RERANKED), engine)


def test_the_engine_has_room_for_the_longest_prompt_and_reply_of_a_stage(
    make_config: MakeConfig,
) -> None:
    engine = StagedEngine()
    run(make_config(*HYDE, "retriever.expansion.max_new_tokens=3000"), engine)
    assert engine.settings is not None and engine.settings.max_model_len > 3000 + 20
    short = make_config(*RERANKED, "retriever.top_k=1", "prompt=plain", "experiment.name=short",
                        "generation.max_new_tokens=1")  # fmt: skip
    engine = StagedEngine()
    run(short, engine)
    most = max(len(turn.split()) for turn in engine.weighed)
    assert engine.settings is not None and engine.settings.max_model_len >= most + 290


def test_a_search_goes_for_the_question_and_what_was_written(make_config: MakeConfig) -> None:
    def writes(turn: str) -> str:
        root = {i * i: i for i in range(12)}[number(turn, "about ")]
        return f" It is\n page{root} . "

    config, engine = make_config(*HYDE, "retriever.top_k=1"), StagedEngine(writes=writes)
    result = run(config, engine)
    assert documents(config) == [[f"d{i}"] for i in range(12)]
    assert len(engine.written) == 12
    question = "what is long about 9"
    assert predictions(config)["query"].to_list()[3] == f"{question} {question} It is page3 ."
    assert predictions(config)["question"].to_list()[3] == question
    assert result["retrieval"]["plain_document_hit@1"]["mean"] < 0.2
    assert result["stages"]["expand"]["completion_tokens"] == 60
    again = StagedEngine(writes=writes)
    run(make_config(*HYDE, "experiment.name=again", "retriever.top_k=2"), again)
    assert again.written == [] and len(again.asked) == 12


def test_without_a_text_the_question_is_searched(make_config: MakeConfig) -> None:
    config = make_config(*HYDE)
    engine = StagedEngine(writes=lambda turn: "x" if number(turn, "about ") else None)
    result = run(config, engine)
    assert result["stages"]["expand"]["failed"] == 1
    frame = predictions(config)
    assert (frame["query"] == frame["question"]).to_list() == [True] + [False] * 11


def test_what_a_server_wrote_is_kept_by_its_address(make_config: MakeConfig) -> None:
    def asked(port: int, name: str) -> int:
        server = ("engine.name=openai", f"engine.base_url=http://localhost:{port}/v1")
        engine = StagedEngine(writes=lambda turn: "page3")
        run(make_config(*HYDE, *server, f"experiment.name={name}"), engine)
        return len(engine.written)

    assert [asked(1, "a"), asked(1, "b"), asked(2, "c")] == [12, 0, 12]


def test_passages_found_with_a_text_are_ranked_for_the_question(make_config: MakeConfig) -> None:
    engine = StagedEngine(likes, writes=lambda turn: "page1 page2")
    config = make_config(*HYDE, "+retriever.reranker={model: evaluated, candidates: 12}")
    run(config, engine)
    assert [row[0] for row in documents(config)] == [f"d{i}" for i in range(12)]
    assert not any("page1 page2" in turn for turn in engine.weighed)


@pytest.mark.parametrize("retriever", ["hyde", "bm25"])
def test_a_cross_encoder_reads_the_question_and_is_judged_against_the_plain_search(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, retriever: str
) -> None:
    class Scorer(PairScorer):
        identity = "words"

        def __init__(self, config: RerankerConfig) -> None:
            assert config.model == "some/cross-encoder"

        def scores(self, pairs: Sequence[Pair]) -> Any:
            assert not any("page1 page2" in question for question, _ in pairs)
            return np.array([likes(f"{q} {p.text}") for q, p in pairs], np.float32)

        def close(self) -> None:
            """Nothing to free."""

    for module in (search, reranker):
        monkeypatch.setattr(module, "CrossEncoderScorer", Scorer)
    words = "+retriever.reranker={model: some/cross-encoder, candidates: 12}"
    config = make_config("experiment_mode=retriever", f"retriever={retriever}", words)
    result = run(config, StagedEngine(writes=lambda turn: "page1 page2"))
    assert [row[0] for row in documents(config)] == [f"d{i}" for i in range(12)]
    assert result["retrieval"]["document_hit@1"]["mean"] == 1.0
    assert result["retrieval"]["plain_document_hit@1"]["mean"] == pytest.approx(1 / 12, abs=1e-6)


def test_a_text_cut_off_in_its_thoughts_is_none(make_config: MakeConfig) -> None:
    config = make_config(*HYDE, "experiment.max_samples=1")
    run(config, StagedEngine(writes=lambda turn: "<think>page7 maybe"))
    assert predictions(config)["query"].to_list() == ["what is long about 0"]


def test_only_what_is_decided_by_is_asked(make_config: MakeConfig) -> None:
    plain = make_config("experiment_mode=retriever", "experiment.name=plain")
    run(plain, StagedEngine())
    engine = StagedEngine(likes)
    words = ("experiment.against=plain", "experiment.until=decided", "experiment.margin=0.9")
    config = make_config(*RERANKED, *words, "hardware.engine_args.max_num_seqs=2")
    result = run(config, engine)
    assert len(engine.weighed) == 12 * result["until"]["questions"]


def test_replies_that_cannot_be_kept_end_the_run(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    from slm_vllm.errors import StorageError
    from slm_vllm.runs.answer_cache import AnswerCache

    def full(cache: AnswerCache) -> None:
        cache._waiting = []
        cache._give_up(sqlite3.OperationalError("disk full"))

    monkeypatch.setattr(AnswerCache, "_write", full)
    with pytest.raises(StorageError, match=r"search_stages\.sqlite"):
        run(make_config(*RERANKED), StagedEngine(likes))


def test_who_does_not_ask_for_a_stage_has_none_of_it(make_config: MakeConfig) -> None:
    plain = make_config("experiment_mode=retriever")
    assert "expansion" not in plain.retriever.settings()
    assert journal_schema(plain) == JOURNAL_SCHEMA
    hyde = make_config(*HYDE)
    assert config_hash(hyde) != config_hash(plain)
    assert "query" in journal_schema(hyde)
    closed = make_config("retriever=hyde")
    assert journal_schema(closed) == JOURNAL_SCHEMA
    assert config_hash(closed) == config_hash(make_config())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            (*RERANKED, "engine.name=openai", "engine.base_url=http://localhost:1/v1"),
            "engine.name=openai does not",
        ),
        (
            ("experiment_mode=retriever", "retriever=trec_run", "retriever.options.file=x",
             "+retriever.expansion.prompt='{question}'"),
            "a run file knows questions by their ids",
        ),
        (
            (*HYDE, "engine.name=my:Mine"),
            "is asked for more than answers: engine.name=my:Mine is not",
        ),
        ((*HYDE, "retriever.expansion.prompt=words"), r"must hold \{question\}"),
        ((*HYDE, "retriever.expansion.prompt='{question} {passage}'"), "cannot be filled in"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_before_anything_loads(
    make_config: MakeConfig,
    words: tuple[str, ...],
    said: str,
    plugin: Callable[[str, str], Path],
) -> None:
    methods = "".join(f"    def {name}(self, *_): ...\n" for name in ("start", "stream", "close"))
    base = "from slm_vllm.engines.base import BaseEngine\n"
    plugin("my", f"{base}class Mine(BaseEngine):\n{methods}")
    with pytest.raises(ConfigError, match=said):
        plan_command([make_config(*words)])


def test_a_tokenizer_without_yes_and_no_is_refused(
    make_config: MakeConfig, tiny_model: Path
) -> None:
    tokenizer = json.loads((tiny_model / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"] = {"[UNK]": 0, "question": 1}
    (tiny_model / "tokenizer.json").write_text(json.dumps(tokenizer))
    engine = StagedEngine()
    with pytest.raises(ConfigError, match="no tokens for Yes and No"):
        run(make_config(*RERANKED), engine)
    assert engine.starts == 0


def test_the_form_of_both_words_is_the_tokenizers(make_config: MakeConfig) -> None:
    seen = []
    engine = StagedEngine(likes)
    complete = engine._completion

    def look(request: Any) -> Any:
        seen.append(request.auxiliary)
        return complete(request)

    engine._completion = look  # type: ignore[method-assign]
    run(make_config(*RERANKED, "experiment.max_samples=1"), engine)
    assert {auxiliary.either for auxiliary in seen if auxiliary} == {((1, 2), (3,))}


def test_rows_of_an_unchanged_dataset_can_be_added(
    make_config: MakeConfig, tmp_path: Path, rows: list[dict[str, object]]
) -> None:
    run(make_config(*HYDE), StagedEngine(writes=lambda turn: "long"))
    write_rows(tmp_path / "qa.jsonl", [*rows, {**rows[0], "question_id": "new"}])
    engine = StagedEngine(writes=lambda turn: "long")
    run(make_config(*HYDE), engine)
    assert engine.written == []
