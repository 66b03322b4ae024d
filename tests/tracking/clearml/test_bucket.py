"""Artifacts in a bucket, a server that is checked, and how often it is asked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from slm_vllm.cli.clearml import command as clearml_command
from slm_vllm.cli.s3 import command as s3_command
from slm_vllm.storage.client import make_client
from slm_vllm.tracking.clearml.check import check_clearml
from slm_vllm.tracking.launch import open_tracking
from slm_vllm.tracking.recorder import Recorder
from support.clearml_loopback import Loopback
from support.s3_servers import ACCESS, SECRET, moto, serving_s3, settings_for
from support.servers import free_port
from support.tracked import Memory, StepProgress, end_when_noted, sync

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("bucket")]

BUCKET = "artifacts"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with serving_s3(moto()) as url:
        make_bucket(url)
        yield url


def make_bucket(url: str) -> Any:
    client = make_client(settings_for(url, BUCKET))
    client.create_bucket(Bucket=BUCKET)
    return client


@pytest.fixture
def keys(configured: Loopback, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Puts the settings of a bucket into the environment and returns its output_uri."""

    def name(url: str) -> str:
        for key, value in {
            "CLEARML_S3_ENDPOINT": url,
            "CLEARML_S3_BUCKET": BUCKET,
            "CLEARML_S3_ACCESS_KEY": ACCESS,
            "CLEARML_S3_SECRET_KEY": SECRET,
        }.items():
            monkeypatch.setenv(key, value)
        return f"s3://{url.removeprefix('http://')}/{BUCKET}"

    return name


def play(folder: Path, config: Any, say: Callable[[str], None]) -> None:
    """A run as a session records it."""
    with open_tracking(config.tracking, enabled=True, say=say) as tracking:
        recorder = tracking.recorder(folder)
        recorder.started(config, {"command": ["slm-vllm"], "packages": {}, "git": None}, 150)
        recorder.progress(StepProgress(150, 750, 0.5), Memory)
        recorder.finished()


def assert_stored(url: str, server: Loopback, folder: Path) -> None:
    """Every artifact is in the bucket, byte for byte."""
    client = make_client(settings_for(url, BUCKET))
    artifacts = server.artifacts()
    assert {"results", "predictions", "manifest", "config"} <= set(artifacts)
    stored = {}
    for name, artifact in artifacts.items():
        key = artifact["uri"].split(f"/{BUCKET}/", 1)[1]
        stored[name] = client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        assert hashlib.sha256(stored[name]).hexdigest() == artifact["hash"]
    assert stored["results"] == (folder / "results.json").read_bytes()
    assert stored["predictions"] == (folder / "predictions.parquet").read_bytes()


def test_artifacts_go_into_the_bucket(
    keys: Any, endpoint: str, configured: Loopback, run_folder: Path, config: Any
) -> None:
    said: list[str] = []
    play(run_folder, config(f"tracking.output_uri={keys(endpoint)}"), said.append)
    assert len(said) == 1 and said[0].startswith("ClearML: ")
    assert configured.task["status"] == "completed"
    assert_stored(endpoint, configured, run_folder)
    assert "files" not in configured.calls
    spool = b"".join(path.read_bytes() for path in (run_folder / "tracking").iterdir())
    assert SECRET.encode() not in spool


