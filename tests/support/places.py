"""Where things lie."""

from __future__ import annotations

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
TESTS = REPOSITORY / "tests"

_SAMPLES = REPOSITORY.parent / "shared" / "data"


def sample(name: str) -> Path:
    """A part of a real dataset; skips the test where the samples are not beside the repository."""
    path = _SAMPLES / name
    if not path.exists():
        pytest.skip(f"the sample {name} is not beside the repository (../shared/data)")
    return path


def server_python(name: str) -> Path:
    """The interpreter of a server that `scripts/test_servers.sh` installs."""
    return REPOSITORY / ".cache" / "servers" / name / "bin" / "python"


def without_server(name: str) -> pytest.MarkDecorator:
    """Skips tests of a server that is not installed."""
    is_there = (server_python(name).parents[1] / "installed").exists()
    return pytest.mark.skipif(not is_there, reason=f"no {name}: bash scripts/test_servers.sh")
