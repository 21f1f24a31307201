"""Imports go down only."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "hpjax"
LEVELS = {
    "errors": 0,
    "ops": 1,
    "train": 1,
    "models": 2,
    "data": 2,
    "config": 2,
    "validation": 2,
    "hyperparameters": 2,
    "lanes": 3,
    "search": 3,
    "store": 4,
    "report": 5,
    "loop": 5,
    "session": 5,
    "sweep": 5,
    "signals": 0,
    "launch": 6,
    "main": 7,
    "export": 7,
    "predict": 7,
    "replay": 7,
}
# Modules of one room: the configuration, and the loop.
SAME = ({"config", "validation", "hyperparameters"}, {"loop", "session", "sweep"})
WITHOUT_JAX = ("config.py", "validation.py", "hyperparameters.py", "search", "report", "errors.py")
EXCEPTIONS = {("data", "config"), ("sweep", "report"), ("session", "report")}


def _imports(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def _room(file: Path) -> str:
    return file.relative_to(ROOT).parts[0].removesuffix(".py")


FILES = sorted(f for f in ROOT.rglob("*.py") if f != ROOT / "__init__.py")


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_imports_go_down_only(file):
    room = _room(file)
    for name in _imports(file):
        if not name.startswith("hpjax."):
            continue
        other = name.split(".")[1]
        together = any({room, other} <= rooms for rooms in SAME) or (room, other) in EXCEPTIONS
        assert other == room or together or LEVELS[other] < LEVELS[room], f"{room} imports {name}"


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_what_knows_no_arrays_imports_no_jax(file):
    if file.relative_to(ROOT).parts[0] in WITHOUT_JAX:
        assert not {n.split(".")[0] for n in _imports(file)} & {"jax", "flax", "optax"}
