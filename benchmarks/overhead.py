"""Measures what the study itself costs a trial: everything but training and evaluation; writes JSON.

    python benchmarks/overhead.py --trials=1000 --lanes=8 --sampler=random --pruner=none --out=FILE

Trials of one short epoch on the digits pass through a few lanes. The seconds between the engine's calls are
the study's own: asking, recording, telling; and what is written from time to time, so that it takes no more
than its share of the whole: tables, the page, checkpoints. They, and the process's memory, are compared
between the first and the last quarter of the trials: what grows with the number of trials shows there.
"""

import contextlib
import cProfile
import functools
import os
import pstats
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax
from absl import app, flags, logging
from systems.provenance import describe_run, name_device, write_json

from hpjax.config import parse_config
from hpjax.lanes.engine import Engine
from hpjax.sweep import run_sweep
from hpjax.sweep.session import Session

TRIALS = flags.DEFINE_integer("trials", 1000, "trials of one epoch; at least 8 for each lane")
LANES = flags.DEFINE_integer("lanes", 8, "trials side by side", lower_bound=1)
STEPS = flags.DEFINE_integer("steps", 4, "steps of an epoch", lower_bound=4)
SAMPLER = flags.DEFINE_enum("sampler", "random", ["random", "qmc", "tpe", "gp", "cmaes"], "who chooses")
PRUNER = flags.DEFINE_enum(
    "pruner", "none", ["none", "median", "successive_halving", "hyperband"], "who stops trials"
)
PROFILE = flags.DEFINE_string("profile", "", "file for the profile of the study's own functions")
OUT = flags.DEFINE_string("out", "", "JSON file to write")

ENGINE_WORK = ("admit", "run_epoch", "keep_best", "weights", "rearrange", "snapshot")
PACED_WORK = ((Session, "write_tables"), (Session, "write_page"), (Session, "save"))
IMAGE_SIZE, BATCH_SIZE = 30, 8
WARM_UP = 3  # epochs of all lanes that aren't counted: packages are imported, functions compiled


class Mark(NamedTuple):
    """Where things stand after an epoch of all lanes; seconds since some moment in the past."""

    wall: float
    processor: float  # of the thread that runs the study
    paced: float  # seconds of the work that is done from time to time
    total: float  # of all, the engine's included
    resident_bytes: int


@dataclass
class Meter:
    """What a sweep takes without its engine: clocks that stand still while lanes are at work.

    So they do for work that is done from time to time, which has a clock of its own.
    """

    wall: float = 0.0
    processor: float = 0.0
    paced: float = 0.0
    marks: list[Mark] = field(default_factory=list)

    def stopped(self, name: str, method: Callable) -> Callable:
        """Returns an engine's method for whose time, the device's included, the clocks stand still."""

        @functools.wraps(method)
        def measured(engine: Engine, *args: Any) -> Any:
            with self.standing(paced=name == "snapshot"):
                result = method(engine, *args)
                jax.block_until_ready([shard.state for shard in engine._shards])
            if name == "run_epoch":
                self.mark()
            return result

        return measured

    def paced_work(self, method: Callable) -> Callable:
        """Returns a method that is called from time to time, and whose time is counted apart."""

        @functools.wraps(method)
        def measured(*args: Any, **named: Any) -> Any:
            with self.standing(paced=True):
                return method(*args, **named)

        return measured

    @contextlib.contextmanager
    def standing(self, paced: bool) -> Iterator[None]:
        """Has the clocks stand still; `paced`: that of the work done from time to time runs."""
        wall, processor = time.perf_counter(), time.thread_time()
        yield
        seconds = time.perf_counter() - wall
        self.wall += seconds
        self.paced += seconds if paced else 0.0
        self.processor += time.thread_time() - processor

    def mark(self) -> None:
        """Reads the clocks and the memory that the process holds."""
        pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
        wall, processor = time.perf_counter() - self.wall, time.thread_time() - self.processor
        resident = pages * os.sysconf("SC_PAGE_SIZE")
        self.marks.append(Mark(wall, processor, self.paced, time.perf_counter(), resident))


