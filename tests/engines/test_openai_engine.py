"""The engine that asks servers, against servers on loopback that fail in every way."""

from __future__ import annotations

import itertools
import logging
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from slm_vllm.config.engine import OpenAIConfig
from slm_vllm.config.schema import GenerationConfig
from slm_vllm.engines.openai_engine import OpenAIEngine
from slm_vllm.engines.openai_server import Server, api_url
from slm_vllm.engines.server_pool import RetryPolicy
from slm_vllm.engines.settings import EngineSettings
from slm_vllm.errors import ConfigError, EngineError
from slm_vllm.prompting.answer import ExtractedAnswer, extract_answer
from slm_vllm.types import Completion, GenerationRequest
from support.child import run_python
from support.engine_requests import QUICK, SETTINGS, requests
from support.fake_server import CARD, FakeServer, Reply, answer_to, usual

pytestmark = pytest.mark.slow


def config(*servers: FakeServer | str, **more: Any) -> OpenAIConfig:
    urls = tuple(server if isinstance(server, str) else server.url for server in servers)
    return OpenAIConfig(base_url=urls, **more)


def ask(
    config: OpenAIConfig,
    count: int,
    policy: RetryPolicy = QUICK,
    settings: EngineSettings = SETTINGS,
) -> dict[str, Completion]:
    with OpenAIEngine(settings, config, policy) as engine:
        engine.start()
        answers = list(engine.stream(requests(count)))
    assert len({answer.request_id for answer in answers}) == len(answers) == count
    return {answer.request_id: answer for answer in answers}


def assert_all_right(answers: dict[str, Completion]) -> None:
    for name, answer in answers.items():
        assert answer.error is None, answer
        assert answer.text == answer_to([int(name[1:])])


def test_answers_usage_and_what_is_sent() -> None:
    with FakeServer() as server:
        answers = ask(config(server), 50)
    assert_all_right(answers)
    one = answers["r7"]
    assert (one.finish_reason, one.n_prompt_tokens, one.n_completion_tokens) == ("length", 3, 3)
    assert sorted(body["prompt"] for body in server.bodies) == [[i, 7, 7] for i in range(50)]
    # All of these, or vLLM takes its own from the model's generation_config.json.
    expected = {"model": "tiny", "max_tokens": 8, "temperature": 0.0, "top_p": 1.0}
    expected |= {"top_k": -1, "repetition_penalty": 1.0}
    assert {k: v for k, v in server.bodies[0].items() if k != "prompt"} == expected


def test_sampling_stops_and_extra_fields_reach_the_server() -> None:
    settings = replace(
        SETTINGS,
        generation=GenerationConfig(temperature=0.5, top_p=0.9, top_k=5, repetition_penalty=1.1),
        stop=("\n",),
        seed=3,
    )
    extra = {"chat_template_kwargs": {"enable_thinking": False}, "priority": 2}
    with FakeServer() as server:
        ask(config(server, extra_body=extra), 1, settings=settings)
    sent = server.bodies[0]
    assert sent["stop"] == ["\n"] and sent["seed"] == 3
    assert (sent["temperature"], sent["top_p"], sent["top_k"]) == (0.5, 0.9, 5)
    assert sent["repetition_penalty"] == 1.1
    assert {name: sent[name] for name in extra} == extra


@pytest.mark.parametrize("is_vllm", [True, False])
def test_chat_sends_turns(is_vllm: bool) -> None:
    card = CARD if is_vllm else {"id": "tiny", "object": "model", "owned_by": "me"}
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "1+1"},
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": "2+2"},
    ]
    asked = GenerationRequest("a", [1, 2, 3], turns)
    with FakeServer(cards=[card]) as server:
        with OpenAIEngine(SETTINGS, config(server, endpoint="chat"), QUICK) as engine:
            details = engine.start().details
            (answer,) = engine.stream([asked])
    assert (answer.text, answer.n_prompt_tokens, answer.error) == (answer_to("2+2"), 9, None)
    (body,) = server.bodies
    assert body["messages"] == turns
    assert "prompt" not in body and body["max_tokens"] == 8
    thinking = {"enable_thinking": False} if is_vllm else None
    assert body.get("chat_template_kwargs") == thinking
    assert details["prompts"] == ["turns"]


