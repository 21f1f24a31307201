"""Times what saving the population after every epoch costs a sweep; writes JSON.

    python benchmarks/checkpoint_cost.py --model=custom_cnn --image_size=48 --lanes=4 --epochs=60 --repeats=5
    --out=FILE

Pairs of sweeps, one that saves after every epoch and one that never does, else alike, in turn. Their time is
that from the first epoch's line in the history to the end of the process: starting and compiling don't count,
the last save does. The weights of finished trials are written by both.
"""

import pathlib
import subprocess
import tempfile
import time
from typing import Any, NamedTuple

from absl import app, flags
from systems import summary, sweeps
from systems.fleet import has_gpu
from systems.provenance import cpu_name, describe_run, gpu_name, write_json

MODEL = flags.DEFINE_enum("model", "custom_cnn", ["custom_cnn", "resnet18"], "which network")
IMAGE_SIZE = flags.DEFINE_integer("image_size", 48, "side of the images in pixels")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "images of a step")
LANES = flags.DEFINE_integer("lanes", 4, "trials, side by side")
STEPS = flags.DEFINE_integer("steps", 20, "steps of an epoch", lower_bound=1)
EPOCHS = flags.DEFINE_integer("epochs", 60, "of every trial", lower_bound=2)
REPEATS = flags.DEFINE_integer("repeats", 5, "pairs of sweeps", lower_bound=1)
OUT = flags.DEFINE_string("out", "", "JSON file to write")

TICK = 0.02  # seconds between two looks into the workdir
EVERY = {"saving": 1, "not_saving": 0}  # checkpoint.every_epochs


class Timed(NamedTuple):
    """A sweep: seconds from its first epoch to its end, and how many checkpoints it wrote."""

    seconds: float
    checkpoints: int


def sweep_command(folder: pathlib.Path) -> list[str]:
    """Returns the command of the sweep, its config written into `folder`."""
    fields = {
        "data.image_size": IMAGE_SIZE.value,
        "data.max_train_examples": STEPS.value * BATCH_SIZE.value,
        "data.max_test_examples": BATCH_SIZE.value,
        "model.name": MODEL.value,
        "train.batch_size": BATCH_SIZE.value,
        "train.epochs": EPOCHS.value,
        "lanes.strategy": "fused",
    }
    return sweeps.sweep_command(folder, LANES.value, fields)


def time_sweep(command: list[str], workdir: pathlib.Path, environment: dict[str, str]) -> Timed:
    """Runs a sweep in a new workdir and watches what it writes."""
    log = workdir.with_suffix(".log")
    with open(log, "w", encoding="utf-8") as file:
        process = subprocess.Popen(
            [*command, f"--workdir={workdir}"], cwd=sweeps.ROOT, env=environment, stdout=file, stderr=file
        )
        first, saved = 0.0, set[str]()
        while process.poll() is None:
            if not first and _has_an_epoch(workdir / "history.jsonl"):
                first = time.perf_counter()
            saved.update(path.name for path in (workdir / "checkpoints" / "population").glob("step_*"))
            time.sleep(TICK)
    if process.returncode or not first:
        raise SystemExit("the sweep failed:\n" + log.read_text())
    return Timed(time.perf_counter() - first, sum(name.removeprefix("step_").isdigit() for name in saved))


def _has_an_epoch(history: pathlib.Path) -> bool:
    return history.exists() and b'"epoch_seconds"' in history.read_bytes()


def measure(folder: pathlib.Path) -> dict[str, list[Timed]]:
    """Returns the timed sweeps of both kinds, in pairs, after an untimed one that fills the cache."""
    command = sweep_command(folder)
    environment = sweeps.sweep_environment(folder / "cache")
    timed: dict[str, list[Timed]] = {kind: [] for kind in EVERY}
    time_sweep([*command, "--config.train.epochs=1"], folder / "first", environment)
    for repeat in range(REPEATS.value):
        kinds = list(EVERY) if repeat % 2 else list(reversed(EVERY))
        for kind in kinds:
            asked = [*command, f"--config.checkpoint.every_epochs={EVERY[kind]}"]
            timed[kind].append(time_sweep(asked, folder / f"{kind}{repeat}", environment))
            print(f"{kind}: {timed[kind][-1]}", flush=True)
    return timed


def describe_cost(timed: dict[str, list[Timed]]) -> dict[str, Any]:
    """Returns the seconds of both kinds, and by how much saving lengthens a sweep, pair by pair."""
    seconds = {kind: [sweep.seconds for sweep in both] for kind, both in timed.items()}
    costs = [with_it / without - 1 for with_it, without in zip(*seconds.values(), strict=True)]
    return {
        "seconds": {kind: summary.describe_samples(values) for kind, values in seconds.items()},
        "checkpoints": [sweep.checkpoints for sweep in timed["saving"]],
        "cost": summary.describe_samples(costs),
    }


def main(argv: list[str]) -> None:
    """Runs the benchmark."""
    del argv
    with tempfile.TemporaryDirectory() as folder:
        content = describe_cost(measure(pathlib.Path(folder)))
    low, high = content["cost"]["quartiles"]
    print(f"saving costs {content['cost']['median']:.1%} ({low:.1%} to {high:.1%})")
    names = ("model", "image_size", "batch_size", "lanes", "steps", "epochs", "repeats")
    settings = {name: flags.FLAGS[name].value for name in names}
    device = gpu_name() if has_gpu() else cpu_name()
    write_json(OUT.value, {**describe_run("checkpoint_cost", device, settings), **content})


if __name__ == "__main__":
    app.run(main)
