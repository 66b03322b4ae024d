from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from slm_vllm.config.compose import compose_config
from slm_vllm.engines import settings as settings_module
from slm_vllm.engines.settings import (
    GIB,
    EngineSettings,
    choose_dtype,
    choose_max_model_len,
    engine_environment,
    engine_settings,
    kv_bytes_per_token,
    kv_cache_bytes,
    read_model_config,
    vllm_arguments,
)
from slm_vllm.errors import ConfigError, EngineError
from slm_vllm.monitoring.device import Device

SMOLLM2_135M = {
    "hidden_size": 576,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "num_hidden_layers": 30,
    "max_position_embeddings": 8192,
}
CPU = Device("cpu", "CPU")
V100 = Device("cuda", "Tesla V100", (7, 0), 32 << 30)
T4 = Device("cuda", "T4", (7, 5), 16 << 30)
A100 = Device("cuda", "A100", (8, 0), 80 << 30)


@pytest.fixture
def model_path(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(SMOLLM2_135M))
    return tmp_path


def sized(model_path: Path, *words: str, device: Device = CPU, longest: int = 100) -> Any:
    config = compose_config([f"hardware={device.profile}", *words])
    return engine_settings(config, model_path, device, longest)


@pytest.mark.parametrize(
    ("device", "words", "dtype"),
    [
        (CPU, [], "float32"),
        (Device("cpu", "CPU", cpu_flags=frozenset({"amx_bf16"})), [], "bfloat16"),
        (CPU, ["model.dtype=bfloat16"], "bfloat16"),
        (V100, [], "float16"),
        (T4, [], "float16"),
        (A100, [], "bfloat16"),
        (A100, ["model.dtype=float32"], "float32"),
        (A100, ["hardware.dtype=float16"], "float16"),
        (A100, ["hardware.dtype=auto"], "auto"),
    ],
)
def test_dtype(device: Device, words: list[str], dtype: str) -> None:
    config = compose_config([f"hardware={device.profile}", *words])
    assert choose_dtype(config, device) == dtype


def test_bfloat16_on_an_old_gpu() -> None:
    config = compose_config(["hardware=v100", "model.dtype=bfloat16"])
    with pytest.raises(ConfigError, match="Tesla V100 has no bfloat16.*model.dtype=float16"):
        choose_dtype(config, V100)


