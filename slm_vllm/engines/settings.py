"""Engine settings: from the run's configuration to vLLM's arguments."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slm_vllm.amounts import GIB, format_memory
from slm_vllm.config.schema import Config, GenerationConfig, HardwareConfig
from slm_vllm.engines.determinism import check_deterministic, deterministic_environment
from slm_vllm.engines.quantization import choose_quantization
from slm_vllm.engines.start_choice import StartChoice, choose_start
from slm_vllm.engines.versions import (
    compiles,
    fit_arguments,
    installed_vllm,
    takes_kv_cache_bytes,
)
from slm_vllm.errors import ConfigError, EngineError
from slm_vllm.models.local import weight_bytes
from slm_vllm.monitoring.device import Device, Gpu, visible_gpus

_CPU_STEP = 4096  # tokens of a step, as vLLM has it on a CPU
_BLOCK = 128  # tokens; the largest block size any profile uses
_GPU_SHARE = 0.9  # of a GPU's memory that vLLM may use in all, where nothing is said
# Of an engine on a GPU beside weights and KV cache: CUDA's context, the largest step, its graphs.
_GPU_RESERVE = 2 * GIB
_MEASURED_BY_VLLM = ("gpu_memory_utilization", "num_gpu_blocks_override")


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """Everything an engine needs to start.

    Attributes:
        model_path: Folder with weights, configuration and tokenizer.
        device: What it will run on.
        hardware: The profile chosen for that device.
        generation: Sampling of the answers.
        dtype: "float16", "bfloat16", "float32" or "auto".
        max_model_len: Longest prompt plus answer in tokens that the run needs.
        context_limit: The same that the model, or a smaller configured limit, allows.
        stop: Stop strings; with any, vLLM detokenizes step by step.
        seed: Seed of sampling.
        max_in_flight: Requests handed over and not finished, or None for twice `max_num_seqs`.
        kv_bytes_per_token: Size of one token's keys and values over all layers.
        model_names: What the model may be called where it is served: its path, its name.
        model_defaults: Sampling defaults that the model's `generation_config.json` sets; a local
            run ignores them, a server may not.
        enable_thinking: Whether a chat template is told to let the model think.
        questions: Those that are open when the engine is sized; 0 where it is not known.
        layers: Of the model; 0 where its configuration does not say.
        weight_bytes: The weights in the data type they are run in; 0 where there are none yet.
        gpus: The GPUs it may run on and their free memory; empty where that is not known.
        engines_on_device: Engines that share the device, this one included.
        choices: What was chosen for it and why, in words, by what was chosen.
        only_answers: All that an answer may be; an engine that cannot constrain gives any.
        ignore_eos: Go on to `max_new_tokens` whatever the model says; for benchmarks.
        extra: Further engine arguments (quantization, trust_remote_code).
    """

    model_path: Path
    device: Device
    hardware: HardwareConfig
    generation: GenerationConfig
    dtype: str
    max_model_len: int
    context_limit: int = 0
    stop: tuple[str, ...] = ()
    seed: int = 42
    max_in_flight: int | None = None
    kv_bytes_per_token: int = 0
    model_names: tuple[str, ...] = ()
    model_defaults: Mapping[str, Any] = field(default_factory=dict)
    enable_thinking: bool = False
    questions: int = 0
    layers: int = 0
    weight_bytes: int = 0
    gpus: tuple[Gpu, ...] = ()
    engines_on_device: int = 1
    choices: Mapping[str, str] = field(default_factory=dict)
    only_answers: tuple[str, ...] = ()
    ignore_eos: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def max_num_seqs(self) -> int:
        """Sequences that vLLM batches in one step."""
        return int(self.hardware.engine_args.get("max_num_seqs", 256))

    @property
    def window(self) -> int:
        """Requests in flight: enough that one always waits when a sequence ends."""
        return self.max_in_flight or 2 * self.max_num_seqs


def engine_settings(
    config: Config, model_path: Path, device: Device, longest_prompt: int, questions: int = 0
) -> EngineSettings:
    """Sizes an engine for a run.

    Args:
        config: The run's configuration.
        model_path: The resolved model folder.
        device: The device it will run on.
        longest_prompt: Longest prompt of the run in tokens (an upper bound).
        questions: How many it will ask; 0 where that is not known.

    Raises:
        EngineError: The model folder's configuration cannot be read.
        ConfigError: A setting that this device or model cannot have.
    """
    model = read_model_config(model_path)
    dtype = checked_dtype(config, device)
    return EngineSettings(
        model_path=model_path,
        device=device,
        hardware=config.hardware,
        generation=config.generation,
        dtype=dtype,
        max_model_len=choose_max_model_len(config, model, longest_prompt),
        context_limit=context_limit(config, model),
        stop=(*config.prompt.stop, *config.generation.stop),
        seed=config.experiment.seed,
        max_in_flight=config.engine.max_in_flight,
        kv_bytes_per_token=kv_bytes_per_token(model, dtype),
        model_names=(config.model.path, config.model.name),
        model_defaults=read_model_defaults(model_path),
        enable_thinking=config.prompt.enable_thinking,
        questions=questions,
        layers=int(model.get("num_hidden_layers") or 0),
        weight_bytes=_loaded_bytes(config, model, model_path, dtype),
        gpus=visible_gpus() if device.kind == "cuda" else (),
        extra=_extra_arguments(config, model, device),
    )


def read_model_config(model_path: Path) -> dict[str, Any]:
    """The model's own `config.json`, the text part of it."""
    path = model_path / "config.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EngineError(f"{path}: cannot be read as a model configuration ({error})") from None
    if not isinstance(content, dict):
        raise EngineError(f"{path}: is not a JSON object, so not a model configuration")
    text = content.get("text_config")
    return text if isinstance(text, dict) else content


