"""Estimates from the file sizes whether a model fits a device; loads nothing."""

from __future__ import annotations

from pathlib import Path

from slm_vllm.amounts import format_memory
from slm_vllm.config.schema import Config
from slm_vllm.engines.settings import engine_settings, kv_cache_bytes
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
    weights = settings.weight_bytes
    arguments = config.hardware.engine_args
    one = settings.max_model_len * settings.kv_bytes_per_token
    if device.kind == "cpu":
        room, wanted = device.memory_bytes, kv_cache_bytes(settings) or 0
    else:
        of_ray = int(getattr(config.engine, "gpus_per_replica", 1))
        gpus = max(int(arguments.get("tensor_parallel_size", 1)), of_ray)
        share = float(arguments.get("gpu_memory_utilization", 0.9))
        room, wanted = int(device.memory_bytes * share) * gpus, one
    fits = weights + wanted <= room
    text = (
        f"{'fits' if fits else 'does not fit'}: weights {format_memory(weights)}, at least "
        f"{format_memory(wanted)} of KV cache, {format_memory(room)} to use"
    )
    if fits and one and device.kind != "cpu":
        at_once = min((room - weights) // one, settings.max_num_seqs)
        text += f"; {at_once} prompts of {settings.max_model_len} tokens at once"
    return fits, f"{text} (without what the engine itself needs)"
