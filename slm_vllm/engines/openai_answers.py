"""Reads a server's JSON: the answer, or why there is none.

Servers differ in everything beside the answer. What is out of form there costs no answer; what is
wrong is said in the server's own words.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Literal

from slm_vllm.types import Completion, GenerationRequest, Sample

_LOAD = (408, 429, 503, 529)  # the server is there and has too much to do
_THOUGHTS = ("thinking", "reasoning", "redacted")  # kinds of parts that hold no answer
_CUT_OFF = ("max_tokens", "max_length", "model_length", "max_output_tokens", "token_limit")
_REFUSED = (401, 403, 404, 405)  # no request will do better
_LONGEST_MESSAGE = 300
_MOST_TOKENS = 1 << 31
_NOTHING: Mapping[str, Any] = MappingProxyType({})

Trouble = Literal["load", "timeout", "connection", "server", "refused", "request"]


class Failed(Exception):
    """One request that got no answer.

    Attributes:
        trouble: "load": too much at once. "timeout": no answer. "connection": nobody there.
            "server": an error or nonsense from the server. "refused": the server will refuse
            every request. "request": this one is at fault, asking again would not help.
        retry_after: Seconds that the server asks to wait, or None.
        status: The HTTP status, where there was one.
    """

    def __init__(
        self,
        trouble: Trouble,
        message: str,
        retry_after: float | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(message)
        self.trouble = trouble
        self.retry_after = retry_after
        self.status = status


def read_json(text: str) -> Any:
    """The content of a body; the pieces of one that a server streams, unasked, in one.

    Raises:
        Failed: It is no JSON.
    """
    text = text.lstrip("\ufeff \r\n")
    try:
        return _joined(text) if text.startswith(("data:", "event:", ":")) else json.loads(text)
    except (ValueError, RecursionError, AttributeError, TypeError):
        raise Failed("server", f"an answer that is no JSON: {shortened(text)}") from None


def _joined(events: str) -> dict[str, Any]:
    """The answer whose pieces are server-sent events."""
    joined: dict[str, Any] = {}
    choices: dict[int, dict[str, Any]] = {}
    for line in events.splitlines():
        field, _, data = line.partition(":")
        if field != "data" or data.strip() == "[DONE]":
            continue
        piece = json.loads(data)
        joined |= {key: value for key, value in piece.items() if value is not None}
        for part in piece.get("choices") or ():
            choice = choices.setdefault(part.get("index", 0), {})
            choice |= {key: part[key] for key in ("index", "finish_reason") if part.get(key)}
            if "delta" in part:
                _append(choice.setdefault("message", {}), part["delta"])
            _append(choice, part)
    return joined | {"choices": list(choices.values())}


def _append(said: dict[str, Any], piece: Mapping[str, Any]) -> None:
    """Adds the texts of a piece to those before it."""
    for key in ("text", "content", "reasoning", "reasoning_content"):
        if isinstance(piece.get(key), str):
            said[key] = (said.get(key) or "") + piece[key]
        elif key in piece:
            said.setdefault(key, None)


def read_completion(
    request: GenerationRequest, content: Any, body: Mapping[str, Any] = _NOTHING
) -> Completion:
    """The answer in the body of a response with status 200.

    Args:
        request: What was asked.
        content: What came back.
        body: What was sent beside the prompt; it may ask for several answers, or their
            probabilities.

    Raises:
        Failed: There is none.
    """
    if not isinstance(content, Mapping):
        raise Failed("server", f"an answer of another form: {shortened(json.dumps(content))}")
    choices = _in_order(content.get("choices"))
    choice = choices[0] if choices else None
    if not isinstance(choice, Mapping):
        raise _failure_inside(content)
    text = _text_of(choice)
    if text is None:
        raise Failed("server", f"an answer without text: {shortened(json.dumps(choice))}")
    finish_reason = _finish_reason(choice)
    usage = content.get("usage")
    usage = usage if isinstance(usage, Mapping) else {}
    return Completion(
        request_id=request.request_id,
        text=whole(text),
        finish_reason=finish_reason,
        n_prompt_tokens=_count(usage.get("prompt_tokens"), len(request.prompt_token_ids)),
        n_completion_tokens=_count(usage.get("completion_tokens"), 0),
        is_whole=_is_whole(choice, text),
        samples=_samples(choices, body) if body.keys() & {"n", "logprobs"} else (),
    )


def without_prompt(answer: Completion, prompt: str) -> Completion:
    """An answer without the prompt, which servers around transformers' pipeline put before it."""
    if not answer.text.startswith(prompt):
        return answer
    samples = (replace(one, text=one.text.removeprefix(prompt)) for one in answer.samples)
    return replace(answer, text=answer.text.removeprefix(prompt), samples=tuple(samples))


def _in_order(found: Any) -> list[Any]:
    """The answers of a list, by their numbers where all have one."""
    choices: list[Any] = list(found) if isinstance(found, list) else []
    if all(isinstance(one, Mapping) and isinstance(one.get("index"), int) for one in choices):
        choices.sort(key=lambda one: int(one["index"]))
    return choices


def _samples(choices: list[Any], body: Mapping[str, Any]) -> tuple[Sample, ...]:
    """All answers to a request, in the order of their seeds."""
    n = body.get("n", 1)
    if len(choices) != n:
        raise Failed("refused", f"{len(choices)} of the {n} answers that generation.n={n} asks for")
    samples = []
    for number, choice in enumerate(choices):
        text = _text_of(choice) if isinstance(choice, Mapping) else None
        if text is None:
            raise Failed("server", f"an answer without text: {shortened(json.dumps(choice))}")
        logprobs = _logprobs(choice) if "logprobs" in body else None
        samples.append(
            Sample(
                text=whole(text),
                finish_reason=_finish_reason(choice),
                n_completion_tokens=None if logprobs is None else len(logprobs),
                seed=body["seed"] + number if "seed" in body else None,
                logprob=None if logprobs is None else math.fsum(logprobs),
                is_whole=_is_whole(choice, text),
            )
        )
    return tuple(samples)