def read_model_defaults(model_path: Path) -> dict[str, Any]:
    """The sampling defaults in the model's `generation_config.json`; empty where it has none."""
    try:
        content = json.loads((model_path / "generation_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def choose_dtype(config: Config, device: Device) -> str:
    """The data type of weights and activations; the model section wins over the profile."""
    wanted = config.model.dtype if config.model.dtype != "auto" else config.hardware.dtype
    if wanted == "bfloat16" and device.compute_capability and device.compute_capability < (8, 0):
        raise ConfigError(
            f"model.dtype=bfloat16: {device.name} has no bfloat16 (compute capability 8.0 and up "
            "has). Use model.dtype=float16"
        )
    if wanted == "auto" and device.kind == "cpu":
        is_half = device.has_fast_bfloat16 and not config.hardware.deterministic
        return "bfloat16" if is_half else "float32"
    return wanted


def checked_dtype(config: Config, device: Device) -> str:
    """The data type, where the device can do with it what is asked for.

    Raises:
        ConfigError: It cannot.
    """
    dtype = choose_dtype(config, device)
    check_deterministic(config, device, dtype, installed_vllm())
    return dtype


def choose_max_model_len(config: Config, model: Mapping[str, Any], longest_prompt: int) -> int:
    """What the run needs, in whole blocks, but no more than the context limit."""
    limit = context_limit(config, model)
    if config.model.max_model_len is not None:
        return limit
    needed = longest_prompt + config.generation.max_new_tokens
    return min(limit, -(-needed // _BLOCK) * _BLOCK)


def context_limit(config: Config, model: Mapping[str, Any]) -> int:
    """Longest prompt plus answer: the model's own limit, or a smaller configured one.

    Raises:
        ConfigError: More is configured than the model was made for, or there is no room for a
            prompt beside the answer.
    """
    limit = int(model.get("max_position_embeddings") or 4096)
    wanted = config.model.max_model_len
    if wanted is not None and wanted > limit:
        raise ConfigError(f"model.max_model_len={wanted}: the model's own limit is {limit} tokens")
    limit = wanted or limit
    if config.generation.max_new_tokens >= limit:
        raise ConfigError(
            f"generation.max_new_tokens={config.generation.max_new_tokens} leaves no room for a "
            f"prompt: the model takes {limit} tokens in all"
        )
    return limit


def kv_bytes_per_token(model: Mapping[str, Any], dtype: str) -> int:
    """Bytes of keys and values that one token occupies over all layers; 0 where unknown."""
    try:
        heads = int(model["num_attention_heads"])
        kv_heads = int(model.get("num_key_value_heads") or heads)
        head_dim = int(model.get("head_dim") or int(model["hidden_size"]) // heads)
        layers = int(model["num_hidden_layers"])
    except (KeyError, TypeError, ValueError):
        return 0
    width = 4 if dtype == "float32" else 2
    return 2 * layers * kv_heads * head_dim * width


def _loaded_bytes(config: Config, model: Mapping[str, Any], path: Path, dtype: str) -> int:
    """The weights in the data type they are run in."""
    stored = weight_bytes(path)
    if "quantization_config" in model:
        return stored
    width = 4 if "float32" in (model.get("torch_dtype"), model.get("dtype")) else 2
    loaded = 4 if dtype == "float32" else 2
    if config.model.load_in_8bit or config.model.quantization:
        loaded = 1
    return stored * loaded // width


def _extra_arguments(config: Config, model: Mapping[str, Any], device: Device) -> dict[str, Any]:
    extra: dict[str, Any] = {}
    if config.model.trust_remote_code:
        extra["trust_remote_code"] = True
    quantization = choose_quantization(config.model, model, device, installed_vllm())
    if quantization is not None:
        extra["quantization"] = quantization
    return extra


def request_seed(settings: EngineSettings, request_id: str) -> int | None:
    """The seed of the first answer to a request; the next ones have the next numbers.

    One answer a question has the run's own seed, as ever. Several have one of their request: with
    the same random numbers for all questions, their answers would not be drawn independently.
    """
    generation = settings.generation
    if generation.temperature == 0:
        return None
    if generation.n == 1:
        return settings.seed
    digest = hashlib.blake2b(f"{settings.seed}:{request_id}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") >> 2  # room for the next ones below 2^31


def sampling_arguments(settings: EngineSettings) -> dict[str, Any]:
    """The arguments for `SamplingParams(...)` but for `output_kind`, which is vLLM's own enum."""
    generation = settings.generation
    return {
        "max_tokens": generation.max_new_tokens,
        "temperature": generation.temperature,
        "top_p": generation.top_p,
        "top_k": generation.top_k if generation.top_k is not None else -1,
        "repetition_penalty": generation.repetition_penalty,
        "seed": settings.seed if generation.temperature > 0 else None,
        "stop": list(settings.stop) or None,
        "ignore_eos": settings.ignore_eos,
        # Without stop strings nothing needs the text before the answer is done.
        "detokenize": bool(settings.stop),
        "n": generation.n,
        "logprobs": 0 if generation.logprobs else None,  # those of the chosen tokens alone
    }


def vllm_arguments(
    settings: EngineSettings, available: Collection[str]
) -> tuple[dict[str, Any], list[str]]:
    """The arguments for `LLM(...)` and the names left out because this vLLM lacks them.

    Args:
        settings: The engine's settings.
        available: Names of the arguments that the installed vLLM takes.

    Raises:
        ConfigError: The profile has an argument that this vLLM does not know.
    """
    wanted: dict[str, Any] = {
        "model": str(settings.model_path),
        "dtype": settings.dtype,
        "max_model_len": settings.max_model_len,
        "seed": settings.seed,
        **settings.hardware.engine_args,
        **settings.extra,
    }
    wanted.setdefault("enforce_eager", start_choice(settings).eager)
    kv_cache = kv_cache_bytes(settings)
    if kv_cache is not None:
        wanted["kv_cache_memory_bytes"] = kv_cache
    if settings.device.kind == "cpu" and settings.generation.temperature > 0:
        # After a part of a prompt vLLM turns a seeded generator back, which one of a CPU cannot be.
        wanted.setdefault("enable_chunked_prefill", False)
        wanted.setdefault("max_num_batched_tokens", max(_CPU_STEP, settings.max_model_len))
    if settings.device.kind == "cuda":
        wanted.setdefault("gpu_memory_utilization", _gpu_share(settings, kv_cache))
    return fit_arguments(wanted, available)


def start_choice(settings: EngineSettings) -> StartChoice:
    """Whether the engine compiles the model and captures graphs, and why."""
    arguments = settings.hardware.engine_args
    if "enforce_eager" in arguments:
        eager = bool(arguments["enforce_eager"])
        return StartChoice(eager, f"hardware.engine_args.enforce_eager={str(eager).lower()}")
    return choose_start(
        settings.hardware.start,
        settings.device.kind,
        compiles=compiles(installed_vllm()),
        questions=settings.questions,
        new_tokens=settings.generation.max_new_tokens,
        batch=settings.max_num_seqs,
        layers=settings.layers,
    )


def kv_cache_bytes(settings: EngineSettings) -> int | None:
    """KV cache that holds every sequence of a full batch at full length.

    On a CPU at least 256 MiB and at most 4 GiB: vLLM's own choice is a share of all memory of the
    machine, and it fails to start where that share is not free.

    On a GPU None where vLLM shall measure what is free and take that: the user has said which
    share, the release takes no size, or the whole of it would not fit.
    """
    arguments = settings.hardware.engine_args
    if "kv_cache_memory_bytes" in arguments:
        return int(arguments["kv_cache_memory_bytes"])
    one = settings.max_model_len * settings.kv_bytes_per_token
    whole = settings.max_num_seqs * one
    if settings.device.kind == "cpu":
        return max(min(whole, 4 * GIB // settings.engines_on_device), 2 * one, 256 << 20)
    is_set = any(name in arguments for name in _MEASURED_BY_VLLM)
    parts = int(arguments.get("tensor_parallel_size", 1))
    if (
        is_set
        or parts > 1
        or not (whole and settings.gpus and takes_kv_cache_bytes(installed_vllm()))
    ):
        return None
    free = _GPU_SHARE * min(gpu.free_bytes for gpu in settings.gpus)
    room = free / settings.engines_on_device - settings.weight_bytes - _GPU_RESERVE
    return max(whole, GIB) if max(whole, GIB) <= room else None


def device_bytes(settings: EngineSettings) -> int:
    """What an engine takes of its device, where the size of its KV cache is chosen here."""
    kv_cache = kv_cache_bytes(settings) or 0
    reserve = _GPU_RESERVE if settings.device.kind == "cuda" else 0
    return settings.weight_bytes + kv_cache + reserve


def kv_cache_choice(settings: EngineSettings) -> str:
    """How large the KV cache is, and who says so."""
    size = kv_cache_bytes(settings)
    if size is None:
        return "what vLLM measures as free"
    if "kv_cache_memory_bytes" in settings.hardware.engine_args:
        return "hardware.engine_args.kv_cache_memory_bytes"
    seqs, length = settings.max_num_seqs, settings.max_model_len
    return f"{format_memory(size)}, for up to {seqs} sequences of {length} tokens"


def _gpu_share(settings: EngineSettings, kv_cache: int | None) -> float:
    """The share of the GPU that vLLM asks to be free at its start, even with a size given."""
    if kv_cache is None or not settings.gpus:
        return int(100 * _GPU_SHARE / settings.engines_on_device) / 100
    smallest = min(gpu.memory_bytes for gpu in settings.gpus)
    return -(-100 * device_bytes(settings) // smallest) / 100


def hardware_environment(hardware: HardwareConfig, device: Device) -> dict[str, str]:
    """Those of `engine_environment` that are known before the run is: what an import may read."""
    wanted = dict(hardware.env)
    if hardware.deterministic:
        wanted |= deterministic_environment(device)
    return {name: value for name, value in wanted.items() if name not in os.environ}


def engine_environment(settings: EngineSettings) -> dict[str, str]:
    """Variables to set before vLLM is imported; those the user has set are left alone."""
    wanted = dict(hardware_environment(settings.hardware, settings.device))
    if settings.device.kind == "cpu":
        cores = ",".join(str(core) for core in sorted(os.sched_getaffinity(0)))
        wanted.setdefault("VLLM_CPU_OMP_THREADS_BIND", cores)
        if not takes_kv_cache_bytes(installed_vllm()):
            gib = max(1, -(-(kv_cache_bytes(settings) or 0) // GIB))
            wanted.setdefault("VLLM_CPU_KVCACHE_SPACE", str(gib))
    return {name: value for name, value in wanted.items() if name not in os.environ}
