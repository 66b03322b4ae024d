"""The report: one file, whatever the predictions hold, in a real browser where there is one."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from slm_vllm.cli.report import command
from slm_vllm.errors import SlmVllmError, StorageError
from support.run_folders import make_run

HOSTILE = "</script><script>document.title='taken'</script><!-- \u2028 \x00 \ud800".encode(
    "utf-8", "replace"
).decode()
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def rows() -> list[dict[str, Any]]:
    made = [
        {"question_id": f"q{n}", "question": f"question {n}", "token_recall": float(n % 2)}
        for n in range(40)
    ]
    made[3]["prediction"] = HOSTILE
    made[4]["prediction"] = "long " * 200_000
    return made


@pytest.fixture
def page(tmp_path: Path) -> Path:
    make_run(tmp_path / "sweep" / "closed", mode="no_context", rows=rows())
    make_run(tmp_path / "sweep" / "gold", mode="oracle", rows=rows())
    result = CliRunner().invoke(
        command, [str(tmp_path / "sweep")], catch_exceptions=False, standalone_mode=False
    )
    assert result.exception is None
    return tmp_path / "sweep" / "report.html"


def test_the_page_needs_nothing_else(page: Path) -> None:
    html = page.read_text(encoding="utf-8")
    addresses = set(re.findall(r"https?://[^\s\"'<)]+", html))
    assert addresses <= {"http://www.w3.org/2000/svg"}
    assert not re.findall(r"<(?:link|script|img|iframe)[^>]+(?:src|href)=[\"'](?!data:|#)", html)


def test_hostile_predictions_do_not_end_the_script(page: Path) -> None:
    html = page.read_text(encoding="utf-8")
    assert "document.title='taken'</script>" not in html
    assert html.count("</script>") == html.count("<script")


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="Debian's package chromium is not installed")
def test_a_browser_shows_every_run_and_runs_nothing_foreign(page: Path, tmp_path: Path) -> None:
    assert CHROMIUM is not None
    shown = subprocess.run(
        [
            CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom",
            "--virtual-time-budget=10000", f"--user-data-dir={tmp_path / 'profile'}",
            page.as_uri(),
        ],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "<title>taken" not in shown
    assert "80 predictions" in shown
    assert "question 3" in shown and "document.title='taken'" in shown
    assert "<script>document.title" not in shown


def report(*words: str) -> Result:
    return CliRunner().invoke(command, list(words), standalone_mode=False)


def test_folders_of_output_and_plots_are_made(tmp_path: Path) -> None:
    make_run(tmp_path / "run", rows=rows())
    page = tmp_path / "new" / "deeper" / "page.html"
    done = report(str(tmp_path / "run"), "--output", str(page))
    assert done.exception is None and page.stat().st_size


@pytest.mark.parametrize("option", ["--output", "--plots"])
def test_a_folder_that_cannot_be_is_said_before_any_work(
    tmp_path: Path, option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slm_vllm.rundir.reading.load_run", lambda *_: pytest.fail("too late"))
    make_run(tmp_path / "run", rows=rows())
    (tmp_path / "file").write_text("no folder")
    target = str(tmp_path / "file" / "deeper" / "target")
    done = report(str(tmp_path / "run"), option, target)
    assert isinstance(done.exception, StorageError)
    assert f"{option} {target}" in str(done.exception)


def test_nothing_to_report_makes_no_folder(tmp_path: Path) -> None:
    done = report(str(tmp_path / "nowhere"), "--output", str(tmp_path / "new" / "page.html"))
    assert isinstance(done.exception, SlmVllmError) and not (tmp_path / "new").exists()
