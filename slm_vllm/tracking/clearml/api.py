"""Calls to a ClearML server through the SDK's session, each bounded in time.

The SDK's own `Task` retries 240 times, reports success for what it lost and can hang forever in
`close()`; its session does one request at a time and says what came of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from slm_vllm.errors import MissingExtraError
from slm_vllm.tracking.base import RejectedError, TrackerError

CONNECT_SECONDS, READ_SECONDS = 3.0, 10.0
_MOST_EVENTS, _MOST_BYTES = 500, 2 << 20
_PAGE = 1000
_REFUSED = (400, 401, 403, 404)
# Written against this version of the interface; an older server names its own.
_API_VERSION = (2, 23)


class ClearMLApi:
    """A logged-in session.

    Raises:
        RejectedError: The server does not know the credentials, or there are none.
        TrackerError: The server cannot be reached.
        MissingExtraError: The SDK is not installed.
    """

    def __init__(self) -> None:
        # In maintenance the SDK would wait forever.
        http = {"wait_on_maintenance_forever": False}
        boto3 = {"connect_timeout": int(CONNECT_SECONDS), "read_timeout": int(READ_SECONDS)}
        try:
            from clearml.backend_api import Session
            from clearml.config import ConfigWrapper

            ConfigWrapper.set_overrides({"api": {"http": http}, "sdk": {"aws": {"boto3": boto3}}})
            self.host = str(Session.get_api_server_host()).rstrip("/")
        except ImportError:
            raise MissingExtraError("clearml", "clearml", "Publishing to ClearML") from None
        except Exception as error:  # the SDK reads its configuration on the way
            raise _configuration_error(error) from None
        timeout = (CONNECT_SECONDS, READ_SECONDS)

        class BoundedSession(Session):  # type: ignore[misc]
            """One attempt a call; repeating is the publisher's business."""

            _session_initial_timeout = timeout
            _session_timeout = timeout
            _write_session_timeout = timeout

        _check_certificate(self.host)
        try:
            self._session = BoundedSession(
                http_retries_config={"total": 0, "connect": 0, "read": 0, "status": 0}
            )
        except Exception as error:
            raise _login_error(error, self.host) from None
        version = tuple(int(part) for part in Session.api_version.split(".")[:2])
        self._version = ".".join(str(part) for part in min(version, _API_VERSION))
        self.server_version = str(Session.server_version or "unknown")
        self.api_version = Session.api_version
        try:
            self.web = Session.get_app_server_host()
        except ValueError:
            self.web = self.host

    @property
    def files_server(self) -> str:
        """The server that takes uploads when no other storage is named."""
        return str(self._session.get_files_server_host())

    def call(self, endpoint: str, body: dict[str, Any]) -> dict[str, Any]:
        """Calls `service.action` once and returns its data.

        Raises:
            RejectedError: The server refuses this request.
            TrackerError: It did not answer, or could not do it now.
        """
        return self._answer(endpoint, json=body)

    def add_events(self, events: Sequence[dict[str, Any]]) -> None:
        """Sends events in batches.

        Raises:
            TrackerError: Some of them may not have arrived.
        """
        for lines in _batches(events):
            data = self._answer(
                "events.add_batch",
                data="\n".join(lines),
                headers={"Content-Type": "application/json-lines"},
            )
            if data.get("errors"):
                raise TrackerError(f"{self.host} did not take {data['errors']} events")

    def events(self, task: str, kind: str) -> Iterator[dict[str, Any]]:
        """All events of one type that the server has."""
        body: dict[str, Any] = {"task": task, "event_type": kind, "batch_size": _PAGE}
        while True:
            data = self.call("events.get_task_events", body)
            found = data.get("events") or []
            yield from found
            if len(found) < _PAGE or not data.get("scroll_id"):
                return
            body["scroll_id"] = data["scroll_id"]

    def count_events(self, task: str, kind: str) -> int:
        """How many events of one type the server has."""
        body = {"task": task, "event_type": kind, "batch_size": 1}
        return int(self.call("events.get_task_events", body).get("total") or 0)

    def _answer(self, endpoint: str, **request: Any) -> dict[str, Any]:
        service, _, action = endpoint.partition(".")
        try:
            response = self._session.send_request(service, action, version=self._version, **request)
        except Exception as error:
            # Beside those of requests, the SDK raises LoginError when a token runs out.
            raise _call_error(error, self.host, endpoint) from None
        try:
            content = response.json()
            meta, data = content["meta"], content.get("data") or {}
        except (ValueError, KeyError, TypeError):
            raise TrackerError(
                f"{self.host} answered {endpoint} with status {response.status_code} and not as a "
                "ClearML API server does"
            ) from None
        if response.status_code != 200 or meta.get("result_code") != 200:
            kind = RejectedError if response.status_code in _REFUSED else TrackerError
            raise kind(f"{self.host} refused {endpoint}: {meta.get('result_msg')}")
        return dict(data)


