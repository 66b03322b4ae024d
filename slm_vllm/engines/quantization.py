"""Which 8-bit and 4-bit forms of a model a device supports, checked before loading.

Only what is known not to work is refused, with the form that does; everything else is vLLM's to
judge. The rules come from vLLM's source (0.9.2, 0.19.1, 0.26.0, 0.32.0); `docs/hardware.md` has
them as a table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slm_vllm.config.schema import ModelConfig
from slm_vllm.engines.versions import Release, parse_release
from slm_vllm.errors import ConfigError
from slm_vllm.extras import installed_version
from slm_vllm.monitoring.device import Device

Capability = tuple[int, int]

_GPTQ = "a GPTQ-Int8 checkpoint (for example model.path=Qwen/Qwen3-0.6B-GPTQ-Int8)"
_FP8 = "model.quantization=fp8, which quantises while loading"


@dataclass(frozen=True, slots=True)
class Method:
    """What one method of quantization needs.

    Attributes:
        capability: Lowest compute capability in current releases.
        old_capability: The same before 0.19.
        gone: The first release known to be without it.
        plugin: The package that brings it to those.
        cpu: Whether it runs on a CPU.
        checkpoint_only: It cannot quantise while loading.
    """

    capability: Capability
    old_capability: Capability
    gone: Release | None = None
    plugin: str | None = None
    cpu: bool = False
    checkpoint_only: bool = True


METHODS = {
    "fp8": Method((7, 5), (8, 0), checkpoint_only=False),
    "gptq": Method((6, 0), (6, 0), cpu=True),
    "awq": Method((7, 5), (7, 5), cpu=True),
    "compressed-tensors": Method((7, 5), (7, 5), cpu=True),
    "bitsandbytes": Method(
        (7, 0), (7, 0), gone=(0, 28, 0), plugin="vllm-bnb-plugin", checkpoint_only=False
    ),
    "gguf": Method((6, 0), (6, 0), gone=(0, 24, 0), plugin="vllm-gguf-plugin"),
    "torchao": Method((7, 5), (7, 5)),
}


def choose_quantization(
    model: ModelConfig, checkpoint: Mapping[str, Any], device: Device, vllm: str | None
) -> str | None:
    """The `quantization` argument of a run, or None to leave it to the checkpoint.

    Args:
        model: The run's `model` section.
        checkpoint: The model's own `config.json`.
        device: The device it will run on.
        vllm: Version of the installed vLLM, None where it is not known.

    Raises:
        ConfigError: This device or this vLLM cannot have what is asked for, or what the
            checkpoint is made of; the message names what they can have.
    """
    release = parse_release(vllm) if vllm else None
    stored = _method_of(checkpoint)
    wanted = model.quantization
    if model.load_in_8bit:
        if wanted not in (None, "fp8"):
            raise ConfigError(
                f"model.load_in_8bit=true and model.quantization={wanted} contradict one another: "
                "leave one of them out"
            )
        if stored is None:
            _check_eight_bit(device, release)
            return "fp8"
    method = wanted or stored
    if method is None:
        return None
    where = (
        f"model.quantization={wanted}" if wanted else f"{model.path} holds a {stored} checkpoint"
    )
    _check_method(where, method, stored, device, release)
    return wanted


def _check_eight_bit(device: Device, release: Release | None) -> None:
    reason = _unsupported(METHODS["fp8"], device, release)
    if reason is not None:
        raise ConfigError(
            "model.load_in_8bit=true means fp8, the only 8-bit form that vLLM makes while loading, "
            f"and {reason}. Use {_GPTQ}, or leave it out"
        )


def _check_method(
    where: str, method: str, stored: str | None, device: Device, release: Release | None
) -> None:
    rule = METHODS.get(_family(method))
    if rule is None:
        return
    if reason := _unsupported(rule, device, release):
        raise ConfigError(f"{where}: {reason}. {_alternative(method, device, release)}")
    if rule.checkpoint_only and stored is None:
        raise ConfigError(
            f"{where}: this needs a checkpoint that is quantised already, and the model's "
            f"config.json has no quantization_config. {_alternative(method, device, release)}"
        )


def _unsupported(rule: Method, device: Device, release: Release | None) -> str | None:
    """Why a method does not work here, or None."""
    has_gone = rule.gone is not None and release is not None and release >= rule.gone
    if has_gone and (rule.plugin is None or installed_version(rule.plugin) is None):
        gone, here = (".".join(map(str, number or ())) for number in (rule.gone, release))
        return f"vLLM {gone} and later need the package {rule.plugin} for it (here: {here})"
    if device.compute_capability is None:
        return None if rule.cpu else f"vLLM has no such kernels for a CPU ({device.name})"
    old = release is not None and release < (0, 19, 0)
    lowest = rule.old_capability if old else rule.capability
    if device.compute_capability < lowest:
        have, need = ("{}.{}".format(*pair) for pair in (device.compute_capability, lowest))
        return f"it needs compute capability {need}; {device.name} has {have}"
    return None


def _alternative(method: str, device: Device, release: Release | None) -> str:
    if _family(method) == "fp8" or _unsupported(METHODS["fp8"], device, release):
        return f"Use {_GPTQ}, or the model without quantization"
    return f"Use {_FP8}, or {_GPTQ}"


def _method_of(checkpoint: Mapping[str, Any]) -> str | None:
    section = checkpoint.get("quantization_config")
    if not isinstance(section, Mapping):
        return None
    method = section.get("quant_method")
    return str(method).lower() if method else None


def _family(method: str) -> str:
    """`gptq_marlin`, `auto_gptq` and `gptq` are one method in several kernels."""
    name = method.lower().removeprefix("auto_")
    for family in METHODS:
        if name == family or name.startswith(f"{family}_per_"):
            return family
    return name
