"""Imports go down only, lazy ones too; what knows no arrays imports no jax."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "hpjax"
LEVELS = {
    0: {"errors", "signals", "command", "host_memory"},
    1: {"ops", "train", "user_files"},
    2: {"models", "data", "config", "hyperparameters", "validation"},
    3: {"lanes", "search"},
    4: {"store"},
    5: {"sweep", "groups", "host", "session", "preflight", "pacing", "loop", "trained", "report"},
    6: {"launch"},
    7: {"main", "arguments", "export", "predict", "replay"},
}
LEVEL_OF = {room: level for level, rooms in LEVELS.items() for room in rooms}
# Files that make up one room.
ROOM_OF = {
    **dict.fromkeys(("config", "hyperparameters", "validation"), "config"),
    **dict.fromkeys(("sweep", "groups", "host", "session", "preflight", "pacing", "loop"), "sweep"),
    **dict.fromkeys(("main", "arguments"), "main"),
    **dict.fromkeys(("command", "errors"), "errors"),
}
# On one level, but one way only: the rooms of level 2 are configured, the optimizer's step is made of ops,
# and the sweep has its figures drawn.
ALLOWED = {("data", "config"), ("models", "config"), ("train", "ops"), ("sweep", "report")}
WITHOUT_JAX = (
    "config",
    "hyperparameters",
    "validation",
    "arguments",
    "search",
    "report",
    "errors",
    "command",
    "host_memory",
)
HEAVY = {"tensorflow_datasets", "optuna", "tensorboardX", "matplotlib", "sklearn", "grain", "torch", "orbax"}

FILES = sorted(file for file in ROOT.rglob("*.py") if file != ROOT / "__init__.py")
NAMES = [str(file.relative_to(ROOT)) for file in FILES]


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert not node.level, "relative imports hide the room"
        # `from hpjax import sweep` names a room after the import.
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


def _imports(file: Path) -> set[str]:
    return {name for node in ast.walk(ast.parse(file.read_text())) for name in _imported(node)}


def _top_level_imports(file: Path) -> set[str]:
    return {name for node in ast.parse(file.read_text()).body for name in _imported(node)}


def _part(file: Path) -> str:
    return file.relative_to(ROOT).parts[0].removesuffix(".py")


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_every_file_is_in_a_room(file):
    assert _part(file) in LEVEL_OF


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_imports_go_down_only(file):
    own = _part(file)
    for name in _imports(file):
        if not name.startswith("hpjax."):
            continue
        other = name.split(".")[1]
        rooms = ROOM_OF.get(own, own), ROOM_OF.get(other, other)
        assert rooms[0] == rooms[1] or rooms in ALLOWED or LEVEL_OF[other] < LEVEL_OF[own], name


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_what_knows_no_arrays_imports_no_jax(file):
    if _part(file) in WITHOUT_JAX:
        assert not {name.split(".")[0] for name in _imports(file)} & {"jax", "flax", "optax"}


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_heavy_packages_are_imported_where_they_are_used(file):
    if file.parent.name != "intel_scenes":  # a TFDS builder has to be a class of TFDS
        assert not {name.split(".")[0] for name in _top_level_imports(file)} & HEAVY


def test_configs_load_without_jax():
    code = "import sys, configs.wd, hpjax.arguments, hpjax.hyperparameters; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT.parent).returncode == 0
