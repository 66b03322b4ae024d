"""Whether a model fits a device, from the sizes of its files; nothing is loaded."""

from __future__ import annotations

from pathlib import Path

from slm_vllm.amounts import format_memory
from slm_vllm.config.schema import Config
from slm_vllm.engines.settings import (
    EngineSettings,
    cpu_kv_cache_bytes,
    engine_settings,
    read_model_config,
)
from slm_vllm.models.local import weight_bytes
from slm_vllm.models.resolve import find_here
from slm_vllm.monitoring.device import Device


def memory_need(config: Config, device: Device, longest_prompt: int) -> tuple[bool | None, str]:
    """Whether a model and its KV cache fit the device, and the figures behind that, in words.

    Args:
        config: The run's configuration.
        device: The device it would run on.
        longest_prompt: Longest prompt of the run in tokens.

    Returns:
        None in place of the answer where the model's files are not on this machine.

    Raises:
        SlmVllmError: A setting that this device or model cannot have.
    """
    if config.engine.place is not None:
        return None, "not here: the server's model and device"
    model = config.model
    folder = find_here(model.path, model.revision, cache_dir=Path(config.cache_dir))
    if folder is None:
        return None, f"unknown: {model.path} is not here, or not whole"
    settings = engine_settings(config, folder, device, longest_prompt)
    weights = _loaded_bytes(config, settings)
    arguments = config.hardware.engine_args
    one = settings.max_model_len * settings.kv_bytes_per_token
    if device.kind == "cpu":
        room, wanted = device.memory_bytes, cpu_kv_cache_bytes(settings)
    else:
        of_ray = int(getattr(config.engine, "gpus_per_replica", 1))
        gpus = max(int(arguments.get("tensor_parallel_size", 1)), of_ray)
        share = float(arguments.get("gpu_memory_utilization", 0.9))
        room, wanted = int(device.memory_bytes * share) * gpus, one
    fits = weights + wanted <= room
    said = (
        f"{'fits' if fits else 'does not fit'}: weights {format_memory(weights)}, at least "
        f"{format_memory(wanted)} of KV cache, {format_memory(room)} to use"
    )
    if fits and one and device.kind != "cpu":
        at_once = min((room - weights) // one, settings.max_num_seqs)
        said += f"; {at_once} prompts of {settings.max_model_len} tokens at once"
    return fits, f"{said} (without what the engine itself needs)"


def _loaded_bytes(config: Config, settings: EngineSettings) -> int:
    """The weights in the data type they are run in."""
    stored = weight_bytes(settings.model_path)
    model = read_model_config(settings.model_path)
    if "quantization_config" in model:
        return stored
    width = 4 if "float32" in (model.get("torch_dtype"), model.get("dtype")) else 2
    loaded = 4 if settings.dtype == "float32" else 2
    if config.model.load_in_8bit or config.model.quantization:
        loaded = 1
    return stored * loaded // width