THOUGHT = "Okay, the user asks about a river."


@pytest.mark.parametrize(
    ("message", "finish_reason", "text", "unterminated"),
    [
        ({"content": None, "reasoning_content": THOUGHT}, "length", "", True),
        ({"content": None, "reasoning": THOUGHT}, "stop", "", True),
        ({"content": "", "reasoning_content": THOUGHT}, "length", "", True),
        ({"content": "", "reasoning_content": THOUGHT}, "stop", "", False),
        ({"content": "Danube", "reasoning_content": THOUGHT}, "stop", "Danube", False),
        ({"content": "Danube", "reasoning_content": None}, "stop", "Danube", False),
        ({"content": None}, "length", "", True),
        ({"content": None}, "stop", "", False),
        ({"content": None, "refusal": "I cannot say"}, "stop", "I cannot say", False),
        ({"content": [{"type": "text", "text": "Dan"}, {"text": "ube"}]}, "stop", "Danube", False),
    ],
)
def test_a_thought_told_apart_from_the_answer(
    message: dict[str, Any], finish_reason: str, text: str, unterminated: bool
) -> None:
    def thinking(number: int, body: dict[str, Any]) -> Reply:
        answer = usual(body)
        answer["choices"][0] |= {"message": message, "finish_reason": finish_reason}
        return 200, {}, answer

    with FakeServer(thinking) as server:
        answers = ask(config(server, endpoint="chat"), 3)
    assert len(server.bodies) == 3
    for answer in answers.values():
        assert answer.error is None
        assert extract_answer(answer.text) == ExtractedAnswer(text, unterminated)


def test_a_server_that_is_not_vllm_gets_text(demo_model_path: Path) -> None:
    from slm_vllm.models.tokenizer import load_tokenizer

    text = "<|im_start|>user\nWhat is 2 + 2?<|im_end|>\n<|im_start|>assistant\n"
    ids = list(load_tokenizer(demo_model_path)(text)["input_ids"])
    settings = replace(SETTINGS, model_path=demo_model_path)
    with (
        FakeServer(cards=[{"id": "tiny", "object": "model", "owned_by": "me"}]) as server,
        OpenAIEngine(settings, config(server), QUICK) as engine,
    ):
        assert engine.start().details["prompts"] == ["text"]
        list(engine.stream([GenerationRequest("a", ids)]))
    assert server.bodies[0]["prompt"] == text


@pytest.mark.parametrize("n", [1, 2])
def test_a_prompt_in_front_of_the_answer_is_no_part_of_it(demo_model_path: Path, n: int) -> None:
    """As transformers' pipeline gives it by default."""

    def repeating(number: int, body: dict[str, Any]) -> Reply:
        choices = [{"text": f"{body['prompt']} {name}"} for name in ("Danube", "Rhine")]
        return 200, {}, {"choices": choices[: body.get("n", 1)]}

    settings = replace(
        SETTINGS,
        model_path=demo_model_path,
        generation=GenerationConfig(n=n, temperature=0.5),
    )
    with (
        FakeServer(repeating, cards=[{"id": "tiny", "owned_by": "me"}]) as server,
        OpenAIEngine(settings, config(server), QUICK) as engine,
    ):
        engine.start()
        (answer,) = engine.stream([GenerationRequest("a", [1, 2, 3])])
    assert answer.text == " Danube"
    assert [sample.text for sample in answer.samples] == [" Danube", " Rhine"][: n * (n > 1)]


