"""Real sweeps as processes: started, watched from outside through the files of their workdir, killed."""

import csv
import io
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from hpjax.store.checkpoints import load_trial_checkpoint
from hpjax.sweep.protocol import Order

ROOT = Path(__file__).parents[2]
TIMINGS = ("epoch_seconds", "images_per_second", "average_epoch_seconds", "amortised_seconds")
PATIENCE = 600  # seconds; a sweep that takes longer hangs, even on a busy machine

Condition = Callable[[], bool]


class Sweeps:
    """Starts one sweep in many workdirs; all starts share a cache of compiled programs and of images.

    Args:
      config: name of the file beside this one that configures it.
      folder: where workdirs and caches lie.
    """

    def __init__(self, config: str, folder: Path):
        self.config, self.folder = Path(__file__).with_name(config), folder
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "JAX_COMPILATION_CACHE_DIR": str(folder / "programs"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "HPJAX_CACHE": str(folder / "cache"),
        }
        self.environment.pop("HPJAX_NO_REEXEC", None)  # as a person starts it

    def start(self, workdir: Path, *arguments: str, prefix: Sequence[str] = ()) -> "Sweep":
        """Starts, or goes on with, the sweep in `workdir`."""
        flags = [f"--config={self.config}", f"--workdir={workdir}", *arguments]
        command = [*prefix, sys.executable, "-m", "hpjax.main", *flags]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": ROOT}
        return Sweep(subprocess.Popen(command, env=self.environment, **pipes), workdir)

    def finish(self, workdir: Path, *arguments: str) -> str:
        """Runs the sweep in `workdir` to its end; returns what it wrote to stderr."""
        status, text = self.start(workdir, *arguments).end()
        assert status == 0, text
        return text


class Sweep:
    """A running sweep."""

    def __init__(self, process: subprocess.Popen, workdir: Path):
        self.process, self.workdir = process, workdir

    def wait_for(self, condition: Condition) -> bool:
        """Returns whether the condition came true before the process ended."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if self.process.poll() is not None:
                return False
            assert time.monotonic() < deadline, "the sweep hangs"
            time.sleep(1e-4)
        return True

    def signal_when(self, condition: Condition, number: int = signal.SIGKILL) -> tuple[bool, int, str]:
        """Sends a signal when the condition comes true.

        Returns:
          Whether it came true, the exit status, and what was written to stderr.
        """
        came = self.wait_for(condition)
        self.process.send_signal(number)
        return came, *self.end()

    def end(self) -> tuple[int, str]:
        """Returns the exit status and stderr of the process once it has ended."""
        _, text = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, text


def while_starting(workdir: Path, rng: random.Random) -> Condition:
    """The lock is taken; stores are opened and cut to the checkpoint."""
    return lambda: (workdir / ".lock").exists() and (workdir / ".lock").stat().st_size > 0


def in_a_step(workdir: Path, rng: random.Random) -> Condition:
    """At a random moment after an epoch was reported."""
    return after(_grows(workdir / "study.journal", by=1500), rng.uniform(0.0, 1.0))


def in_a_checkpoint(workdir: Path, rng: random.Random) -> Condition:
    """A checkpoint of the population is being written, after its files are (randomly) few or many."""
    return _writes_folder(workdir / "checkpoints" / "population", rng.choice((0, 2, 6)))


def in_trial_weights(workdir: Path, rng: random.Random) -> Condition:
    """The weights of a finished trial are being written."""
    return _writes_folder(workdir / "checkpoints" / "trials", rng.choice((0, 2, 6)))


def between_study_and_tables(workdir: Path, rng: random.Random) -> Condition:
    """The study has just been told something that no table knows."""
    return _grows(workdir / "study.journal", by=rng.randrange(2000, 6000))


def between_tables(workdir: Path, rng: random.Random) -> Condition:
    """`trials.csv` has just been replaced, or is about to be."""
    table = workdir / "trials.csv"
    before = table.stat().st_ino if table.exists() else None
    temporary = lambda: any(name.startswith(".trials.csv.hpjax-tmp") for name in os.listdir(workdir))  # noqa: E731
    return lambda: workdir.exists() and (temporary() or _inode(table) != before)


POINTS = (
    in_a_checkpoint,
    in_a_step,
    between_tables,
    in_trial_weights,
    between_study_and_tables,
    while_starting,
)


def after(condition: Condition, seconds: float) -> Condition:
    """Returns a condition that comes true that long after another one."""
    came: list[float] = []

    def later() -> bool:
        if not came and condition():
            came.append(time.monotonic())
        return bool(came) and time.monotonic() - came[0] >= seconds

    return later


def read_tables(workdir: Path) -> dict[str, str]:
    """Returns `trials.csv` and `epochs.csv` without the columns of times."""
    return {name: _without_times(workdir / name) for name in ("trials.csv", "epochs.csv")}


def read_weights(workdir: Path) -> dict[str, np.ndarray]:
    """Returns every array of every trial's weights that was kept."""
    directory = workdir / "checkpoints" / "trials"
    trials = sorted(int(folder.name.removeprefix("trial_")) for folder in directory.iterdir())
    found = {}
    for trial in trials:
        _flatten(load_trial_checkpoint(directory, trial)[0], f"{trial}", found)
    return found


def assert_same_sweep(workdir: Path, other: Path) -> None:
    """Tables equal to the byte, times apart, and weights equal to the bit."""
    assert read_tables(workdir) == read_tables(other)
    weights, others = read_weights(workdir), read_weights(other)
    assert weights.keys() == others.keys()
    for name, array in weights.items():
        np.testing.assert_array_equal(array, others[name], err_msg=name)


def count_bytes(workdir: Path) -> int:
    """Returns how many bytes `assert_same_sweep` compares."""
    weights = read_weights(workdir).values()
    return sum(map(len, read_tables(workdir).values())) + sum(array.nbytes for array in weights)


def _flatten(nested: dict, prefix: str, found: dict) -> None:
    for name, item in nested.items():
        if isinstance(item, dict):
            _flatten(item, f"{prefix}/{name}", found)
        else:
            found[f"{prefix}/{name}"] = item


def _without_times(path: Path) -> str:
    rows = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"))))
    kept = [i for i, name in enumerate(rows[0]) if name not in TIMINGS]
    return "\n".join(",".join(row[i] for i in kept) for row in rows)


def _grows(path: Path, by: int) -> Condition:
    sizes: list[int] = []

    def grown() -> bool:
        size = path.stat().st_size if path.exists() else 0
        if not sizes or size < sizes[0]:  # a start cuts it to the checkpoint
            sizes[:] = [size]
        return size >= sizes[0] + by

    return grown


def _writes_folder(directory: Path, files: int) -> Condition:
    def writing() -> bool:
        for folder in directory.glob("*.orbax-checkpoint-tmp*"):
            if sum(len(names) for _, _, names in os.walk(folder)) >= files:
                return True
        return False

    return writing


def _inode(path: Path) -> int | None:
    return path.stat().st_ino if path.exists() else None


def stop_in_the_second_trial(upkeep, status) -> Order:
    """In the place of `Upkeep.boundary`: saves, and stops as after SIGTERM."""
    session = upkeep._session
    if session.tally.epochs < 3:
        return Order.SAVE
    session.signals.received = signal.SIGTERM
    return Order.STOP
