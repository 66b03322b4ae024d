"""Who is told how a run or a sweep ended, and that nothing there harms it."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest

from slm_vllm.config.compose import compose_config
from slm_vllm.config.overrides import may_hold_secret
from slm_vllm.config.schema import Config
from slm_vllm.errors import ConfigError, DataError
from slm_vllm.rundir.fingerprint import config_hash
from slm_vllm.runs import notify
from slm_vllm.runs.notify import Ending, notifying
from slm_vllm.runs.options import RunOptions
from slm_vllm.runs.session import evaluate
from slm_vllm.runs.signals import Interrupted
from slm_vllm.sweeps.plan import PlannedCell
from slm_vllm.sweeps.sweep import run_sweep
from slm_vllm.tracking.clearml.queue import enqueue_runs
from support.fake_engine import FakeEngine

SECRET = "T0KEN-of-the-hook"


class Hook:
    """A web hook on the loopback interface.

    Attributes:
        told: What it was sent: path and JSON.
        status: What it answers with.
        location: Where it sends on to.
    """

    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.status, self.location = 200, ""
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                hook.told.append((self.path, json.loads(content)))
                self.send_response(hook.status)
                if hook.location:
                    self.send_header("Location", hook.location)
                self.end_headers()

            do_GET = do_POST

            def log_message(self, *_: Any) -> None:
                """Says nothing."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self._thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hook]:
    monkeypatch.chdir(tmp_path)
    opened = Hook()
    yield opened
    opened.close()


def run(config: Config, **options: Any) -> list[dict[str, Any]]:
    return evaluate([config], RunOptions(make_engine=FakeEngine().factory(), **options))


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if "notify" in r.getMessage()]


def test_a_finished_run_is_told_with_its_table(
    hook: Hook, make_config: Callable[..., Config], tmp_path: Path
) -> None:
    told = tmp_path / "told"
    shell = f'cat > {told}; echo "$SLM_VLLM_NAME $SLM_VLLM_STATUS $SLM_VLLM_EXIT_CODE" >> {told}'
    config = make_config(f"notify.url={hook.url}/hook", f"notify.command={shell}")
    (result,) = run(config)
    ((path, content),) = hook.told
    assert path == "/hook"
    assert (content["status"], content["exit_code"], content["error"]) == ("finished", 0, None)
    assert content["folder"] == str(tmp_path / "outputs" / config.experiment.name)
    (shown,) = content["runs"]
    assert shown["metrics"] == json.loads(json.dumps(result["metrics"]))
    assert shown["counts"]["total"] == 10
    mean = f"{result['token_recall']:.3f}"
    assert "finished after" in content["text"] and mean in content["text"]
    *lines, last = told.read_text().splitlines()
    assert mean in "\n".join(lines) and lines[0].startswith(f"{config.experiment.name}: finished")
    assert last == f"{config.experiment.name} finished 0"


def test_secrets_come_from_the_environment_and_are_kept_nowhere(
    hook: Hook,
    make_config: Callable[..., Config],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / ".env").write_text(f"HOOK={hook.url}\n")
    monkeypatch.setenv("TOKEN", SECRET)
    words = ["notify.url=$HOOK/a/${oc.env:TOKEN}", f"++notify.command=: {SECRET}"]
    argv = ["slm-vllm", "eval", *words, f"notify={{command: ': {SECRET}'}}", "--model", "tiny"]
    monkeypatch.setattr(sys, "argv", argv)
    config = make_config(*words)
    run(config)
    assert [path for path, _ in hook.told] == [f"/a/{SECRET}"]
    files = [path for path in (tmp_path / "outputs").rglob("*") if path.is_file()]
    assert any(path.name == "manifest.json" for path in files)
    for path in files:
        assert SECRET.encode() not in path.read_bytes(), path
        assert b"notify" not in path.read_bytes(), path
    assert SECRET not in repr(config) and SECRET not in config.model_dump_json()
    manifest = json.loads(next(p for p in files if p.name == "manifest.json").read_text())
    assert manifest["command"] == ["slm-vllm", "eval", "--model", "tiny"]


def test_it_makes_no_other_run_of_it(make_config: Callable[..., Config]) -> None:
    assert config_hash(make_config("notify.command=true")) == config_hash(make_config())


def test_a_failure_is_told(hook: Hook, make_config: Callable[..., Config]) -> None:
    config = make_config(f"notify.url={hook.url}")
    Path(config.dataset.path).unlink()
    with pytest.raises(DataError) as failure:
        run(config)
    ((_, content),) = hook.told
    assert (content["status"], content["exit_code"]) == ("failed", 3)
    assert content["error"] == str(failure.value) and content["error"] in content["text"]


def test_a_stop_is_told(hook: Hook, make_config: Callable[..., Config]) -> None:
    config = make_config(f"notify.url={hook.url}")

    def stop(number: int) -> None:
        if number == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    engine = FakeEngine(on_answer=stop)
    with pytest.raises(Interrupted):
        evaluate([config], RunOptions(make_engine=engine.factory(), own_process=True))
    ((_, content),) = hook.told
    assert (content["status"], content["exit_code"]) == ("interrupted", 143)
    assert "SIGTERM" in content["text"]


@pytest.mark.slow
def test_a_sweep_is_told_once(hook: Hook, make_config: Callable[..., Config]) -> None:
    configs = [
        make_config(f"notify.url={hook.url}", "experiment.output_dir=night", *words)
        for words in (["experiment.name=good"], ["experiment.name=bad", "dataset.path=gone.jsonl"])
    ]
    cells = [PlannedCell(config, "new") for config in configs]
    program = (sys.executable, "-m", "support.fake_sweep_group")
    run_sweep(cells, Path("night"), quiet=True, program=program)
    ((_, content),) = hook.told
    assert (content["name"], content["status"]) == ("night", "failed")
    assert content["exit_code"] == 3 and content["error"] == "1 of 2 runs failed"
    assert ["error" in told for told in content["runs"]] == [False, True]
    assert "bad failed: " in content["text"] and "good" in content["text"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["run", "sweep"])
