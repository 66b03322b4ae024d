"""Engines that find too little memory. The messages are those of vLLM's and torch's own source."""

from __future__ import annotations

import json
import os
import types
from pathlib import Path
from typing import Any

import pytest

from slm_vllm.config.compose import compose_config
from slm_vllm.engines import vllm_offline
from slm_vllm.engines.memory_shortage import PrintedErrors, is_memory_shortage, with_less_memory
from slm_vllm.engines.settings import EngineSettings, engine_settings
from slm_vllm.engines.vllm_offline import VllmEngine
from slm_vllm.errors import EngineError
from slm_vllm.monitoring.device import Device

CPU = Device("cpu", "CPU", None, 24 << 30)
A100 = Device("cuda", "A100", (8, 0), 80 << 30)
MODEL = {
    "hidden_size": 576,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "num_hidden_layers": 30,
    "max_position_embeddings": 8192,
}
TORCH = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79 GiB"
NO_BLOCKS = "No available memory for the cache blocks. Try increasing `gpu_memory_utilization`"
TOO_LONG = (
    "To serve at least one request with the model's max seq len (8192), (4.0 GiB KV cache is "
    "needed, which is larger than the available KV cache memory (1.0 GiB)."
)
OTHERS_USE_IT = (
    "Free memory on device cuda:0 (31.0/79.0 GiB) on startup is less than desired GPU memory "
    "utilization (0.9, 71.1 GiB). Decrease GPU memory utilization"
)
OF_0_9_2 = (
    "The model's max seq len (8192) is larger than the maximum number of tokens that can be "
    "stored in KV cache (2048)."
)


def settings_for(folder: Path, device: Device, *words: str) -> EngineSettings:
    (folder / "config.json").write_text(json.dumps(MODEL))
    config = compose_config([f"hardware={device.profile}", *words])
    return engine_settings(config, folder, device, 100)


class Vllm(types.SimpleNamespace):
    """A module `vllm` whose `LLM` fails with each message in turn, then loads."""

    def __init__(self, *messages: str) -> None:
        super().__init__(__version__="0.32.0")
        self.messages = list(messages)
        self.asked: list[dict[str, Any]] = []

    def LLM(self, **arguments: Any) -> Any:
        self.asked.append(arguments)
        if self.messages:
            raise ValueError(self.messages.pop(0))
        return types.SimpleNamespace(get_tokenizer=lambda: None, llm_engine=types.SimpleNamespace())


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    def run(vllm: Vllm, device: Device, *words: str) -> Any:
        settings = settings_for(tmp_path, device, *words)
        known = frozenset({*settings.hardware.engine_args, "max_num_batched_tokens"})
        known |= {"model", "dtype", "max_model_len", "seed", "kv_cache_memory_bytes"}
        known |= {"enforce_eager", "gpu_memory_utilization"}
        monkeypatch.setattr(vllm_offline, "_import_vllm", lambda: vllm)
        monkeypatch.setattr(vllm_offline, "engine_argument_names", lambda: known)
        monkeypatch.setattr(vllm_offline, "free_device", lambda kind: None)
        monkeypatch.setattr(vllm_offline, "_sampling_parameters", lambda *_: None)
        tokenizer = types.SimpleNamespace(eos_token_id=None)
        monkeypatch.setattr(vllm_offline, "load_tokenizer", lambda *_, **__: tokenizer)
        monkeypatch.setattr(vllm_offline, "prompt_maker", lambda: list)
        monkeypatch.setattr(os, "environ", dict(os.environ))
        return VllmEngine(settings).start()

    return run


@pytest.mark.parametrize("message", [TORCH, NO_BLOCKS, TOO_LONG, OTHERS_USE_IT, OF_0_9_2])
def test_messages_that_mean_memory(message: str) -> None:
    assert is_memory_shortage(message)


@pytest.mark.parametrize("message", ["Unknown architecture", "CUDA error: no kernel image"])
def test_messages_that_do_not(message: str, start: Any) -> None:
    vllm = Vllm(message)
    with pytest.raises(EngineError, match=message):
        start(vllm, A100)
    assert len(vllm.asked) == 1


