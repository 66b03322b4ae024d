"""The git checkout that this package runs from, if it does."""

from __future__ import annotations

import subprocess
from pathlib import Path

_SECONDS = 10.0


def checkout() -> Path | None:
    """Its folder, None where the package is installed."""
    root = Path(__file__).resolve().parents[1]
    return root if (root / ".git").exists() else None


def git_output(root: Path, *words: str) -> str | None:
    """What a git command prints, None where it fails."""
    command = ["git", "-C", str(root), *words]
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, timeout=_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