def every_third(reply: Reply) -> Any:
    return lambda number, body: reply if number % 3 == 0 else None


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param((429, {"retry-after": "0.01"}, {"error": {"message": "slow down"}}), id="429"),
        pytest.param((503, {}, {"error": {"message": "busy"}}), id="503"),
        pytest.param((500, {}, b"boom"), id="500"),
        pytest.param((200, {}, b"{not json"), id="half JSON"),
        pytest.param((200, {}, {"choices": []}), id="no choice"),
        pytest.param((200, {}, [1, 2]), id="a list"),
        pytest.param((200, {}, {"choices": [{"text": None}]}), id="no text"),
        pytest.param((200, {"content-type": "text/html"}, b"<html>hello</html>"), id="a page"),
        pytest.param("reset", id="reset"),
    ],
)
def test_trouble_now_and_then_costs_no_answer(reply: Reply) -> None:
    policy = replace(QUICK, attempts=30)
    with FakeServer(every_third(reply)) as server:
        assert_all_right(ask(config(server, max_in_flight=4), 30, policy))
    assert len(server.bodies) > 30


def test_the_time_a_server_asks_for_is_kept() -> None:
    """With one request at a time, the second comes when the pause is over and not before."""
    import time

    times: list[float] = []

    def script(number: int, body: dict[str, Any]) -> Reply:
        times.append(time.monotonic())
        return (429, {"retry-after": "0.3"}, {}) if number == 0 else None

    with FakeServer(script) as server:
        assert_all_right(ask(config(server), 1, replace(QUICK, longest_delay=5)))
    assert times[1] - times[0] >= 0.3


def test_a_request_that_is_refused_is_one_error_and_is_not_asked_again() -> None:
    def script(number: int, body: dict[str, Any]) -> Reply:
        message = {"error": {"message": "the prompt is too long"}}
        return (400, {}, message) if body["prompt"][0] == 4 else None

    with FakeServer(script) as server:
        answers = ask(config(server), 10)
    assert "400" in str(answers["r4"].error) and "too long" in str(answers["r4"].error)
    assert (answers["r4"].text, answers["r4"].finish_reason) == ("", "error")
    assert_all_right({name: one for name, one in answers.items() if name != "r4"})
    assert len(server.bodies) == 10


def test_a_request_that_always_fails_ends_as_an_error_after_all_attempts() -> None:
    def script(number: int, body: dict[str, Any]) -> Reply:
        return (500, {}, {"error": {"message": "boom"}}) if body["prompt"][0] == 2 else None

    with FakeServer(script) as server:
        answers = ask(config(server), 5)
    assert "boom" in str(answers["r2"].error)
    assert [body["prompt"][0] for body in server.bodies].count(2) == QUICK.attempts
    assert sum(answer.error is not None for answer in answers.values()) == 1


def test_a_slow_server_is_asked_again_and_slower() -> None:
    gate = threading.Event()

    def script(number: int, body: dict[str, Any]) -> Reply:
        if number == 0:
            gate.wait()
        return None

    with FakeServer(script) as server:
        answers = ask(config(server, timeout=1.5), 3)
        gate.set()
    assert_all_right(answers)
    assert len(server.bodies) == 4


def test_the_limit_settles_where_the_server_still_answers() -> None:
    """A server that refuses the seventh request at once is never asked for many more."""
    lock, under_way = threading.Lock(), [0, 0]
    gate = threading.Semaphore(0)

    def script(number: int, body: dict[str, Any]) -> Reply:
        with lock:
            under_way[0] += 1
            refuse = under_way[0] > 6
            under_way[1] += refuse
        try:
            if not refuse:
                gate.acquire(timeout=0.02)  # an answer takes a while
            return (429, {"retry-after": "0.01"}, {}) if refuse else None
        finally:
            with lock:
                under_way[0] -= 1

    with FakeServer(script) as server:
        answers = ask(config(server), 300, replace(QUICK, attempts=40))
    assert_all_right(answers)
    assert under_way[1] < 150  # without the limit nearly every attempt would be refused
    assert len(server.bodies) < 450


def test_two_servers_share_and_one_that_dies_is_left_out() -> None:
    died = threading.Event()

    def dying(number: int, body: dict[str, Any]) -> Reply:
        if number >= 20:
            died.set()
            return "reset"
        return None

    with FakeServer(dying) as first, FakeServer() as second:

        def source() -> Iterator[GenerationRequest]:
            for request in requests(300):
                if died.is_set():
                    first.stop()
                yield request

        with OpenAIEngine(SETTINGS, config(first, second), QUICK) as engine:
            engine.start()
            answers = {answer.request_id: answer for answer in engine.stream(source())}
    assert len(answers) == 300
    assert_all_right(answers)
    assert len(second.bodies) >= 200 and len(first.bodies) >= 20


