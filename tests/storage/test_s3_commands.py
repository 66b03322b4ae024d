"""The commands, as typed."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slm_vllm.cli import main as entry
from slm_vllm.config.compose import compose_config
from slm_vllm.datasets.bucket_survey import closed_json
from slm_vllm.runs.console import Console
from slm_vllm.runs.options import RunOptions
from slm_vllm.runs.session import evaluate
from slm_vllm.storage.bucket import Bucket
from support.fake_engine import FakeEngine
from support.s3_servers import ACCESS, SECRET

pytestmark = pytest.mark.slow


class Answer(NamedTuple):
    code: int
    out: str
    err: str


Slm = Callable[..., Answer]


@pytest.fixture
def slm(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    bucket: Bucket,
    tmp_path: Path,
) -> Slm:
    """The console script's entry point in a folder with a .env."""
    (tmp_path / ".env").write_text(
        f"CLEARML_S3_ENDPOINT={bucket.settings.endpoint}\nCLEARML_S3_BUCKET={bucket.name}\n"
        f"CLEARML_S3_ACCESS_KEY={ACCESS}\nCLEARML_S3_SECRET_KEY={SECRET}\n"
    )

    def run(*words: str) -> Answer:
        monkeypatch.setattr(sys, "argv", ["slm-vllm", *words])
        with pytest.raises(SystemExit) as stop:
            entry.main()
        code = stop.value.code
        answer = Answer(0 if code is None else int(code), *capsys.readouterr())
        assert SECRET not in answer.out + answer.err
        assert "Traceback" not in answer.err
        return answer

    return run


def nq_row(number: int) -> dict[str, Any]:
    #                 0    1    2     3   4   5  6 7    8   9 10
    page = f"<H1> Isle {number} </H1> <P> It lies , east </P>"
    return {
        "question": f"where is isle {number}",
        "answer": ["east"],
        "document_text": page,
        "long_answer_candidates": [{"start_token": 4, "end_token": 10}],
        "annotations": [
            {
                "long_answer": {"start_token": 4, "end_token": 10, "candidate_index": 0},
                "short_answers": [{"start_token": 8, "end_token": 9}],
            }
        ],
        "document_url": f"https://en.wikipedia.org/w/index.php?title=Isle_{number}&oldid=7",
        "example_id": 10**18 + number,
    }


def write_raw_nq(folder: Path, rows: int = 10) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "NQ-open.dev.merged.jsonl"
    path.write_text("".join(json.dumps(nq_row(number)) + "\n" for number in range(rows)))
    return path


def write_raw_simple_qa(folder: Path, rows: int = 5) -> Path:
    folder.mkdir(exist_ok=True)
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(["metadata", "problem", "answer", "documents"])
    for number in range(rows):
        metadata = repr({"topic": "Art", "answer_type": "Person", "urls": []})
        writer.writerow([metadata, f"who painted {number}", "Ann", f"Ann painted {number}."])
    path = folder / "simple_qa_test_set_with_documents.csv"
    path.write_text(out.getvalue())
    return path


def plain_tokenizer(folder: Path, **_: object) -> Any:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))


