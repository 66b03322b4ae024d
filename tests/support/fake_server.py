"""An OpenAI-compatible server on loopback whose every answer can be scripted."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from slm_vllm.engines.openai_sampling_proof import TEST_PROMPT, TEST_REQUEST

# What a script returns: a status with headers and a body, or None for the usual answer.
Reply = tuple[int, dict[str, str], Any] | str | None
Script = Callable[[int, dict[str, Any]], Reply]

_DRAWN = itertools.count()
CARD = {"id": "tiny", "object": "model", "owned_by": "vllm", "root": "/m", "max_model_len": 256}


def answer_to(prompt: Any) -> str:
    """The text every server gives to a prompt: made from the prompt alone."""
    return f" answer {prompt[0] if isinstance(prompt, list) else prompt}"


class FakeServer:
    """Serves `/v1/models` and `/v1/completions`; counts what it is asked.

    Args:
        script: Called with the number of the request (from 0) and its body. It may return
            "reset" (the connection breaks), a (status, headers, body) or None.
        cards: What the list of models holds.
        key: The key that requests must carry, if any.
        models: The whole answer to a question for the list of models, in place of `cards`.
        proof: As `script`, for the question that proves the sampling; neither counts the other's.
    """

    def __init__(
        self,
        script: Script | None = None,
        cards: list[dict[str, Any]] | None = None,
        key: str | None = None,
        port: int = 0,
        models: Reply = None,
        proof: Script | None = None,
    ) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.proofs: list[dict[str, Any]] = []
        self.keys: set[str] = set()
        self.most_at_once = 0
        self._at_once = 0
        self._lock = threading.Lock()
        self._script = script or (lambda number, body: None)
        self._proof = proof or (lambda number, body: None)
        self._cards = [CARD] if cards is None else cards
        self._key = key
        self._list = models
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def do_GET(self) -> None:
                server._models(self)

            def do_POST(self) -> None:
                server._complete(self)

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 256

            def handle_error(self, *_: Any) -> None:
                pass

        self._http = Quiet(("127.0.0.1", port), Handler)
        self.port = self._http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self._connections: set[Any] = set()
        self._thread = threading.Thread(
            target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self._thread.start()

    def __enter__(self) -> FakeServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Refuses new connections and breaks those that are open."""
        self._http.shutdown()
        self._http.server_close()
        for connection in list(self._connections):
            _break(connection)

    def _models(self, handler: BaseHTTPRequestHandler) -> None:
        self._connections.add(handler.connection)
        if self._refuses(handler):
            return
        usual_list = (200, {}, {"object": "list", "data": self._cards})
        _send(handler, *(self._list if isinstance(self._list, tuple) else usual_list))

    def _complete(self, handler: BaseHTTPRequestHandler) -> None:
        self._connections.add(handler.connection)
        body = json.loads(handler.rfile.read(int(handler.headers["content-length"])))
        if self._refuses(handler):
            return
        is_proof = body.get("prompt") == TEST_PROMPT or body.get("messages") == TEST_REQUEST.turns
        bodies, script = (self.proofs, self._proof) if is_proof else (self.bodies, self._script)
        with self._lock:
            number = len(bodies)
            bodies.append(body)
            self._at_once += not is_proof
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            reply = script(number, body)
            if reply == "reset":
                _break(handler.connection)
                handler.close_connection = True
                return
            _send(handler, *(reply if isinstance(reply, tuple) else (200, {}, usual(body))))
        finally:
            with self._lock:
                self._at_once -= not is_proof

    def _refuses(self, handler: BaseHTTPRequestHandler) -> bool:
        given = handler.headers.get("authorization", "").removeprefix("Bearer ")
        self.keys.add(given)
        if self._key is None or given == self._key:
            return False
        _send(handler, 401, {}, {"error": {"message": f"Incorrect API key provided: {given}"}})
        return True


def sampled(body: dict[str, Any]) -> str:
    """A text that changes with what is sampled, as that of any model does."""
    penalty = body.get("repetition_penalty", body.get("repeat_penalty", 1.0))
    is_greedy = body.get("temperature") == 0 or body.get("top_k") == 1
    is_greedy = is_greedy or body.get("min_p") == 1 or body.get("top_p", 1) < 0.1
    return f" under {penalty:.3f}" + ("" if is_greedy else f" and chance {next(_DRAWN)}")


def usual(body: dict[str, Any]) -> dict[str, Any]:
    if "messages" in body:
        turns = body["messages"]
        said = sampled(body) if turns == TEST_REQUEST.turns else answer_to(turns[-1]["content"])
        choice = {"index": 0, "finish_reason": "stop"}
        return {
            "id": "x",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [{**choice, "message": {"role": "assistant", "content": said}}],
            "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12},
        }
    prompt = body["prompt"]
    said = sampled(body) if prompt == TEST_PROMPT else answer_to(prompt)
    return {
        "id": "x",
        "object": "text_completion",
        "created": 0,
        "model": body["model"],
        "choices": [{"index": 0, "text": said, "finish_reason": "length"}],
        "usage": {"prompt_tokens": len(prompt), "completion_tokens": 3, "total_tokens": 0},
    }


def _send(handler: BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: Any) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    handler.send_response(status)
    for name, value in {"content-type": "application/json", **headers}.items():
        handler.send_header(name, value)
    handler.send_header("content-length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)


def _break(connection: Any) -> None:
    import socket

    try:
        connection.shutdown(socket.SHUT_RDWR)
        connection.close()
    except OSError:
        pass
