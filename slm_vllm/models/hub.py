"""Models in the Hugging Face cache and on its hub."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

log = logging.getLogger(__name__)

_CONNECT_SECONDS = 10.0


def looks_like_path(name: str) -> bool:
    """Whether the name of a model can only be that of a folder: the hub has OWNER/NAME."""
    return name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name


def find_cached(repo: str, revision: str | None) -> Path | None:
    """The folder of a model in the cache, whole or not; None where there is none."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repo, revision=revision, local_files_only=True))
    except (HFValidationError, LocalEntryNotFoundError, OSError):
        return None


def download(
    repo: str,
    revision: str | None,
    ignore: Sequence[str],
    allow: Callable[[Sequence[str]], list[str]] | None = None,
) -> Path:
    """Brings a model into the cache. What it raises is for `hub_reason` to explain.

    Args:
        repo: Its name.
        revision: Branch, tag or commit; None for the main branch.
        ignore: Patterns of files that are left out.
        allow: Gives the patterns of files that are wanted, from the names of all; None: all.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars

    # Asked first, with a short time-out and no retries: snapshot_download retries for minutes.
    info = HfApi().model_info(repo, revision=revision, timeout=_CONNECT_SECONDS)
    names = [sibling.rfilename for sibling in info.siblings or []]
    if not sys.stderr.isatty() and not are_progress_bars_disabled():
        disable_progress_bars()
    log.info("Downloading %s from the hub", repo)
    return Path(
        snapshot_download(
            repo,
            revision=revision,
            allow_patterns=None if allow is None else allow(names),
            ignore_patterns=list(ignore),
            etag_timeout=_CONNECT_SECONDS,
        )
    )


def hub_reason(error: Exception, repo: str, revision: str | None) -> str:
    """Why a model could not be downloaded, and what to do; never with a token in it."""
    from huggingface_hub import errors

    access = "set HF_TOKEN to a token that may read it (huggingface.co/settings/tokens)"
    if isinstance(error, errors.GatedRepoError):
        return f"its licence must be accepted at huggingface.co/{repo}; then {access}"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"there is no revision '{revision or 'main'}'; check the revision"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"no such model, or a private one; check the spelling, or {access}"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return f"access refused ({status}); {access}"
    if status == 429:
        return "too many requests (429); wait some minutes, or set HF_TOKEN"
    lines = str(error).strip().splitlines()
    detail = re.sub(r"hf_[A-Za-z0-9]+", "hf_...", lines[0])[:200] if lines else ""
    return f"could not be reached ({type(error).__name__}: {detail})".replace(": )", ")")
