"""A judge behind a server, of which nothing is on this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slm_vllm.errors import ConfigError
from slm_vllm.judging.choice import judge_config
from slm_vllm.judging.session import judge_runs
from slm_vllm.rundir.judgement import read_grades
from support.fake_server import FakeServer
from support.scripted_judge import case_of

pytest.importorskip("openai")


def _reply(number: int, body: dict[str, Any]) -> Any:
    _, answer = case_of(body["messages"][-1]["content"])
    letter = {"right": "A", "wrong": "(B)", "none": "Grade: C"}.get(answer, "\ud83d hm")
    message = {"role": "assistant", "content": f"<think>A? B?</think>\n{letter}"}
    return 200, {}, {"choices": [{"message": message, "finish_reason": "stop"}]}


def _judged(path: Path, url: str, tmp_path: Path, *words: str) -> dict[str, Any]:
    overrides = ["hardware=cpu", f"cache_dir={tmp_path / 'cache'}", *words]
    config = judge_config(None, [url], overrides=overrides)
    (found,) = judge_runs([path], config)
    return found


def test_a_chat_server_grades_under_the_name_of_its_model(
    run_of: Callable[..., Path], tmp_path: Path
) -> None:
    path = run_of("one", "right", "wrong", "none", "{odd}")
    with FakeServer(_reply, cards=[{"id": "big-one"}]) as server:
        found = _judged(path, server.url, tmp_path)
        again = _judged(path, server.url, tmp_path)
        asked = len(server.bodies)
    assert read_grades(path)["grade"].to_list() == ["correct", "incorrect", "not_attempted", None]
    assert found["judge"]["model"] == "big-one"
    assert found["counts"]["unread"] == 1
    assert asked == 4 and again["counts"]["resumed"] == 4


def test_another_model_at_the_same_address_is_another_judge(
    run_of: Callable[..., Path], tmp_path: Path
) -> None:
    path = run_of("one", "right")
    with FakeServer(_reply, cards=[{"id": "big-one"}]) as server:
        first = _judged(path, server.url, tmp_path)
        port = server.port
    with FakeServer(_reply, cards=[{"id": "bigger-one"}], port=port) as server:
        second = _judged(path, server.url, tmp_path)
        assert len(server.bodies) == 1
    assert first["judge"]["fingerprint"] != second["judge"]["fingerprint"]


def test_whole_prompts_need_a_tokenizer(run_of: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--model"):
        _judged(run_of("one", "x"), "http://x/v1", tmp_path, "engine.endpoint=completions")
