"""Killed under whatever changes when, where and by whom things are saved, a sweep ends as if it wasn't."""

import os
import shutil
import signal
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image
from sweeps import POINTS, Sweeps, after, assert_same_sweep, between_tables

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]

KILLS = len(POINTS)  # of each series: one at every point
NOBODY = 65534
METRIC = """
from weight import WEIGHT

def cautious(epoch):
    return epoch["validation_accuracy"] - WEIGHT * epoch["validation_loss"]
"""


class Series(NamedTuple):
    """What is killed, and how it is started; `{folder}` in a flag is the sweeps' own."""

    config: str = "search_sweep.py"
    flags: tuple[str, ...] = ()
    prefix: tuple[str, ...] = ()


OWN = ("data.name=folder", "data.dir={folder}/images", "sweep.metric={folder}/metric.py:cautious")
MINUTES = ("checkpoint.every_epochs=0", "checkpoint.every_minutes=0.002")
SERIES = {
    "minutes": Series(flags=MINUTES),
    "streaming": Series(flags=("data.residency=stream",)),
    "own files": Series(flags=OWN),
    "a population": Series("population_sweep.py"),
    "a streamed population": Series("population_sweep.py", (*MINUTES, "data.residency=stream")),
    "final seeds": Series("grid_sweep.py", MINUTES),
    "another user": Series(prefix=("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")),
    "a stopped clock": Series("clock_sweep.py"),
}


@pytest.fixture
def place():
    """A folder that anyone may write into: those of pytest are for one user."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        yield Path(folder)


@pytest.mark.parametrize("name", SERIES)
def test_killed_at_every_point(name, place, rng, counted):
    series = SERIES[name]
    if series.prefix and (os.geteuid() or shutil.which(series.prefix[0]) is None):
        pytest.skip("only root can become another user, by setpriv")
    sweeps, flags = _prepare(series, place)
    workdir, reference = sweeps.folder / "killed", sweeps.folder / "uninterrupted"
    _finish(sweeps, reference, flags, series.prefix)
    kills = 0
    for point in POINTS:
        sweep = sweeps.start(workdir, *flags, prefix=series.prefix)
        came, status, text = sweep.signal_when(point(workdir, rng))
        assert status in (0, -signal.SIGKILL), (point, text)
        kills += came and status != 0
    counted[f"kills under {name}"] += kills
    _finish(sweeps, workdir, flags, series.prefix)
    assert kills and _finish(sweeps, workdir, flags, series.prefix)  # the finished one answers
    assert_same_sweep(workdir, reference)


def test_hung_up_again_and_again(tmp_path, rng, counted):
    sweeps, _ = _prepare(Series(), tmp_path)
    sweeps.finish(tmp_path / "uninterrupted")
    previous = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # what is started inherits it
    try:
        for _ in range(3):
            moment = after(between_tables(tmp_path / "hung", rng), rng.uniform(0, 0.5))
            came, status, text = sweeps.start(tmp_path / "hung").signal_when(moment, signal.SIGHUP)
            assert status in (0, 128 + signal.SIGHUP), text
            counted["hangups survived"] += came and status != 0
    finally:
        signal.signal(signal.SIGHUP, previous)
    sweeps.finish(tmp_path / "hung")
    assert_same_sweep(tmp_path / "hung", tmp_path / "uninterrupted")


def _finish(sweeps: Sweeps, workdir: Path, flags, prefix) -> str:
    status, text = sweeps.start(workdir, *flags, prefix=prefix).end()
    assert status == 0, text
    return text


def _prepare(series: Series, folder: Path) -> tuple[Sweeps, list[str]]:
    """Returns what starts the sweeps in a folder, and their flags."""
    _write_images(folder / "images")
    (folder / "metric.py").write_text(METRIC)
    (folder / "weight.py").write_text("WEIGHT = 0.1\n")
    sweeps = Sweeps(series.config, folder)
    sweeps.environment["HOME"] = str(folder)
    return sweeps, [f"--config.{flag.format(folder=folder)}" for flag in series.flags]


def _write_images(root: Path) -> None:
    draw = np.random.default_rng(0)
    for split, count in (("train", 30), ("test", 6)):
        for label in ("cat", "dog", "elk"):
            (root / split / label).mkdir(parents=True)
            for i in range(count):
                pixels = draw.integers(0, 256, (30, 30, 3), np.uint8)
                Image.fromarray(pixels).save(root / split / label / f"{i}.png")
