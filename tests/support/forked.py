"""What a fork server does in tests: prepares by leaving a mark, and answers with what it sees."""

from __future__ import annotations

import os
import signal
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType, SimpleNamespace

_prepared: list[int] = []


def prepare(folder: Path) -> None:
    """Notes the process in this module and in a folder."""
    _prepared.append(os.getpid())
    (folder / str(os.getpid())).touch()


def fail() -> None:
    """Ends the process, as a library that crashes does."""
    os.kill(os.getpid(), signal.SIGKILL)


def hold_cuda() -> None:
    """Begins to use a GPU, as far as torch would say."""
    torch = ModuleType("torch")
    torch.cuda = SimpleNamespace(is_initialized=lambda: True)  # type: ignore[attr-defined]
    sys.modules["torch"] = torch


def count_gpus() -> None:
    """Has torch refuse GPUs in what is forked from here."""
    torch = ModuleType("torch")
    torch.cuda = SimpleNamespace(  # type: ignore[attr-defined]
        is_initialized=lambda: False, _is_in_bad_fork=lambda: True
    )
    sys.modules["torch"] = torch


def raise_error() -> None:
    """Raises, as a package that is not there does."""
    raise ImportError("no such package")


def answer(descriptor: int) -> None:
    """Says who prepared this process and what is asked of its variables, until told how to end."""
    connection = Connection(descriptor)
    prepared = [*_prepared, *(["torch"] if "torch" in sys.modules else [])]
    connection.send((os.getpid(), os.getppid(), os.getpgrp(), prepared))
    while isinstance(asked := connection.recv(), str):
        connection.send(os.environ.get(asked))
    os._exit(asked)


def print_import() -> None:
    """Writes to both outputs, one of them buffered."""
    print("imported")
    print("with a warning", file=sys.stderr)


def print_run(descriptor: int) -> None:
    """Writes to both outputs."""
    os.write(1, b"run\n")
    os.write(2, b"run with a warning\n")