@contextlib.contextmanager
def metered_engine() -> Iterator[Meter]:
    """Measures every engine for as long as it is entered."""
    meter = Meter()
    original = [(kind, name, getattr(kind, name)) for kind, name in PACED_WORK]
    original += [(Engine, name, getattr(Engine, name)) for name in ENGINE_WORK]
    for kind, name, method in original:
        measured = meter.stopped(name, method) if kind is Engine else meter.paced_work(method)
        setattr(kind, name, measured)
    try:
        yield meter
    finally:
        for kind, name, method in original:
            setattr(kind, name, method)


def describe_quarter(marks: list[Mark], lanes: int) -> dict[str, float]:
    """Returns what the study took for each trial between the first and the last of these marks."""
    first, last, trials = marks[0], marks[-1], (len(marks) - 1) * lanes
    return {
        "trials": trials,
        "study_ms_per_trial": 1e3 * (last.wall - first.wall) / trials,
        "study_processor_ms_per_trial": 1e3 * (last.processor - first.processor) / trials,
        "paced_share": (last.paced - first.paced) / (last.total - first.total),
        "resident_mib": last.resident_bytes / 2**20,
    }


def sweep_config() -> dict[str, Any]:
    """Returns the sweep: trials of one epoch of a few steps on the digits."""
    return {
        "model": {"kernel_widths": (3, 3, 3)},
        "data": {
            "name": "digits",
            "image_size": IMAGE_SIZE,
            "max_train_examples": STEPS.value * BATCH_SIZE * 10 // 9,
            "max_test_examples": 20,
            "validation_fraction": 0.1,
        },
        "train": {"epochs": 1, "batch_size": BATCH_SIZE},
        "sweep": {
            "space": {
                "learning_rate": {"low": 1e-5, "high": 1e-1, "log": True},
                "weight_decay": {"low": 1e-6, "high": 1.0, "log": True},
            },
            "sampler": SAMPLER.value,
            "trials": TRIALS.value,
            "pruner": PRUNER.value,
        },
        "lanes": {"count": LANES.value, "strategy": "fused"},
    }


def main(_: list[str]) -> None:
    """Runs the sweep and writes what it cost."""
    logging.set_verbosity(logging.WARNING)
    profile = cProfile.Profile(time.thread_time)  # of this thread: what waits for the device costs nothing
    with tempfile.TemporaryDirectory() as folder, metered_engine() as meter:
        if PROFILE.value:
            profile.enable()
        run_sweep(parse_config(sweep_config()), folder)
        profile.disable()
    if PROFILE.value:
        pstats.Stats(profile).dump_stats(PROFILE.value)
    marks = meter.marks[WARM_UP:]
    size = max(2, len(marks) // 4)
    quarters = {
        "first_quarter": describe_quarter(marks[:size], LANES.value),
        "last_quarter": describe_quarter(marks[-size:], LANES.value),
    }
    names = ("trials", "lanes", "steps", "sampler", "pruner")
    settings = {name: flags.FLAGS[name].value for name in names}
    settings |= {"model": "custom_cnn", "image_size": IMAGE_SIZE, "batch_size": BATCH_SIZE}
    device = name_device(jax.devices()[0].device_kind)
    write_json(OUT.value, {**describe_run("overhead", device, settings), **quarters})
    for name, quarter in quarters.items():
        print(f"{name.replace('_', ' ')}: {describe(quarter)}")


def describe(quarter: dict[str, float]) -> str:
    """Returns a quarter's numbers in words."""
    wall, processor = quarter["study_ms_per_trial"], quarter["study_processor_ms_per_trial"]
    share, held = 100 * quarter["paced_share"], quarter["resident_mib"]
    return f"{wall:.2f} ms a trial, {processor:.2f} at work; {share:.1f} % for files; {held:.0f} MiB held"


if __name__ == "__main__":
    app.run(main)
