from __future__ import annotations

import os
from pathlib import Path

import pytest

from slm_vllm.tracking.clearml.settings import ClearMLSettings, find_clearml

API = 'api { api_server: "http://127.0.0.1:8008", credentials { access_key: a, secret_key: b } }'
KEYS = {"CLEARML_API_ACCESS_KEY": "a", "CLEARML_API_SECRET_KEY": "b"}


def found(tmp_path: Path, content: bytes, **environment: str) -> ClearMLSettings:
    (tmp_path / "clearml.conf").write_bytes(content)
    return find_clearml(environment, folder=tmp_path, home=tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        API,
        "# a comment\n  api\n{ web_server: x }",
        '{"sdk": {}, "api": {"api_server": "x"}}',
        "api.api_server = x",
        'include "other.conf"',
    ],
)
def test_a_file_with_a_server(tmp_path: Path, content: str) -> None:
    settings = found(tmp_path, content.encode())
    assert settings.source == str(tmp_path / "clearml.conf") and settings.problem is None


@pytest.mark.parametrize(
    "content", ["", "\n \n", "# api { }", "// api { }", "sdk { aws { s3 { key: api } } }"]
)
def test_a_file_without_a_server_is_as_none(tmp_path: Path, content: str) -> None:
    settings = found(tmp_path, content.encode())
    assert (settings.source, settings.problem) == (None, None)
    assert found(tmp_path, content.encode(), **KEYS).source == "environment"
    named = str(tmp_path / "clearml.conf")
    settings = found(tmp_path, content.encode(), CLEARML_CONFIG_FILE=named)
    assert settings.problem is not None and "no section 'api'" in settings.problem
    settings = found(tmp_path, content.encode(), CLEARML_CONFIG_FILE=named, **KEYS)
    assert settings.source == "environment"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xef\xbb\xbf" + API.encode(), "byte order mark"),
        (API.encode("utf-16"), "not text"),
        (b"api {\0}", "not text"),
        (b"\x89PNG\xff", "not text"),
    ],
)
def test_a_file_that_clearml_cannot_read(tmp_path: Path, content: bytes, said: str) -> None:
    settings = found(tmp_path, content)
    assert settings.source is None and said in str(settings.problem)
    assert "clearml.conf" in str(settings.problem)
    # An offline session imports the SDK, which would read it.
    assert settings.environment["CLEARML_CONFIG_FILE"] == os.devnull


def test_a_damaged_env_file_is_why_nothing_is_configured(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("CLEARML_API_ACCESS_KEY=a", encoding="utf-16")
    settings = find_clearml({}, folder=tmp_path, home=tmp_path)
    assert settings.source is None
    assert settings.problem == f"{tmp_path / '.env'} cannot be read: it is not text in UTF-8"
    assert found(tmp_path, API.encode()).problem is None


def test_a_file_in_the_home_folder_by_its_short_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    settings = found(tmp_path, API.encode(), CLEARML_CONFIG_FILE="~/clearml.conf")
    assert settings.source == str(tmp_path / "clearml.conf")
    assert settings.environment["CLEARML_CONFIG_FILE"] == str(tmp_path / "clearml.conf")


def test_a_user_without_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slm_vllm.tracking.clearml.settings.home_folder", lambda: None)
    assert find_clearml({}, folder=tmp_path).source is None
    assert find_clearml(KEYS, folder=tmp_path).source == "environment"


def test_a_server_on_this_machine_is_asked_past_the_proxy(tmp_path: Path) -> None:
    settings = found(tmp_path, API.encode(), HTTP_PROXY="http://127.0.0.1:9")
    assert "127.0.0.1" in settings.environment["NO_PROXY"].split(",")
    assert "NO_PROXY" not in found(tmp_path, API.encode()).environment
