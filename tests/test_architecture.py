"""The house holds: rooms import only from the floors below theirs, and the rooms of pure torch stay pure."""

import ast
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src"

# A room may import from every floor before its own, and from no room on its own floor.
FLOORS = (
    ("errors", "private"),
    ("files", "file_names", "samples", "memory", "log", "device"),
    ("run_folder", "axes", "inputs", "sums"),
    ("phantom", "preprocessing", "models", "comparative", "config", "plots"),
    ("sources",),
    ("cohort",),
    ("inference", "testing"),
    ("evaluation",),
    ("faults",),
    ("batches",),
    ("monitor",),
    ("training",),
    ("report", "exports"),
    ("studies",),
    ("api",),
    ("train", "evaluate", "predict", "export", "prepare", "check", "sweep_report", "compare", "doctor", "__main__"),
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

# These run wherever torch does: they and all that they bring along import torch, numpy and the standard library; and
# safetensors, which needs nothing else and reads a stranger's weights without running a pickle.
PURE_ROOMS = ("comparative", "models", "preprocessing", "inference.segmenter")
PURE_IMPORTS = {"torch", "numpy", "safetensors", "compseg", *sys.stdlib_module_names}


def name_of(file: Path) -> str:
    return ".".join(file.relative_to(SRC).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(file): file for file in sorted((SRC / "compseg").rglob("*.py"))}


def imports_of(module: str) -> set[str]:
    """Dotted names that a module imports, at its top or inside a function; those of compseg as full modules."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are written in full, not relative"
            found |= {submodule(node.module, alias.name) for alias in node.names}
    return found


def submodule(package: str, name: str) -> str:
    return f"{package}.{name}" if f"{package}.{name}" in MODULES else package


def room_of(module: str) -> str:
    # What runs a package as a command is a verb.
    if module.endswith(".__main__"):
        return "__main__"
    return module.split(".")[1] if "." in module else ""


@pytest.mark.parametrize("module", [name for name in MODULES if room_of(name)])
def test_imports_go_down(module):
    room = room_of(module)
    assert room in FLOOR_OF, (
        f"{module} stands in no room: give '{room}' a floor here and a place in docs/architecture.md"
    )
    others = {name for name in imports_of(module) if name.startswith("compseg.") and room_of(name) != room}
    upwards = {name for name in others if FLOOR_OF[room_of(name)] >= FLOOR_OF[room]}
    # `config` is for verbs and studies, which compose runs; no room below them may know it.
    knows_config = {name for name in others if room_of(name) == "config" and FLOOR_OF[room] < FLOOR_OF["studies"]}
    assert not upwards | knows_config, f"{module} imports up the house"


def reachable(module: str) -> set[str]:
    """A module and every module of compseg that importing it runs, the packages around them included."""
    seen, ahead = set(), {module}
    while ahead:
        name = ahead.pop()
        seen.add(name)
        parents = {name.rpartition(".")[0]} - {"", "compseg"}
        ahead |= ({found for found in imports_of(name) if found in MODULES} | parents) - seen - {"compseg"}
    return seen


@pytest.mark.parametrize("room", PURE_ROOMS)
def test_pure_rooms_need_torch_alone(room):
    start = [name for name in MODULES if f"{name}.".startswith(f"compseg.{room}.")]
    assert start, f"no such room: {room}"
    impure = {
        f"{name} imports {found}"
        for module in start
        for name in reachable(module)
        for found in imports_of(name)
        if found.split(".")[0] not in PURE_IMPORTS
    }
    assert not impure
