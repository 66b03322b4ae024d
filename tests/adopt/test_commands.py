"""Commands of the earlier scripts, in the words of today."""

from __future__ import annotations

import pytest

from slm_vllm.adopt.commands import SCRIPTS, explain
from slm_vllm.errors import ConfigError
from support.places import REPOSITORY


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (
            "poetry run python run_experiment_simple.py experiment_mode=no_context",
            "slm-vllm eval experiment_mode=no_context",
        ),
        (
            "CUDA_VISIBLE_DEVICES=1 nohup python -u run_experiment_simple.py --no-clearml "
            "model=qwen_1.7b model.batch_size=16 > run.log 2>&1 &",
            "CUDA_VISIBLE_DEVICES=1 nohup slm-vllm eval --no-clearml model=qwen_1.7b "
            "hardware.engine_args.max_num_seqs=16 > run.log 2>&1 &",
        ),
        ("python scripts/convert_nq_data.py --input a.jsonl --output-dir data/nq",
         "slm-vllm data prepare nq --input a.jsonl --output-dir data/nq"),
        ("uv run convert_simple_qa_data.py",
         "slm-vllm data prepare simple_qa --input data/simple_qa_test_set_with_documents.csv"),
        ("python test_local_data.py", "slm-vllm data check nq"),
        ("python test_s3_connection.py --test-operations --check-datasets",
         "slm-vllm s3 test --test-operations --check-datasets"),
        ("python download_processed_data.py --dataset nq", "slm-vllm s3 pull nq --processed"),
        ("python download_from_s3.py --mode simple_qa", "slm-vllm s3 pull simple_qa"),
        ("python download_from_s3.py --mode browse", "slm-vllm s3 ls"),
        ("python upload_to_s3.py --mode nq", "slm-vllm s3 push nq"),
        ("poetry run process_s3_data.py --no-upload", "slm-vllm s3 process both --no-upload"),
        ("python check_minio_artifacts.py", "slm-vllm s3 artifacts RUN"),
    ],
)  # fmt: skip
def test_what_replaces_a_command(old: str, new: str) -> None:
    assert explain(old) == new


@pytest.mark.parametrize("command", ["python train.py", "", "python 'open", "poetry run"])
def test_what_is_no_earlier_command(command: str) -> None:
    with pytest.raises(ConfigError):
        explain(command)


def test_every_script_is_in_the_table_of_the_docs() -> None:
    page = (REPOSITORY / "docs" / "migration.md").read_text(encoding="utf-8")
    assert [name for name in SCRIPTS if name not in page] == []
