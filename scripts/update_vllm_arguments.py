"""Writes what each vLLM release takes into tests/engines/vllm_arguments/<release>.json.

    python scripts/update_vllm_arguments.py [--releases 0.9.2 0.33.0]

Downloads the releases' own source archives with pip and reads them with `ast`; nothing of vLLM is
run or installed. Kept of each: the fields of `EngineArgs`, the parameters of `LLM.__init__`, the
fields of `SamplingParams`, the environment variables of `vllm/envs.py` and the quantization
methods. `tests/engines/test_engine_arguments.py` checks every hardware profile against the files.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

RELEASES = ("0.9.2", "0.19.1", "0.26.0", "0.32.0", "0.33.0")
FOLDER = Path(__file__).resolve().parents[1] / "tests" / "engines" / "vllm_arguments"
_FILES = {
    "arguments": "vllm/engine/arg_utils.py",
    "llm": "vllm/entrypoints/llm.py",
    "sampling": "vllm/sampling_params.py",
    "environment": "vllm/envs.py",
    "quantization": "vllm/model_executor/layers/quantization/__init__.py",
}
# pip asks a source archive for its metadata before it keeps it, and vLLM's own answer needs torch
# and minutes. This stand-in for setuptools answers with the name and version alone.
_BACKEND = """
import os
from pathlib import Path


def prepare_metadata_for_build_wheel(folder, settings=None):
    made = Path(folder, "vllm.dist-info")
    made.mkdir()
    lines = ["Metadata-Version: 2.1", "Name: vllm", "Version: " + os.environ["VLLM_RELEASE"]]
    made.joinpath("METADATA").write_text("\\n".join(lines))
    return made.name


def build_wheel(*_, **__):
    raise NotImplementedError
"""


def source_archive(release: str) -> tuple[str, bytes]:
    """Name and content of a release's source archive, fetched by pip as it is configured."""
    with tempfile.TemporaryDirectory() as name:
        stand_in, folder = Path(name, "backend", "setuptools"), Path(name, "archive")
        stand_in.mkdir(parents=True)
        (stand_in / "__init__.py").touch()
        (stand_in / "build_meta.py").write_text(_BACKEND)
        command = [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"),
            *("--no-build-isolation", "--no-binary", "vllm", "--dest", str(folder)),
            f"vllm=={release}",
        ]
        environment = {"PYTHONPATH": str(stand_in.parent), "VLLM_RELEASE": release}
        subprocess.run(command, check=True, env=os.environ | environment)
        (archive,) = folder.iterdir()
        return archive.name, archive.read_bytes()


def read_sources(content: bytes) -> dict[str, ast.Module]:
    """The parsed files of an archive, by their key in `_FILES`."""
    wanted = {path: key for key, path in _FILES.items()}
    found: dict[str, ast.Module] = {}
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for member in archive:
            key = wanted.get(member.name.partition("/")[2])
            if key is not None and (file := archive.extractfile(member)) is not None:
                found[key] = ast.parse(file.read())
    if missing := set(_FILES) - set(found):
        raise SystemExit(f"the archive lacks {', '.join(_FILES[key] for key in missing)}")
    return found


def class_of(module: ast.Module, name: str) -> ast.ClassDef:
    """A class by its name."""
    (found,) = [n for n in ast.walk(module) if isinstance(n, ast.ClassDef) and n.name == name]
    return found


def fields(module: ast.Module, name: str) -> list[str]:
    """The annotated fields of a dataclass or struct that its constructor takes."""
    return sorted(
        node.target.id
        for node in class_of(module, name).body
        if isinstance(node, ast.AnnAssign)
        and isinstance(node.target, ast.Name)
        and not node.target.id.startswith("_")
        and "ClassVar" not in ast.unparse(node.annotation)
    )


def constructor_parameters(module: ast.Module, name: str) -> list[str]:
    """The named parameters of a class's `__init__`."""
    (init,) = [
        node
        for node in class_of(module, name).body
        if isinstance(node, ast.FunctionDef) and node.name == "__init__"
    ]
    taken = [*init.args.posonlyargs, *init.args.args, *init.args.kwonlyargs]
    return sorted(argument.arg for argument in taken if argument.arg != "self")


def strings_assigned(module: ast.Module, name: str) -> list[str]:
    """The strings in what is assigned to a name: keys of a dict, members of a list or Literal."""
    for node in module.body:
        if isinstance(node, ast.Assign):
            targets: list[ast.expr] = node.targets
        elif isinstance(node, ast.AnnAssign):
            targets = [node.target]
        else:
            continue
        if node.value is None or name not in [ast.unparse(target) for target in targets]:
            continue
        parts = node.value.keys if isinstance(node.value, ast.Dict) else ast.walk(node.value)
        return sorted(
            part.value
            for part in parts
            if isinstance(part, ast.Constant) and isinstance(part.value, str)
        )
    raise SystemExit(f"nothing is assigned to {name}")


def describe(release: str) -> dict[str, object]:
    """What a release takes."""
    name, content = source_archive(release)
    sources = read_sources(content)
    return {
        "release": release,
        "archive": name,
        "sha256": hashlib.sha256(content).hexdigest(),
        "engine_args": fields(sources["arguments"], "EngineArgs"),
        "llm": constructor_parameters(sources["llm"], "LLM"),
        "sampling_params": fields(sources["sampling"], "SamplingParams"),
        "environment": strings_assigned(sources["environment"], "environment_variables"),
        "quantization": strings_assigned(sources["quantization"], "QuantizationMethods"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--releases", nargs="+", default=RELEASES)
    arguments = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    for release in arguments.releases:
        found = describe(release)
        (FOLDER / f"{release}.json").write_text(json.dumps(found, indent=1) + "\n")
        counts = {key: len(value) for key, value in found.items() if isinstance(value, list)}
        print(release, counts, flush=True)


if __name__ == "__main__":
    main()
