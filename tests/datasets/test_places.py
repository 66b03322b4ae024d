"""The files of nq and simple_qa are found where teams have them."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from slm_vllm.config.compose import compose_config
from slm_vllm.datasets.convert import convert
from slm_vllm.datasets.registry import fetched_path, open_configured
from slm_vllm.errors import DataError
from support.dataset_samples import jsonl, nq_row, simple_qa_csv, simple_qa_row

NQ_NAMES = ("nq", "local_nq", "rag_nq")
SIMPLE_QA_NAMES = ("simple_qa", "local_simple_qa")
NQ_FORMS = (
    "nq_full_dataset.parquet",
    "nq_full_dataset.json",
    "NQ-open.dev.merged.jsonl",
    "NQ-open.dev.merged.jsonl.gz",
)
SIMPLE_QA_FORMS = (
    "simple_qa_converted.parquet",
    "simple_qa_converted.json",
    "simple_qa_test_set_with_documents.csv",
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every form of both datasets in one folder."""
    folder = tmp_path_factory.mktemp("made")
    raw_nq, raw_simple_qa = folder / NQ_FORMS[2], folder / SIMPLE_QA_FORMS[2]
    raw_nq.write_bytes(jsonl([nq_row(number) for number in range(5)]))
    raw_simple_qa.write_bytes(simple_qa_csv([simple_qa_row(number) for number in range(5)]))
    (folder / NQ_FORMS[3]).write_bytes(gzip.compress(raw_nq.read_bytes()))
    convert("nq", raw_nq, folder)
    convert("simple_qa", raw_simple_qa, folder)
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put(made: Path, name: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes((made / name).read_bytes())


@pytest.mark.parametrize("folder", ["data", "data/nq"])
@pytest.mark.parametrize("form", NQ_FORMS)
@pytest.mark.parametrize("name", NQ_NAMES)
def test_nq_in_every_form_and_folder(
    made: Path, here: Path, name: str, form: str, folder: str
) -> None:
    put(made, form, here / folder)
    config = compose_config([f"dataset={name}"])
    frames = list(open_configured(config.dataset).scan())
    assert [frame.height for frame in frames] == [5]


@pytest.mark.parametrize("folder", ["data", "data/simple_qa"])
@pytest.mark.parametrize("form", SIMPLE_QA_FORMS)
@pytest.mark.parametrize("name", SIMPLE_QA_NAMES)
def test_simple_qa_in_every_form_and_folder(
    made: Path, here: Path, name: str, form: str, folder: str
) -> None:
    put(made, form, here / folder)
    config = compose_config([f"dataset={name}"])
    assert sum(frame.height for frame in open_configured(config.dataset).scan()) == 5


def test_the_file_that_is_named_wins_then_the_fastest(made: Path, here: Path) -> None:
    put(made, NQ_FORMS[1], here / "data")
    put(made, NQ_FORMS[0], here / "data" / "nq")
    notices: list[str] = []
    assert fetched_path(f"data/{NQ_FORMS[2]}", notices=notices) == f"data/nq/{NQ_FORMS[0]}"
    assert notices == [f"data/{NQ_FORMS[2]}: data/nq/{NQ_FORMS[0]} is read"]
    put(made, NQ_FORMS[2], here / "data")
    assert fetched_path(f"data/{NQ_FORMS[2]}") == f"data/{NQ_FORMS[2]}"


def test_a_folder_is_a_dataset(made: Path, here: Path) -> None:
    put(made, NQ_FORMS[1], here / "data" / "nq")
    assert fetched_path("data/nq") == fetched_path("data") == f"data/nq/{NQ_FORMS[1]}"
    put(made, SIMPLE_QA_FORMS[1], here / "data" / "simple_qa")
    with pytest.raises(DataError, match=r"data holds nq and simple_qa.*--dataset data/nq/nq_full"):
        fetched_path("data")
    assert fetched_path("data", kind="simple_qa") == f"data/simple_qa/{SIMPLE_QA_FORMS[1]}"


def test_what_is_missing_names_places_and_commands(made: Path, here: Path) -> None:
    put(made, "nq_converted_eval.json", here / "data" / "nq")
    with pytest.raises(DataError) as caught:
        fetched_path("data/nq_full_dataset.parquet")
    said = str(caught.value)
    for part in (
        f"Looked in {here}/data and {here}/data/nq for nq_full_dataset.parquet, nq_full",
        "slm-vllm s3 pull nq --bucket BUCKET.",
        "slm-vllm data prepare nq --input NQ-open.dev.merged.jsonl.",
        "A part of it is there: --dataset data/nq/nq_converted_eval.json",
    ):
        assert part in said


def test_a_part_of_a_dataset_is_not_taken_for_the_whole(made: Path, here: Path) -> None:
    put(made, "nq_converted_eval.json", here / "data" / "nq")
    assert fetched_path("data/nq_converted_eval.json") == "data/nq/nq_converted_eval.json"
    put(made, "nq_full_dataset.json", here / "data")
    with pytest.raises(DataError, match=r"nq_converted_train\.json does not exist"):
        fetched_path("data/nq_converted_train.json")
