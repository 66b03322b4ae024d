"""Against a server that nobody here wrote: OpenStack Swift, before and after conditional writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from slm_vllm.errors import StorageError
from slm_vllm.storage.bucket import Bucket
from slm_vllm.storage.diagnosis import check_connection, check_operations
from slm_vllm.storage.download import download
from slm_vllm.storage.faults import S3Error
from slm_vllm.storage.parts import TransferOptions
from slm_vllm.storage.upload import upload
from support import swift_server
from support.places import without_server
from support.s3_servers import settings_for

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("swift")]
MIB = 1 << 20
MAX_PARTS = 10
PARTS = TransferOptions(part_size=5 * MIB, attempts=2, pause=0.001)
MakeFile = Callable[..., Path]


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=without_server(name)) for name in swift_server.RELEASES],
)
def release(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def swift(release: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    """A bucket with keys and region right."""
    folder = tmp_path_factory.mktemp(release)
    with swift_server.serving_swift(release, folder, MAX_PARTS) as url:
        settings = replace(
            settings_for(url, "datasets", region=swift_server.REGION),
            access_key=swift_server.ACCESS,
            secret_key=swift_server.SECRET,
        )
        bucket = Bucket.open(settings, attempts=2)
        bucket.client.create_bucket(Bucket=bucket.name)
        yield bucket


@pytest.fixture(params=["its region", "the usual region"])
def bucket(swift: Bucket, request: pytest.FixtureRequest) -> Bucket:
    if request.param == "its region":
        return Bucket.open(swift.settings, attempts=2)
    return Bucket.open(replace(swift.settings, region="us-east-1"), attempts=2)


def test_all_operations_but_the_region_is_named(bucket: Bucket) -> None:
    findings = [*check_connection(bucket), *check_operations(bucket)]
    wrong = bucket.settings.region != swift_server.REGION
    assert [f.name for f in findings if f.status != "ok"] == ["region"] * wrong
    (region,) = [f for f in findings if f.name == "region"]
    assert swift_server.REGION in region.found
    assert list(bucket.objects("slm-vllm-test/")) == []


@pytest.mark.parametrize("size", [0, 1000, 11 * MIB])
def test_there_and_back(
    bucket: Bucket,
    make_file: MakeFile,
    tmp_path: Path,
    size: int,
    release: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    key = f"{bucket.settings.region}/{size}"
    source = make_file(size)
    assert upload(bucket, source, key, PARTS).status == "uploaded"
    assert upload(bucket, source, key, PARTS).status == "same"
    assert download(bucket, key, tmp_path / "back", PARTS).status == "downloaded"
    assert (tmp_path / "back").read_bytes() == source.read_bytes()
    other = make_file(size + 1, "other", seed=2)
    with pytest.raises(StorageError, match="--force"):
        upload(bucket, other, key, PARTS)
    assert upload(bucket, other, key, replace(PARTS, force=True)).status == "uploaded"
    said = [r for r in caplog.records if "no conditional writes" in r.message]
    assert len(said) == (release == "swift-2.30" and size < PARTS.part_size)


def test_an_object_that_boto3_wrote_in_parts(
    swift: Bucket, make_file: MakeFile, tmp_path: Path
) -> None:
    from boto3.s3.transfer import TransferConfig

    source = make_file(20 * MIB)
    config = TransferConfig(multipart_threshold=5 * MIB, multipart_chunksize=5 * MIB)
    swift.client.upload_file(str(source), swift.name, "theirs", Config=config)
    assert upload(swift, source, "theirs").verified == "MD5 of parts"
    assert download(swift, "theirs", tmp_path / "back").verified == "MD5 of parts"


def test_more_parts_than_it_allows(swift: Bucket, make_file: MakeFile) -> None:
    source = make_file((MAX_PARTS + 1) * 5 * MIB)
    with pytest.raises(S3Error, match="allows fewer parts of one upload"):
        upload(swift, source, "too-many", PARTS)
