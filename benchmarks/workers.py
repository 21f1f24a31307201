"""Compares sweeps by one worker and by several, a core each, through the command line; writes JSON.

    python benchmarks/workers.py --workers=2 --repeats=3 --out=FILE

Each sweep is a process of its own: on one core without a cluster; by one worker on that core; by several
workers on as many cores; and by as many host devices of one process. They take turns. What is compared is the
median of the images per second of the epochs after the first, and the seconds from the command to its end.
"""

import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from absl import app, flags
from systems.provenance import cpu_name, describe_run, write_json
from systems.summary import describe_samples

WORKERS = flags.DEFINE_integer("workers", 2, "workers, and cores that they have together", lower_bound=2)
IMAGE_SIZE = flags.DEFINE_integer("image_size", 48, "side of the images in pixels")
EXAMPLES = flags.DEFINE_integer("examples", 600, "training images")
EPOCHS = flags.DEFINE_integer("epochs", 6, "of a trial", lower_bound=3)
LANES = flags.DEFINE_integer("lanes", 8, "trials side by side")
REPEATS = flags.DEFINE_integer("repeats", 3, "rounds", lower_bound=1)
OUT = flags.DEFINE_string("out", "", "JSON file to write")

ROOT = Path(__file__).parents[1]


def list_systems() -> dict[str, tuple[int, list[str], str]]:
    """Returns the cores, flags and XLA's flags of each system by name."""
    several = WORKERS.value
    devices = f"--xla_force_host_platform_device_count={several}"
    return {
        "one process, one core": (1, [], ""),
        "one worker, one core": (1, ["--launcher=ray", "--ray_workers=1"], ""),
        f"{several} workers, a core each": (
            several,
            ["--launcher=ray", f"--ray_workers={several}"],
            "",
        ),
        f"{several} host devices, {several} cores": (several, [], devices),
        f"one process, {several} cores": (several, [], ""),
    }


def run(cores: int, given: list[str], xla: str, folder: Path) -> tuple[float, float]:
    """Returns the images per second of a sweep's epochs after the first, and the seconds of the command."""
    settings = {
        "model.name": "custom_cnn",
        "data.name": "synthetic_scenes",
        "data.image_size": IMAGE_SIZE.value,
        "data.max_train_examples": EXAMPLES.value,
        "data.max_test_examples": 60,
        "train.batch_size": 10,
        "train.epochs": EPOCHS.value,
        "lanes.count": LANES.value,
        "lanes.strategy": "fused",
        "trackers": "()",
        "checkpoint.every_epochs": 0,
    }
    space = ",".join(f"{1e-4 * (lane + 1):.4g}" for lane in range(LANES.value))
    command = [sys.executable, "-m", "hpjax.main", "--config=wd", f"--workdir={folder}", *given]
    command += [f"--config.{key}={value}" for key, value in settings.items()]
    command += [f"--space=learning_rate={space}", "--config.sweep.space.weight_decay=None"]
    environment = {**os.environ, "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {xla}".strip()}
    start = time.perf_counter()
    with_cores = lambda: os.sched_setaffinity(0, range(cores))  # noqa: E731
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, preexec_fn=with_cores
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    seconds = time.perf_counter() - start
    with open(folder / "epochs.csv", encoding="utf-8") as file:
        speeds = [float(row["images_per_second"]) for row in csv.DictReader(file) if row["epoch"] != "1"]
    return statistics.median(speeds), seconds


def main(argv: list[str]) -> None:
    del argv
    systems = list_systems()
    speeds: dict[str, list[float]] = {name: [] for name in systems}
    walls: dict[str, list[float]] = {name: [] for name in systems}
    for _ in range(REPEATS.value):
        for name, system in systems.items():
            with tempfile.TemporaryDirectory() as folder:
                speed, wall = run(*system, Path(folder) / "run")
            speeds[name].append(speed)
            walls[name].append(wall)
    first = next(iter(systems))
    rows = {
        name: {
            "images_per_second": describe_samples(speeds[name]),
            "command_seconds": describe_samples(walls[name]),
            "speedup": describe_samples([a / b for a, b in zip(speeds[name], speeds[first], strict=True)]),
        }
        for name in systems
    }
    settings: dict[str, object] = {
        name: flags.FLAGS[name].value
        for name in ("workers", "image_size", "examples", "epochs", "lanes", "repeats")
    }
    write_json(OUT.value, {**describe_run("workers", cpu_name(), settings), "systems": rows})
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    app.run(main)
