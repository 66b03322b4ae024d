"""Golden values: with other hashes, the answers of every earlier run would be asked for again."""

from __future__ import annotations

import polars as pl
import pytest

from slm_vllm.config.compose import compose_config
from slm_vllm.config.schema import Config
from slm_vllm.rundir.fingerprint import answer_fingerprint, config_hash, row_keys

ORACLE = ("experiment_mode=oracle_context",)
RETRIEVER = ("experiment_mode=retriever_context",)
HYBRID = (*RETRIEVER, "retriever=hybrid")
SERVER = ("engine.name=openai", "engine.base_url=[http://localhost:8000/v1]")
CHAT = (*SERVER, "engine.endpoint=chat")
WARM = ("generation.temperature=0.5",)


def config(*words: str) -> Config:
    return compose_config(
        [
            "model=custom",
            "model.name=tiny",
            "model.path=./model",
            "dataset=custom",
            "dataset.path=questions.jsonl",
            *words,
        ]
    )


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), "eae0de158596be8089f03803154dc6609855aee01965971274257a0a8bda7c67"),
        (ORACLE, "e8440fbfd257acca25a75683b3395882939cb08634b1b30054c0953f33608816"),
        (RETRIEVER, "c1151420f91a0169caa2e9be81b9cffdd55b36a6535ee12c9f3afc5c76be10eb"),
        (HYBRID, "96636f122dc62347f1be7e756f949f7328f2c23759cb12962aa05037079e60e8"),
        (WARM, "bbb8156fbe371958711ea2fd29c02bf5c24735438e47026ca3a4c82d0a29197b"),
        (SERVER, "aed8d6081a7d66230dac64e7a24c7498c47131c302db0b2cd211c10cffc85c3e"),
        (CHAT, "187837722402e877dd16088260d654ed2d448a52dc79625ca5f39fd97f89189e"),
    ],
)
def test_the_hash_of_a_configuration(words: tuple[str, ...], expected: str) -> None:
    assert config_hash(config(*words)) == expected


@pytest.mark.parametrize(
    "word",
    [
        "experiment.name=other",
        "experiment.output_dir=elsewhere",
        "experiment.max_samples=3",
        "experiment.seed=7",
        "model.max_model_len=512",
        "hardware.engine_args.max_num_seqs=8",
        "retriever.top_k=5",
        "tracking.project=other",
        "cache_dir=elsewhere",
    ],
)
def test_what_changes_no_answer_is_not_in_the_hash(word: str) -> None:
    assert config_hash(config(word)) == config_hash(config())


@pytest.mark.parametrize(
    ("words", "index", "expected"),
    [
        ((), None, "298f6b7046a0adfc50b2056eec9ff3899fa09959d3bdfd44bf79de1f0db7fb63"),
        (ORACLE, None, "3efc52cfe931be80a38aab5c17610a9154cc5a3f68d32723e2bfcc3a05b6c325"),
        (
            RETRIEVER,
            "019439bd2b666901",
            "49da8b6bddd7f9b9a84db96254c688e8d0f52af1c9a01f9aadb26f0696f62465",
        ),
        (SERVER, None, "f90b7d37f3f9cf6f5a25adbb744c08e0d214a4cedaf0ed4b0c024b3320dfce18"),
    ],
)
def test_the_fingerprint_of_answers(
    words: tuple[str, ...], index: str | None, expected: str
) -> None:
    found = answer_fingerprint(config(*words), "content-1", "bfloat16", 2048, index)
    assert found == expected


def test_the_context_limit_counts_where_there_is_context() -> None:
    def at(limit: int, *words: str) -> str:
        return answer_fingerprint(config(*words), "content-1", "bfloat16", limit, None)

    assert at(2048) == at(4096)
    assert at(2048, *ORACLE) != at(4096, *ORACLE)


@pytest.mark.parametrize(
    ("with_contexts", "expected"),
    [
        (False, ["df1071bdaa7b9bee", "8518d95f22f6f122", "5d54f2878edc38aa"]),
        (True, ["84b230c114413715", "43689a949005c511", "67392583219039fe"]),
    ],
)
def test_the_keys_of_rows(with_contexts: bool, expected: list[str]) -> None:
    frame = pl.DataFrame(
        {
            "question_id": ["q0", "q1", "q2"],
            "question": ["Who?", "Wo fließt die Rhône?", "日本の首都は?"],
            "answers": [["a", "b"], [], ["東京"]],
            "contexts": [["one", "two"], [], ["三"]],
        },
        schema_overrides={"answers": pl.List(pl.String), "contexts": pl.List(pl.String)},
    )
    keys = row_keys(frame, "f" * 64, with_contexts=with_contexts)
    assert [f"{key:016x}" for key in keys] == expected
