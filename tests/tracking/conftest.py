"""A finished run with a spool to be, and the server it is published to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from slm_vllm.tracking import launch
from support.clearml_loopback import Loopback
from support.eager_publisher import PROGRAM
from support.tracked import UNHURRIED


@pytest.fixture(autouse=True)
def publisher_that_does_not_give_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "PUBLISHER", PROGRAM)


@pytest.fixture
def server() -> Iterator[Loopback]:
    loopback = Loopback()
    loopback.start()
    yield loopback
    loopback.go_on()
    loopback.stop()


@pytest.fixture
def unconfigured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No trace of ClearML in the environment, the home or the working directory."""
    import os

    for name in list(os.environ):
        if name.startswith(("CLEARML_", "TRAINS_", "AWS_")):
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)


@pytest.fixture
def configured(unconfigured: None, server: Loopback, monkeypatch: pytest.MonkeyPatch) -> Loopback:
    """The environment names the loopback server."""
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    return server


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    from support.run_folders import make_run

    rows = [
        {"question_id": f"q{n}", "token_recall": float(n % 2), "prediction": f"<b>answer {n}</b>"}
        for n in range(150)
    ]
    path = make_run(tmp_path / "outputs" / "tracked", mode="retriever", rows=rows)
    (path / "experiment.log").write_text("first line\nsecond line\n")
    (path / "predictions.json").write_text("[]\n")
    return path


@pytest.fixture
def config(run_folder: Path) -> Callable[..., Any]:
    from slm_vllm.config.compose import compose_config

    def make(*words: str) -> Any:
        return compose_config(
            [
                "experiment_mode=retriever",
                "hardware=cpu",
                "experiment.name=tracked",
                f"experiment.output_dir={run_folder.parent}",
                f"tracking.close_timeout={UNHURRIED}",
                *words,
            ]
        )

    return make
