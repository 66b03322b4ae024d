"""Notifies a command or a webhook of the end of a run or sweep.

A notifier that fails or hangs costs a warning and some seconds, never the run.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import urlsplit

from slm_vllm.amounts import format_clock
from slm_vllm.config.schema import NotifyConfig
from slm_vllm.environment import with_env_file
from slm_vllm.errors import ConfigError, SlmVllmError, StorageError, reason_of
from slm_vllm.proxies import goes_direct, proxy_advice
from slm_vllm.reporting.table import results_table
from slm_vllm.runs.signals import Interrupted

log = logging.getLogger(__name__)

BOUND_SECONDS = 15.0
# Chats refuse long messages: Telegram those of more than 4,096 characters.
_TEXT_LENGTH = 3500
_TOLD = ("name", "model", "dataset", "mode", "retriever", "metrics", "retrieval", "counts",
         "throughput", "duration_seconds", "error", "exit_code")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Ending:
    """How a command ended.

    Attributes:
        name: Of the run or the sweep.
        folder: Where its files are.
        status: "finished", "interrupted" or "failed".
        seconds: How long it took.
        results: As `evaluate` gives them.
        error: Why it is not finished.
        exit_code: Of the command.
    """

    name: str
    folder: Path
    status: str
    seconds: float
    results: list[dict[str, Any]]
    error: str = ""
    exit_code: int = 0

    @property
    def text(self) -> str:
        """For people: what happened, and the table of results."""
        where = f"on {socket.gethostname()}, {self.folder}"
        lines = [f"{self.name}: {self.status} after {format_clock(self.seconds)} ({where})"]
        lines += [self.error] if self.error else []
        finished = [result for result in self.results if "error" not in result]
        lines += results_table(finished).splitlines() if finished else []
        lines += [f"{r['name']} failed: {r['error']}" for r in self.results if "error" in r]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """For web hooks; `text` is what chats show."""
        text = self.text
        if len(text) > _TEXT_LENGTH:
            text = text[:_TEXT_LENGTH].rpartition("\n")[0] + "\n..."
        return {
            "text": text,
            "name": self.name,
            "status": self.status,
            "folder": str(self.folder),
            "host": socket.gethostname(),
            "seconds": round(self.seconds, 1),
            "error": self.error or None,
            "exit_code": self.exit_code,
            "runs": [{key: r[key] for key in _TOLD if key in r} for r in self.results],
        }

    def variables(self) -> dict[str, str]:
        """For commands."""
        return {
            "SLM_VLLM_NAME": self.name,
            "SLM_VLLM_STATUS": self.status,
            "SLM_VLLM_FOLDER": str(self.folder),
            "SLM_VLLM_ERROR": self.error,
            "SLM_VLLM_EXIT_CODE": str(self.exit_code),
        }


@contextmanager
def notifying(config: NotifyConfig, name: str, folder: Path) -> Iterator[list[dict[str, Any]]]:
    """Tells how the block ended, whatever it ended with.

    Args:
        config: Who is told.
        name: Of the run or the sweep.
        folder: Where its files are.

    Yields:
        A list that takes the results.
    """
    results: list[dict[str, Any]] = []
    started = time.monotonic()

    def tell(status: str, error: str = "", exit_code: int = 0) -> None:
        seconds = time.monotonic() - started
        _tell(config, Ending(name, folder, status, seconds, results, error, exit_code))

    try:
        yield results
    except (Interrupted, KeyboardInterrupt) as stop:
        code = stop.exit_code if isinstance(stop, Interrupted) else 128 + signal.SIGINT
        tell("interrupted", str(stop), code)
        raise
    except Exception as error:
        tell("failed", str(error) or type(error).__name__, getattr(error, "exit_code", 1))
        raise
    failed = [result for result in results if "error" in result]
    if failed:
        tell("failed", f"{len(failed)} of {len(results)} runs failed", failed[0]["exit_code"])
    else:
        tell("finished")


def _tell(config: NotifyConfig, ending: Ending) -> None:
    ways: dict[str, tuple[str | None, Callable[[str, Ending], None]]] = {
        "notify.command": (config.command, _call),
        "notify.url": (config.url, _post),
    }
    for key, (given, way) in ways.items():
        if given is not None:
            try:
                way(given, ending)
            except SlmVllmError as error:
                log.warning("%s: nobody was told: %s", key, error)
            except Exception as error:  # its text may hold the address
                log.warning("%s: nobody was told: %s", key, type(error).__name__)


def _call(command: str, ending: Ending) -> None:
    """Runs a line for the shell; what it prints goes to standard error."""
    with tempfile.TemporaryFile() as given:
        given.write(f"{ending.text}\n".encode("utf-8", "replace"))
        given.seek(0)
        process = subprocess.Popen(
            command,
            shell=True,
            stdin=given,
            stdout=2,
            env=with_env_file() | ending.variables(),
            start_new_session=True,
        )
    try:
        code = process.wait(BOUND_SECONDS)
    except subprocess.TimeoutExpired:
        raise StorageError(f"it did not end within {BOUND_SECONDS:g} s and was killed") from None
    finally:
        if process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if code != 0:
        raise StorageError(f"it ended with exit code {code}")


def _post(address: str, ending: Ending) -> None:
    """Posts JSON in a thread that is left behind where it hangs."""
    url = _filled(address, with_env_file())
    problems: list[Exception] = []

    def work() -> None:
        try:
            _send(url, json.dumps(ending.to_json(), ensure_ascii=False).encode("utf-8", "replace"))
        except Exception as error:
            problems.append(error)

    thread = threading.Thread(target=work, name="notify", daemon=True)
    thread.start()
    thread.join(BOUND_SECONDS)
    if thread.is_alive():
        raise StorageError(f"{urlsplit(url).hostname} did not answer within {BOUND_SECONDS:g} s")
    if problems:
        raise problems[0]


def _filled(address: str, variables: Mapping[str, str]) -> str:
    try:
        url = Template(address).substitute(variables)
    except KeyError as missing:
        raise ConfigError(
            f"${missing.args[0]} is set neither in the environment nor in .env"
        ) from None
    except ValueError:
        raise ConfigError("a $ in it begins no name; write $$ for the character") from None
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError("it is no address such as https://host/path")
    if "@" in parts.netloc:
        raise ConfigError("a user and password in the address are not sent; use a token")
    return url


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A POST that is sent on becomes a GET, which tells nobody anything."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _send(url: str, content: bytes) -> None:
    host = urlsplit(url).hostname
    handlers: list[Any] = [_NoRedirect]
    if goes_direct(url):
        handlers.append(urllib.request.ProxyHandler({}))
    headers = {"Content-Type": "application/json; charset=utf-8", "User-Agent": "slm-vllm"}
    request = urllib.request.Request(url, content, headers)
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=BOUND_SECONDS):
            pass
    except urllib.error.HTTPError as error:
        raise StorageError(f"{host} answered with status {error.code}") from None
    except OSError as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        message = reason_of(reason) if isinstance(reason, Exception) else str(reason)
        advice = proxy_advice(url)
        raise StorageError(
            f"{host} cannot be reached ({message}){f'. {advice}' if advice else ''}"
        ) from None