def test_the_whole_cycle(
    slm: Slm,
    bucket: Bucket,
    tmp_path: Path,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Raw up; converted in the bucket; converted down; a run on the URL."""
    write_raw_nq(tmp_path / "here")
    done = slm("s3", "push", "nq", "--raw", "--data-dir", "here")
    assert done.code == 0 and done.out.startswith("uploaded")
    done = slm("s3", "process", "nq", "--data-dir", "work", "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told["conversions"][0]["rows"] == 10
    assert {Path(t["path"]).name: t["status"] for t in told["transfers"]} == {
        "NQ-open.dev.merged.jsonl": "downloaded",
        "nq_full_dataset.json": "uploaded",
        "nq_converted_train.json": "uploaded",
        "nq_converted_eval.json": "uploaded",
        "nq_full_dataset.parquet": "uploaded",
    }
    again = json.loads(slm("s3", "process", "nq", "--data-dir", "work", "--json").out)
    assert {t["status"] for t in again["transfers"]} == {"same"}
    assert slm("s3", "pull", "nq", "--processed", "--data-dir", "there").code == 0
    names = {path.name for path in (tmp_path / "there").iterdir()}
    assert names == {path.name for path in (tmp_path / "work").glob("nq_*")}
    for name in names:
        assert (tmp_path / "there" / name).read_bytes() == (tmp_path / "work" / name).read_bytes()

    url = bucket.url("nq_full_dataset.parquet")
    words = [
        "model=custom",
        "model.name=tiny",
        f"model.path={tiny_model}",
        "dataset=custom",
        "dataset.name=nq",
        f"dataset.path={url}",
        f"cache_dir={tmp_path / 'cache'}",
        "experiment_mode=oracle",
        "hardware=cpu",
    ]
    config = compose_config(words)
    engine = FakeEngine()
    # transformers' own way to a tokenizer imports torch and all models first.
    monkeypatch.setattr("slm_vllm.runs.session.load_tokenizer", plain_tokenizer)
    options = RunOptions(make_engine=engine.factory(), import_engine=lambda: None, track=False)
    (result,) = evaluate([config], options)
    assert result["counts"]["total"] == 10
    predictions = pl.read_parquet(config.experiment.folder / "predictions.parquet")
    assert predictions["question"].to_list() == [f"where is isle {n}" for n in range(10)]
    cached = list((tmp_path / "cache" / "datasets").rglob("*.parquet"))
    assert len(cached) == 1

    # Another version under the same key: the run says so where the user looks.
    checked = slm("data", "check", url)
    assert checked.code == 0 and "usable" in checked.out
    changed = (tmp_path / "work" / "nq_full_dataset.parquet").read_bytes()
    pl.read_parquet(io.BytesIO(changed)).head(4).write_parquet(tmp_path / "fewer.parquet")
    key = "nq_full_dataset.parquet"
    assert slm("s3", "push", "--from", "fewer.parquet", "--key", key, "--force").code == 0
    said: list[str] = []
    monkeypatch.setattr(Console, "say", lambda self, text: said.append(text))
    again_config = compose_config([*words, "experiment.name=again"])
    (result,) = evaluate([again_config], options)
    assert result["counts"]["total"] == 4
    assert [line for line in said if "has changed in the bucket" in line]
    log = Path(config.experiment.output_dir) / "again" / "experiment.log"
    assert "has changed in the bucket" in log.read_text()
    cleaned = slm("data", "clean-cache", "--cache-dir", "cache", "--yes", "--json")
    assert json.loads(cleaned.out)["files"] == 3 and not cached[0].exists()


def test_both_datasets_and_what_is_missing(slm: Slm, bucket: Bucket, tmp_path: Path) -> None:
    write_raw_nq(tmp_path / "data")
    write_raw_simple_qa(tmp_path / "data")
    assert slm("s3", "push", "both", "--raw", "--prefix", "sets/").code == 0
    missing = slm("s3", "pull", "both", "--prefix", "sets/")
    assert missing.code == 5
    assert "lacks sets/nq_full_dataset.json" in missing.err and "The others are done" in missing.err
    done = slm("s3", "process", "both", "--no-upload", "--prefix", "sets/")
    assert done.code == 0 and "simple_qa: 5 rows converted" in done.out
    assert len(list(bucket.objects())) == 2
    refused = slm("s3", "pull", "nq", "--key", "x")
    assert refused.code == 2 and "one of the two" in refused.err


def test_a_bucket_without_parquet_serves_every_name(
    slm: Slm, bucket: Bucket, tmp_path: Path
) -> None:
    """As teams filled them before this project; their own folders are pushed, pulled, kept."""
    (tmp_path / "data").mkdir()
    raw = write_raw_nq(tmp_path / "data" / "nq")
    assert slm("data", "prepare", "nq", "--input", str(raw), "--output-dir", "data/nq").code == 0
    (tmp_path / "data" / "nq" / "nq_full_dataset.parquet").unlink()
    assert slm("s3", "push", "nq").code == 0
    again = json.loads(slm("s3", "pull", "nq", "--json").out)
    assert {transfer["status"] for transfer in again["transfers"]} == {"same"}
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["nq"]

    (tmp_path / "data" / "nq").rename(tmp_path / "elsewhere")
    assert slm("s3", "pull", "nq", "--processed").code == 0
    for name in ("nq", "local_nq", "rag_nq"):
        checked = slm("data", "check", name, "--json")
        assert checked.code == 0, checked.err
        assert json.loads(checked.out)["path"] == "data/nq_full_dataset.json"


def test_connection_report(slm: Slm, bucket: Bucket, tmp_path: Path) -> None:
    write_raw_nq(tmp_path / "data")
    assert slm("s3", "push", "nq", "--raw").code == 0
    assert slm("s3", "process", "nq").code == 0
    bucket.client.put_object(Bucket=bucket.name, Key="nq_converted_eval.json", Body=b"<html>")
    tested = slm("s3", "test", "--test-operations", "--check-datasets", "--json")
    assert tested.code == 5
    told = json.loads(tested.out)
    assert all(check["status"] == "ok" for check in told["checks"]) and not told["ok"]
    files = {file["key"]: file for file in told["datasets"]}
    assert len([file for file in files.values() if file["required"]]) == 8
    assert {key for key, file in files.items() if file["usable"]} == {
        "NQ-open.dev.merged.jsonl",
        "nq_full_dataset.json",
        "nq_converted_train.json",
        "nq_full_dataset.parquet",
    }
    assert "problem" in files["nq_converted_eval.json"]
    text = slm("s3", "test", "--bucket", "no-such-bucket")
    assert text.code == 5 and "fail     bucket" in text.out
    assert ACCESS not in text.out


def test_the_beginning_of_a_large_file_is_enough_to_check_it(
    slm: Slm, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slm_vllm.datasets.bucket_survey._HEAD_BYTES", 3000)
    write_raw_nq(tmp_path / "data", rows=40)
    write_raw_simple_qa(tmp_path / "data", rows=40)
    for kind in ("nq", "simple_qa"):
        assert slm("s3", "push", kind, "--raw").code == 0
        assert slm("s3", "process", kind).code == 0
    told = json.loads(slm("s3", "test", "--check-datasets", "--json").out)
    assert {f["key"]: f.get("problem") for f in told["datasets"] if not f["usable"]} == {}


@given(
    rows=st.lists(
        st.dictionaries(st.text(max_size=3), st.text() | st.lists(st.integers()), max_size=3),
        min_size=1,
        max_size=4,
    ),
    nested=st.booleans(),
    indent=st.sampled_from([None, 2]),
    data=st.data(),
)
def test_the_beginning_of_json_is_closed(
    rows: list[dict[str, Any]], nested: bool, indent: int | None, data: st.DataObject
) -> None:
    text = json.dumps({"n": 1, "train": rows} if nested else rows, indent=indent).encode()
    ends = [n for n in range(len(text)) if b"}" in text[:n]]
    cut = data.draw(st.sampled_from(ends or [len(text)]))
    closed = closed_json(text[:cut])
    try:
        read = json.loads(closed)
    except ValueError:
        # Not even the first element is whole.
        assert closed == text[:cut]
        return
    found = read["train"] if nested else read
    assert found == rows[: len(found)] and found


def test_files_are_not_lost_by_mistake(slm: Slm, bucket: Bucket, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("one")
    assert slm("s3", "push", "--from", "f", "--key", "dir/f").code == 0
    (tmp_path / "f").write_text("two")
    refused = slm("s3", "push", "--from", "f", "--key", "dir/f")
    assert refused.code == 5 and "--force" in refused.err
    planned = slm("s3", "push", "--from", "f", "--key", "dir/f", "--force", "--dry-run")
    assert planned.code == 0 and planned.out.startswith("would move")
    assert bucket.client.get_object(Bucket=bucket.name, Key="dir/f")["Body"].read() == b"one"
    assert slm("s3", "push", "--from", "f", "--key", "dir/f", "--force").code == 0
    (tmp_path / "to").mkdir()
    assert slm("s3", "pull", "--key", "dir/f", "--to", "to").code == 0
    assert (tmp_path / "to" / "f").read_text() == "two"


@pytest.mark.parametrize(
    "key", ["a b/c d.txt", "Größe/日本.txt", "x/../up.txt", "..up", "100%+.txt"]
)
def test_odd_keys(slm: Slm, bucket: Bucket, tmp_path: Path, key: str) -> None:
    (tmp_path / "f").write_text(key)
    (tmp_path / "in").mkdir()
    assert slm("s3", "push", "--from", "f", "--key", key).code == 0
    assert [item.key for item in bucket.objects()] == [key]
    listed = json.loads(slm("s3", "ls", "--json").out)
    assert [item["key"] for item in listed["objects"]] == [key]
    assert slm("s3", "pull", "--key", key, "--to", "in").code == 0
    assert [path.name for path in (tmp_path / "in").iterdir()] == [key.rpartition("/")[2]]


def test_a_key_never_chooses_a_folder(slm: Slm, bucket: Bucket, tmp_path: Path) -> None:
    bucket.client.put_object(Bucket=bucket.name, Key="a/..", Body=b"x")
    refused = slm("s3", "pull", "--key", "a/..")
    assert refused.code == 2 and "--to" in refused.err


def test_ten_thousand_keys(slm: Slm, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """As ten pages of a thousand; the server needs too long for so many real objects."""
    from datetime import datetime, timezone

    asked = []

    class Pages:
        def paginate(self, **given: Any) -> Any:
            for page in range(10):
                asked.append(page)
                yield {
                    "Contents": [
                        {
                            "Key": f"k{page:02}/{number:04}",
                            "Size": 3,
                            "ETag": '"e"',
                            "LastModified": datetime(2026, 1, 1, tzinfo=timezone.utc),
                        }
                        for number in range(1000)
                    ]
                }

    monkeypatch.setattr("botocore.client.BaseClient.get_paginator", lambda self, name: Pages())
    listed = slm("s3", "ls")
    assert listed.code == 0 and len(asked) == 10
    assert listed.out.splitlines()[-1] == "10,000 objects, 30.0 KB"
    assert len(set(listed.out.splitlines())) == 10_001


def test_pages_are_followed(slm: Slm, bucket: Bucket) -> None:
    """The server of these tests gives pages of 30."""
    for number in range(63):
        bucket.client.put_object(Bucket=bucket.name, Key=f"k/{number:04}", Body=b"x")
    told = json.loads(slm("s3", "ls", "k/", "--json").out)
    assert (told["count"], told["bytes"]) == (63, 63)
    assert [item["key"] for item in told["objects"]] == [f"k/{n:04}" for n in range(63)]


def test_artifacts_of_a_run(slm: Slm, bucket: Bucket, tmp_path: Path) -> None:
    run = tmp_path / "outputs" / "my run"
    run.mkdir(parents=True)
    (run / "state.json").write_text("{}")
    (run / "results.json").write_text('{"a": 1}')
    (run / "predictions.json").write_text("old")
    base = f"slm-vllm/my run.{'ab' * 16}/artifacts"
    put = bucket.client.put_object
    put(Bucket=bucket.name, Key=f"{base}/results/results.json", Body=b'{"a": 1}')
    put(Bucket=bucket.name, Key=f"{base}/model/weights.bin", Body=b"x")
    put(Bucket=bucket.name, Key=f"slm-vllm/other.{'cd' * 16}/artifacts/r/results.json", Body=b"y")
    good = slm("s3", "artifacts", "my run", "--json")
    assert good.code == 0, good.err
    told = json.loads(good.out)
    assert told["task"] == "ab" * 16
    assert [(item["same"], item["compared"]) for item in told["artifacts"]] == [
        (None, None),
        (True, "MD5"),
    ]
    put(Bucket=bucket.name, Key=f"{base}/predictions/predictions.json", Body=b"new")
    bad = slm("s3", "artifacts", "my run")
    assert bad.code == 5 and "DIFFERS (MD5)" in bad.out
    (tmp_path / "outputs" / "unpublished").mkdir()
    (tmp_path / "outputs" / "unpublished" / "state.json").write_text("{}")
    none = slm("s3", "artifacts", "unpublished")
    assert none.code == 5 and "clearml sync" in none.err


def test_an_index_there_and_back(slm: Slm, bucket: Bucket, tmp_path: Path) -> None:
    build = ("index", "build", "--dataset", "demo", "--retriever", "bm25", "--json")
    built = json.loads(slm(*build, "--cache-dir", "one").out)
    (name,) = [p.name for p in (tmp_path / "one" / "indexes").glob("bm25-*")]
    pushed = slm("index", "push", "--cache-dir", "one", "--json")
    assert pushed.code == 0, pushed.err
    again = json.loads(slm("index", "push", name, "--cache-dir", "one", "--json").out)
    assert {t["verified"] for t in again["transfers"]} == {"fingerprint"}
    pulled = slm("index", "pull", name, "--cache-dir", "two")
    assert pulled.code == 0, pulled.err
    stamp = (tmp_path / "two" / "indexes" / name / "index.json").stat().st_mtime_ns
    found = json.loads(slm(*build, "--cache-dir", "two").out)
    assert found["fingerprint"] == built["fingerprint"]
    assert (tmp_path / "two" / "indexes" / name / "index.json").stat().st_mtime_ns == stamp
    unknown = slm("index", "pull", "bm25-none", "--cache-dir", "two")
    assert unknown.code == 5 and name in unknown.err


def test_a_damaged_index_is_not_taken(slm: Slm, bucket: Bucket, tmp_path: Path) -> None:
    build = ("index", "build", "--dataset", "demo", "--retriever", "bm25")
    assert slm(*build, "--cache-dir", "one").code == 0
    assert slm("index", "push", "--cache-dir", "one").code == 0
    (name,) = [p.name for p in (tmp_path / "one" / "indexes").glob("bm25-*")]
    seal = json.loads((tmp_path / "one" / "indexes" / name / "index.json").read_text())
    file = next(iter(seal["files"]))
    bucket.client.put_object(Bucket=bucket.name, Key=f"indexes/{name}/{file}", Body=b"other")
    refused = slm("index", "pull", name, "--cache-dir", "two")
    assert refused.code == 5 and "is damaged" in refused.err
    assert not (tmp_path / "two" / "indexes" / name).exists()
    seal["files"] = {"../../escape": {"size": 1}}
    body = json.dumps(seal).encode()
    bucket.client.put_object(Bucket=bucket.name, Key=f"indexes/{name}/index.json", Body=body)
    refused = slm("index", "pull", name, "--cache-dir", "two")
    assert refused.code == 5 and "cannot be trusted" in refused.err


def test_mistakes_in_the_settings(slm: Slm, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("CLEARML_S3_ENDPOINT=minio:9000\n")
    answer = slm("s3", "ls")
    assert answer.code == 2 and "is not a URL" in answer.err
    (tmp_path / ".env").write_text("")
    answer = slm("s3", "ls")
    assert answer.code == 2 and "CLEARML_S3_BUCKET" in answer.err
