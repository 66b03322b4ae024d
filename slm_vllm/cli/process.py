"""Prepares the process of a command: open streams, terminal encoding, home folder, proxies."""

from __future__ import annotations

import codecs
import errno
import os
import sys
from pathlib import Path

from slm_vllm.errors import reason_of
from slm_vllm.paths import home
from slm_vllm.proxies import ask_loopback_directly

_ESCAPE = "slm_vllm.escape"

_ADVICE = {
    errno.ENOSPC: "Free some space",
    errno.EDQUOT: "Free some space, or ask for a larger quota",
    errno.EACCES: "Look at its owner and permissions (ls -ld)",
    errno.EPERM: "Look at its owner and permissions (ls -ld)",
    errno.EROFS: "Name a place that can be written",
    errno.EMFILE: "Raise the limit of open files (ulimit -n)",
}


def prepare_process() -> None:
    """Makes sure of what the libraries below take for granted."""
    _open_descriptors()
    codecs.register_error(_ESCAPE, _escape)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=_ESCAPE)
    if home() is None:
        # As container runtimes do it; without it libraries make a folder called "~".
        os.environ["HOME"] = "/"
    ask_loopback_directly(os.environ)
    _find_plugins()


def give_up_output() -> None:
    """Leads standard output to nowhere, so that the interpreter's end does not fail on it."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


def describe(error: OSError) -> str:
    """One line for an error of the operating system that nothing nearer has explained."""
    place = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
    reason = reason_of(error)
    if error.errno == errno.ENOENT and not place and not _has_folder():
        return "the folder that this was started in has been removed. Change to another"
    advice = _ADVICE.get(error.errno or 0)
    return f"{place}{reason}{f'. {advice}' if advice else ''}"


def _has_folder() -> bool:
    try:
        return bool(os.getcwd())
    except FileNotFoundError:
        return False


def _find_plugins() -> None:
    """Takes those beside `./configs`, unless the environment or `--config-dir` names others."""
    folder = Path("configs", "plugins")
    if folder.is_dir():
        from slm_vllm.plugins import use_folder, used_folder

        if used_folder() is None:
            use_folder(folder)


def _open_descriptors() -> None:
    """Gives the numbers 0 to 2 to the null device where they are closed.

    Otherwise the next file that is opened gets the number, and with it what is printed.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


def _escape(error: UnicodeError) -> tuple[str | bytes, int]:
    r"""Writes what the terminal cannot show as \uXXXX, as JSON does."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    units = missing.encode("utf-16-be", "surrogatepass")
    escaped = "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))
    return escaped, error.end
