"""docs/python.md, run block by block as a notebook would."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from support.places import REPOSITORY

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("model")]


def test_the_page_runs_from_top_to_bottom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, demo_model_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".cache").symlink_to(REPOSITORY / ".cache")
    text = (REPOSITORY / "docs" / "python.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 5
    names: dict[str, object] = {}
    for block in blocks:
        exec(block, names)
    assert names["run"].results["counts"]["total"] == 491  # type: ignore[attr-defined]
    assert names["oracle"].results["token_recall"] > names["closed"].results["token_recall"]  # type: ignore[attr-defined]
