"""Servers that keep to the protocol loosely: what each may leave out, refuse or rename."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slm_vllm.config.engine import OpenAIConfig
from slm_vllm.config.schema import GenerationConfig
from slm_vllm.engines import openai_sending
from slm_vllm.engines.openai_answers import Failed, failure_of, read_completion, read_json
from slm_vllm.engines.openai_engine import OpenAIEngine
from slm_vllm.engines.openai_models import Unusable, find_model
from slm_vllm.engines.server_pool import RetryPolicy
from slm_vllm.engines.settings import EngineSettings
from slm_vllm.errors import EngineError
from slm_vllm.prompting.answer import extract_answer, open_block
from slm_vllm.proxies import goes_direct, proxy_advice
from slm_vllm.types import Completion, GenerationRequest
from support.engine_requests import SETTINGS
from support.fake_server import CARD, FakeServer, Reply, answer_to, usual

pytestmark = pytest.mark.slow

QUICK = RetryPolicy(
    attempts=3,
    first_delay=0.01,
    longest_delay=0.05,
    probe_delay=0.02,
    longest_probe_delay=0.05,
    patience=2.0,
    say_after=0.0,
)
PLAIN_CARD = {"id": "tiny", "object": "model", "owned_by": "me"}


def asked(count: int) -> list[GenerationRequest]:
    return [
        GenerationRequest(f"r{i}", [i, 7], [{"role": "user", "content": str(i)}])
        for i in range(count)
    ]


def ask(
    server: FakeServer,
    count: int = 3,
    told: list[str] | None = None,
    policy: RetryPolicy = QUICK,
    run: EngineSettings = SETTINGS,
    **section: Any,
) -> dict[str, Completion]:
    section.setdefault("endpoint", "chat")
    config = OpenAIConfig(base_url=(server.url,), **section)
    with OpenAIEngine(run, config, policy) as engine:
        engine.say = (told if told is not None else []).append
        engine.start()
        answers = list(engine.stream(asked(count)))
    assert len(answers) == count
    return {answer.request_id: answer for answer in answers}


def changed(path: str, value: Any) -> Any:
    """A script whose every answer has one field changed; the value "ABSENT" removes it."""

    def script(number: int, body: dict[str, Any]) -> Reply:
        answer = usual(body)
        place: Any = answer
        *parents, last = path.split(".")
        for name in parents:
            place = place[int(name) if name.isdigit() else name]
        if value == "ABSENT":
            del place[last]
        else:
            place[last] = value
        return 200, {}, answer

    return script


@pytest.mark.parametrize("value", ["ABSENT", None, "x", -1, 1e400, [], {}, True])
@pytest.mark.parametrize(
    "path",
    [
        "id",
        "object",
        "created",
        "model",
        "usage",
        "usage.prompt_tokens",
        "usage.completion_tokens",
        "choices.0.index",
        "choices.0.finish_reason",
        "choices.0.message.role",
    ],
)
def test_a_side_field_out_of_form_costs_no_answer(path: str, value: Any) -> None:
    request = asked(1)[0]
    body = {"model": "m", "messages": request.turns}
    answer = read_completion(request, changed(path, value)(0, body)[2])
    assert answer.text == answer_to("0") and answer.error is None
    assert answer.n_prompt_tokens >= 0 and answer.n_completion_tokens >= 0
    assert isinstance(answer.finish_reason, str) and answer.finish_reason


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ((400, {}, {"error": {"message": "too long"}}), "status 400: too long"),
        ((400, {}, {"error": "too long"}), "status 400: too long"),
        ((422, {}, {"detail": "Unexpected fields: {'n'}"}), "status 422: Unexpected fields: {'n'}"),
        (
            (422, {}, {"detail": [{"loc": ["body", "n"], "msg": "is forbidden"}]}),
            "status 422: body.n: is forbidden",
        ),
        ((400, {}, b"too \xff long"), "status 400: too \ufffd long"),
        ((413, {}, b""), "status 413: no reason given"),
        ((200, {}, {"error": {"message": "too long", "code": 400}}), "no answer but: too long"),
        ((200, {}, {"error": {"message": "too long", "code": "422"}}), "no answer but: too long"),
    ],
)
def test_the_servers_own_reason_is_shown_once(reply: Reply, expected: str) -> None:
    with FakeServer(lambda number, body: reply) as server:
        answers = ask(server)
    assert {answer.error for answer in answers.values()} == {f"{server.url}: {expected}"}
    assert len(server.bodies) == 3


@pytest.mark.parametrize("error", ["Unexpected endpoint", {"message": "Unexpected endpoint"}])
def test_an_error_with_status_200_is_an_error(error: Any) -> None:
    with FakeServer(lambda number, body: (200, {}, {"error": error, "choices": None})) as server:
        with pytest.raises(EngineError, match="no answer but: Unexpected endpoint"):
            ask(server)


def test_half_an_emoji_is_replaced() -> None:
    half = b'{"choices": [{"text": "Danube \\ud83d", "finish_reason": "\\ud83d"}]}'
    with FakeServer(lambda number, body: (200, {}, half)) as server:
        answers = ask(server, endpoint="completions")
    for answer in answers.values():
        assert (answer.text, answer.finish_reason) == ("Danube \ufffd", "\ufffd")
    assert len(server.bodies) == 3


def test_an_emoji_in_two_escapes_stays_whole() -> None:
    whole = b'{"choices": [{"text": "\\ud83d\\ude00"}]}'
    assert read_completion(asked(1)[0], read_json(whole.decode())).text == "\U0001f600"


def events(*pieces: Any) -> str:
    lines = [f"data: {json.dumps(piece)}\n\n" for piece in pieces]
    return ": a comment\n\n" + "".join(lines) + "data: [DONE]\n\n"


def delta(**said: Any) -> dict[str, Any]:
    return {"delta": said}


@pytest.mark.parametrize(
    ("pieces", "text", "is_cut"),
    [
        ([{"text": "Dan"}, {"text": "ube", "finish_reason": "length"}], "Danube", True),
        ([delta(role="assistant", content=None), delta(content="Danube")], "Danube", False),
        ([delta(reasoning="hm"), delta(content="Danube")], "<think>hm</think>Danube", False),
        ([delta(reasoning="hm"), {"delta": {}, "finish_reason": "length"}], "<think>hm", True),
    ],
)
def test_an_answer_streamed_unasked_is_put_together(
    pieces: list[dict[str, Any]], text: str, is_cut: bool
) -> None:
    usage = {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2}}
    said = events(*({"choices": [{"index": 0, **piece}]} for piece in pieces), usage)
    answer = read_completion(asked(1)[0], read_json(said))
    assert (answer.text, answer.finish_reason == "length") == (text, is_cut)
    assert (answer.n_prompt_tokens, answer.n_completion_tokens) == (9, 2)


@pytest.mark.parametrize(
    "data", ["[1]", "3", '{"choices": [1]}', '{"choices": [{"delta": 1}]}', "{"]
)
def test_streamed_nonsense_is_no_answer(data: str) -> None:
    with pytest.raises(Failed, match="no JSON: data:"):
        read_json(f"data: {data}\n")


def test_a_streamed_error_is_told() -> None:
    said = events({"error": {"message": "too long", "code": 400}})
    with pytest.raises(Failed, match="too long"):
        read_completion(asked(1)[0], read_json(said))


def test_a_byte_order_mark_before_an_answer_is_no_part_of_it() -> None:
    assert read_json('\ufeff{"choices": []}') == {"choices": []}


@pytest.mark.parametrize("kind", ["thinking", "reasoning", "reasoning_text", "redacted_thinking"])
def test_parts_that_are_thoughts_are_no_answer(kind: str) -> None:
    parts = [{"type": kind, "text": "Rome?"}, {"type": "text", "text": "Par"}, "is"]
    answer = {"choices": [{"message": {"content": parts}}]}
    assert read_completion(asked(1)[0], answer).text == "Paris"


def test_an_empty_text_beside_a_message_is_not_the_answer() -> None:
    choice = {"text": "", "message": {"content": "Danube"}}
    assert read_completion(asked(1)[0], {"choices": [choice]}).text == "Danube"
    assert read_completion(asked(1)[0], {"choices": [{"text": "", "message": None}]}).text == ""


@pytest.mark.parametrize("reason", ["max_tokens", "MAX_TOKENS", "model_length"])
def test_a_limit_of_tokens_by_another_name_is_the_length(reason: str) -> None:
    answer = {"choices": [{"text": "Par", "finish_reason": reason}]}
    assert read_completion(asked(1)[0], answer).finish_reason == "length"


def chats_only(number: int, body: dict[str, Any]) -> Reply:
    return None if "messages" in body else (404, {}, {"detail": "Not Found"})


def test_a_server_for_chats_only_is_recognised_at_the_first_answer() -> None:
    patient = replace(QUICK, patience=600.0)
    with FakeServer(chats_only) as server:
        with pytest.raises(EngineError, match=r"chats only.*Not Found.*engine\.endpoint=chat"):
            ask(server, policy=patient, endpoint="completions")
        assert ask(server)["r1"].text == answer_to("1")


def test_a_first_answer_404_by_accident_is_not_final() -> None:
    with FakeServer(lambda number, body: (404, {}, b"") if number == 0 else None) as server:
        assert {a.error for a in ask(server, endpoint="completions").values()} == {None}


def test_a_key_that_generation_alone_refuses_ends_the_run_at_once() -> None:
    reply = (401, {}, {"error": {"message": "no such key"}})
    with FakeServer(lambda number, body: reply) as server:
        with pytest.raises(EngineError, match="refuses the key.*no such key.*--api-key-env"):
            ask(server, policy=replace(QUICK, patience=600.0))


@pytest.mark.parametrize(
    "models",
    [
        (404, {}, b"Not Found"),
        (500, {}, {"error": "no cache"}),
        (200, {}, b"<html>"),
        (200, {}, {"object": "list"}),
        (200, {}, {"data": None}),
        (200, {}, {"data": [PLAIN_CARD | {"id": "other"}]}),
        (200, {}, []),
    ],
)
def test_a_given_name_needs_no_list_of_models(models: Reply) -> None:
    with FakeServer(models=models) as server:
        assert ask(server, served_model="mine")["r0"].error is None
        assert {body["model"] for body in server.bodies} == {"mine"}
        with pytest.raises(EngineError, match=r"engine\.served_model=NAME|status 500: no cache"):
            ask(server)


def test_one_model_alone_is_the_one_that_is_asked_for_by_another_name() -> None:
    """llama.cpp lists the path of its file, and answers to any name."""
    card = {"id": "/models/tiny.gguf", "owned_by": "llamacpp", "meta": {"n_ctx": 64}}
    with FakeServer(cards=[card]) as server:
        with pytest.raises(EngineError, match="takes 64 tokens"):
            ask(server, served_model="tiny")
    with FakeServer(cards=[card, card | {"id": "other"}]) as server:
        assert ask(server, served_model="tiny")["r0"].error is None


@pytest.mark.parametrize(
    "models",
    [
        {"models": [{"name": "tiny"}]},
        ["other", "tiny"],
        {"data": ["tiny"]},
        {"data": [None, 3, {"model": "tiny"}]},
    ],
)
def test_lists_of_models_in_other_forms(models: Any) -> None:
    with FakeServer(models=(200, {}, models)) as server:
        ask(server, 1)
    assert [body["model"] for body in server.bodies] == ["tiny"]


@pytest.mark.parametrize(
    "more",
    [
        {"meta": {"n_ctx": 64, "n_ctx_train": 8192}},
        {"max_model_len": "64"},
        {"max_context_length": 8192, "loaded_context_length": 64},
        {"context_length": 64},
        {"context_window": 64},
        {"parameters": {"max_seq_len": 64}},
    ],
)
def test_a_short_context_is_refused_at_the_start_however_it_is_spelt(more: Any) -> None:
    with FakeServer(cards=[PLAIN_CARD | more]) as server:
        with pytest.raises(EngineError, match=r"takes 64 tokens.*needs up to 128"):
            ask(server)
        assert not server.bodies


@pytest.mark.parametrize("value", [None, 0, -5, "many", True, [], 1e400])
def test_a_context_length_that_is_none_refuses_nothing(value: Any) -> None:
    card = PLAIN_CARD | {"context_length": value, "meta": {"n_ctx": value}}
    assert find_model("u", [card], ["tiny"], None).max_model_len is None


SAMPLED = replace(SETTINGS, generation=GenerationConfig(temperature=0.7))


@pytest.mark.parametrize(
    ("card", "run", "expected"),
    [
        (PLAIN_CARD, SETTINGS, {"repetition_penalty": 1.0}),
        (PLAIN_CARD, SAMPLED, {"top_k": -1, "repetition_penalty": 1.0, "min_p": 0.0}),
        (CARD, SAMPLED, {"top_k": -1, "repetition_penalty": 1.0, "min_p": 0.0}),
        (PLAIN_CARD | {"owned_by": "llamacpp"}, SETTINGS, {"repeat_penalty": 1.0}),
        (
            PLAIN_CARD | {"owned_by": "llamacpp"},
            SAMPLED,
            {"top_k": 0, "repeat_penalty": 1.0, "min_p": 0.0},
        ),
        (
            PLAIN_CARD | {"owned_by": "llamacpp"},
            replace(SETTINGS, generation=GenerationConfig(repetition_penalty=1.2)),
            {"repeat_penalty": 1.2},
        ),
    ],
)
def test_each_server_is_told_what_it_would_do_otherwise(
    card: dict[str, Any], run: EngineSettings, expected: dict[str, Any]
) -> None:
    with FakeServer(cards=[card]) as server:
        ask(server, 1, run=run)
    optional = {"top_k", "min_p", "repetition_penalty", "repeat_penalty"}
    assert {k: v for k, v in server.bodies[0].items() if k in optional} == expected
    assert server.bodies[0]["top_p"] == 1.0


def refusing(*fields: str) -> Any:
    def script(number: int, body: dict[str, Any]) -> Reply:
        found = sorted(set(fields) & set(body))
        return (422, {}, {"detail": f"Unexpected fields: {found}"}) if found else None

    return script


@pytest.mark.parametrize("names_it", [True, False])
def test_a_neutral_field_that_is_refused_is_left_out_and_that_is_said(names_it: bool) -> None:
    run = replace(SETTINGS, model_defaults={"repetition_penalty": 1.3})
    nameless: Reply = (400, {}, {"error": "extra fields not permitted"})

    def strict(number: int, body: dict[str, Any]) -> Reply:
        refused = refusing("repetition_penalty")(number, body)
        return refused if names_it or refused is None else nameless

    told: list[str] = []
    with FakeServer(strict, cards=[PLAIN_CARD], proof=strict) as server:
        answers = ask(server, 5, told, run=run)
    assert {answer.error for answer in answers.values()} == {None}
    assert len(server.bodies) == 5
    (line,) = told
    assert "it refuses repetition_penalty" in line and "has repetition_penalty=1.3" in line


def test_a_field_that_the_run_needs_is_not_left_out() -> None:
    run = replace(SETTINGS, generation=GenerationConfig(top_k=5, temperature=1))
    with FakeServer(refusing("top_k"), cards=[PLAIN_CARD]) as server:
        answers = ask(server, run=run)
    assert all("422: Unexpected fields: ['top_k']" in str(a.error) for a in answers.values())


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_loopback_is_asked_past_a_proxy(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "http://127.0.0.1:9")
    with FakeServer() as server:
        assert ask(server)["r0"].error is None


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_a_proxy_in_between_is_named(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, "http://me:secret@127.0.0.1:9")
    config = OpenAIConfig(base_url=("http://models.invalid:8000/v1",))
    with OpenAIEngine(SETTINGS, config, QUICK) as engine:
        with pytest.raises(EngineError, match=rf"{variable} names; NO_PROXY=models\.i") as error:
            engine.start()
    assert "secret" not in str(error.value)
    monkeypatch.setenv("NO_PROXY", "models.invalid")
    assert proxy_advice("http://models.invalid:8000/v1") == ""


def test_a_proxy_that_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "gopher://127.0.0.1:9")
    config = OpenAIConfig(base_url=("http://models.invalid:8000/v1",))
    with OpenAIEngine(SETTINGS, config, QUICK) as engine:
        with pytest.raises(EngineError, match="ALL_PROXY names"):
            engine.start()


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("[::1]", True),
        ("0.0.0.0", True),
        ("api.localhost", True),
        ("10.0.0.1", False),
        ("localhost.example.org", False),
    ],
)
def test_what_is_this_machine(host: str, expected: bool) -> None:
    assert goes_direct(f"http://{host}:8000/v1") is expected


@pytest.mark.parametrize(
    ("content", "reasoning", "finish_reason", "expected", "unterminated"),
    [
        ("Danube", None, "stop", "Danube", False),
        ("Danube", "It is a river.", "stop", "Danube", False),
        ("It is a river", None, "length", "", True),
        ("A river.</think>Danube", None, "length", "Danube", False),
        (None, "It is a river", "length", "", True),
    ],
)
def test_a_template_that_opens_a_thought_does_not_speak_for_a_chat_server(
    content: str | None,
    reasoning: str | None,
    finish_reason: str,
    expected: str,
    unterminated: bool,
) -> None:
    message = {"content": content, "reasoning_content": reasoning}
    answer = {"choices": [{"message": message, "finish_reason": finish_reason}]}
    completion = read_completion(asked(1)[0], answer)
    opened = None if completion.is_whole else open_block("<think>")
    found = extract_answer(completion.text, opened)
    assert (found.text, found.unterminated_thinking) == (expected, unterminated)


DOWN: Reply = (500, {}, {"error": {"message": "Connection error to the backend"}})


def test_a_gateway_whose_backend_comes_back_costs_no_row() -> None:
    """Its list of models goes on answering; far more requests fail than a row has attempts."""
    patient = replace(QUICK, attempts=2, patience=60.0)
    told: list[str] = []
    with FakeServer(lambda number, body: DOWN if number < 60 else None) as server:
        answers = ask(server, 10, told, patient)
    assert {name: a.text for name, a in answers.items()} == {
        f"r{i}": answer_to(str(i)) for i in range(10)
    }
    assert "No answers since" in told[0] and server.url in told[0] and "backend" in told[0]
    assert "answers again after" in told[-1]


def test_a_gateway_whose_backend_stays_away_ends_the_run_and_no_row_is_blamed() -> None:
    taken: list[Completion] = []
    with FakeServer(lambda number, body: DOWN) as server:
        config = OpenAIConfig(base_url=(server.url,), endpoint="chat")
        with OpenAIEngine(SETTINGS, config, QUICK) as engine:
            engine.start()
            with pytest.raises(EngineError, match=r"No server has answered.*\n.*the backend"):
                taken.extend(engine.stream(asked(20)))
    assert not taken


def test_a_server_that_only_ever_refuses_for_load_ends_the_run() -> None:
    with FakeServer(lambda number, body: (503, {}, {"error": "no backend"})) as server:
        with pytest.raises(EngineError, match="No server has answered"):
            ask(server)


@pytest.mark.parametrize("count", [1, 4])
def test_rows_at_fault_are_told_from_a_server_that_is_down(count: int) -> None:
    """Nothing else is asked, so the server has to show that it generates."""

    def script(number: int, body: dict[str, Any]) -> Reply:
        return None if body["messages"][-1]["content"] == "Hello" else DOWN

    told: list[str] = []
    with FakeServer(script) as server:
        answers = ask(server, count, told, replace(QUICK, patience=60.0))
    assert all("backend" in str(answer.error) for answer in answers.values())
    assert not told


def test_winding_down_drops_what_waits_at_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_sending, "_WIND_DOWN_SECONDS", 0.1)
    gate, waiting = threading.Event(), threading.Event()

    def script(number: int, body: dict[str, Any]) -> Reply:
        if number >= 5:
            waiting.set()
            gate.wait(60)
        return None

    with FakeServer(script) as server:
        config = OpenAIConfig(base_url=(server.url,), endpoint="chat")
        with OpenAIEngine(SETTINGS, config, QUICK) as engine:
            engine.start()
            threading.Thread(target=lambda: waiting.wait(60) and engine.wind_down()).start()
            answers = list(engine.stream(asked(200)))
            assert 0 < len(answers) <= 5  # and none of those that wait
            assert {answer.error for answer in answers} == {None}
            gate.set()
            assert len(list(engine.stream(asked(3)))) == 3


def test_names_in_a_list_of_models_fit_utf8() -> None:
    with pytest.raises(Unusable, match="serves \ufffd, not tiny"):
        find_model("u", [{"id": "\ud83d"}], ["tiny"], None)
    assert find_model("u", [{"id": "\ud83d", "root": "tiny"}], ["tiny"], None).name == "\ufffd"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
KEYS = st.sampled_from(
    "choices usage message content text finish_reason error reasoning_content code".split()
)


@given(st.data())
@settings(max_examples=400, deadline=None)
def test_any_answer_is_a_completion_or_a_failure(data: st.DataObject) -> None:
    """Values of any form in any place: nothing else is raised, and texts fit UTF-8."""
    request = asked(1)[0]
    content: Any = usual({"model": "m", "messages": request.turns})

    def mutated(value: Any) -> Any:
        if data.draw(st.integers(0, 5)) == 0:
            return data.draw(JSON)
        if isinstance(value, dict):
            return {
                data.draw(KEYS) if data.draw(st.integers(0, 9)) == 0 else k: mutated(v)
                for k, v in value.items()
            }
        return [mutated(item) for item in value] if isinstance(value, list) else value

    status = data.draw(st.sampled_from([200, 400, 404, 422, 429, 500, 503]))
    content = mutated(content)
    try:
        if status != 200:
            import json

            raise failure_of(status, {}, json.dumps(content))
        answer = read_completion(request, content)
    except Failed as failure:
        str(failure).encode("utf-8")
        assert str(failure)
    else:
        assert answer.request_id == request.request_id
        (answer.text + answer.finish_reason).encode("utf-8")
        assert 0 <= answer.n_prompt_tokens < 1 << 31 and 0 <= answer.n_completion_tokens < 1 << 31


@pytest.mark.parametrize(
    ("choice", "text"),
    [
        ({"text": None, "finish_reason": "length"}, ""),
        ({"text": ["Par", {"type": "text", "text": "is"}]}, "Paris"),
        ({"text": "Paris", "message": {"content": "no"}}, "Paris"),
    ],
)
def test_a_completion_whose_text_has_another_form(choice: dict[str, Any], text: str) -> None:
    completion = read_completion(asked(1)[0], {"choices": [choice]})
    assert (completion.text, completion.error) == (text, None)


def test_a_choice_with_no_place_for_a_text_is_no_answer() -> None:
    with pytest.raises(Failed, match="without text"):
        read_completion(asked(1)[0], {"choices": [{"finish_reason": "stop"}]})
