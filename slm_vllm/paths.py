"""Normalises and checks paths and names that users give."""

from __future__ import annotations

import os
from pathlib import Path

_LONGEST_NAME = 255


def expanded(path: str) -> str:
    """A path with `~` in front replaced by the home folder it stands for.

    Raises:
        ValueError: There is no such home folder, or no path can look like this.
    """
    if "\0" in path:
        raise ValueError(f"{path!r} holds a zero byte, which no path can")
    if path != "~" and not path.startswith("~"):
        return path
    full = os.path.expanduser(path)
    # The name of a file may begin so too.
    if full.startswith("~") and path[1:2] in ("", "/"):
        raise ValueError(f"{path}: this user has no home folder. Set HOME, or write the whole path")
    return full


def home() -> Path | None:
    """The home folder of this user; None where there is none (no HOME, no passwd entry)."""
    found = os.path.expanduser("~")
    return None if found.startswith("~") else Path(found)


def folder_name(name: str) -> str:
    """A name that is exactly one folder's.

    Raises:
        ValueError: It is none, or that of more than one folder.
    """
    problem = None
    if not name.strip():
        raise ValueError("must not be empty; it must be the name of one folder")
    if name in (".", ".."):
        problem = "is the way to another folder"
    elif "/" in name:
        problem = "holds a '/'"
    elif not name.isprintable():
        problem = "holds a character that cannot be printed"
    elif len(name.encode()) > _LONGEST_NAME:
        problem = f"is longer than {_LONGEST_NAME} bytes"
    if problem is not None:
        shown = name if len(name) <= 60 else f"{name[:57]}..."
        raise ValueError(f"must be the name of one folder; {shown!r} {problem}")
    return name
