"""Keys of earlier configurations: their current names, or why they have none.

The scripts before this package ran transformers batch by batch; their files and their users' habits
hold keys of that world.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from slm_vllm.config.notice import say_once
from slm_vllm.config.overrides import Override

Known = Callable[[str], bool]
"""Whether a dotted key is one of today's."""

_ENGINE = "hardware.engine_args"
_SAME_MEANING = {
    f"{_ENGINE}.max_num_seqs": "max_num_seqs batch_size eval_batch_size inference_batch_size "
    "per_device_eval_batch_size",
    "model.max_model_len": "max_length max_seq_length max_seq_len max_context_length "
    "context_length model_max_length",
    "model.path": "model_name model_id model_name_or_path pretrained_model_name_or_path",
    "model.dtype": "torch_dtype precision",
    "model.load_in_8bit": "load_in_8bit",
    "model.trust_remote_code": "trust_remote_code",
    "model.gradient_checkpointing": "gradient_checkpointing",
    "dataset.path": "data_path dataset_path data_file file_path local_path eval_file eval_path "
    "data_dir",
    "dataset.name": "dataset_name",
    "retriever.top_k": "num_contexts num_passages n_passages k",
    "retriever.kind": "retriever_type",
    "generation.max_new_tokens": "max_new_tokens max_tokens",
    "generation.temperature": "temperature",
    "generation.top_p": "top_p",
    "generation.top_k": "top_k",
    "generation.repetition_penalty": "repetition_penalty",
    "generation.stop": "stop stop_sequences stop_strings",
    "experiment.seed": "seed random_seed",
    "experiment.max_samples": "max_samples num_samples n_samples max_examples",
    "experiment.output_dir": "output_dir",
    "experiment.name": "experiment_name run_name",
    "experiment.log_predictions": "log_predictions save_predictions",
    "experiment.save_contexts": "save_contexts",
    "tracking.project": "project_name clearml_project",
    "tracking.tracker": "use_clearml enable_clearml clearml_enabled",
    **{
        f"{_ENGINE}.{name}": name
        for name in (
            "gpu_memory_utilization tensor_parallel_size max_num_batched_tokens "
            "enforce_eager swap_space"
        ).split()
    },
}
_NOW = {old: now for now, names in _SAME_MEANING.items() for old in names.split()}
# What a key means in one section only.
_NOW_IN = {
    "clearml.enabled": "tracking.tracker",
    "clearml.output_uri": "tracking.output_uri",
    "retriever.type": "retriever.kind",
    "experiment_mode.context_type": "experiment_mode.context",
    "experiment_mode.mode": "experiment_mode.context",
}
_KERNEL = "vLLM takes the fastest attention kernel that the device has"
_BATCHES = "vLLM loads the model and batches requests by itself"
_BEAMS = "answers are decoded greedily or sampled, without beams"
_MEMORY = "memory is always measured, see memory_usage.json"
_GONE = {
    "device": "the device is found by itself; hardware=cpu or another profile chooses",
    "device_map": "the device is found by itself; hardware=cpu or another profile chooses",
    **dict.fromkeys(
        ("use_flash_attention", "use_flash_attention_2", "attn_implementation"), _KERNEL
    ),
    **dict.fromkeys(
        (
            "low_cpu_mem_usage", "use_cache", "padding_side", "pad_token", "padding", "truncation",
            "num_workers", "pin_memory", "dataloader_num_workers", "offload_folder", "empty_cache",
            "gradient_accumulation_steps", "use_fast_tokenizer", "tokenizer_name", "torch_compile",
        ),
        _BATCHES,
    ),
    **dict.fromkeys(
        ("num_beams", "early_stopping", "length_penalty", "no_repeat_ngram_size"), _BEAMS
    ),
    **dict.fromkeys(("track_memory", "log_memory", "monitor_memory"), _MEMORY),
    "do_sample": "generation.temperature says it: 0 is greedy, more is sampled",
    "load_in_4bit": "name a checkpoint that is quantised as model.path",
    "type": "found from the files themselves",
    "task_name": "a task is called as its run, experiment.name",
    "description": "a comment",
    "use_context": "experiment_mode.context says it",
    "use_retriever": "experiment_mode.context says it",
    "use_oracle": "experiment_mode.context says it",
    "cache_dir": "models are kept in the Hugging Face cache (HF_HOME)",
}  # fmt: skip
_SECTIONS = ("clearml", "training", "evaluation", "inference", "logging", "memory", "optimization")
"""Sections that only earlier configurations have."""

