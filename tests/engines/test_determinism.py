from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from slm_vllm.config.compose import compose_config
from slm_vllm.engines import settings as settings_module
from slm_vllm.engines.settings import EngineSettings, engine_environment, engine_settings
from slm_vllm.engines.versions import has_batch_invariance
from slm_vllm.errors import ConfigError
from slm_vllm.monitoring.device import Device
from slm_vllm.rundir.fingerprint import answer_settings, config_hash
from slm_vllm.rundir.settings import changed_settings

ON = "hardware.deterministic=true"
AMX = Device("cpu", "CPU", cpu_flags=frozenset({"amx_bf16"}))
V100 = Device("cuda", "Tesla V100", (7, 0), 32 << 30)
A100 = Device("cuda", "A100", (8, 0), 80 << 30)
H100 = Device("cuda", "H100", (9, 0), 80 << 30)


@pytest.fixture
def sized(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "config.json").write_text(json.dumps({"max_position_embeddings": 512}))
    monkeypatch.delenv("VLLM_BATCH_INVARIANT", raising=False)

    def make(device: Device, *words: str, release: str = "0.32.0") -> EngineSettings:
        monkeypatch.setattr(settings_module, "installed_vllm", lambda: release)
        config = compose_config([f"hardware={device.profile}", *words])
        return engine_settings(config, tmp_path, device, 100)

    return make


def test_a_cpu_computes_in_float32(sized: Any) -> None:
    assert sized(AMX).dtype == "bfloat16"
    found = sized(AMX, ON)
    assert found.dtype == "float32"
    assert "VLLM_BATCH_INVARIANT" not in engine_environment(found)
    with pytest.raises(ConfigError, match="on a CPU it needs float32, and bfloat16 is configured"):
        sized(AMX, ON, "model.dtype=bfloat16")


def test_a_gpu_gets_kernels_for_it(sized: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert engine_environment(sized(H100, ON))["VLLM_BATCH_INVARIANT"] == "1"
    assert "VLLM_BATCH_INVARIANT" not in engine_environment(sized(H100))
    assert sized(H100, ON).dtype == sized(H100).dtype == "bfloat16"
    monkeypatch.setenv("VLLM_BATCH_INVARIANT", "0")
    with pytest.raises(ConfigError, match="the environment says VLLM_BATCH_INVARIANT=0"):
        sized(H100, ON)


@pytest.mark.parametrize(
    ("device", "release"), [(V100, "0.9.2"), (V100, "0.32.0"), (A100, "0.26.0"), (H100, "0.26.0")]
)
def test_where_there_are_none(sized: Any, device: Device, release: str) -> None:
    major, minor = device.compute_capability or (0, 0)
    said = rf"{device.name} \(compute capability {major}.{minor}\) with vLLM {release} has no"
    with pytest.raises(ConfigError, match=said):
        sized(device, ON, release=release)


def test_releases_whose_kernels_are_whole() -> None:
    """As far as their lists of variables go; from which on they keep it is in the source named."""
    folder = Path(__file__).parent / "vllm_arguments"
    for path in folder.glob("*.json"):
        if has_batch_invariance(path.stem, (9, 0)):
            assert "VLLM_BATCH_INVARIANT" in path.read_text(), path
    assert not has_batch_invariance("0.26.0", (9, 0))
    assert has_batch_invariance("0.27.0", (9, 0)) and not has_batch_invariance("0.27.0", (7, 5))


def test_a_server_has_its_own_settings() -> None:
    server = ["engine.name=openai", "engine.base_url=http://a:1/v1"]
    with pytest.raises(ConfigError, match="does not go with engine.name=openai.*its own settings"):
        compose_config([*server, ON])


def test_it_makes_another_run() -> None:
    before, now = compose_config(), compose_config([ON])
    assert "deterministic" not in answer_settings(before)
    assert config_hash(before) != config_hash(now)
    (key,) = changed_settings(before, now)
    assert re.fullmatch(r"hardware\.deterministic", key)