def test_artifacts_have_a_bucket_beside_that_of_the_datasets(
    keys: Any,
    endpoint: str,
    configured: Loopback,
    run_folder: Path,
    config: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys(endpoint)
    monkeypatch.setenv("CLEARML_S3_BUCKET", "datasets")
    monkeypatch.setenv("CLEARML_S3_ARTIFACTS_BUCKET", BUCKET)
    said: list[str] = []
    play(run_folder, config(), said.append)
    assert_stored(endpoint, configured, run_folder)
    monkeypatch.delenv("CLEARML_S3_ARTIFACTS_BUCKET")  # the run knows where they are
    done = CliRunner().invoke(s3_command, ["artifacts", str(run_folder), "--json"])
    assert done.exit_code == 0, done.output
    stored = json.loads(done.output)["artifacts"]
    assert {Path(item["key"]).name for item in stored if item["same"]} >= {
        "results.json", "predictions.parquet", "predictions.json", "manifest.json",
        "experiment.log",
    }  # fmt: skip


def test_check_warns_of_the_bucket_of_the_datasets(
    keys: Any, endpoint: str, configured: Loopback
) -> None:
    place = keys(endpoint)
    said = check_clearml("p", None)[-1]
    assert (said.name, said.status) == ("artifacts", "warn")
    assert f"{place} (CLEARML_S3_BUCKET" in said.found and "ARTIFACTS_BUCKET" in (said.fix or "")
    words = ["check", "--json", f"tracking.output_uri={place}"]
    done = CliRunner().invoke(clearml_command, words)
    assert done.exit_code == 0
    found = json.loads(done.output)["checks"][-1]
    assert found["status"] == "ok" and f"{place} (tracking.output_uri)" in found["found"]


def test_a_bucket_that_is_away_is_served_later(
    keys: Any,
    configured: Loopback,
    run_folder: Path,
    config: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    port = str(free_port())
    url = f"http://127.0.0.1:{port}"
    said: list[str] = []
    with monkeypatch.context() as patch:
        end_when_noted(patch, run_folder)
        play(run_folder, config(f"tracking.output_uri={keys(url)}"), said.append)
    assert f"cannot be stored at s3://127.0.0.1:{port}/" in said[-1]
    assert "slm-vllm clearml sync" in said[-1]
    with serving_s3([*moto()[:-1], port]):
        make_bucket(url)
        assert sync(run_folder, said.append)
        assert_stored(url, configured, run_folder)
    assert configured.repeated() == []


def test_check_tries_everything(keys: Any, endpoint: str, configured: Loopback) -> None:
    findings = check_clearml("p", keys(endpoint))
    assert [(finding.name, finding.status) for finding in findings] == [
        ("configuration", "ok"),
        ("server and credentials", "ok"),
        ("versions", "ok"),
        ("task", "ok"),
        ("artifacts", "ok"),
    ]
    assert configured.tasks == {}
    listed = make_client(settings_for(endpoint, BUCKET)).list_objects_v2(Bucket=BUCKET)
    assert not [entry for entry in listed.get("Contents", []) if "check" in entry["Key"]]


def test_check_says_which_step_fails(keys: Any, configured: Loopback) -> None:
    keys("http://127.0.0.1:9")
    done = CliRunner().invoke(clearml_command, ["check", "--json"])
    assert done.exit_code == 5
    found = json.loads(done.output)
    assert [each["name"] for each in found["checks"] if each["status"] != "ok"] == ["artifacts"]
    assert SECRET not in done.output


def test_check_of_a_server_that_never_answers_ends(configured: Loopback) -> None:
    configured.stall()
    *_, last = check_clearml("p", None, bound=2.0)
    assert (last.name, last.status, last.found) == ("answer", "fail", "none within 2 s")
    assert configured.stalled


def test_a_long_run_makes_hundreds_of_calls(
    configured: Loopback, run_folder: Path, config: Any
) -> None:
    """3,610 questions at five a second."""
    settings = config()
    now = [0.0]
    (run_folder / "config.yaml").write_text(yaml.safe_dump(settings.model_dump(mode="json")))
    recorder = Recorder(run_folder, clock=lambda: now[0])
    recorder.started(settings, {"command": ["slm-vllm"], "packages": {}, "git": None}, 3610)
    for done in range(1, 3611):
        now[0] += 0.2
        recorder.progress(StepProgress(done, done * 5, 0.5), Memory)
    recorder.finished()
    assert sync(run_folder)
    assert configured.task["status"] == "completed"
    assert len([k for k in configured.scalars() if k[0] == "Token recall"]) > 50
    print("calls:", len(configured.calls))
    assert len(configured.calls) < 400
