"""A ClearML server on the loopback interface that keeps what it is sent and can misbehave."""

from __future__ import annotations

import contextlib
import json
import threading
import time
import uuid
from base64 import b64decode
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import jwt

ACCESS, SECRET = "loopback-access", "loopback-secret"
_EDITABLE = ("created", "in_progress")


class Refusal(Exception):
    """An answer other than 200."""

    def __init__(self, code: int, message: str, subcode: int = 0) -> None:
        super().__init__(message)
        self.code, self.subcode = code, subcode


class Loopback:
    """The server's content, and how it behaves.

    Attributes:
        calls: Endpoints called, in order; "files" stands for an upload.
        received: Every event that was sent, repeated ones again.
        stalled: While set, requests are accepted and not answered.
        before, after: Called with the endpoint around the work on a request; `after` comes
            before its answer is sent. `before` may raise a `Refusal`.
    """

    def __init__(self) -> None:
        self.projects: dict[str, dict[str, Any]] = {}
        self.tasks: dict[str, dict[str, Any]] = {}
        self.files: dict[str, bytes] = {}
        self.queues: dict[str, list[str]] = {}
        self.calls: list[str] = []
        self.received: list[dict[str, Any]] = []
        self.reject_login = False
        self.stalled = False
        self.files_away = False
        self.before: Callable[[str], None] = lambda endpoint: None
        self.after: Callable[[str], None] = lambda endpoint: None
        self.port = 0
        self._lock = threading.RLock()
        self._release = threading.Event()
        self._server: ThreadingHTTPServer | None = None
        self._connections: list[Any] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def environment(self) -> dict[str, str]:
        return {
            "CLEARML_API_HOST": self.url,
            "CLEARML_WEB_HOST": self.url + "/web",
            "CLEARML_FILES_HOST": self.url + "/files",
            "CLEARML_API_ACCESS_KEY": ACCESS,
            "CLEARML_API_SECRET_KEY": SECRET,
        }

    def start(self) -> None:
        """Listens, on the same port as before if there was one."""
        content, self._release = self, threading.Event()

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            allow_reuse_address = True

            def get_request(self) -> Any:
                connection, address = super().get_request()
                content._connections.append(connection)
                return connection, address

            def handle_error(self, request: Any, client_address: Any) -> None:
                """The other side was killed: that is what the tests are about."""

        handler = type("Handler", (_Handler,), {"content": self})
        self._server = Server(("127.0.0.1", self.port), handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Dies: open connections break off, new ones are refused; the content is kept."""
        if self._server is None:
            return
        self._release.set()
        self._server.shutdown()
        self._server.server_close()
        self._server = None
        while self._connections:
            connection = self._connections.pop()
            with contextlib.suppress(OSError):
                connection.shutdown(2)
            connection.close()

    def stall(self) -> None:
        self.stalled = True

    def go_on(self) -> None:
        self.stalled = False
        self._release.set()
        self._release = threading.Event()

    def wait_while_stalled(self) -> None:
        if self.stalled:
            self._release.wait()

    @property
    def task(self) -> dict[str, Any]:
        """The only task there is."""
        (task,) = self.tasks.values()
        return task

    def events(self, kind: str) -> list[dict[str, Any]]:
        """What the server shows: of two events with one identity the later one."""
        kept: dict[Any, dict[str, Any]] = {}
        for number, event in enumerate(self.received):
            if event["type"] != kind:
                continue
            key: Any = tuple(event.get(name) for name in ("task", "iter", "metric", "variant"))
            # Elasticsearch gives each log line an id of its own.
            kept[number if kind == "log" else key] = event
        return list(kept.values())

    def repeated(self) -> list[Any]:
        """Identities and contents that were received more than once."""
        seen: Counter[Any] = Counter()
        for event in self.received:
            content = {k: v for k, v in event.items() if k != "timestamp" or event["type"] == "log"}
            seen[json.dumps(content, sort_keys=True)] += 1
        return [content for content, count in seen.items() if count > 1]

    def scalars(self) -> dict[tuple[str, str, int], float]:
        return {
            (event["metric"], event["variant"], event["iter"]): event["value"]
            for event in self.events("training_stats_scalar")
        }

    def artifacts(self) -> dict[str, dict[str, Any]]:
        return {entry["key"]: entry for entry in self.task["execution"]["artifacts"]}

    def answer(self, endpoint: str, body: Any) -> dict[str, Any]:
        with self._lock:
            if endpoint == "events.add_batch":
                self.received += body
                return {"added": len(body), "errors": 0}
            method = getattr(self, "_" + endpoint.replace(".", "_"), None)
            if method is None:
                raise Refusal(404, f"no endpoint {endpoint}")
            return method(body) or {}

    def _projects_get_all(self, body: dict[str, Any]) -> dict[str, Any]:
        import re

        found = [p for p in self.projects.values() if re.search(body.get("name", ""), p["name"])]
        return {"projects": found}

    def _projects_create(self, body: dict[str, Any]) -> dict[str, Any]:
        project = {"id": uuid.uuid4().hex, "name": body["name"]}
        self.projects[project["id"]] = project
        return {"id": project["id"]}

    def _tasks_create(self, body: dict[str, Any]) -> dict[str, Any]:
        task = {"id": uuid.uuid4().hex, "status": "created", "output": {}, "execution": {}, **body}
        task["execution"].setdefault("artifacts", [])
        self.tasks[task["id"]] = task
        return {"id": task["id"]}

    def _tasks_get_by_id(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"task": self._known(body)}

    def _tasks_get_all(self, body: dict[str, Any]) -> dict[str, Any]:
        found = list(self.tasks.values())
        if "id" in body:
            found = [task for task in found if task["id"] in body["id"]]
        if "_any_" in body:
            fields, pattern = body["_any_"]["fields"], body["_any_"]["pattern"]
            found = [t for t in found if any(pattern in (t.get(f) or "") for f in fields)]
        return {"tasks": found}

    def _tasks_edit(self, body: dict[str, Any]) -> dict[str, Any]:
        task = self._editable(body)
        task.update({k: v for k, v in body.items() if k not in ("task", "force")})
        task["execution"].setdefault("artifacts", [])
        return {"updated": 1}

    def _tasks_delete(self, body: dict[str, Any]) -> dict[str, Any]:
        del self.tasks[self._known(body)["id"]]
        return {"deleted": True}

    def _tasks_add_or_update_artifacts(self, body: dict[str, Any]) -> dict[str, Any]:
        task = self._editable(body)
        artifacts = {entry["key"]: entry for entry in task["execution"]["artifacts"]}
        artifacts.update({entry["key"]: entry for entry in body["artifacts"]})
        task["execution"]["artifacts"] = list(artifacts.values())
        return {"updated": 1}

    def _queues_get_all(self, body: dict[str, Any]) -> dict[str, Any]:
        named = [q for q in self.queues if body.get("name", q) == q]
        return {"queues": [{"id": f"id-{name}", "name": name} for name in named]}

    def _queues_get_next_task(self, body: dict[str, Any]) -> dict[str, Any]:
        waiting = self.queues[body["queue"].removeprefix("id-")]
        return {"entry": {"task": waiting.pop(0)}} if waiting else {}

    def _tasks_enqueue(self, body: dict[str, Any]) -> dict[str, Any]:
        task = self._known(body)
        name = body["queue"].removeprefix("id-")
        if task["status"] != "created" or name not in self.queues:
            raise Refusal(400, "Cannot enqueue", 110)
        self.queues[name].append(task["id"])
        task["status"] = "queued"
        return {"queued": 1, "updated": 1}

    def _tasks_dequeue(self, body: dict[str, Any]) -> dict[str, Any]:
        task = self._known(body)
        waiting = [ids for ids in self.queues.values() if task["id"] in ids]
        for ids in waiting:
            ids.remove(task["id"])
        if waiting:
            task["status"] = body.get("new_status", "created")
        return {"updated": len(waiting)}

    def _tasks_clone(self, body: dict[str, Any]) -> dict[str, Any]:
        copied = json.loads(json.dumps(self._known(body)))
        for name in ("id", "status", "status_reason", "execution"):
            copied.pop(name, None)
        return self._tasks_create(copied)

    def _workers_register(self, body: dict[str, Any]) -> dict[str, Any]:
        return {}

    _workers_unregister = _workers_status_report = _tasks_ping = _workers_register
    _tasks_set_requirements = _workers_register

    def _tasks_started(self, body: dict[str, Any]) -> dict[str, Any]:
        return self._to_status(body, "in_progress")

    def _tasks_completed(self, body: dict[str, Any]) -> dict[str, Any]:
        return self._to_status(body, "completed")

    def _tasks_stopped(self, body: dict[str, Any]) -> dict[str, Any]:
        return self._to_status(body, "stopped")

    def _tasks_failed(self, body: dict[str, Any]) -> dict[str, Any]:
        return self._to_status(body, "failed")

    def _events_get_task_events(self, body: dict[str, Any]) -> dict[str, Any]:
        found = [e for e in self.events(body["event_type"]) if e["task"] == body["task"]]
        start = int(body.get("scroll_id") or 0)
        page = found[start : start + body.get("batch_size", 500)]
        end = str(start + len(page))
        return {"events": page, "returned": len(page), "total": len(found), "scroll_id": end}

    def _to_status(self, body: dict[str, Any], status: str) -> dict[str, Any]:
        task = self._known(body)
        if not body.get("force") and task["status"] not in _EDITABLE:
            raise Refusal(400, f"Invalid task status: {task['status']}", 110)
        task["status"], task["status_reason"] = status, body.get("status_reason")
        return {"updated": 1}

    def _known(self, body: dict[str, Any]) -> dict[str, Any]:
        if body["task"] not in self.tasks:
            raise Refusal(400, f"Invalid task id: id={body['task']}", 101)
        return self.tasks[body["task"]]

    def _editable(self, body: dict[str, Any]) -> dict[str, Any]:
        task = self._known(body)
        if task["status"] not in (_EDITABLE if body.get("force") else ("created",)):
            raise Refusal(400, f"Invalid task status: {task['status']}", 110)
        return task


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one segment: two wait 40 ms for each other (Nagle)
    content: Loopback

    def log_message(self, *_: Any) -> None:
        """Nothing on the terminal."""

    def do_GET(self) -> None:
        self._respond()

    def do_POST(self) -> None:
        self._respond()

    def do_HEAD(self) -> None:
        self._respond()

    def _respond(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        path = unquote(urlsplit(self.path).path)
        self.content.wait_while_stalled()
        if path.startswith("/files"):
            self._file(path, body)
            return
        endpoint = path.rsplit("/", 1)[-1]
        self.content.calls.append(endpoint)
        try:
            self.content.before(endpoint)
            data = self._data(endpoint, body)
            code, message, subcode = 200, "OK", 0
        except Refusal as refusal:
            data, code, message, subcode = {}, refusal.code, str(refusal), refusal.subcode
        self.content.after(endpoint)
        meta = {
            "id": uuid.uuid4().hex,
            "trx": uuid.uuid4().hex,
            "endpoint": {"name": endpoint, "requested_version": 2.23, "actual_version": "2.23"},
            "result_code": code,
            "result_subcode": subcode,
            "result_msg": message,
            "error_stack": None,
            "error_data": {},
        }
        self._send(code, json.dumps({"meta": meta, "data": data}).encode())

    def _data(self, endpoint: str, body: bytes) -> dict[str, Any]:
        if endpoint == "auth.login":
            return {"token": self._login()}
        if not (self.headers.get("Authorization") or "").startswith("Bearer "):
            raise Refusal(401, "Unauthorized (missing token)", 20)
        if endpoint == "events.add_batch":
            lines = [json.loads(line) for line in body.decode().splitlines() if line]
            return self.content.answer(endpoint, lines)
        return self.content.answer(endpoint, json.loads(body or b"{}"))

    def _login(self) -> str:
        given = b64decode((self.headers.get("Authorization") or "Basic ").split()[-1]).decode()
        if self.content.reject_login or given != f"{ACCESS}:{SECRET}":
            raise Refusal(401, "Unauthorized (invalid credentials)", 20)
        claims = {"exp": int(time.time()) + 86400, "api_version": "2.23", "server_version": "2.0.0"}
        return jwt.encode(claims, "x" * 32, algorithm="HS256")

    def _file(self, path: str, body: bytes) -> None:
        content = self.content
        if content.files_away:
            self._send(503, b"away")
        elif self.command == "POST":
            content.calls.append("files")
            for name, data in _multipart(self.headers["Content-Type"], body).items():
                content.files["/files/" + name.lstrip("/")] = data
            self._send(200, b"OK")
        elif path in content.files:
            self._send(200, content.files[path])
        else:
            self._send(404, b"")

    def _send(self, code: int, data: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def _multipart(content_type: str, body: bytes) -> dict[str, bytes]:
    boundary = content_type.split("boundary=")[1].encode()
    files = {}
    for part in body.split(b"--" + boundary)[1:-1]:
        head, _, data = part.partition(b"\r\n\r\n")
        name = parse_qs(head.split(b"; ")[1].decode())["name"][0].strip('"')
        files[unquote(name)] = data.removesuffix(b"\r\n")
    return files
