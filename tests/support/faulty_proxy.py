"""A proxy before an S3 server that breaks what it is told to break.

One request for each connection: it reads the request whole, asks the server, and sends the answer
on, unless a fault is planned for it.
"""

from __future__ import annotations

import re
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

Sink = Callable[[bytes], None]


@dataclass
class Fault:
    """What happens to the answers of matching requests.

    `after` counts bytes of the body. A fault hits `times` requests, then passes them on. It is for
    requests whose head holds `contains` and not `lacks`. Lines of that head which match `forget`
    are kept from the server; `words` are a pattern in the head of the answer and its replacement.
    """

    method: str
    kind: str
    after: int = 0
    times: int = 1
    skip: int = 0
    status: str = "503 Service Unavailable"
    code: str = "SlowDown"
    contains: bytes = b""
    lacks: bytes = b""
    forget: bytes = b""
    words: tuple[bytes, Any] = (b"", b"")
    message: str | None = "as planned"
    details: str = ""
    page: str = ""
    hits: int = field(default=0)


class FaultyProxy:
    def __init__(self, upstream: str, tls: ssl.SSLContext | None = None) -> None:
        parts = urlsplit(upstream)
        self._upstream = (parts.hostname, parts.port)
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self.faults: list[Fault] = []
        self.requests: list[bytes] = []
        self.bytes_up = 0
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def plan(self, method: str, kind: str, **given: object) -> Fault:
        fault = Fault(method, kind, **given)  # type: ignore[arg-type]
        self.faults.append(fault)
        return fault

    def count(self, method: str) -> int:
        return sum(line.startswith(method.encode() + b" ") for line in self.requests)

    def close(self) -> None:
        self._closed.set()
        self._listener.close()

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            if self._tls:
                client = self._tls.wrap_socket(client, server_side=True)
            self._handle(client)
        except (OSError, ValueError):
            pass
        finally:
            client.close()

    def _handle(self, client: socket.socket) -> None:
        head, rest = _until_blank_line(client)
        if not head:
            return
        lines = head.split(b"\r\n")
        fault = self._fault(lines[0], head)
        if b"expect: 100-continue" in head.lower():
            client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        length = _length(lines)
        if fault and fault.kind == "reset request":
            if length > len(rest):
                client.recv(1)
            _reset(client)
            return
        if fault and fault.kind == "truncate at once":
            return
        if fault and fault.kind == "answer":
            _drain(client, length - len(rest))
            client.sendall(_error(fault))
            return
        if fault and fault.forget:
            lines = [re.sub(fault.forget, b"", line) for line in lines]
            lines = [line for line in lines if line]
        kept = [line for line in lines if not line.lower().startswith((b"expect:", b"connection:"))]
        with socket.create_connection(self._upstream) as server:
            server.sendall(b"\r\n".join([*kept, b"Connection: close"]) + b"\r\n\r\n" + rest)
            left = length - len(rest)
            while left > 0:
                block = client.recv(min(left, 1 << 16))
                if not block:
                    return
                server.sendall(block)
                left -= len(block)
            self.bytes_up += length
            self._answer(client, server, fault)

    def _fault(self, line: bytes, head: bytes) -> Fault | None:
        with self._lock:
            self.requests.append(line)
            for fault in self.faults:
                asked = line.startswith(fault.method.encode() + b" ") and fault.contains in head
                if asked and not (fault.lacks and fault.lacks in head):
                    if fault.skip:
                        fault.skip -= 1
                    elif fault.hits < fault.times:
                        fault.hits += 1
                        return fault
        return None

    def _answer(self, client: socket.socket, server: socket.socket, fault: Fault | None) -> None:
        head, body = _until_blank_line(server)
        if fault and fault.kind == "rewrite":
            head = re.sub(*fault.words, head)
            fault = None
        client.sendall(head + b"\r\n\r\n")
        sent = 0
        while True:
            if fault and sent + len(body) > fault.after:
                cut = fault.after - sent
                if fault.kind == "flip":
                    body = body[:cut] + bytes([body[cut] ^ 1]) + body[cut + 1 :]
                    fault = None
                else:
                    client.sendall(body[:cut])
                    if fault.kind == "reset":
                        _reset(client)
                    elif fault.kind == "stall":
                        client.recv(1)  # until the client has had enough
                    return
            client.sendall(body)
            sent += len(body)
            body = server.recv(1 << 16)
            if not body:
                return


def _until_blank_line(source: socket.socket) -> tuple[bytes, bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        block = source.recv(1 << 16)
        if not block:
            return b"", b""
        data += block
    head, _, rest = data.partition(b"\r\n\r\n")
    return head, rest


def _length(lines: list[bytes]) -> int:
    for line in lines:
        if line.lower().startswith(b"content-length:"):
            return int(line.split(b":")[1])
    return 0


def _drain(client: socket.socket, left: int) -> None:
    while left > 0:
        block = client.recv(min(left, 1 << 16))
        if not block:
            return
        left -= len(block)


def _reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _error(fault: Fault) -> bytes:
    body = b""
    if fault.method != "HEAD":
        body = (
            f"<?xml version='1.0'?><Error><Code>{fault.code}</Code>"
            f"<Message>{fault.message or ''}</Message>{fault.details}"
            "</Error>"
        ).encode()
    if fault.page:
        body = fault.page.encode()
    head = (
        f"HTTP/1.1 {fault.status}\r\nContent-Type: application/xml\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body