_CONTEXTS = {
    "none": "none no_context closed_book test_10_samples test_100_samples",
    "oracle": "oracle oracle_context gold gold_context",
    "retriever": "retriever retriever_context retrieved rag",
}
CONTEXT_OF = {old: now for now, names in _CONTEXTS.items() for old in names.split()}
_DTYPES = {"fp16": "float16", "half": "float16", "bf16": "bfloat16", "fp32": "float32"}


def override_today(override: Override, known: Known) -> Override | None:
    """An override in today's words; None for one without a counterpart, which is said.

    An override that is neither today's nor an earlier one is given back as it is.
    """
    if override.is_group_choice or known(override.key):
        return override
    section, _, key = override.key.rpartition(".")
    if key == "device":
        profile = "cpu" if override.value == "cpu" else "auto"
        say_once(f"{override.key}={override.value} is now hardware={profile}")
        return Override("hardware", profile)
    now = _target(section, key)
    if now is not None:
        changed = Override(now, str(_value(now, override.value)))
        say_once(f"{override.key}={override.value} is now {changed.key}={changed.value}")
        return changed
    if key in _GONE:
        say_once(f"{override.key} is not used: {_GONE[key]}")
        return None
    return override


def settings_today(
    raw: Mapping[str, Any], known: Known, given: Collection[str] = ()
) -> tuple[dict[str, Any], list[str]]:
    """A composed configuration in today's keys.

    Args:
        raw: Sections with their keys, earlier ones among them.
        known: See `Known`.
        given: Keys set on the command line, which win.

    Returns:
        The configuration, and what was changed in it, in words.
    """
    today = {k: dict(v) if isinstance(v, Mapping) else v for k, v in raw.items()}
    notes: list[str] = []
    for section, key, value in list(_earlier(raw, known)):
        name = f"{section}.{key}" if section else key
        now = _target(section, key)
        if now is None and key not in _GONE and section not in _SECTIONS:
            continue
        del (today[section] if section else today)[key]
        if value is None:
            continue
        if now is None:
            notes.append(f"{name} is not used: {_GONE.get(key, 'it has no counterpart')}")
        elif now not in given and not (
            section == now.split(".")[0] and _at(today, now) is not None
        ):
            _put(today, now, _value(now, value))
            notes.append(f"{name}={value} is now {now}={_value(now, value)}")
    for section in _SECTIONS:
        if not today.get(section, True):
            del today[section]
    _name_context(today)
    return today, notes


def _earlier(raw: Mapping[str, Any], known: Known) -> Iterator[tuple[str, str, Any]]:
    """The section, key and value of each key that is not one of today's."""
    for section, content in raw.items():
        if isinstance(content, Mapping) and (known(section) or section in _SECTIONS):
            for key, value in content.items():
                if not known(f"{section}.{key}"):
                    yield section, str(key), value
        elif not known(section):
            yield "", section, content


def _target(section: str, key: str) -> str | None:
    if section == "dataset" and key == "type":
        return None
    return _NOW_IN.get(f"{section}.{key}") or _NOW.get(key)


def _value(now: str, value: Any) -> Any:
    """The value of an earlier key as the key of today has it."""
    if now == "model.dtype":
        plain = str(value).removeprefix("torch.")
        return _DTYPES.get(plain, plain)
    if now == "experiment_mode.context":
        return CONTEXT_OF.get(str(value), value)
    if now == "tracking.tracker":
        return "auto" if str(value).lower() in ("true", "1", "yes") else "none"
    return value


def _name_context(today: dict[str, Any]) -> None:
    """Gives a mode of an earlier file the context that its name says."""
    mode = today.get("experiment_mode")
    if isinstance(mode, dict) and "context" not in mode and mode.get("name") in CONTEXT_OF:
        mode["context"] = CONTEXT_OF[mode["name"]]


def _at(settings: Mapping[str, Any], key: str) -> Any:
    found: Any = settings
    for part in key.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _put(settings: dict[str, Any], key: str, value: Any) -> None:
    *sections, last = key.split(".")
    place = settings
    for section in sections:
        inner = place.get(section)
        place[section] = dict(inner) if isinstance(inner, Mapping) else {}
        place = place[section]
    place[last] = value
