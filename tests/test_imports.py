"""The floors of the package: what may import what. Imports inside functions count too."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import slm_vllm

# From the ground up. A package knows those of the floors below its own; those of one floor do not
# know one another.
FLOORS = (
    # Ideas that everything may use.
    {
        "amounts",
        "json_text",
        "process_exit",
        "checkout",
        "durable",
        "extras",
        "finding",
        "gc_control",
        "nearest",
        "parallel",
        "paths",
        "proxies",
        "text_table",
    }
    | {"types", "version"},
    {"errors"},
    {"environment", "plugins"},
    # The machine, models, buckets, scores: each a subject of its own.
    {"models", "monitoring", "scoring", "storage"},
    {"config"},
    # What a run is made of.
    {"datasets", "engines", "prompting", "rundir"},
    # What figures show, whatever draws them.
    {"figures"},
    {"jobs", "reporting", "retrieval", "tracking"},
    {"doctor", "runs", "skeletons"},
    {"judging", "sweeps"},
    # What users touch: commands, and the names of `import slm_vllm`.
    {"adopt", "api", "bench"},
    {"__init__", "cli"},
    {"__main__"},
)

ROOT = Path(slm_vllm.__file__).parent
MODULES = {
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in ROOT.rglob("*.py")
}


def imports(module: str) -> Iterator[tuple[str, int]]:
    """The modules of this package that one imports, with the line; `if TYPE_CHECKING` included."""
    for node in ast.walk(ast.parse(MODULES[module].read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            # `from package import name`: the name may be a module.
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module, node.lineno
        elif isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)


def room(module: str) -> str:
    """The package, or the module beside the packages, that a module belongs to."""
    return module.split(".")[1] if "." in module else "__init__"


def test_every_room_has_a_floor() -> None:
    assert sorted(name for floor in FLOORS for name in floor) == sorted({room(m) for m in MODULES})


def test_imports_go_down() -> None:
    floor_of = {name: number for number, floor in enumerate(FLOORS) for name in floor}
    wrong = [
        f"{MODULES[module].relative_to(ROOT.parent)}:{line} imports {other}"
        for module in MODULES
        for other, line in imports(module)
        if other in MODULES
        and room(other) != room(module)
        and floor_of[room(other)] >= floor_of[room(module)]
    ]
    assert wrong == []


def test_no_modules_import_one_another() -> None:
    graph = {
        module: {other for other, _ in imports(module) if other in MODULES} for module in MODULES
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError(" <- ".join(error.args[1])) from None
