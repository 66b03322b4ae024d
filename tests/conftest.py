"""Fixtures that several packages' tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def demo_model_path() -> Path:
    """The demo model's folder; made once into the repository's .cache, then found there."""
    from slm_vllm.models.demo import prepare_demo_model

    return prepare_demo_model(REPOSITORY / ".cache")
