"""From a checkout of the earlier scripts to an old run compared with a new one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
import yaml
from click.testing import CliRunner, Result

from slm_vllm.cli.main import cli
from slm_vllm.config.compose import compose_config
from slm_vllm.config.notice import SAID
from slm_vllm.errors import ConfigError, SlmVllmError
from slm_vllm.plugins import use_folder
from slm_vllm.rundir.folder import RunFolder
from slm_vllm.rundir.reading import load_run
from slm_vllm.runs.options import RunOptions
from slm_vllm.runs.session import evaluate
from support.fake_engine import FakeEngine
from support.old_checkout import OLD_RUN, SECRET, make_old_checkout, make_old_run

TAKEN = Path("outputs") / "earlier" / OLD_RUN


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An old checkout, seen from an empty folder beside it."""
    SAID.clear()
    here = tmp_path / "new"
    here.mkdir()
    monkeypatch.chdir(here)
    yield make_old_checkout(tmp_path / "old")
    use_folder(None)


def slm_vllm(*words: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words])


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_old_run_is_compared_with_a_new_one(old: Path, tiny_model: Path) -> None:
    before = contents(old)
    adopted = slm_vllm("adopt", old)
    assert adopted.exit_code == 0, adopted.output
    assert "token recall 0.500 then, 0.500 rescored; 6 questions found" in adopted.output

    words = [f"model.path={tiny_model}", "model.max_model_len=200", "hardware=cpu"]
    words += ["tracking.tracker=none"]
    config = compose_config(words, "adopted")
    evaluate([config], RunOptions(make_engine=FakeEngine().factory(), own_process=False))

    compared = slm_vllm("compare", TAKEN, f"outputs/{OLD_RUN}")
    assert compared.exit_code == 0, compared.output
    assert f"taken over from {old}/outputs/{OLD_RUN} and rescored" in " ".join(
        compared.output.split()
    )
    assert "-0.500" in compared.output  # the fake engine never says "east"
    assert "(not set)" not in compared.output
    reported = slm_vllm("report", TAKEN, f"outputs/{OLD_RUN}", "--output", "report.html")
    assert reported.exit_code == 0, reported.output
    shown = slm_vllm("runs", "show", TAKEN)
    assert "finished, 6/6 rows" in shown.output and "0.500" in shown.output

    assert contents(old) == before
    assert not [path for path, data in contents(Path()).items() if SECRET.encode() in data]
    assert SECRET not in adopted.output + compared.output + shown.output


def test_a_dry_run_says_all_and_writes_nothing(old: Path) -> None:
    said = slm_vllm("adopt", old, "--dry-run").output
    assert not list(Path().iterdir())
    for part in (
        "adopted/model/smollm2_135m.yaml",
        "model.batch_size=8 is now hardware.engine_args.max_num_seqs=8",
        "model.use_flash_attention is not used: ",
        f"nq: {old}/data/nq/nq_full_dataset.json",
        f"simple_qa: {old}/data/simple_qa_test_set_with_documents.csv",
        f".env sets CLEARML_S3_BUCKET, CLEARML_S3_SECRET_KEY: cp {old}/.env .env",
        f"export CLEARML_CONFIG_FILE={old}/clearml.conf",
        f"{TAKEN}: smollm2_135m, local_nq, no_context, 6 predictions, token recall 0.500",
    ):
        assert part in said
    assert SECRET not in said