def test_a_server_that_was_away_is_used_again() -> None:
    with FakeServer() as steady:
        away = FakeServer()
        away.stop()
        with OpenAIEngine(SETTINGS, config(away, steady), QUICK) as engine:
            engine.start()
            assert len(list(engine.stream(requests(5)))) == 5
            with FakeServer(port=away.port) as back:
                for _ in range(500):
                    assert len(list(engine.stream(requests(20)))) == 20
                    if back.bodies:
                        break
                assert back.bodies


def test_all_servers_dead_ends_the_run() -> None:
    server = FakeServer(lambda number, body: "reset" if number >= 5 else None)

    def source() -> Iterator[GenerationRequest]:
        for number, request in enumerate(requests(1000)):
            if number == 5:
                server.stop()
            yield request

    with OpenAIEngine(SETTINGS, config(server), QUICK) as engine:
        engine.start()
        with pytest.raises(EngineError, match=rf"No server has answered[\s\S]*{server.port}"):
            for answer in engine.stream(source()):
                assert answer.error is None or "connection failed" in answer.error


def test_a_server_that_refuses_everything_ends_the_run_and_no_request_is_blamed() -> None:
    with (
        FakeServer(lambda number, body: (404, {}, b"no completions here")) as server,
        OpenAIEngine(SETTINGS, config(server), QUICK) as engine,
    ):
        engine.start()
        with pytest.raises(EngineError, match="404"):
            assert not list(engine.stream(requests(10)))


def test_nobody_there_at_the_start() -> None:
    server = FakeServer()
    server.stop()
    with (
        OpenAIEngine(SETTINGS, config(server)) as engine,
        pytest.raises(EngineError, match=rf"127.0.0.1:{server.port}.*does not answer.*--base-url"),
    ):
        engine.start()


@pytest.mark.parametrize(
    ("cards", "message"),
    [
        ([{**CARD, "id": "other", "root": "x"}], "serves other, not tiny.*engine.served_model"),
        ([], "serves nothing"),
        ([{**CARD, "max_model_len": 64}], "takes 64 tokens.*128.*model.max_model_len=64"),
    ],
)
def test_the_wrong_model_or_a_short_one_at_the_start(cards: list[Any], message: str) -> None:
    with (
        FakeServer(cards=cards) as server,
        OpenAIEngine(SETTINGS, config(server)) as engine,
        pytest.raises(EngineError, match=message),
    ):
        engine.start()


def test_the_name_given_wins_and_the_path_is_known() -> None:
    cards = [{**CARD, "id": "first"}, {**CARD, "id": "second", "root": "elsewhere"}]
    with FakeServer(cards=cards) as server:
        ask(config(server), 1)  # by its root, which is the model's path
        ask(config(server, served_model="second"), 1)
    assert [body["model"] for body in server.bodies] == ["first", "second"]


def test_the_key_is_sent_and_never_shown(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="slm_vllm")
    monkeypatch.setenv("MY_KEY", "sk-very-secret")

    def repeating(number: int, body: dict[str, Any]) -> Reply:
        return (400, {}, {"error": {"message": "no, sk-very-secret"}}) if number == 3 else None

    with FakeServer(repeating, key="sk-very-secret") as server:
        assert_all_right(ask(config(server, api_key_env="MY_KEY"), 3))
        repeated = ask(config(server, api_key_env="MY_KEY"), 1)["r0"].error
        assert repeated is not None and "no, ***" in repeated and "secret" not in repeated
        monkeypatch.setenv("MY_KEY", "sk-wrong-secret")
        with (
            OpenAIEngine(SETTINGS, config(server, api_key_env="MY_KEY")) as engine,
            pytest.raises(EngineError, match="refuses the key.*--api-key-env") as refused,
        ):
            engine.start()
    assert server.keys == {"sk-very-secret", "sk-wrong-secret"}
    assert "secret" not in str(refused.value) + caplog.text


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "no, sk-very-secret", "code": 400}},
        {"choices": [{"index": 0, "finish_reason": "sk-very-secret"}]},
        "<html>sk-very-secret</html>",
    ],
)
def test_the_key_in_an_answer_with_status_200_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, body: Any
) -> None:
    monkeypatch.setenv("MY_KEY", "sk-very-secret")

    def repeating(number: int, sent: dict[str, Any]) -> Reply:
        return (200, {}, body) if sent["prompt"][0] == 1 else None

    with FakeServer(repeating, key="sk-very-secret") as server:
        error = ask(config(server, api_key_env="MY_KEY"), 2)["r1"].error
    assert error is not None and "***" in error and "secret" not in error