def _logprobs(choice: Mapping[str, Any]) -> list[float]:
    """The log-probability of each token, in the form of either end point."""
    found = choice.get("logprobs")
    found = found if isinstance(found, Mapping) else {}
    values = found.get("token_logprobs")
    if values is None and isinstance(found.get("content"), list):
        values = [one.get("logprob") for one in found["content"] if isinstance(one, Mapping)]
    if not isinstance(values, list) or not all(isinstance(one, (int, float)) for one in values):
        raise Failed("refused", "answers without the log-probabilities of generation.logprobs=true")
    return [float(one) for one in values]


def _is_whole(choice: Mapping[str, Any], text: str) -> bool:
    # A chat that was cut off may be a thought that the server's template had opened.
    is_cut = _finish_reason(choice) == "length" and not text.startswith("<think>")
    return "text" not in choice and not is_cut


def failure_of(status: int, headers: Mapping[str, str], text: str) -> Failed:
    """What a response with an error status means."""
    return _failure(status, f"status {status}: {reason_in(text)}", _retry_after(headers))


def reason_in(text: str) -> str:
    """The server's own reason in the body of an error."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return shortened(text) or "no reason given"
    return shortened(_reason(content) or text)


def shortened(text: str) -> str:
    """A text from outside as part of a message: on one line, not too long, fit for UTF-8."""
    line = " ".join(whole(text[: 4 * _LONGEST_MESSAGE]).split())
    return line if len(line) <= _LONGEST_MESSAGE else line[: _LONGEST_MESSAGE - 3] + "..."


def whole(text: str) -> str:
    """A text in which half characters are replaced, as UTF-8 cannot hold them.

    Servers that cut an answer inside an emoji send half of its surrogate pair.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _text_of(choice: Mapping[str, Any]) -> str | None:
    text = _plain_text(choice.get("text"))
    message = choice.get("message")
    if text or (text is not None and not isinstance(message, Mapping)):
        return text
    if not isinstance(message, Mapping):
        # It says how it ended and has a place for a text: nothing was said.
        ended = isinstance(choice.get("finish_reason"), str)
        return "" if ended and "text" in choice and choice["text"] is None else None
    content = _plain_text(message.get("content"))
    thought = message.get("reasoning_content") or message.get("reasoning")
    if isinstance(thought, str):
        # As the model wrote it before the server took it apart.
        cut_off = content is None or (not content and _finish_reason(choice) == "length")
        return f"<think>{thought}" if cut_off else f"<think>{thought}</think>{content}"
    if content is None and "content" in message and message["content"] is None:
        refusal = message.get("refusal")
        if isinstance(refusal, str):
            return refusal
        # All tokens went into a thought that the server does not even show.
        return "<think>" if _finish_reason(choice) == "length" else ""
    return content


def _plain_text(content: Any) -> str | None:
    """The text of a message; some servers send it in parts."""
    if isinstance(content, list):
        parts = [part.get("text") if isinstance(part, Mapping) else part for part in content]
        kinds = [str(part.get("type")) if isinstance(part, Mapping) else "" for part in content]
        return "".join(
            part
            for part, kind in zip(parts, kinds, strict=True)
            if isinstance(part, str) and not kind.startswith(_THOUGHTS)
        )
    return content if isinstance(content, str) else None


def _finish_reason(choice: Mapping[str, Any]) -> str:
    reason = choice.get("finish_reason")
    if not isinstance(reason, str) or not reason:
        return "stop"
    return "length" if reason.lower() in _CUT_OFF else shortened(reason)


def _count(value: Any, otherwise: int) -> int:
    try:
        count = int(value)
    except (TypeError, ValueError, OverflowError):
        return otherwise
    return count if 0 <= count < _MOST_TOKENS else otherwise


def _failure_inside(content: Mapping[str, Any]) -> Failed:
    """The failure that a body with status 200 tells of."""
    error = content.get("error")
    message = shortened(_reason(content) or json.dumps(content))
    code = error.get("code") if isinstance(error, Mapping) else None
    status = _count(code, 0)
    return _failure(status if 400 <= status < 600 else None, f"no answer but: {message}", None)


def _failure(status: int | None, message: str, retry_after: float | None) -> Failed:
    trouble: Trouble = "request"
    if status is None or status >= 500 or status == 409:
        trouble = "server"
    if status in _LOAD:
        trouble = "load"
    elif status in _REFUSED:
        trouble = "refused"
    return Failed(trouble, message, retry_after, status)


def _reason(content: Any) -> str | None:
    """The most telling text of an error object, in any of the usual forms."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = [part for part in map(_reason, content[:3]) if part]
        return "; ".join(parts) or None
    if not isinstance(content, Mapping):
        return None
    for key in ("error", "message", "detail", "msg", "reason", "errors"):
        found = _reason(content.get(key))
        if found:
            place = content.get("loc")  # FastAPI names the field there
            where = ".".join(map(str, place)) + ": " if isinstance(place, list) else ""
            return where + found
    return None


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds; the header may also hold a date, which is left to the usual back-off."""
    try:
        seconds = float(headers.get("retry-after", ""))
    except ValueError:
        return None
    return max(0.0, seconds) if seconds == seconds else None
