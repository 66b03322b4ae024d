from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from slm_vllm.config.schema import ModelConfig
from slm_vllm.engines import quantization
from slm_vllm.engines.quantization import METHODS, choose_quantization
from slm_vllm.engines.versions import parse_release
from slm_vllm.errors import ConfigError
from slm_vllm.monitoring.device import Device

FOLDER = Path(__file__).parent / "vllm_arguments"
CPU = Device("cpu", "EPYC")
V100 = Device("cuda", "V100", (7, 0))
T4 = Device("cuda", "T4", (7, 5))
A100 = Device("cuda", "A100", (8, 0))
PLAIN: dict[str, Any] = {}


def stored(method: str) -> dict[str, Any]:
    return {"quantization_config": {"quant_method": method, "bits": 8}}


def choose(device: Device, vllm: str | None, checkpoint: dict[str, Any], **model: Any) -> Any:
    section = ModelConfig(name="m", path="owner/m", **model)
    return choose_quantization(section, checkpoint, device, vllm)


@pytest.mark.parametrize(
    ("device", "vllm", "checkpoint", "model", "expected"),
    [
        (V100, "0.9.2", PLAIN, {}, None),
        (A100, "0.32.0", PLAIN, {"load_in_8bit": True}, "fp8"),
        (A100, "0.9.2", PLAIN, {"load_in_8bit": True}, "fp8"),
        (T4, "0.19.1", PLAIN, {"load_in_8bit": True}, "fp8"),
        (A100, None, PLAIN, {"load_in_8bit": True, "quantization": "fp8"}, "fp8"),
        # A checkpoint that is 8-bit already is what was asked for.
        (V100, "0.9.2", stored("gptq"), {"load_in_8bit": True}, None),
        (V100, "0.9.2", stored("gptq"), {}, None),
        (V100, "0.9.2", stored("gptq"), {"quantization": "gptq"}, "gptq"),
        (V100, "0.9.2", PLAIN, {"quantization": "bitsandbytes"}, "bitsandbytes"),
        (CPU, "0.32.0", stored("gptq"), {}, None),
        (T4, "0.32.0", PLAIN, {"quantization": "fp8_per_channel"}, "fp8_per_channel"),
        # Not known to the rules: left to vLLM.
        (V100, "0.9.2", PLAIN, {"quantization": "hqq"}, "hqq"),
        (A100, "0.32.0", stored("gptq"), {"quantization": "gptq_marlin"}, "gptq_marlin"),
    ],
)
def test_what_works(
    device: Device, vllm: str | None, checkpoint: dict[str, Any], model: Any, expected: str | None
) -> None:
    assert choose(device, vllm, checkpoint, **model) == expected


@pytest.mark.parametrize(
    ("device", "vllm", "checkpoint", "model", "message"),
    [
        (V100, "0.9.2", PLAIN, {"load_in_8bit": True}, "load_in_8bit.*8.0; V100 has 7.0.*GPTQ"),
        (T4, "0.9.2", PLAIN, {"load_in_8bit": True}, "load_in_8bit.*8.0; T4 has 7.5.*GPTQ"),
        (CPU, "0.32.0", PLAIN, {"load_in_8bit": True}, "load_in_8bit.*CPU.*GPTQ-Int8"),
        (V100, "0.9.2", PLAIN, {"quantization": "fp8"}, "quantization=fp8: .*8.0.*GPTQ-Int8"),
        (V100, "0.9.2", stored("awq"), {}, "owner/m holds a awq checkpoint.*7.5; V100.*GPTQ"),
        (V100, "0.9.2", stored("compressed-tensors"), {}, "compressed-tensors checkpoint.*7.5"),
        (A100, "0.32.0", stored("bitsandbytes"), {}, "0.28.0 .*vllm-bnb-plugin.*here: 0.32.0.*fp8"),
        (
            A100,
            "0.26.0",
            PLAIN,
            {"quantization": "gguf"},
            "0.24.0 .*vllm-gguf-plugin.*here: 0.26.0.*fp8",
        ),
        (A100, "0.32.0", PLAIN, {"quantization": "gptq"}, "quantised already.*fp8"),
        (
            A100,
            "0.32.0",
            PLAIN,
            {"quantization": "awq", "load_in_8bit": True},
            "contradict one another",
        ),
    ],
)
def test_what_does_not(
    device: Device, vllm: str | None, checkpoint: dict[str, Any], model: Any, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        choose(device, vllm, checkpoint, **model)


def test_plugin_brings_a_method_back(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = {"vllm-gguf-plugin": "1.0"}
    monkeypatch.setattr(quantization, "installed_version", installed.get)
    assert choose(A100, "0.32.0", stored("gguf"), quantization="gguf") == "gguf"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_methods_end_where_the_sources_say(path: Path) -> None:
    known = json.loads(path.read_text())["quantization"]
    for name, method in METHODS.items():
        ended = method.gone is not None and parse_release(path.stem) >= method.gone
        assert (name in known) != ended, name
