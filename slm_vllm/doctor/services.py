"""Models, data, S3 and ClearML, checked without connecting to anything."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

from slm_vllm.errors import SlmVllmError
from slm_vllm.extras import install_advice, installed_version
from slm_vllm.finding import Finding
from slm_vllm.models.demo import INSTALL, PACKAGE


def hub_cache() -> Path:
    """Where Hugging Face keeps models, by its own rules."""
    if named := os.environ.get("HF_HUB_CACHE"):
        return Path(os.path.expanduser(named))
    home = os.environ.get("HF_HOME")
    return Path(os.path.expanduser(home or "~/.cache/huggingface")) / "hub"


def check_models(cache_dir: Path) -> Finding:
    """Models that a run can use without asking a hub."""
    cache = hub_cache()
    stored = sorted(
        folder.name.removeprefix("models--").replace("--", "/")
        for folder in (cache.glob("models--*") if cache.is_dir() else [])
    )
    demo = "ready" if any((cache_dir / "models").glob("smollm2-*")) else "not yet prepared"
    if installed_version(PACKAGE) is None:
        demo = f"package {PACKAGE} not installed"
    shown = ", ".join(stored[:4]) + (f" and {len(stored) - 4} more" if len(stored) > 4 else "")
    offline = ", HF_HUB_OFFLINE is set" if os.environ.get("HF_HUB_OFFLINE", "0") != "0" else ""
    found = f"demo model: {demo}; {cache}: {shown or 'empty'}{offline}"
    if not stored and offline:
        fix = "Unset HF_HUB_OFFLINE, copy a model here, or use --model demo"
        return Finding("models", "warn", found, fix)
    if "not installed" in demo and not stored:
        return Finding("models", "warn", found, INSTALL)
    return Finding("models", "ok", found)


def check_data(folder: Path | None = None) -> Finding:
    """Which configured datasets have their file here.

    Args:
        folder: Instead of the shipped `configs/dataset`.
    """
    from slm_vllm.config.compose import read_choice
    from slm_vllm.config.location import configs_dir
    from slm_vllm.datasets.places import found_file

    here: list[str] = []
    missing: list[str] = []
    for file in sorted((folder or configs_dir() / "dataset").glob("*.yaml")):
        path = str(read_choice(file).get("path", ""))
        if path in ("", "???") or "://" in path:  # given with each run, or far away
            continue
        found_at = path if path == "demo" else found_file(path)  # the package ships the demo
        present = path == "demo" or (found_at is not None and Path(found_at).is_file())
        (here if present else missing).append(file.stem)
    found = f"here: {', '.join(here) or 'none'}"
    if not missing:
        return Finding("data", "ok", found)
    fix = "slm-vllm data list shows where each is expected"
    return Finding("data", "ok", f"{found}; no file for {', '.join(missing)}", fix)


def check_s3() -> Finding:
    """Whether a bucket is configured."""
    from slm_vllm.storage.settings import load_s3_settings

    try:
        settings = load_s3_settings()
    except SlmVllmError as error:
        return Finding("S3", "fail", str(error), "slm-vllm s3 test says more")
    if settings.bucket is None and settings.endpoint is None:
        return Finding(
            "S3", "ok", "not configured (needed only to fetch or store data in a bucket)"
        )
    found = f"{settings.endpoint or 'Amazon S3'}, bucket {settings.bucket or 'not named'}"
    if find_spec("boto3") is None:
        return Finding("S3", "fail", f"{found}; boto3 missing", install_advice("s3", "boto3"))
    if settings.bucket is None:
        return Finding("S3", "warn", found, "Set CLEARML_S3_BUCKET in .env or the environment")
    return Finding("S3", "ok", f"{found} (not asked; --deep asks)")


def reach_s3() -> Finding:
    """Asks the configured bucket; what `s3 test` finds wrong first is told."""
    from slm_vllm.storage.bucket import Bucket
    from slm_vllm.storage.diagnosis import check_connection
    from slm_vllm.storage.settings import load_s3_settings

    settings = load_s3_settings()
    if settings.bucket is None:
        return Finding("S3 answer", "ok", "no bucket configured")
    bucket = Bucket.open(settings, attempts=1, connect_timeout=5.0, read_timeout=10.0)
    try:
        wrong = [found for found in check_connection(bucket) if found.status == "fail"]
    finally:
        bucket.client.close()
    if wrong:
        found = f"{wrong[0].name}: {wrong[0].found}"
        return Finding("S3 answer", "fail", found, wrong[0].fix or "slm-vllm s3 test says more")
    return Finding("S3 answer", "ok", f"{settings.where}, bucket {settings.bucket} answers")


def check_clearml() -> Finding:
    """Whether a ClearML server is configured."""
    from slm_vllm.tracking.clearml.settings import find_clearml

    settings = find_clearml()
    if settings.problem is not None:
        fix = "Correct that, or take it away to run without a server"
        return Finding("ClearML", "fail", settings.problem, fix)
    if settings.source is None:
        return Finding("ClearML", "ok", "not configured (runs keep everything in their folder)")
    if find_spec("clearml") is None:
        fix = install_advice("clearml", "clearml")
        return Finding("ClearML", "fail", f"configured in {settings.source}; not installed", fix)
    return Finding("ClearML", "ok", f"configured in {settings.source} (not asked)")