def test_the_configuration_means_what_it_meant(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert slm_vllm("adopt", old).exit_code == 0
    new = compose_config(["hardware=v100"], "adopted")
    monkeypatch.chdir(old)
    there = compose_config(["hardware=v100"])
    assert new.dataset.path == str(old / there.dataset.path)
    same = {"dataset": there.dataset}
    assert new.model_copy(update=same) == there


def test_a_root_with_a_header_of_hydra_is_read(old: Path) -> None:
    root = old / "configs" / "config.yaml"
    assert slm_vllm("adopt", old, "--config-dir", "plain").exit_code == 0
    root.write_text("# @package _global_\n" + root.read_text())
    assert slm_vllm("adopt", old, "--config-dir", "global").exit_code == 0
    written = [Path(name, "config.yaml").read_text() for name in ("plain", "global")]
    assert written[0] == written[1] != ""


def test_a_file_that_sets_other_sections_keeps_them(old: Path) -> None:
    file = old / "configs" / "dataset" / "quiz.yaml"
    rows = old / "quiz.jsonl"
    rows.write_text('{"question": "q?", "answer": "a"}\n')
    file.write_text(
        f"# @package _global_\ndataset:\n  name: quiz\n  path: {rows}\n"
        "experiment:\n  max_samples: 3\n"
    )
    assert slm_vllm("adopt", old).exit_code == 0
    config = compose_config(["dataset=quiz"], "adopted")
    assert (config.dataset.path, config.experiment.max_samples) == (str(rows), 3)
    listed = slm_vllm("data", "list", "--config-dir", "adopted").output
    assert any(line.split()[::2] == ["quiz", str(rows), "B"] for line in listed.splitlines())
    checked = slm_vllm("data", "check", "quiz", "--config-dir", "adopted")
    assert f"{rows}: usable" in checked.output


def test_unknown_keys_are_named_and_not_written(old: Path) -> None:
    model = old / "configs" / "model" / "smollm2_135m.yaml"
    model.write_text(model.read_text() + f"api_token: {SECRET}\n")
    said = slm_vllm("adopt", old).output
    assert "configs/model/smollm2_135m.yaml: model.api_token is not known and left out" in said
    assert SECRET not in said + (Path("adopted") / "model" / "smollm2_135m.yaml").read_text()
    assert compose_config((), "adopted").model.name == "smollm2_135m"


def test_what_is_there_already_is_left_alone(old: Path) -> None:
    assert slm_vllm("adopt", old).exit_code == 0
    before = contents(Path())
    again = slm_vllm("adopt", old)
    assert again.exit_code == 0 and f"{TAKEN}: is there already" in again.output
    assert contents(Path()) == before
    Path("adopted/config.yaml").write_text("mine: 1\n")
    refused = slm_vllm("adopt", old)
    assert isinstance(refused.exception, ConfigError)
    assert "adopted/config.yaml is there already and is another" in str(refused.exception)


def test_rows_without_an_id_are_told_apart(old: Path) -> None:
    path = old / "outputs" / OLD_RUN / "predictions.json"
    content = json.loads(path.read_bytes())
    for row in content["predictions"]:
        del row["question_id"]
        row["question"] = "asked by nobody else"
    path.write_text(json.dumps(content))
    slm_vllm("adopt", old)
    ids = load_run(TAKEN).predictions["question_id"].to_list()
    assert ids == [str(number) for number in range(6)]


def test_rows_get_the_ids_and_answers_of_the_dataset(old: Path) -> None:
    path = old / "outputs" / OLD_RUN / "predictions.json"
    content = json.loads(path.read_bytes())
    content["predictions"][1] |= {"ground_truth": "wrong", "contexts": ["a page"]}
    content["predictions"][2]["question"] = "asked by nobody else"
    path.write_text(json.dumps(content))
    assert "5 questions found in the dataset" in slm_vllm("adopt", old).output
    run = load_run(TAKEN)
    rows = run.predictions.to_dicts()
    assert rows[1]["question_id"] == str(10**18 + 1) and rows[1]["answers"] == ["east"]
    assert rows[1]["token_recall"] == 1.0
    assert (rows[2]["question_id"], rows[2]["answers"]) == ("2", ["east"])
    assert "1 of its questions are not in the dataset" in run.note
    assert "unknown: prompt, generation, model revision, versions, speed" in run.note


def test_what_a_run_does_not_tell_is_unknown(old: Path) -> None:
    folder = make_old_run(old / "outputs" / "last night", rows=2)
    path = folder / "predictions.json"
    content = json.loads(path.read_bytes())
    for row in content["predictions"]:
        del row["model_name"], row["context_type"]
    path.write_text(json.dumps(content))
    (folder / "results.json").unlink()
    assert slm_vllm("adopt", old).exit_code == 0
    run = load_run(Path("outputs/earlier/last night"))
    told = (run.results["model"], run.results["dataset"], run.results["mode"])
    assert told == ("unknown", "unknown", "unknown")
    assert "unknown: model, dataset, mode, context, prompt" in run.note
    assert run.results["duration_seconds"] == 12.5  # of the statistics


def test_runs_with_passages(old: Path) -> None:
    name = "smollm2_135m_local_nq_retriever_context"
    path = make_old_run(old / "outputs" / name, rows=6) / "predictions.json"
    content = json.loads(path.read_bytes())
    for row in content["predictions"]:
        row |= {"context_type": "retriever_context", "contexts": ["it lies east", "or west"]}
    path.write_text(json.dumps(content).replace("0.5", "NaN"))
    assert slm_vllm("adopt", old).exit_code == 0
    run = load_run(TAKEN.parent / name)
    assert (run.results["mode"], run.results["retriever"]) == ("retriever_context", "unknown")
    (first, second) = run.predictions["contexts"][0].to_list()
    assert (first["text"], first["rank"], second["rank"]) == ("it lies east", 1, 2)
    reported = slm_vllm("report", TAKEN.parent, "--output", "report.html")
    assert reported.exit_code == 0, reported.output
    assert slm_vllm("compare", TAKEN.parent).exit_code == 0


def test_runs_of_today_among_the_old_ones_are_left_alone(old: Path) -> None:
    (make_old_run(old / "outputs" / "ours", rows=1) / "config.hash").write_text("1\n")
    assert "ours" not in slm_vllm("adopt", old).output


def test_memory_is_read_where_a_unit_says_what_it_is(old: Path) -> None:
    path = old / "outputs" / OLD_RUN / "memory_usage.json"
    path.write_text(json.dumps({"cpu": {"peak_rss_gb": 2}, "gpu_max": 7, "gpu_peak_mb": 300.5}))
    assert slm_vllm("adopt", old).exit_code == 0
    memory = load_run(TAKEN).memory
    assert memory is not None
    assert (memory["peak_rss"], memory["peak_gpu"]) == (2048.0, 300.5)


def test_a_damaged_run_costs_that_run(old: Path) -> None:
    bad = old / "outputs" / "bad"
    bad.mkdir()
    (bad / "predictions.json").write_text("{")
    said = slm_vllm("adopt", old)
    assert said.exit_code == 0
    assert f"left out: {bad}/predictions.json is damaged" in said.output
    assert TAKEN.is_dir() and not (TAKEN.parent / "bad").exists()


def test_a_run_without_predictions_is_not_scored_as_wrong(old: Path) -> None:
    other = old / "outputs" / "other"
    other.mkdir()
    (other / "predictions.json").write_text('[{"question": "a?", "response": "b"}]')
    said = slm_vllm("adopt", old).output
    assert "no row has 'predicted_answer'" in said and "Found: question, response" in said
    assert TAKEN.is_dir() and not (TAKEN.parent / "other").exists()


def test_a_run_is_not_written_where_another_goes_on(old: Path) -> None:
    going_on = RunFolder(TAKEN)
    going_on.lock()
    said = slm_vllm("adopt", old)
    assert "another process is running in this folder" in f"{said.output}{said.exception}"
    going_on.close()
    assert [path.name for path in TAKEN.iterdir()] == [".lock"]
    assert slm_vllm("adopt", old).exit_code == 0 and (TAKEN / "results.json").exists()


def test_a_folder_with_nothing_in_it(tmp_path: Path) -> None:
    refused = slm_vllm("adopt", tmp_path)
    assert isinstance(refused.exception, SlmVllmError)
    assert "holds nothing to take over" in str(refused.exception)


def test_what_is_written_reads_as_yaml_and_parquet(old: Path) -> None:
    assert slm_vllm("adopt", old).exit_code == 0
    root = yaml.safe_load(Path("adopted/config.yaml").read_text())
    assert root["experiment"]["output_dir"] == "outputs"
    assert pl.read_parquet(TAKEN / "predictions.parquet").height == 6
