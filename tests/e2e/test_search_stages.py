"""The evaluated model around a search, in real vLLM: its margins are those that torch computes."""

from __future__ import annotations

import sqlite3
import subprocess
import uuid
from contextlib import suppress
from pathlib import Path

import pytest

from slm_vllm.runs.stages.yes_no_scorer import _TURN
from support.child import until
from support.places import REPOSITORY
from support.qa_files import write_rows
from support.real_runs import command, evaluate, predictions

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("model")]

THINGS = ("river", "castle", "engine", "island", "garden", "letter", "copper", "bridge", "planet")


def kept() -> int:
    with suppress(sqlite3.Error):
        path = REPOSITORY / ".cache" / "search_stages.sqlite"
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
            return int(database.execute("SELECT count(*) FROM answers").fetchone()[0])
    return 0


def margin(model: object, tokenizer: object, question: str, passage: str) -> float:
    import torch

    turn = _TURN.format(question=question, context=passage)
    text = tokenizer.apply_chat_template(  # type: ignore[attr-defined]
        [{"role": "user", "content": turn}], tokenize=False, add_generation_prompt=True
    )
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")  # type: ignore[operator]
    with torch.no_grad():
        logits = model(**ids).logits[0, -1].double()  # type: ignore[operator]
    forms = [
        [tokenizer.encode(blank + form)[0] for blank in ("", " ") for form in (word, word.lower())]  # type: ignore[attr-defined]
        for word in ("Yes", "No")
    ]
    yes, no = (torch.logsumexp(logits[sorted(set(ids))], 0) for ids in forms)
    return float(yes - no)


def test_passages_are_in_the_order_of_the_models_own_probabilities_after_kill_9(
    demo_model_path: Path, tmp_path: Path
) -> None:
    mark = uuid.uuid4().hex[:8]  # nobody has asked this before
    rows = [
        {
            "question_id": f"q{i}",
            "question": f"what does the {thing} of {mark} hold",
            "answer": ["gold"],
            "documents": [
                {"document_id": t, "title": t, "text": f"the {t} of {mark} does hold {t} gold"}
                for t in THINGS[3 * i : 3 * i + 3]
            ],
        }
        for i, thing in enumerate(THINGS[:3])
    ]
    words = [
        *("--dataset", str(write_rows(tmp_path / "qa.jsonl", rows)), "--mode", "retriever"),
        *("--retriever", "hyde", "+retriever.reranker={model: evaluated, candidates: 10}"),
        *("retriever.expansion.max_new_tokens=8", "retriever.top_k=9", "--name", "staged"),
        "hardware.engine_args.max_num_seqs=2",
    ]
    before = kept()
    process = subprocess.Popen(command(tmp_path, *words), stderr=subprocess.DEVNULL)
    try:
        until(process, lambda: kept() >= before + 8)
    finally:
        process.kill()
        process.wait()
    stages = evaluate(tmp_path, *words)["retriever"]["stages"]
    assert (stages["expand"]["asked"], stages["expand"]["from_cache"]) == (0, 3)
    rerank = stages["rerank"]
    assert rerank["from_cache"] >= 5 and rerank["asked"] + rerank["from_cache"] == 27
    frame = predictions(tmp_path / "staged")
    for question, query in frame.select("question", "query").iter_rows():
        assert query.startswith(" ".join([question] * 5)) and len(query) > 5 * len(question) + 5

    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(demo_model_path, dtype="float32")
    tokenizer = AutoTokenizer.from_pretrained(demo_model_path)
    for question, contexts in frame.select("question", "contexts").iter_rows():
        found = [p["score"] for p in contexts]
        assert len(found) == 9 and found == sorted(found, reverse=True)
        for passage in contexts:
            shown = f"{passage['title']}\n{passage['text']}"
            expected = margin(model, tokenizer, question, shown)
            assert passage["score"] == pytest.approx(expected, abs=2e-3)
