"""All checks in order; one that crashes becomes a finding and hides no other."""

from __future__ import annotations

import logging
import platform
import sys
from collections.abc import Callable
from pathlib import Path

from slm_vllm.doctor.deep import check_torch_itself, check_vllm_import
from slm_vllm.doctor.gpu import check_builds, check_device, read_driver, read_torch_build
from slm_vllm.doctor.machine import check_cpu, check_disk, check_memory, check_shared_memory
from slm_vllm.doctor.services import (
    check_clearml,
    check_data,
    check_models,
    check_s3,
    hub_cache,
    reach_s3,
)
from slm_vllm.engines.start_choice import vllm_cache
from slm_vllm.finding import Finding
from slm_vllm.monitoring.device import cpu_device, detect_device

log = logging.getLogger(__name__)

# Those of the classifiers in pyproject.toml.
OLDEST_PYTHON, NEWEST_PYTHON = (3, 10), (3, 13)


def run_checks(*, deep: bool, output_dir: Path, cache_dir: Path) -> list[Finding]:
    """Looks at this machine.

    Args:
        deep: Also import torch and vLLM and ask the configured bucket; takes up to a minute.
        output_dir: Where runs are written.
        cache_dir: This project's own cache.
    """
    device, driver = detect_device(), read_driver()
    folders = {
        "runs": output_dir.resolve(),
        "prepared models and indexes": cache_dir.resolve(),
        "downloaded models": hub_cache(),
        "vLLM's compile cache": vllm_cache(),
    }
    checks: list[tuple[str, Callable[[], Finding | list[Finding]]]] = [
        ("python", _check_python),
        ("device", lambda: check_device(device, driver)),
        ("builds", lambda: check_builds(device, driver, read_torch_build())),
        ("memory", check_memory),
        ("disk", lambda: check_disk(folders)),
        ("shared memory", check_shared_memory),
        ("CPU", lambda: check_cpu(device, cpu_device().cpu_flags)),
        ("models", lambda: check_models(cache_dir)),
        ("data", check_data),
        ("S3", check_s3),
        ("ClearML", check_clearml),
    ]
    if deep:
        checks += [
            ("torch", lambda: check_torch_itself(device)),
            ("vllm import", check_vllm_import),
            ("S3 answer", reach_s3),
        ]
    return [finding for name, check in checks for finding in _guarded(name, check)]


def _check_python() -> Finding:
    version = platform.python_version()
    if not OLDEST_PYTHON <= sys.version_info[:2] <= NEWEST_PYTHON:
        fix = "Tried with Python {}.{} to {}.{}".format(*OLDEST_PYTHON, *NEWEST_PYTHON)
        return Finding("python", "warn", version, fix)
    return Finding("python", "ok", version)


def _guarded(name: str, check: Callable[[], Finding | list[Finding]]) -> list[Finding]:
    try:
        found = check()
    except Exception as error:  # a report that stops half-way would hide the rest
        log.debug("check %s broke", name, exc_info=True)
        text = f"could not be checked: {type(error).__name__}: {error}"
        return [Finding(name, "warn", text)]
    return found if isinstance(found, list) else [found]
