"""Every argument that a profile gives to vLLM is checked against the releases' own lists."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest

from slm_vllm.config.compose import compose_config, group_choices
from slm_vllm.engines.settings import (
    EngineSettings,
    engine_environment,
    engine_settings,
    sampling_arguments,
    vllm_arguments,
)
from slm_vllm.engines.versions import (
    MAY_BE_LEFT_OUT,
    RENAMED,
    fit_arguments,
    installed_vllm,
    parse_release,
)
from slm_vllm.errors import ConfigError
from slm_vllm.monitoring.device import Device

FOLDER = Path(__file__).parent / "vllm_arguments"
RELEASES = {path.stem: json.loads(path.read_text()) for path in FOLDER.glob("*.json")}
MODERN = ("0.19.1", "0.26.0", "0.32.0", "0.33.0")
DEVICES = {
    "v100": Device("cuda", "V100", (7, 0), 32 << 30),
    "turing": Device("cuda", "T4", (7, 5), 16 << 30),
    "ampere": Device("cuda", "A100", (8, 0), 80 << 30),
    "hopper": Device("cuda", "H200", (9, 0), 139 << 30),
    "cpu": Device("cpu", "CPU", None, 8 << 30),
}
# The releases a profile is meant for; on the others it must at least start.
MEANT_FOR = {
    "v100": ("0.9.2",),
    "turing": MODERN,
    "ampere": MODERN,
    "hopper": MODERN,
    "cpu": MODERN,
}
# Read by older releases where newer ones have an argument; the other way round for kv_cache.
OLDER_VARIABLES = {"VLLM_CPU_KVCACHE_SPACE"}
PAIRS = [(profile, release) for profile in DEVICES for release in sorted(RELEASES)]
MEANT_PAIRS = [(profile, release) for profile, release in PAIRS if release in MEANT_FOR[profile]]


def settings_of(profile: str, folder: Path, *words: str) -> EngineSettings:
    (folder / "config.json").write_text('{"max_position_embeddings": 4096}')
    config = compose_config([f"hardware={profile}", "model.trust_remote_code=true", *words])
    return engine_settings(config, folder, DEVICES[profile], 100)


def taken_by(release: str) -> frozenset[str]:
    return frozenset(RELEASES[release]["engine_args"]) | frozenset(RELEASES[release]["llm"])


def test_lists_and_profiles_are_all_here() -> None:
    assert set(RELEASES) == {"0.9.2", *MODERN}
    assert set(DEVICES) == set(MEANT_FOR) == set(group_choices("hardware"))
    for profile, device in DEVICES.items():
        assert device.profile == profile


@pytest.mark.parametrize(("profile", "release"), PAIRS)
def test_engine_arguments(profile: str, release: str, tmp_path: Path) -> None:
    taken = taken_by(release)
    settings = settings_of(profile, tmp_path)
    passed, left_out = vllm_arguments(settings, taken)
    assert set(passed) <= taken
    assert set(left_out) <= set(MAY_BE_LEFT_OUT)
    if release in MEANT_FOR[profile]:
        assert left_out == []
        assert set(settings.hardware.engine_args) <= set(passed)


@pytest.mark.parametrize("release", sorted(RELEASES))
def test_arguments_of_options(release: str, tmp_path: Path) -> None:
    """What options and benchmarks add to a profile."""
    words = ("model.quantization=fp8", "hardware.engine_args.load_format=dummy")
    passed, left_out = vllm_arguments(settings_of("hopper", tmp_path, *words), taken_by(release))
    assert (passed["quantization"], passed["load_format"], left_out) == ("fp8", "dummy", [])
    assert {"fp8", "gptq", "awq"} <= set(RELEASES[release]["quantization"])


@pytest.mark.parametrize("release", sorted(RELEASES))
def test_sampling_arguments(release: str, tmp_path: Path) -> None:
    for words in ([], ["generation.temperature=0.7", "generation.top_k=5", "prompt=plain"]):
        used = {*sampling_arguments(settings_of("hopper", tmp_path, *words)), "output_kind"}
        assert used <= set(RELEASES[release]["sampling_params"])


@pytest.mark.parametrize(("profile", "release"), MEANT_PAIRS)
def test_environment(
    profile: str, release: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(profile, tmp_path)
    for name in (*settings.hardware.env, "VLLM_CPU_OMP_THREADS_BIND", *OLDER_VARIABLES):
        monkeypatch.delenv(name, raising=False)
    assert set(engine_environment(settings)) <= set(RELEASES[release]["environment"])


def test_every_variable_that_we_name_is_one_of_vllms() -> None:
    root = Path(__file__).parents[2]
    folders = ((root / "slm_vllm", "*.py"), (root / "configs", "*.yaml"), (root / "docs", "*.md"))
    paths = [path for folder, pattern in folders for path in folder.rglob(pattern)]
    named = {
        name
        for path in (*paths, root / "README.md")
        for name in re.findall(r"(?<![A-Z_])VLLM_[A-Z0-9_]*[A-Z0-9]", path.read_text("utf-8"))
    }
    known = {name for release in RELEASES.values() for name in release["environment"]}
    assert "VLLM_BATCH_INVARIANT" in named
    assert sorted(named - known) == []


def test_prompts_are_taken_whole_where_a_cpu_samples(tmp_path: Path) -> None:
    """vLLM dies there at a seeded request whose prompt it takes in parts (0.32)."""
    taken = taken_by(sorted(RELEASES)[-1])
    warm = "generation.temperature=0.7"
    for profile, words, parts in (
        ("cpu", (), None),
        ("cpu", (warm,), False),
        ("hopper", (warm,), None),
    ):
        passed, _ = vllm_arguments(settings_of(profile, tmp_path, *words), taken)
        assert passed.get("enable_chunked_prefill") is parts
        if parts is False:
            assert passed["max_num_batched_tokens"] >= passed["max_model_len"]
    own = ("hardware.engine_args.max_num_batched_tokens=9000",)
    passed, _ = vllm_arguments(settings_of("cpu", tmp_path, warm, *own), taken)
    assert passed["max_num_batched_tokens"] == 9000


def test_a_misspelt_profile_is_found(tmp_path: Path) -> None:
    own = tmp_path / "hardware"
    own.mkdir()
    text = group_choices("hardware")["hopper"].read_text()
    (own / "hopper.yaml").write_text(text.replace("max_num_seqs", "max_num_sequences"))
    (tmp_path / "config.json").write_text('{"max_position_embeddings": 4096}')
    config = compose_config(["hardware=hopper"], tmp_path)
    settings = engine_settings(config, tmp_path, DEVICES["hopper"], 100)
    for release in RELEASES:
        with pytest.raises(ConfigError, match="max_num_sequences.*Similar.*max_num_seqs"):
            vllm_arguments(settings, taken_by(release))


def test_rules_are_needed_and_true() -> None:
    """Each rule names something that one release has and another lacks."""
    for name in MAY_BE_LEFT_OUT:
        has = {release for release in RELEASES if name in taken_by(release)}
        assert has and has != set(RELEASES), name
    for name, other in RENAMED.items():
        for release in RELEASES:
            taken = taken_by(release)
            assert (name in taken) != (other in taken), (name, release)


def test_renamed_argument() -> None:
    sizes = {"cudagraph_capture_sizes": [1, 2, 4]}
    assert fit_arguments(sizes, taken_by("0.9.2")) == ({"cuda_graph_sizes": [1, 2, 4]}, [])
    assert fit_arguments(sizes, taken_by("0.33.0")) == (sizes, [])
    old = {"cuda_graph_sizes": [1, 2, 4]}
    assert fit_arguments(old, taken_by("0.33.0")) == (sizes, [])


@pytest.mark.parametrize(
    ("text", "release"),
    [
        ("0.9.2", (0, 9, 2)),
        ("0.10.1.1+cu128", (0, 10, 1)),
        ("1.0", (1, 0, 0)),
        ("0.33.0rc1", (0, 33, 0)),
        ("dev", (0, 0, 0)),
    ],
)
def test_parse_release(text: str, release: tuple[int, int, int]) -> None:
    assert parse_release(text) == release


def test_lists_agree_with_the_installed_release() -> None:
    """The lists were read with `ast`; the installed release is read here another way."""
    release = installed_vllm()
    found = importlib.util.find_spec("vllm")
    if release not in RELEASES or found is None or found.origin is None:
        pytest.skip("no list for the installed vLLM")
    source = Path(found.origin).parent / "engine" / "arg_utils.py"
    names: set[str] = set()
    inside = False
    for line in source.read_text().splitlines():
        if line.startswith("class "):
            inside = line.startswith("class EngineArgs")
        name, colon, _ = line.strip().partition(":")
        if inside and colon and line.startswith("    ") and not line.startswith("     "):
            names |= {name} if name.isidentifier() and not name.startswith("_") else set()
    assert set(RELEASES[release]["engine_args"]) == names


def test_engine_uses_the_checked_functions() -> None:
    """Arguments named in the engine itself would escape the lists."""
    source = Path(__file__).parents[2] / "slm_vllm" / "engines" / "vllm_offline.py"
    named: dict[str, set[Any]] = {"SamplingParams": set(), "LLM": set()}
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Call):
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if called in named:
                named[called] |= {keyword.arg for keyword in node.keywords if keyword.arg}
    for release, lists in RELEASES.items():
        assert named["LLM"] <= taken_by(release)
        assert named["SamplingParams"] <= set(lists["sampling_params"])
