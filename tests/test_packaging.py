"""The project's files agree with one another, and the distributions hold what they must."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

import slm_vllm
from slm_vllm.extras import install_advice

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT: dict[str, Any] = SETTINGS["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]


def test_one_version() -> None:
    assert PROJECT["version"] == slm_vllm.__version__


def test_no_extra_is_a_version_number() -> None:
    """pip 24.1 to 25.3 compares `extra == "v100"` as versions and crashes."""
    for extra in EXTRAS:
        with pytest.raises(InvalidVersion):
            Version(extra)


def test_engine_extras_exclude_one_another() -> None:
    (group,) = SETTINGS["tool"]["uv"]["conflicts"]
    assert {entry["extra"] for entry in group} == {"cpu", "cuda", "volta"}


def missing_extra_calls() -> Iterator[tuple[Path, list[ast.expr]]]:
    for file in sorted((ROOT / "slm_vllm").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            name = getattr(node.func, "id", "") if isinstance(node, ast.Call) else ""
            if isinstance(node, ast.Call) and name == "MissingExtraError":
                yield file, node.args


def test_each_extra_brings_the_package_that_was_missed() -> None:
    seen = 0
    for file, (package, extra, *_) in missing_extra_calls():
        if not (isinstance(package, ast.Constant) and isinstance(extra, ast.Constant)):
            continue
        names = {canonicalize_name(Requirement(text).name) for text in EXTRAS[extra.value]}
        assert canonicalize_name(package.value) in names, (file.name, package.value, extra.value)
        seen += 1
    assert seen > 10


def test_nothing_advises_an_index_that_does_not_have_the_package() -> None:
    texts = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("slm_vllm/**/*.py")]
    bad = [file.name for file in texts if "install 'slm-vllm[" in file.read_text(encoding="utf-8")]
    assert bad == []


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    from hatchling.builders.wheel import WheelBuilder

    (path,) = WheelBuilder(str(ROOT)).build(
        directory=str(tmp_path_factory.mktemp("wheel")), versions=["standard"]
    )
    with zipfile.ZipFile(path) as archive:
        yield archive


def test_wheel_holds_package_configurations_and_types(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    assert {"slm_vllm/py.typed", "slm_vllm/_configs/config.yaml"} <= names
    assert {name.partition("/")[0] for name in names} == {
        "slm_vllm",
        f"slm_vllm-{slm_vllm.__version__}.dist-info",
    }
    here = {f"slm_vllm/{p.relative_to(ROOT / 'slm_vllm')}" for p in ROOT.glob("slm_vllm/**/*.py")}
    assert here <= names


@pytest.mark.parametrize("extra", EXTRAS)
def test_advice_for_every_extra_names_its_packages(
    extra: str, wheel: zipfile.ZipFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = wheel.read(f"slm_vllm-{slm_vllm.__version__}.dist-info/METADATA").decode()
    requires = re.findall(r"^Requires-Dist: (.+)$", metadata, re.MULTILINE)
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: requires)
    advice = install_advice(extra)
    assert advice.startswith(f"Install the extra '{extra}': pip install ")
    for requirement in map(Requirement, EXTRAS[extra]):
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        assert re.search(rf"[ ']{re.escape(canonicalize_name(requirement.name))}\b", advice), (
            requirement,
            advice,
        )
    assert "extra ==" not in advice and "slm-vllm" not in advice


def test_sdist_holds_what_git_has(tmp_path: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    from hatchling.builders.sdist import SdistBuilder

    (path,) = SdistBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    unwanted = (".ci/", ".github/")
    tracked = {name for name in listed.stdout.splitlines() if not name.startswith(unwanted)}
    assert {name for name in tracked if (ROOT / name).is_file()} <= names
