"""Processes forked from one that has imported what they need."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from multiprocessing.connection import Connection, Pipe
from pathlib import Path

import psutil
import pytest

from slm_vllm.engines.fork_server import SPAWN_VARIABLE, ForkServer
from slm_vllm.engines.start_log import start_parts
from slm_vllm.errors import EngineError
from support import forked


def start(fork_server: ForkServer, **environment: str) -> tuple[Connection, int]:
    connection, other = Pipe()
    with other:
        return connection, fork_server.fork(other.fileno(), environment)


def ended(fork_server: ForkServer, pid: int) -> tuple[int, int]:
    while (found := fork_server.status(pid)) is None:
        time.sleep(0.01)
    return found


def test_what_is_prepared_once_is_there_in_each(tmp_path: Path) -> None:
    with ForkServer(forked.answer, partial(forked.prepare, tmp_path)) as fork_server:
        fork_server.begin()
        started = [start(fork_server, MINE=str(number)) for number in range(3)]
        seen = [connection.recv() for connection, _ in started]
        for number, (connection, pid) in enumerate(started):
            connection.send("MINE")
            assert connection.recv() == str(number)
            connection.send(number)
            assert ended(fork_server, pid) == (os.CLD_EXITED, number)
        (parent,) = {int(path.name) for path in tmp_path.iterdir()}
    assert [one[0] for one in seen] == [pid for _, pid in started]
    assert all(
        one[1:] == (parent, pid, [parent]) for one, (_, pid) in zip(seen, started, strict=True)
    )
    assert "MINE" not in os.environ
    assert not psutil.pid_exists(parent)


def test_what_an_import_may_read_is_there_before_it() -> None:
    with ForkServer(forked.answer, forked.raise_error) as fork_server:
        fork_server.begin({"MINE": "early"})
        connection, _ = start(fork_server)
        connection.recv()
        connection.send("MINE")
        assert connection.recv() == "early"


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_all_is_written_where_the_driver_writes_when_it_forks(method: str, tmp_path: Path) -> None:
    """An engine is begun before its run has a log."""
    code = """
import os, sys
from multiprocessing.connection import Pipe
from slm_vllm.engines.fork_server import SPAWN_VARIABLE, ForkServer
from support import forked
with ForkServer(forked.print_run, forked.print_import) as fork_server:
    fork_server.begin()
    log = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(log, 1), os.dup2(log, 2)
    for _ in range(2):
        connection, other = Pipe()
        with other:
            fork_server.fork(other.fileno(), {SPAWN_VARIABLE: sys.argv[2]})
        connection.poll(None)
"""
    log = tmp_path / "log"
    done = subprocess.run(
        [sys.executable, "-c", code, str(log), method],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert (done.stdout, done.stderr) == ("", "")
    said = ["imported", "with a warning", *["run", "run with a warning"] * 2]
    lines = log.read_text().splitlines()
    (took,) = (line for line in lines if line not in said)
    assert start_parts([took]).keys() == {"imports"}
    assert sorted(lines) == sorted([*said, took])


def test_one_that_is_killed_is_known_until_it_is_reaped() -> None:
    with ForkServer(forked.answer) as fork_server:
        connection, pid = start(fork_server)
        connection.recv()
        os.killpg(pid, signal.SIGKILL)
        for _ in range(2):
            assert ended(fork_server, pid) == (os.CLD_KILLED, signal.SIGKILL)
        assert psutil.pid_exists(pid)
        with pytest.raises(EOFError):
            connection.recv()
        fork_server.reap(pid)
        assert not psutil.pid_exists(pid)


def test_nothing_is_forked_where_vllm_is_told_to_spawn(tmp_path: Path) -> None:
    with ForkServer(forked.answer, partial(forked.prepare, tmp_path)) as fork_server:
        connection, pid = start(fork_server, **{SPAWN_VARIABLE: "spawn"})
        found = connection.recv()
        (parent,) = {int(path.name) for path in tmp_path.iterdir()}
        assert found == (pid, parent, pid, [])
        connection.send(7)
        assert ended(fork_server, pid) == (os.CLD_EXITED, 7)


def test_where_an_import_holds_cuda_nothing_is_forked() -> None:
    with ForkServer(forked.answer, forked.hold_cuda) as fork_server:
        started = [start(fork_server, MINE=str(number)) for number in range(2)]
        for number, (connection, pid) in enumerate(started):
            seen = connection.recv()
            assert (seen[0], seen[2], seen[3]) == (pid, pid, [])
            connection.send("MINE")
            assert connection.recv() == str(number)
            connection.send(7)
            assert ended(fork_server, pid) == (os.CLD_EXITED, 7)
            fork_server.reap(pid)
            assert not psutil.pid_exists(pid)


def test_what_is_forked_begins_anew_where_torch_refuses_it_a_gpu() -> None:
    with ForkServer(forked.answer, forked.count_gpus) as fork_server:
        for number in range(2):
            connection, pid = start(fork_server, MINE=str(number))
            seen = connection.recv()
            assert (seen[0], seen[2], seen[3]) == (pid, pid, [])
            connection.send("MINE")
            assert connection.recv() == str(number)
            connection.send(7)
            assert ended(fork_server, pid) == (os.CLD_EXITED, 7)


def test_what_cannot_be_imported_is_left_to_the_engine_to_say() -> None:
    with ForkServer(forked.answer, forked.raise_error) as fork_server:
        connection, _ = start(fork_server)
        assert connection.recv()[3] == []


def test_a_crash_while_importing_is_an_error() -> None:
    with ForkServer(forked.answer, forked.fail) as fork_server:
        with pytest.raises(EngineError, match="ended while it imported"):
            start(fork_server)


def test_a_fork_server_that_was_killed_is_replaced() -> None:
    with ForkServer(forked.answer) as fork_server:
        first, pid = start(fork_server)
        parent = first.recv()[1]
        os.kill(parent, signal.SIGKILL)
        second, _ = start(fork_server)
        other = second.recv()[1]
        assert other != parent
        with pytest.raises(EngineError, match="is not known"):
            fork_server.status(pid)
        fork_server.reap(pid)
        first.send("HOME")  # what it forked goes on
        assert first.recv() == os.environ["HOME"]
        third, _ = start(fork_server)
        assert third.recv()[1] == other
        for connection in (first, second, third):
            connection.send(0)


def test_a_signal_while_it_is_waited_for_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(connection: Connection) -> None:
        raise KeyboardInterrupt

    with ForkServer(forked.answer) as fork_server:
        earlier, _ = start(fork_server)
        parent = earlier.recv()[1]
        for waiting in (lambda: start(fork_server), lambda: fork_server.reap(1)):
            with monkeypatch.context() as patch:
                patch.setattr(Connection, "recv", interrupted)
                with pytest.raises(KeyboardInterrupt):
                    waiting()
            assert not psutil.pid_exists(parent)
            connection, pid = start(fork_server)
            seen = connection.recv()
            assert seen[0] == pid
            parent = seen[1]
            connection.send(0)
        earlier.send(0)


def test_it_ends_with_the_driver(tmp_path: Path) -> None:
    text = (
        "import os; from functools import partial; from pathlib import Path; "
        "from slm_vllm.engines.fork_server import ForkServer; from support import forked; "
        f"ForkServer(forked.answer, partial(forked.prepare, Path({str(tmp_path)!r}))).begin(); "
        "os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", text], check=False)
    until = time.monotonic() + 60
    while not (found := list(tmp_path.iterdir())) or psutil.pid_exists(int(found[0].name)):
        assert time.monotonic() < until
        time.sleep(0.01)