@pytest.mark.parametrize(
    ("longest", "words", "expected"),
    [
        (96, [], 128),  # 96 + 32 new tokens
        (97, [], 256),
        (97, ["generation.max_new_tokens=31"], 128),
        (10**6, [], 8192),
        (96, ["model.max_model_len=1000"], 1000),
        (10**6, ["model.max_model_len=1000"], 1000),
    ],
)
def test_max_model_len(longest: int, words: list[str], expected: int) -> None:
    assert choose_max_model_len(compose_config(words), SMOLLM2_135M, longest) == expected


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("model.max_model_len=8193", "model.max_model_len=8193.*8192"),
        ("generation.max_new_tokens=8192", "generation.max_new_tokens=8192 leaves no room.*8192"),
    ],
)
def test_lengths_that_cannot_be(word: str, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        choose_max_model_len(compose_config([word]), SMOLLM2_135M, 10)


def test_kv_bytes() -> None:
    """Keys and values of 30 layers with 3 heads of 64."""
    assert kv_bytes_per_token(SMOLLM2_135M, "bfloat16") == 2 * 30 * 3 * 64 * 2 == 23040
    assert kv_bytes_per_token(SMOLLM2_135M, "float32") == 46080
    wider = {**SMOLLM2_135M, "head_dim": 128}
    assert kv_bytes_per_token(wider, "float16") == 46080
    ungrouped = {k: v for k, v in SMOLLM2_135M.items() if k != "num_key_value_heads"}
    assert kv_bytes_per_token(ungrouped, "float16") == 3 * 23040
    assert kv_bytes_per_token({"n_head": 12}, "float16") == 0


def test_kv_cache_on_a_cpu(model_path: Path) -> None:
    small = sized(model_path)
    assert small.max_model_len == 256
    assert kv_cache_bytes(small) == 64 * 256 * 46080
    assert kv_cache_bytes(sized(model_path, "hardware.engine_args.max_num_seqs=1")) == GIB // 4
    large = sized(model_path, longest=8000)
    assert kv_cache_bytes(large) == 4 * GIB


@pytest.mark.parametrize("device", [T4, A100])
def test_eight_bit_is_fp8(model_path: Path, device: Device) -> None:
    settings = sized(model_path, "model.load_in_8bit=true", device=device)
    assert settings.extra["quantization"] == "fp8"


@pytest.mark.parametrize("device", [V100, CPU])
def test_eight_bit_where_it_cannot_be(model_path: Path, device: Device) -> None:
    with pytest.raises(ConfigError, match=rf"load_in_8bit.*{device.name}.*GPTQ-Int8"):
        sized(model_path, "model.load_in_8bit=true", device=device)


def test_only_known_arguments_are_passed(model_path: Path) -> None:
    settings = sized(model_path, "model.trust_remote_code=true", device=V100)
    everything = {"model", "dtype", "max_model_len", "seed", "trust_remote_code"}
    everything |= {"enforce_eager", "gpu_memory_utilization"}
    everything |= set(settings.hardware.engine_args)
    arguments, left_out = vllm_arguments(settings, everything)
    assert set(arguments) == everything and left_out == []
    assert arguments["model"] == str(model_path)
    assert (arguments["dtype"], arguments["max_model_len"]) == ("float16", 256)
    assert arguments["enable_prefix_caching"] is False

    fewer = everything - {"swap_space"} | {"unheard_of"}
    arguments, left_out = vllm_arguments(settings, fewer)
    assert left_out == ["swap_space"]
    assert set(arguments) == everything - {"swap_space"}


def test_misspelt_argument(model_path: Path) -> None:
    settings = sized(model_path, "hardware.engine_args.max_num_seq=8")
    known = {"model", "dtype", "max_model_len", "seed", *settings.hardware.engine_args}
    known.discard("max_num_seq")
    with pytest.raises(ConfigError, match=r"engine_args\.max_num_seq: .*max_num_seqs"):
        vllm_arguments(settings, known)


def test_cpu_is_told_its_cache(model_path: Path) -> None:
    settings = sized(model_path)
    names = {"model", "dtype", "max_model_len", "seed", "kv_cache_memory_bytes"}
    names |= {"enforce_eager", "gpu_memory_utilization"}
    names |= {*settings.hardware.engine_args, *sized(model_path, device=V100).hardware.engine_args}
    arguments, _ = vllm_arguments(settings, names)
    assert arguments["kv_cache_memory_bytes"] == kv_cache_bytes(settings)
    own = sized(model_path, "hardware.engine_args.kv_cache_memory_bytes=123")
    assert vllm_arguments(own, names)[0]["kv_cache_memory_bytes"] == 123
    assert "kv_cache_memory_bytes" not in vllm_arguments(sized(model_path, device=V100), names)[0]


def test_environment(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VLLM_USE_V1", "VLLM_ATTENTION_BACKEND", "VLLM_CPU_KVCACHE_SPACE"):
        monkeypatch.delenv(name, raising=False)
    v100 = sized(model_path, device=V100)
    assert engine_environment(v100) == {"VLLM_USE_V1": "0", "VLLM_ATTENTION_BACKEND": "XFORMERS"}
    assert "VLLM_USE_V1" not in os.environ
    monkeypatch.setenv("VLLM_USE_V1", "")
    assert engine_environment(v100) == {"VLLM_ATTENTION_BACKEND": "XFORMERS"}
    assert os.environ["VLLM_USE_V1"] == ""


def test_environment_of_a_cpu(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_CPU_OMP_THREADS_BIND", raising=False)
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {5, 2})
    monkeypatch.setattr(settings_module, "installed_vllm", lambda: "0.32.0")
    found = engine_environment(sized(model_path))
    assert found["VLLM_CPU_OMP_THREADS_BIND"] == "2,5"
    assert "VLLM_CPU_KVCACHE_SPACE" not in found  # it would win over the argument in bytes
    monkeypatch.setattr(settings_module, "installed_vllm", lambda: "0.9.2")
    assert engine_environment(sized(model_path))["VLLM_CPU_KVCACHE_SPACE"] == "1"
    large = engine_environment(sized(model_path, longest=8000))
    assert large["VLLM_CPU_KVCACHE_SPACE"] == "4"
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "0")
    assert "VLLM_CPU_OMP_THREADS_BIND" not in engine_environment(sized(model_path))


def test_settings_gather_the_configuration(model_path: Path) -> None:
    settings: EngineSettings = sized(
        model_path, "prompt=plain", "generation.stop=[x]", "experiment.seed=7"
    )
    assert settings.stop == ("\n", "x")
    assert settings.seed == 7
    assert (settings.max_num_seqs, settings.window) == (64, 128)
    assert sized(model_path, "engine.max_in_flight=3").window == 3


def test_model_config(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with pytest.raises(EngineError, match=r"config\.json: cannot be read"):
        read_model_config(tmp_path)
    path.write_text("{")
    with pytest.raises(EngineError, match=r"config\.json: cannot be read"):
        read_model_config(tmp_path)
    path.write_text("[]")
    with pytest.raises(EngineError, match="not a JSON object"):
        read_model_config(tmp_path)
    path.write_text('{"text_config": {"hidden_size": 3}, "vision_config": {}}')
    assert read_model_config(tmp_path) == {"hidden_size": 3}
