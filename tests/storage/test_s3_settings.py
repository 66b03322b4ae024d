from __future__ import annotations

from pathlib import Path

import pytest

from slm_vllm.errors import ConfigError
from slm_vllm.storage.settings import load_s3_settings

PROFILES = """
[default]
aws_access_key_id = default-access
aws_secret_access_key = default-secret

[team]
aws_access_key_id = team-access
aws_secret_access_key = team-secret
region = eu-north-1
endpoint_url = https://team.example

[role]
region = eu-west-2
"""


@pytest.fixture
def profiles(tmp_path: Path) -> None:
    (tmp_path / "aws-credentials").write_text(PROFILES)


def write_env(text: str) -> None:
    Path(".env").write_text(text)


def test_nothing_set() -> None:
    settings = load_s3_settings()
    assert (settings.endpoint, settings.bucket, settings.access_key) == (None, None, None)
    assert (settings.region, settings.path_style, settings.verify_ssl) == ("us-east-1", False, True)


def test_each_layer_wins_over_the_one_before(
    monkeypatch: pytest.MonkeyPatch, profiles: None
) -> None:
    write_env(
        "CLEARML_S3_ENDPOINT=http://env-file:9000\nCLEARML_S3_REGION=r-file\n"
        "CLEARML_S3_ACCESS_KEY=file-access\nCLEARML_S3_SECRET_KEY=file-secret\n"
        "CLEARML_S3_BUCKET=file-bucket\n"
    )
    settings = load_s3_settings()
    assert (settings.endpoint, settings.access_key) == ("http://env-file:9000", "file-access")
    assert settings.path_style
    monkeypatch.setenv("CLEARML_S3_ENDPOINT", "http://environment:9000")
    monkeypatch.setenv("CLEARML_S3_SECRET_KEY", "environment-secret")
    settings = load_s3_settings()
    assert (settings.endpoint, settings.region) == ("http://environment:9000", "r-file")
    assert (settings.access_key, settings.secret_key) == ("file-access", "environment-secret")
    settings = load_s3_settings({"profile": "team"})
    assert (settings.endpoint, settings.region) == ("https://team.example", "eu-north-1")
    assert (settings.access_key, settings.secret_key) == ("team-access", "team-secret")
    assert settings.bucket == "file-bucket"
    settings = load_s3_settings({"profile": "team", "endpoint": "http://flag:1", "bucket": "b"})
    assert (settings.endpoint, settings.bucket, settings.region) == (
        "http://flag:1",
        "b",
        "eu-north-1",
    )


def test_own_names_before_standard_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "aws-access")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "aws-secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "aws-token")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://aws:1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    settings = load_s3_settings()
    assert (settings.access_key, settings.session_token) == ("aws-access", "aws-token")
    assert (settings.endpoint, settings.region) == ("http://aws:1", "eu-west-1")
    write_env("CLEARML_S3_ACCESS_KEY=own\nCLEARML_S3_SECRET_KEY=own-secret\n")
    settings = load_s3_settings()
    # A token belongs to the keys it came with.
    assert (settings.access_key, settings.secret_key, settings.session_token) == (
        "own",
        "own-secret",
        None,
    )


def test_a_profile_without_keys_leaves_them_to_boto3(
    monkeypatch: pytest.MonkeyPatch, profiles: None
) -> None:
    monkeypatch.setenv("CLEARML_S3_ACCESS_KEY", "a")
    monkeypatch.setenv("CLEARML_S3_SECRET_KEY", "s")
    settings = load_s3_settings({"profile": "role"})
    assert (settings.access_key, settings.profile, settings.region) == (None, "role", "eu-west-2")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("CLEARML_S3_ENDPOINT", "minio:9000", "is not a URL.*http://"),
        ("CLEARML_S3_ENDPOINT", "http://user:pw@minio:9000", "holds a user name or password"),
        ("CLEARML_S3_BUCKET", "bucket/folder", "is not the name of a bucket"),
        ("CLEARML_S3_PATH_STYLE", "perhaps", "CLEARML_S3_PATH_STYLE=perhaps: write true or false"),
        ("CLEARML_S3_VERIFY_SSL", "/no/such.pem", "there is no such file"),
        ("CLEARML_S3_ACCESS_KEY", "alone", "CLEARML_S3_SECRET_KEY is not: set both"),
        ("AWS_PROFILE", "nobody", "no AWS profile 'nobody'.*there: default, role, team"),
    ],
)
def test_mistakes_are_named(
    monkeypatch: pytest.MonkeyPatch, profiles: None, name: str, value: str, said: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=said) as caught:
        load_s3_settings()
    assert "pw" not in str(caught.value)


def test_spellings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEARML_S3_ENDPOINT", "http://minio:9000/")
    monkeypatch.setenv("CLEARML_S3_BUCKET", "s3://data/")
    monkeypatch.setenv("CLEARML_S3_VERIFY_SSL", "No")
    monkeypatch.setenv("CLEARML_S3_PATH_STYLE", "off")
    settings = load_s3_settings()
    assert (settings.endpoint, settings.bucket) == ("http://minio:9000", "data")
    assert (settings.verify_ssl, settings.path_style) == (False, False)


def test_a_named_file_has_to_exist() -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_s3_settings(env_file=Path("none.env"))


def test_secrets_are_not_in_the_repr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden-1")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "hidden-2")
    assert "hidden" not in repr(load_s3_settings())
