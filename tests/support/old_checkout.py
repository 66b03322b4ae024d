"""A checkout of the scripts that came before this package, as users have it on their disks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from slm_vllm.datasets.convert import convert
from support.dataset_samples import jsonl, nq_row, simple_qa_csv, simple_qa_row

SECRET = "never-to-be-copied-4711"
OLD_RUN = "smollm2_135m_local_nq_no_context"
_ROOT = """\
defaults:
  - model: smollm2_135m
  - dataset: local_nq
  - experiment_mode: no_context
  - _self_

experiment:
  name: ${model.name}_${dataset.name}_${experiment_mode.name}
  output_dir: outputs/${experiment.name}
  seed: 7
  log_predictions: true
  use_clearml: true

hydra:
  run:
    dir: ${experiment.output_dir}
"""
_FILES = {
    "configs/config.yaml": _ROOT,
    "configs/model/smollm2_135m.yaml": """\
name: smollm2_135m
model_name: HuggingFaceTB/SmolLM2-135M-Instruct
device: cuda
torch_dtype: torch.float16
batch_size: 8
max_length: 1024
max_new_tokens: 24
use_flash_attention: false
gradient_checkpointing: true
load_in_8bit: false
""",
    "configs/dataset/local_nq.yaml": "name: local_nq\ndata_path: data/nq/nq_full_dataset.json\n",
    "configs/experiment_mode/no_context.yaml": "name: no_context\nuse_context: false\n",
    ".env": f"CLEARML_S3_BUCKET=team\nCLEARML_S3_SECRET_KEY={SECRET}\n",
    "clearml.conf": f'api {{ credentials {{ access_key: "a", secret_key: "{SECRET}" }} }}\n',
}


def make_old_checkout(folder: Path, rows: int = 6) -> Path:
    """Writes configurations, data in both layouts, secrets and the folder of an old run.

    Args:
        folder: Made here.
        rows: Of each dataset.
    """
    for name, text in _FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    data = folder / "data" / "nq"
    data.mkdir(parents=True)
    raw = data / "NQ-open.dev.merged.jsonl"
    raw.write_bytes(jsonl([nq_row(number) for number in range(rows)]))
    convert("nq", raw, data)
    (data / "nq_full_dataset.parquet").unlink()
    raw.unlink()
    simple_qa = folder / "data" / "simple_qa_test_set_with_documents.csv"
    simple_qa.write_bytes(simple_qa_csv([simple_qa_row(number) for number in range(rows)]))
    make_old_run(folder / "outputs" / OLD_RUN, rows)
    return folder


def make_old_run(folder: Path, rows: int, **result: Any) -> Path:
    """Writes the folder of a run of the old scripts, in which every other answer is right."""
    folder.mkdir(parents=True)
    predictions = [
        {
            "question_id": number,
            "question": f"where is oak isle {number}",
            "predicted_answer": "in the east" if number % 2 else "no idea",
            "ground_truth": ["east"],
            "contexts": [],
            "context_type": "none",
            "model_name": "smollm2_135m",
            "token_recall": float(number % 2),
            "metadata": {},
        }
        for number in range(rows)
    ]
    recall = sum(row["token_recall"] for row in predictions) / rows
    results = {"token_recall": recall, "num_examples": rows, "duration_seconds": 12.5, **result}
    _write(folder / "predictions.json", {"predictions": predictions, "statistics": results})
    _write(folder / "results.json", results)
    _write(folder / "memory_usage.json", {"peak_cpu_memory_mb": 2048.0})
    return folder


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")