def test_a_key_variable_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MY_KEY", raising=False)
    engine = OpenAIEngine(SETTINGS, config("http://127.0.0.1:9", api_key_env="MY_KEY"))
    with pytest.raises(ConfigError, match="--api-key-env MY_KEY"):
        engine.start()


def test_a_signal_at_the_start_tells_nothing_of_the_server() -> None:
    """It ends the wait for the answer to the test question, which the server still owes."""
    gate = threading.Event()
    told: list[str] = []

    class Stopped(Exception):
        pass

    def stop(*_: object) -> None:
        raise Stopped

    def script(number: int, body: dict[str, Any]) -> Reply:
        os.kill(os.getpid(), signal.SIGUSR1)
        gate.wait(60)
        return None

    before = signal.signal(signal.SIGUSR1, stop)
    try:
        with FakeServer(proof=script) as server:
            with OpenAIEngine(SETTINGS, config(server)) as engine, pytest.raises(Stopped):
                engine.say = told.append
                engine.start()
            gate.set()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert not told


@pytest.mark.parametrize("end", ["\n", "\r\n", " "])
def test_the_line_end_behind_a_key_is_not_sent(monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    monkeypatch.setenv("MY_KEY", f"sk-right{end}")
    with FakeServer(key="sk-right") as server:
        assert_all_right(ask(config(server, api_key_env="MY_KEY"), 3))


@pytest.mark.parametrize("key", ["sk-one\nsk-two", "sk-\u043a\u043b\u044e\u0447"])
def test_a_key_that_cannot_be_sent_is_named_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    engine = OpenAIEngine(SETTINGS, config("http://127.0.0.1:9"))
    with pytest.raises(ConfigError, match="OPENAI_API_KEY has a line end or a letter") as refused:
        engine.start()
    assert "sk-" not in str(refused.value)


def test_input_is_read_no_further_than_the_bound() -> None:
    read = itertools.count()
    newest = [0]
    far = threading.Event()

    def source() -> Iterator[GenerationRequest]:
        for number in read:
            newest[0] = number
            if number >= 225:
                far.set()
            yield GenerationRequest(f"r{number}", [number])

    with (
        FakeServer() as server,
        OpenAIEngine(SETTINGS, config(server, max_in_flight=4), QUICK) as engine,
    ):
        engine.start()
        stream = engine.stream(source())
        for taken in range(1, 200):
            next(stream)
            # waiting in the prefetcher, under way, and answered but not taken
            assert newest[0] <= taken + 4 + 4 + 2 * 4 + 4
        assert not far.wait(1.0)  # nobody takes, so nothing more is read
        stream.close()
        assert server.most_at_once <= 4
        # The engine answers another stream afterwards.
        assert len(list(engine.stream(requests(10)))) == 10


def test_closing_the_iterator_ends_what_is_under_way() -> None:
    gate = threading.Event()

    def script(number: int, body: dict[str, Any]) -> Reply:
        if number > 0:
            gate.wait(10)
        return None

    with FakeServer(script) as server:
        with OpenAIEngine(SETTINGS, config(server), QUICK) as engine:
            engine.start()
            stream = engine.stream(requests(100))
            next(stream)
            stream.close()
            gate.set()
            assert_all_right({a.request_id: a for a in engine.stream(requests(20))})


def test_what_the_source_raises_is_raised() -> None:
    def source() -> Iterator[GenerationRequest]:
        yield from requests(3)
        raise LookupError("row 4")

    with FakeServer() as server, OpenAIEngine(SETTINGS, config(server)) as engine:
        engine.start()
        with pytest.raises(LookupError, match="row 4"):
            list(engine.stream(source()))


def test_vllm_and_torch_are_not_imported() -> None:
    with FakeServer() as server:
        code = f"""
            import sys
            from pathlib import Path
            from slm_vllm.config.engine import OpenAIConfig
            from slm_vllm.config.schema import GenerationConfig, HardwareConfig
            from slm_vllm.engines.openai_engine import OpenAIEngine
            from slm_vllm.engines.settings import EngineSettings
            from slm_vllm.monitoring.device import Device
            from slm_vllm.types import GenerationRequest

            hardware, cpu = HardwareConfig(name="cpu"), Device("cpu", "CPU")
            settings = EngineSettings(
                Path("/m"), cpu, hardware, GenerationConfig(), "float32", 128
            )
            config = OpenAIConfig(base_url=("{server.url}",))
            with OpenAIEngine(settings, config) as engine:
                engine.start()
                (answer,) = engine.stream([GenerationRequest("r", [1])])
            assert answer.error is None
            assert not {{"vllm", "torch", "ray"}} & set(sys.modules)
        """
        done = run_python(code)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("http://h:8000", "http://h:8000/v1"),
        ("http://h:8000/", "http://h:8000/v1"),
        ("http://h:8000/v1/", "http://h:8000/v1"),
        ("https://h/openai/v1", "https://h/openai/v1"),
    ],
)
def test_api_url(given: str, expected: str) -> None:
    assert api_url(given) == expected


