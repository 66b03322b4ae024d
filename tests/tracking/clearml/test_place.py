"""Where artifacts go, and who is told that it is among the datasets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slm_vllm.tracking.clearml.arrange import arrange_clearml
from slm_vllm.tracking.clearml.check import check_clearml
from slm_vllm.tracking.clearml.storage import named_place
from support.clearml_loopback import Loopback

ENDPOINT = {"CLEARML_S3_ENDPOINT": "https://minio.example"}
DATASETS = {"CLEARML_S3_BUCKET": "datasets"}
ARTIFACTS = {"CLEARML_S3_ARTIFACTS_BUCKET": "artifacts"}
DEFAULT = {"CLEARML_DEFAULT_OUTPUT_URI": "s3://elsewhere/x/"}


@pytest.mark.parametrize("from_file", [False, True])
@pytest.mark.parametrize(
    ("variables", "configured", "place"),
    [
        ({}, None, None),
        (ENDPOINT, None, None),
        ({}, "/mnt/runs/", "/mnt/runs"),
        (DATASETS, None, "s3://datasets"),
        (ENDPOINT | DATASETS, None, "s3://minio.example:443/datasets"),
        (ENDPOINT | DATASETS | ARTIFACTS, None, "s3://minio.example:443/artifacts"),
        (ENDPOINT | DATASETS | ARTIFACTS | DEFAULT, None, "s3://elsewhere/x"),
        (ENDPOINT | DATASETS | ARTIFACTS | DEFAULT, "s3://own", "s3://own"),
    ],
)
def test_a_place_is_named_from_strong_to_weak(
    unconfigured: None,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    configured: str | None,
    place: str | None,
    from_file: bool,
) -> None:
    if from_file:
        Path(".env").write_text("".join(f"{k}={v}\n" for k, v in variables.items()))
    else:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
    found = named_place(configured)
    assert (None if found is None else found.url) == place
    assert found is None or found.among_datasets == (place or "").endswith("datasets")


def test_the_files_server_is_the_last_resort(configured: Loopback) -> None:
    said = check_clearml("p", None)[-1]
    assert f"{configured.url}/files" in said.found and "files server" in said.found


def test_a_place_that_stores_nothing_is_named_with_its_setting(
    configured: Loopback, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("CLEARML_DEFAULT_OUTPUT_URI", str(tmp_path / "file"))
    said = check_clearml("p", None)[-1]
    assert (said.name, said.status) == ("artifacts", "fail")
    assert "CLEARML_DEFAULT_OUTPUT_URI" in said.fix


def test_artifacts_among_the_datasets_are_said(
    configured: Loopback, config: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def note(*words: str) -> str:
        return arrange_clearml(config(*words).tracking, asked=False).note

    assert note() == ""
    for name, value in (ENDPOINT | DATASETS).items():
        monkeypatch.setenv(name, value)
    assert "s3://minio.example:443/datasets (CLEARML_S3_BUCKET" in note()
    assert "CLEARML_S3_ARTIFACTS_BUCKET" in note()
    assert note("tracking.output_uri=s3://own") == ""
    monkeypatch.setenv("CLEARML_S3_ARTIFACTS_BUCKET", "datasets")  # meant so
    assert note() == ""
    monkeypatch.setenv("CLEARML_S3_ENDPOINT", "no URL")  # the publisher says it
    assert note() == ""
