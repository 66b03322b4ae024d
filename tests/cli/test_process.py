"""Commands in processes whose streams, terminal, home or network are not as usual."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from slm_vllm.cli.process import describe
from slm_vllm.proxies import ask_loopback_directly

SHOW = ["config", "show", "prompt.system=首都 café 🙂"]


def command(*words: str, **variables: str) -> tuple[list[str], dict[str, str]]:
    return [sys.executable, "-m", "slm_vllm", *words], {**os.environ, **variables}


@pytest.mark.parametrize("encoding", ["latin-1", "gbk", "cp1252", "koi8-r"])
def test_a_terminal_that_lacks_letters(encoding: str) -> None:
    words, variables = command(*SHOW, "--json", PYTHONIOENCODING=encoding)
    done = subprocess.run(words, env=variables, capture_output=True, check=True)
    shown = json.loads(done.stdout.decode(encoding))
    assert shown["prompt"]["system"] == "首都 café 🙂"


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_descriptors(closed: str, tmp_path: Path) -> None:
    """Whatever is opened next would be written to by every print."""
    code = (
        "import sys; from slm_vllm.cli.process import prepare_process; prepare_process();"
        "file = open('file', 'w'); print('out'); print('err', file=sys.stderr);"
        "sys.stdout.flush(); file.write('content'); file.close();"
        "import subprocess; subprocess.run(['true'], check=True)"
    )
    done = subprocess.run(
        ["bash", "-c", f'exec "$0" -c "$1" {closed}', sys.executable, code],
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0
    assert (tmp_path / "file").read_text() == "content"
    assert done.stdout in (b"", b"out\n") and done.stderr in (b"", b"err\n")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="has no /dev/full")
def test_a_full_disk_behind_standard_output() -> None:
    words, variables = command(*SHOW)
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            words, env=variables, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 5
    assert done.stderr == "Error: No space left on device. Free some space\n"


def test_a_reader_that_has_gone() -> None:
    words, variables = command("config", "list", "model", "--json")
    with subprocess.Popen(
        words, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as job:
        assert job.stdout is not None and job.stderr is not None
        job.stdout.close()
        assert job.stderr.read() == b""
    assert job.returncode in (1, 141)  # click's own, or ours


NOBODY = """
import os, pwd, sys
os.environ.pop("HOME", None)
def no_entry(uid):
    raise KeyError(uid)
pwd.getpwuid = no_entry
from slm_vllm.cli.main import main
main()
"""


@pytest.mark.parametrize("words", [["doctor"], ["clearml", "check"], ["config", "show"]])
def test_a_user_without_name_and_home(words: list[str], tmp_path: Path) -> None:
    bare = {k: v for k, v in os.environ.items() if not k.startswith(("CLEARML", "AWS", "HF_"))}
    done = subprocess.run(
        [sys.executable, "-c", NOBODY, *words],
        cwd=tmp_path,
        env=bare,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr + done.stdout
    assert not (tmp_path / "~").exists()
    assert done.returncode == {"doctor": done.returncode, "clearml": 5, "config": 0}[words[0]]


def test_errors_of_the_system_are_a_line() -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "/a/b")
    assert describe(full) == "/a/b: No space left on device. Free some space"
    assert describe(OSError("something else")) == "something else"
    assert describe(PermissionError(errno.EACCES, "Permission denied", b"/x")).startswith("/x: ")


@pytest.mark.parametrize(
    ("given", "excepted"),
    [
        ({}, None),
        ({"NO_PROXY": "a.example"}, "a.example"),
        ({"HTTP_PROXY": "http://p:1"}, "localhost,127.0.0.1,::1"),
        (
            {"https_proxy": "http://p:1", "NO_PROXY": "a.example, localhost"},
            "a.example,localhost,127.0.0.1,::1",
        ),
        ({"ALL_PROXY": "socks5://p:1", "no_proxy": "*", "NO_PROXY": "b"}, "*"),
    ],
)
def test_this_machine_is_asked_past_the_proxy(given: dict[str, str], excepted: str | None) -> None:
    environment = dict(given)
    ask_loopback_directly(environment)
    assert environment.get("NO_PROXY") == excepted
    assert set(environment) - {"NO_PROXY", "no_proxy"} == set(given) - {"NO_PROXY", "no_proxy"}


def test_a_folder_that_has_been_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    error = FileNotFoundError(errno.ENOENT, "No such file or directory")
    assert describe(error) == "No such file or directory"
    gone.rmdir()
    assert "has been removed" in describe(error)
