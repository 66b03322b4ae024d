"""One load of the real model that several tests compare with."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.real_runs import evaluate

ROWS = 24


@pytest.fixture(scope="session")
def undisturbed(demo_model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three modes over the first questions of the demo dataset, in folders `demo_demo_MODE`."""
    output_dir = tmp_path_factory.mktemp("undisturbed")
    evaluate(output_dir, "--mode", "no_context,retriever,oracle", "--samples", str(ROWS))
    return output_dir
