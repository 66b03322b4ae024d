from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from slm_vllm.reporting.report import build_report
from slm_vllm.rundir.reading import load_run
from support.run_folders import make_run


def mean(value: float) -> dict[str, Any]:
    return {"mean": value, "stderr": 0.01, "ci95": [value - 0.1, value + 0.1], "n": 50}


PARTS = {
    "between": 0.151,
    "within": 0.042,
    "stderr": 0.0563,
    "stderr_of_one_answer": 0.0621,
    "stderr_of_endless_answers": 0.0549,
}
SAMPLING = {
    "answers": 5,
    "questions": 50,
    "variance": {"exact_match": PARTS},
    "pass_at_k": {"exact_match": {"1": mean(0.3), "5": mean(0.52)}},
    "majority": {"exact_match": mean(0.34)},
    "agreement": mean(0.61),
}
CALIBRATION = {
    "agreement": {
        "exact_match": {
            "n": 50,
            "accuracy": 0.34,
            "confidence": 0.61,
            "ece": 0.27,
            "brier": 0.213,
            "aurc": 0.444,
            "bins": [],
            "abstaining": [{"threshold": 0.0000123, "coverage": 0.4, "accuracy": mean(0.7)}],
        }
    }
}


def page(tmp_path: Path, **added: Any) -> str:
    run = make_run(tmp_path / "run", rows=[{"exact_match": 1.0}, {"exact_match": 0.0}])
    path = run / "results.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **added}))
    return build_report([load_run(run)]).html


def cells(html: str, title: str) -> list[str]:
    """Of the only row of a table."""
    body = html.split(f"<caption>{title}")[1].split("<tbody>")[1].split("</tbody>")[0]
    return re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", body)


def test_all_figures_stand_in_the_report(tmp_path: Path) -> None:
    html = page(tmp_path, sampling=SAMPLING, calibration=CALIBRATION)
    assert '<section id="confidence"' in html
    row = cells(html, "Several answers to each question")
    assert row[:2] == ["run", "exact match"]
    assert row[3:7] == ["0.151", "0.042", "0.056", "0.062"]
    assert [one[:5] for one in row[7:10]] == ["0.340", "0.520", "0.610"]
    assert cells(html, "Calibration: ECE") == [
        *("run", "agreement", "exact match", "0.340", "0.610", "0.270", "0.213", "0.444", "50")
    ]
    left = cells(html, "What abstaining below")
    assert left[3:5] == ["1.23e-05", "40 %"] and left[5].startswith("0.700")


def test_runs_with_one_answer_have_no_such_section(tmp_path: Path) -> None:
    assert 'id="confidence"' not in page(tmp_path)
