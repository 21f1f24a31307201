"""Times a sweep's start, from the shell to its first step and first epoch, with an empty and a filled cache.

    python benchmarks/startup.py --model=custom_cnn --image_size=150 --lanes=8 --repeats=3 --out=FILE

The first step is done when its result is there; the first epoch, a step of every trial, when it is evaluated
and recorded. Each repeat has a cache of its own: the first start fills it with compiled programs and
measured layouts, the second finds them.
"""

import pathlib
import subprocess
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from absl import app, flags
from systems import summary, sweeps
from systems.first_step import DONE
from systems.fleet import has_gpu
from systems.provenance import cpu_name, describe_run, gpu_name, write_json

MODEL = flags.DEFINE_enum("model", "custom_cnn", ["custom_cnn", "resnet18"], "which network")
IMAGE_SIZE = flags.DEFINE_integer("image_size", 150, "side of the images in pixels")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "images of a step")
LANES = flags.DEFINE_integer("lanes", 8, "trials")
STRATEGY = flags.DEFINE_enum("strategy", "auto", ["auto", "fused", "sequential"], "how lanes are trained")
REPEATS = flags.DEFINE_integer("repeats", 3, "cold starts, each followed by a warm one", lower_bound=1)
OUT = flags.DEFINE_string("out", "", "JSON file to write")


def sweep_arguments(folder: pathlib.Path) -> list[str]:
    """Returns the command of a sweep of one epoch of one step, its config written into `folder`."""
    fields = {
        "data.image_size": IMAGE_SIZE.value,
        "data.max_train_examples": BATCH_SIZE.value,
        "data.max_test_examples": BATCH_SIZE.value,
        "model.name": MODEL.value,
        "train.batch_size": BATCH_SIZE.value,
        "train.epochs": 1,
        "lanes.strategy": STRATEGY.value,
    }
    return sweeps.sweep_command(folder, LANES.value, fields, module="systems.first_step")


def start_sweep(command: list[str], workdir: pathlib.Path, environment: dict[str, str]) -> dict[str, float]:
    """Returns the seconds from the start of the process to its plan, first step, first epoch and end."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [*command, f"--workdir={workdir}", "--resume=never"],
        cwd=sweeps.ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    seen, lines = {}, []
    for line in process.stderr:
        lines.append(line)
        for event in _events(line):
            seen.setdefault(event, time.perf_counter() - start)
    if process.wait() or "first_epoch" not in seen:
        raise SystemExit("the sweep failed:\n" + "".join(lines))
    return {**seen, "end": time.perf_counter() - start}


def _events(line: str) -> Iterator[str]:
    if line.startswith("group"):
        yield "plan"
    if line.startswith(DONE):
        yield "first_step"
    if "images/s" in line:
        yield "first_epoch"


def measure(folder: pathlib.Path) -> dict[str, list[dict[str, float]]]:
    """Returns the seconds of every cold and every warm start."""
    seconds: dict[str, list[dict[str, float]]] = {"cold": [], "warm": []}
    command = sweep_arguments(folder)
    for repeat in range(REPEATS.value):
        environment = sweeps.sweep_environment(folder / f"cache{repeat}")
        for kind, starts in seconds.items():
            starts.append(start_sweep(command, folder / f"{kind}{repeat}", environment))
            print(kind, " ".join(f"{event} {s:.1f} s" for event, s in starts[-1].items()), flush=True)
    return seconds


def describe_event(seconds: dict[str, list[dict[str, float]]], event: str) -> dict[str, Any]:
    """Returns when an event came, after a cold and after a warm start."""
    return {kind: summary.describe_samples([s[event] for s in starts]) for kind, starts in seconds.items()}


def main(argv: list[str]) -> None:
    """Runs the benchmark."""
    del argv
    with tempfile.TemporaryDirectory() as folder:
        seconds = measure(pathlib.Path(folder))
    names = ("model", "image_size", "batch_size", "lanes", "strategy", "repeats")
    settings = {name: flags.FLAGS[name].value for name in names}
    device = gpu_name() if has_gpu() else cpu_name()
    content = {f"{event}_seconds": describe_event(seconds, event) for event in ("first_step", "first_epoch")}
    content["starts"] = seconds
    write_json(OUT.value, {**describe_run("startup", device, settings), **content})


if __name__ == "__main__":
    app.run(main)
