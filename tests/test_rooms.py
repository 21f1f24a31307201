"""Imports go down only, lazy ones too; what knows no arrays imports no jax."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "hpjax"
LEVELS = {
    0: {"errors"},
    1: {"ops", "tasks"},
    2: {"train", "store", "config", "compiled"},
    3: {"models", "data", "search"},
    4: {"lanes", "report", "cli"},
    5: {"sweep", "trained"},
    6: {"handover", "launch"},
    7: {"main", "lr_range", "export", "predict", "replay", "__main__"},
}
SWEEP = {
    0: {
        *("datasets", "effects", "inputs", "leader", "optimizers", "pacing", "protocol", "signals", "spec"),
        *("surroundings", "variants"),
    },
    1: {"extension", "ledgers", "preflight", "workers"},
    2: {"session"},
    3: {"loop", "events"},
    4: {"judging", "planning", "selection"},
    5: {"groups", "planning_for"},
    6: {"scheduler"},
    7: {"run"},
}
SWEEP_OF = {name: level for level, names in SWEEP.items() for name in names}
LEVEL_OF = {room: level for level, rooms in LEVELS.items() for room in rooms}
WITHOUT_JAX = ("config", "cli", "search", "report", "errors")
HEAVY = {
    "tensorflow_datasets",
    "optuna",
    "tensorboardX",
    "matplotlib",
    "sklearn",
    "grain",
    "torch",
    "orbax",
    "bokeh",
}

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
    return {name for node in ast.walk(ast.parse(file.read_text("utf-8"))) for name in _imported(node)}


def _top_level_imports(file: Path) -> set[str]:
    return {name for node in ast.parse(file.read_text("utf-8")).body for name in _imported(node)}


def _part(file: Path) -> str:
    if file.name == "__main__.py":  # `python -m hpjax.report` is a command like `python -m hpjax.main`
        return "main"
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
        assert own == other or LEVEL_OF[other] < LEVEL_OF[own], name


@pytest.mark.parametrize("file", [f for f in FILES if f.parent.name == "sweep"], ids=lambda file: file.stem)
def test_imports_inside_the_sweep_go_down_only(file):
    """What opens stores knows no loop, the loop no group, a group no sweep."""
    if file.stem == "__init__":
        return
    for name in _imports(file):
        if name.startswith("hpjax.sweep."):
            assert SWEEP_OF[name.split(".")[2]] < SWEEP_OF[file.stem], name


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_what_knows_no_arrays_imports_no_jax(file):
    if _part(file) in WITHOUT_JAX:
        assert not {name.split(".")[0] for name in _imports(file)} & {"jax", "flax", "optax"}


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_heavy_packages_are_imported_where_they_are_used(file):
    if file.parent.name != "intel_scenes":  # a TFDS builder has to be a class of TFDS
        assert not {name.split(".")[0] for name in _top_level_imports(file)} & HEAVY


def test_configs_load_without_jax():
    modules = "sys, configs.wd, hpjax.cli.arguments, hpjax.config.hyperparameters"
    code = f"import {modules}; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT.parent).returncode == 0
