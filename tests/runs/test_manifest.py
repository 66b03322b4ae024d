from __future__ import annotations

import json
from pathlib import Path

import pytest

from slm_vllm.models.resolve import ResolvedModel
from slm_vllm.runs.manifest import as_recorded


@pytest.mark.parametrize(
    ("recorded", "known_as"),
    [
        ("content-12", "content-12"),  # of an earlier version
        ("content-12-ab", "content-12-ab"),
        ("content-12-cd", "content-12-ab"),
        ("content-1", "content-12-ab"),
        (None, "content-12-ab"),
    ],
)
def test_answers_of_earlier_versions_are_known_by_what_those_called_the_weights(
    recorded: str | None, known_as: str, tmp_path: Path
) -> None:
    model = ResolvedModel(tmp_path, "local", None, "content-12-ab", {})
    assert as_recorded(model, tmp_path) == model
    (tmp_path / "manifest.json").write_text(json.dumps({"model": {"revision": recorded}}))
    assert as_recorded(model, tmp_path).revision == known_as