@pytest.mark.parametrize("url", ["http://me:secret@host/v1", "localhost:8000", "ftp://host"])
def test_addresses_that_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="api_key_env beside it|is not an address") as refused:
        OpenAIConfig(base_url=url)  # type: ignore[arg-type]
    if "@" in url:
        assert "secret" not in refused.value.errors()[0]["msg"]


def test_usual_is_what_a_server_says() -> None:
    assert usual({"model": "m", "prompt": [5]})["choices"][0]["text"] == answer_to([5])


def test_answers_are_kept_by_what_is_served_and_not_by_where() -> None:
    from slm_vllm.config.compose import compose_config
    from slm_vllm.rundir.fingerprint import answer_fingerprint

    def fingerprint(dtype: str, *words: str) -> str:
        return answer_fingerprint(compose_config(["hardware=cpu", *words]), "rev", dtype, 512, None)

    served = ["engine.name=openai", "engine.base_url=['http://a:1']"]
    first = fingerprint("float32", *served)
    # The client's own hardware and the address change no answer.
    assert first == fingerprint("bfloat16", served[0], "engine.base_url=['http://b:2/v1']")
    assert first == fingerprint("float32", *served, "engine.max_in_flight=3", "engine.timeout=9")
    assert first != fingerprint("float32", *served, "engine.served_model=other")
    assert first != fingerprint("float32", *served, "++engine.extra_body.priority=1")
    assert first != fingerprint("float32")


@pytest.mark.parametrize("method", ["check_alive", "ask"])
def test_a_defect_ends_the_run_and_loses_no_question_in_silence(
    monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Nobody answers, and what asks whether the server is back raises what nobody expects."""

    async def broken(*_: Any) -> None:
        raise RuntimeError("a defect")

    with FakeServer(lambda number, body: (500, {}, {})) as server:
        monkeypatch.setattr(Server, method, broken)
        with pytest.raises((EngineError, RuntimeError), match="a defect"):
            ask(config(server), 3, replace(QUICK, patience=60.0))


def test_a_defect_in_what_follows_a_refusal_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: Any) -> None:
        raise RuntimeError("a defect")

    with FakeServer(lambda number, body: (404, {}, {})) as server:
        monkeypatch.setattr(Server, "why_refused", broken)
        with pytest.raises(RuntimeError, match="a defect"):
            ask(config(server), 1)
