"""Differences between vLLM releases: argument names, missing features, shutdown.

Read in the source of 0.9.2, 0.19.1, 0.26.0, 0.32.0 and 0.33.0; `tests/engines/vllm_arguments` holds
their argument lists and `scripts/update_vllm_arguments.py` regenerates them.
"""

from __future__ import annotations

import contextlib
import inspect
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from slm_vllm import gc_control
from slm_vllm.errors import ConfigError
from slm_vllm.extras import installed_version
from slm_vllm.nearest import close_names

Release = tuple[int, int, int]
PromptMaker = Callable[[list[int]], Any]

# The same argument under the name that other releases have for it.
RENAMED = {
    "cudagraph_capture_sizes": "cuda_graph_sizes",  # until 0.10
    "cuda_graph_sizes": "cudagraph_capture_sizes",
}

# Arguments that a release may lack without harm to a run, with the reason.
MAY_BE_LEFT_OUT = {
    "swap_space": "from 0.18 on preempted requests are computed again and never swapped out",
    "kv_cache_memory_bytes": "VLLM_CPU_KVCACHE_SPACE is set for the releases that read it instead",
}


def installed_vllm() -> str | None:
    """Version of the installed vLLM, found without importing it; None where there is none."""
    return installed_version("vllm") or installed_version("vllm-cpu")


def parse_release(text: str) -> Release:
    """The numbers of a version: `0.10.1.1+cu128` is (0, 10, 1)."""
    numbers = [int(part) for part in re.findall(r"\d+", text.partition("+")[0])[:3]]
    major, minor, patch = (*numbers, 0, 0, 0)[:3]
    return major, minor, patch


def takes_kv_cache_bytes(release: str | None) -> bool:
    """Whether the KV cache of a CPU is an argument in bytes (0.19.1 has it, 0.9.2 has not).

    Where it is, VLLM_CPU_KVCACHE_SPACE must stay unset: it counts in whole GiB and wins.
    """
    return release is not None and parse_release(release) >= (0, 19, 0)


def has_batch_invariance(release: str | None, capability: tuple[int, int]) -> bool:
    """Whether vLLM has kernels whose results do not depend on the batch (VLLM_BATCH_INVARIANT).

    The variable is older, but up to 0.26 its RMSNorm adds in another order from 256 tokens in a
    step on (vllm-project/vllm issue 48271): on an H100 with 0.26 the demo model gave other answers
    to 191 of 656 questions with `max_num_seqs` 64 in place of 512.
    """
    return release is not None and parse_release(release) >= (0, 27, 0) and capability >= (8, 0)


def works_without_tokenizer(release: str | None) -> bool:
    """Whether an engine was seen to answer token ids with `skip_tokenizer_init`."""
    return release is not None and parse_release(release) >= (0, 32, 0)


def compiles(release: str | None) -> bool:
    """Whether the engine compiles the model where it captures graphs: V1 does, V0 (0.9.2) not."""
    return release is None or parse_release(release) >= (0, 10, 2)


def fit_arguments(
    wanted: Mapping[str, Any], available: Collection[str]
) -> tuple[dict[str, Any], list[str]]:
    """Arguments under the names this vLLM has for them, and those left out.

    Args:
        wanted: Arguments as the profiles name them.
        available: Names that the installed vLLM takes.

    Raises:
        ConfigError: An argument that this vLLM lacks and that no rule covers: misspelt, or of
            another release.
    """
    passed: dict[str, Any] = {}
    left_out = []
    for name, value in wanted.items():
        other = RENAMED.get(name)
        if name in available:
            passed[name] = value
        elif other in available and other is not None:
            passed[other] = value
        elif name in MAY_BE_LEFT_OUT:
            left_out.append(name)
        else:
            raise ConfigError(
                f"hardware.engine_args.{name}: this vLLM ({installed_vllm()}) has no such "
                f"argument. {_similar(name, available)}"
            )
    return passed, sorted(left_out)


