"""What a nursery does in tests: prepares by leaving a mark, and answers with what it sees."""

from __future__ import annotations

import os
import signal
from multiprocessing.connection import Connection
from pathlib import Path

_prepared: list[int] = []


def prepare(folder: Path) -> None:
    """Notes the process in this module and in a folder."""
    _prepared.append(os.getpid())
    (folder / str(os.getpid())).touch()


def fail() -> None:
    """Ends the process, as a library that crashes does."""
    os.kill(os.getpid(), signal.SIGKILL)


def raise_error() -> None:
    """Raises, as a package that is not there does."""
    raise ImportError("no such package")


def answer(descriptor: int) -> None:
    """Says who prepared this process and what is asked of its variables, until told how to end."""
    connection = Connection(descriptor)
    connection.send((os.getpid(), os.getppid(), os.getpgrp(), list(_prepared)))
    while isinstance(asked := connection.recv(), str):
        connection.send(os.environ.get(asked))
    os._exit(asked)