def test_what_is_done_with_the_results_is_waited_for(
    hook: Hook, make_config: Callable[..., Config], kind: str
) -> None:
    config = make_config(f"notify.url={hook.url}", "experiment.output_dir=night")

    def added(metrics: dict[str, Any]) -> dict[str, Any]:
        return {**metrics, "judge_correct": metrics["token_recall"]}

    def then(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
        assert hook.told == []
        return [{**result, "metrics": added(result["metrics"])} for result in results]

    if kind == "run":
        found = evaluate([config], RunOptions(make_engine=FakeEngine().factory(), then=then))
    else:
        program = (sys.executable, "-m", "support.fake_sweep_group")
        cells = [PlannedCell(config, "new")]
        found = run_sweep(cells, Path("night"), RunOptions(then=then), quiet=True, program=program)
    ((_, content),) = hook.told
    assert content["runs"][0]["metrics"] == found[0]["metrics"]
    assert "judge_correct" in found[0]["metrics"] and "correct (judge)" in content["text"]


def test_a_hook_that_refuses_costs_a_warning(
    hook: Hook, make_config: Callable[..., Config], caplog: pytest.LogCaptureFixture
) -> None:
    hook.status = 403
    assert run(make_config(f"notify.url={hook.url}/{SECRET}"))
    (said,) = warnings(caplog)
    assert said == "notify.url: nobody was told: 127.0.0.1 answered with status 403"


def test_a_hook_that_sends_on_is_not_followed(
    hook: Hook, make_config: Callable[..., Config], caplog: pytest.LogCaptureFixture
) -> None:
    hook.status, hook.location = 302, f"{hook.url}/login"
    run(make_config(f"notify.url={hook.url}/hook"))
    assert [path for path, _ in hook.told] == ["/hook"] and "status 302" in warnings(caplog)[0]


def test_what_hangs_is_left_behind(
    make_config: Callable[..., Config],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(notify, "BOUND_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}/{SECRET}"
        shell = f"sleep 600 & echo $! > {tmp_path / 'pid'}; wait"
        assert run(make_config(f"notify.url={url}", f"notify.command={shell}"))
    command, web = warnings(caplog)
    assert "it did not end within 0.2 s and was killed" in command
    assert "did not answer within 0.2 s" in web or "timed out" in web
    assert SECRET not in caplog.text
    # With all that it started; a zombie is left to whoever collects orphans here.
    with suppress(psutil.NoSuchProcess):
        started = psutil.Process(int((tmp_path / "pid").read_text()))
        assert started.status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("notify.command=exit 7", "notify.command: nobody was told: it ended with exit code 7"),
        ("notify.command=no_such_program_here", "exit code 127"),
        ("notify.url=$NOT_SET_ANYWHERE", "$NOT_SET_ANYWHERE is set neither in the environment"),
        ("notify.url=https://x/$", "a $ in it begins no name"),
        ("notify.url=$HOME", "it is no address"),
        (f"notify.url=http://user:{SECRET}@127.0.0.1/x", "a user and password in the address"),
        (f"notify.url=http://127.0.0.1:9/{SECRET}", "127.0.0.1 cannot be reached"),
        (f"notify.url=http://127.0.0.1:no/{SECRET}", "nobody was told"),
    ],
)
def test_what_cannot_be_told_is_said_once_and_without_secrets(
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: str,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    config = compose_config([words])
    with notifying(config.notify, "night", tmp_path) as results:
        results.append({"name": "x", "error": "e", "exit_code": 4})
    (warning,) = warnings(caplog)
    assert said in warning and SECRET not in warning


def test_nobody_is_told_unless_asked(
    caplog: pytest.LogCaptureFixture, make_config: Callable[..., Config]
) -> None:
    caplog.set_level(logging.WARNING)
    run(make_config())
    assert caplog.records == []


@pytest.mark.parametrize("url", [f"ftp://{SECRET}", f"file:///{SECRET}", SECRET])
def test_other_addresses_are_refused_beforehand(url: str) -> None:
    with pytest.raises(ConfigError, match="notify.url: must begin with http") as refusal:
        compose_config([f"notify.url={url}"])
    assert SECRET not in str(refusal.value)


SPELLINGS = (
    f"notify.url=https://host/{SECRET}",
    f" ++notify.url=https://host/{SECRET}",
    f"notify={{url: 'https://host/{SECRET}'}}",
)


@pytest.mark.parametrize("word", SPELLINGS)
def test_a_queue_gets_no_address(word: str) -> None:
    with pytest.raises(ConfigError, match=r"notify(\.url)?: may hold a secret"):
        enqueue_runs([compose_config([word])], [[word]], "gpu")


@pytest.mark.parametrize("word", SPELLINGS)
def test_no_spelling_of_an_address_is_taken_for_the_command(word: str) -> None:
    assert compose_config([word]).notify.url == f"https://host/{SECRET}"
    assert may_hold_secret(word)
    assert not may_hold_secret("experiment.name=notify.url")


def test_long_tables_fit_a_chat(tmp_path: Path) -> None:
    failed = [{"name": f"run_{n}", "error": "no weights " * 9, "exit_code": 4} for n in range(90)]
    content = Ending("night", tmp_path, "failed", 61, failed, "90 of 90", 4).to_json()
    assert len(content["text"]) <= 3504 and content["text"].endswith("\n...")
    assert len(content["runs"]) == 90 and "night: failed after 1:01" in content["text"]