def _batches(events: Sequence[dict[str, Any]]) -> Iterator[list[str]]:
    lines: list[str] = []
    size = 0
    for event in events:
        line = json.dumps(event)
        if lines and (len(lines) == _MOST_EVENTS or size + len(line) > _MOST_BYTES):
            yield lines
            lines, size = [], 0
        lines.append(line)
        size += len(line)
    if lines:
        yield lines


def _check_certificate(host: str) -> None:
    """The SDK tries again forever where a certificate is not trusted."""
    if not host.startswith("https"):
        return
    import requests
    from clearml.config import config_obj

    verify = config_obj.get("api.verify_certificate", True)
    try:
        requests.get(host, timeout=(CONNECT_SECONDS, READ_SECONDS), verify=verify)
    except requests.exceptions.SSLError as error:
        raise RejectedError(
            f"{host}: its certificate is not trusted ({error}). Name the authority's file in "
            "REQUESTS_CA_BUNDLE, or set api.verify_certificate in clearml.conf"
        ) from None
    except requests.RequestException as error:
        raise _call_error(error, host, "a first request") from None


def _configuration_error(error: Exception) -> RejectedError:
    reason = " ".join(str(error).split())[:300] or "no reason given"
    return RejectedError(
        f"the ClearML configuration cannot be used: {reason} ({type(error).__name__}). Correct it, "
        "or make a new one (clearml.conf.example)"
    )


def _login_error(error: Exception, host: str) -> TrackerError:
    text = str(error)
    if type(error).__name__ == "MissingConfigError":
        return RejectedError(
            "there are no ClearML credentials: set CLEARML_API_ACCESS_KEY and "
            "CLEARML_API_SECRET_KEY, or write them to clearml.conf (clearml.conf.example)"
        )
    if "(error 401" in text or "(error 403" in text or "(error 400" in text:
        return RejectedError(
            f"{host} does not accept the ClearML credentials. Make new ones in the web page under "
            "Settings, Workspace"
        )
    return _call_error(error, host, "auth.login")


def _call_error(error: Exception, host: str, endpoint: str) -> TrackerError:
    text = f"{type(error).__name__} {error}"
    if "(error 401" in text or "(error 403" in text:
        return RejectedError(f"{host} does not accept the ClearML credentials any more")
    status = re.search(r"too many (\d{3}) error responses", text)
    if status:
        return TrackerError(f"{host} answers {endpoint} with status {status[1]}")
    for sign, meaning in _SIGNS.items():
        if sign in text:
            return TrackerError(f"{host} {meaning} ({endpoint})")
    return TrackerError(f"{host}: {endpoint} failed with {text[:300]}")


_SIGNS = {
    "ProxyError": "is not reached through the proxy: correct HTTP_PROXY, HTTPS_PROXY or NO_PROXY",
    "NameResolution": "cannot be found: no such host name",
    "Name or service not known": "cannot be found: no such host name",
    "timed out": "does not answer",
    "Timeout": "does not answer",
    "Connection refused": "refuses connections",
    "Max retries exceeded": "cannot be reached",
    "ConnectionError": "broke the connection off",
}