def test_less_on_a_gpu(start: Any) -> None:
    vllm = Vllm(TORCH, NO_BLOCKS, TORCH)
    info = start(vllm, A100)
    assert [asked["max_num_seqs"] for asked in vllm.asked] == [256, 64, 16, 8]
    assert [asked.get("max_num_batched_tokens") for asked in vllm.asked] == [None, 2048, 2048, 2048]
    assert [asked["enforce_eager"] for asked in vllm.asked] == [False, False, True, True]
    assert {asked["max_model_len"] for asked in vllm.asked} == {256}  # would change the answers
    assert len(info.details["retried_with_less_memory"]) == 3
    assert info.details["arguments"]["max_num_seqs"] == 8


def test_a_gpu_that_others_use(start: Any) -> None:
    vllm = Vllm(OTHERS_USE_IT)
    start(vllm, A100)
    # 31 of 79 GiB are free: 39.2 %, less two for what goes while the engine starts.
    assert [asked["gpu_memory_utilization"] for asked in vllm.asked] == [0.9, 0.37]
    assert {asked["max_num_seqs"] for asked in vllm.asked} == {256}


def test_the_end_of_trying(start: Any, caplog: pytest.LogCaptureFixture) -> None:
    vllm = Vllm(*[TORCH] * 9)
    with pytest.raises(EngineError) as caught:
        start(vllm, A100)
    assert len(vllm.asked) == 4
    text = str(caught.value)
    assert "CUDA out of memory" in text and "80 GiB in all" in text
    assert "max_num_seqs=8" in text and "model.max_model_len (now 256)" in text
    tried = [line for line in caplog.messages if "Trying again with" in line]
    assert [line.rpartition(" with ")[2].split(",")[0] for line in tried] == [
        "max_num_seqs=64",
        "max_num_seqs=16",
        "max_num_seqs=8",
    ]


def test_a_cpu_is_asked_before_the_kernel_kills(
    start: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import psutil

    # 64 sequences of 256 tokens are 0.7 GiB of keys and values, 16 of them the least there is.
    free = types.SimpleNamespace(available=500 << 20)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    vllm = Vllm()
    info = start(vllm, CPU)
    assert [asked["max_num_seqs"] for asked in vllm.asked] == [16]
    assert info.details["retried_with_less_memory"] == ["max_num_seqs=16"]
    free.available = 1 << 20
    with pytest.raises(EngineError, match=r"KV cache 0.2 GiB, but 0 GiB are free"):
        start(Vllm(), CPU)


def test_a_size_of_the_user_is_not_tried_again(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, CPU, "+hardware.engine_args.kv_cache_memory_bytes=1048576")
    assert with_less_memory(settings, TOO_LONG) is None


def test_what_an_engine_process_prints(start: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """Its exception says nothing; the log, to which standard error leads, does."""
    tail = "Engine core initialization failed. See root cause above."

    class Prints(Vllm):
        def LLM(self, **arguments: Any) -> Any:
            if self.messages:
                os.write(2, b"INFO If you are running out of memory, lower this\n")
                os.write(2, f"(EngineCore pid=7) ERROR ValueError: {self.cause}\n".encode())
            return super().LLM(**arguments)

    other = Prints(tail)
    other.cause = "no such kernel"
    with pytest.raises(EngineError, match="root cause"):
        start(other, A100)
    assert len(other.asked) == 1
    short = Prints(tail)
    short.cause = NO_BLOCKS
    start(short, A100)
    assert len(short.asked) == 2


def test_standard_error_that_is_no_file() -> None:
    kept, (read, write) = os.dup(2), os.pipe()
    try:
        os.dup2(write, 2)
        with PrintedErrors() as printed:
            os.write(2, b"ValueError: x\n")
            assert printed.read() == ""
    finally:
        os.dup2(kept, 2)
        for number in (kept, read, write):
            os.close(number)
