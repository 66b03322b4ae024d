"""Storage knows buckets and files, not what they hold."""

from __future__ import annotations

import ast
from pathlib import Path

import slm_vllm.storage

OURS = "slm_vllm."


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name for name in names if name.startswith(OURS)}


def test_storage_imports_nothing_above_it() -> None:
    modules = sorted(Path(next(iter(slm_vllm.storage.__path__))).glob("*.py"))
    assert len(modules) > 10
    above = {
        (path.name, name)
        for path in modules
        for name in imported(path)
        if name != "slm_vllm.errors" and not name.startswith("slm_vllm.storage")
    }
    assert above == set()