def _similar(name: str, available: Collection[str]) -> str:
    close = close_names(name, sorted(available))
    if not close:
        return "The fields of vllm.EngineArgs are its arguments"
    return f"Similar ones that it has: {', '.join(close)}"


def make_modules_readable() -> None:
    """Gives numba's library object the `__dict__` that vLLM reads of all that is imported.

    vLLM 0.32 on a CPU looks for its kernels in everything that any module holds. The object through
    which numba calls LLVM takes `__dict__` for a function of that library, which ends the start.
    """
    # Private names of llvmlite: where they are others, there may be nothing to fix.
    with contextlib.suppress(ImportError, AttributeError):
        from llvmlite.binding import ffi  # type: ignore[import-untyped,unused-ignore]

        ffi.lib._fntab["__dict__"] = {}


def prompt_maker() -> PromptMaker:
    """What makes a prompt of token ids in the form that the installed vLLM wants.

    From 0.26 on engines want the renderer's form and warn of any other; 0.9.2 has no such form.
    """
    try:
        from vllm.inputs.engine import tokens_input
    except ImportError:
        from vllm import TokensPrompt

        return lambda token_ids: TokensPrompt(prompt_token_ids=token_ids)
    return lambda token_ids: tokens_input(token_ids)


def choice_argument(choices: Sequence[str]) -> dict[str, Any]:
    """The argument of `SamplingParams` that leaves the model only these answers.

    `structured_outputs` came with 0.11, `guided_decoding` went with 0.12.
    """
    try:
        from vllm.sampling_params import StructuredOutputsParams
    except ImportError:
        from vllm.sampling_params import GuidedDecodingParams

        return {"guided_decoding": GuidedDecodingParams(choice=list(choices))}
    return {"structured_outputs": StructuredOutputsParams(choice=list(choices))}


def weighing_arguments(token_ids: Sequence[int]) -> dict[str, Any]:
    """The arguments of `SamplingParams` that tell how probable each of these is as next token.

    Releases that do not know `logprob_token_ids` (0.9.2) tell the likeliest tokens alone: there the
    choice is narrowed to these. A V0 engine then tells how probable they are among themselves,
    which leaves their differences as they are.
    """
    from vllm import SamplingParams

    options = {"logprobs": len(token_ids)}
    known = "logprob_token_ids" in inspect.signature(SamplingParams).parameters
    return options | {"logprob_token_ids" if known else "allowed_token_ids": list(token_ids)}


def copy_lightly(sampling: Any) -> Any:
    """The same `SamplingParams`, of which vLLM makes a shallow copy for each request.

    It makes a deep one by itself, which takes some hundredths of a millisecond. What it changes
    in its copy is either replaced there or the same for all: the model's stop tokens.
    """
    if hasattr(sampling, "skip_clone"):  # not in 0.9.2
        sampling.skip_clone = True
    return sampling


def kv_cache_tokens(llm: Any) -> int | None:
    """Tokens that the engine's KV cache holds; None where this vLLM does not say."""
    engine = llm.llm_engine
    # V0 engines keep the configuration themselves, V1 engines under vllm_config.
    cache = getattr(getattr(engine, "vllm_config", engine), "cache_config", None)
    blocks, size = getattr(cache, "num_gpu_blocks", None), getattr(cache, "block_size", None)
    return int(blocks) * int(size) if blocks and size else None


def shut_down(llm: Any) -> None:
    """Ends the engine of an `LLM`, which has no method for it in any release.

    V1 engines have a core, in its own process or in ours, with a `shutdown`; a V0 engine (0.9.2)
    ends when the last reference to it goes. A core in our process looks twice for garbage among
    all objects there are, which takes a second; that is left to `free_device`.
    """
    core = getattr(llm.llm_engine, "engine_core", None)
    if core is not None and hasattr(core, "shutdown"):
        with gc_control.skipped_collections():
            core.shutdown()


def free_device(kind: str) -> None:
    """Gives back what an engine of this process held, so that another one can start.

    Args:
        kind: "cpu" or "cuda".
    """
    gc_control.collect()
    if kind == "cuda":
        import torch

        torch.cuda.empty_cache()
