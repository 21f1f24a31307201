"""Whole sweeps as processes, for the benchmarks that time what is around training."""

import os
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

HERE = pathlib.Path(__file__).parents[1]
ROOT = HERE.parent
CONFIG = """\
from hpjax.config import get_default


def get_config():
    config = get_default()
    config.sweep.space.learning_rate = {rates}
    return config
"""


def sweep_command(
    folder: pathlib.Path, lanes: int, fields: Mapping[str, Any], module: str = "hpjax.main"
) -> list[str]:
    """Returns the command of a sweep over as many learning rates as lanes, on synthetic scenes.

    Args:
      folder: where its config is written.
      lanes: how many trials.
      fields: dotted names of the config and their values.
      module: that reads the command line.
    """
    config = folder / "sweep.py"
    config.write_text(CONFIG.format(rates=tuple(1e-4 * 1.1**lane for lane in range(lanes))))
    overrides = override_flags({"data.name": "synthetic_scenes", **fields})
    return [sys.executable, "-m", module, f"--config={config}", *overrides]


def override_flags(fields: Mapping[str, Any]) -> list[str]:
    """Returns the flags that set these fields of a config."""
    return [f"--config.{name}={value}" for name, value in fields.items()]


def sweep_environment(cache: pathlib.Path) -> dict[str, str]:
    """Returns the environment of a sweep that keeps what it compiles and measures in a folder of its own."""
    paths = os.pathsep.join(filter(None, (str(ROOT), str(HERE), os.environ.get("PYTHONPATH", ""))))
    return {**os.environ, "PYTHONPATH": paths, "HPJAX_CACHE": str(cache)}
