"""Advice on installing optional dependencies, wherever the package came from."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

# The engines exclude one another; `scripts/setup.sh` chooses by the machine in the same way.
_ENGINE_EXTRAS = {"cpu": "cpu", "v100": "volta"}
_CPU_TORCH = "--extra-index-url https://download.pytorch.org/whl/cpu"


def engine_extra(engine: str, profile: str) -> str:
    """The extra that brings what an engine needs first.

    Args:
        engine: Value of `engine.name`.
        profile: Name of the hardware profile that fits the machine.
    """
    return "openai" if engine == "openai" else _ENGINE_EXTRAS.get(profile, "cuda")


def installed_version(package: str) -> str | None:
    """Version of a distribution, found without importing it; None where it is not installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """Versions of those distributions that are installed."""
    return {name: version for name in packages if (version := installed_version(name))}


def _requirements_of(extra: str) -> list[str]:
    """The requirements of an extra that hold for this Python, as the installed metadata has them.

    Empty where the package is used without being installed, from a folder on the path.
    """
    from importlib.metadata import PackageNotFoundError, requires

    from packaging.requirements import Requirement

    try:
        declared = requires("slm-vllm") or []
    except PackageNotFoundError:
        return []
    found = []
    for line in declared:
        requirement = Requirement(line)
        marker, requirement.marker = requirement.marker, None
        if marker and marker.evaluate({"extra": extra}) and not marker.evaluate({"extra": ""}):
            found.append(str(requirement))
    return found


def install_advice(extra: str, package: str | None = None) -> str:
    """The sentence that says how to install an extra.

    It names the packages themselves and not `slm-vllm[extra]`, which no pip finds where this
    package came from a checkout or a wheel and not from an index.

    Args:
        extra: Its name in `[project.optional-dependencies]`.
        package: What to name where the extra's requirements are not known.
    """
    wanted = _requirements_of(extra) or ([package] if package else [])
    words = ["pip install", *([_CPU_TORCH] if extra == "cpu" else []), *map(shlex.quote, wanted)]
    return f"Install the extra '{extra}': {' '.join(words)}"
