"""Several devices: the same sweep, the same tables. Host devices stand in; each has a process of its own."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tiny_sweep import write_sweep

ROOT = Path(__file__).parents[2]
CONFIG = write_sweep(epochs=3, lanes=5)
PBT = ("--config.sweep.metric=train_loss", "--config.sweep.pbt.every_epochs=1")


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Returns a function that starts the sweep in a process that has so many devices."""
    config = tmp_path_factory.mktemp("config") / "config.py"
    config.write_text(CONFIG)

    def start(workdir: Path, devices: int, *flags: str) -> subprocess.Popen:
        xla = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
        environment = {**os.environ, "XLA_FLAGS": xla}
        command = [sys.executable, "-m", "hpjax.main", f"--config={config}", f"--workdir={workdir}", *flags]
        return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)

    return start


@pytest.fixture(scope="module")
def run(start):
    def run(workdir: Path, devices: int, *flags: str) -> dict[tuple[str, int], list[float]]:
        process = start(workdir, devices, *flags)
        _, text = process.communicate(timeout=300)
        assert process.returncode == 0, text
        return _losses(workdir)

    return run


@pytest.fixture(scope="module")
def alone(run, tmp_path_factory):
    return run(tmp_path_factory.mktemp("devices") / "one", 1)


def _losses(workdir):
    with open(workdir / "epochs.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = ("train_loss", "test_loss")
    return {(row["trial"], int(row["epoch"])): [float(row[name] or 0) for name in names] for row in rows}


def _assert_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for key, losses in ours.items():
        # As between any two layouts: sums in another order, which Adam turns into steps.
        np.testing.assert_allclose(losses, theirs[key], rtol=1e-5 if key[1] == 1 else 2e-3, err_msg=key)


@pytest.mark.parametrize("devices", [2, pytest.param(4, marks=pytest.mark.landing)])
def test_any_number_of_devices(run, alone, tmp_path, devices):
    """Five lanes: no number of devices divides them."""
    _assert_same(run(tmp_path / "w", devices), alone)
    layouts = json.loads((tmp_path / "w" / "summary.json").read_text())["layouts"]
    assert [layout["devices"] for layout in layouts] == [devices]


@pytest.mark.landing
def test_streamed_batches_and_lanes_that_take_the_next_trial(run, alone, tmp_path):
    flags = ("--config.data.residency=stream", "--config.lanes.count=2", "--config.lanes.devices=2")
    _assert_same(run(tmp_path / "w", 3, *flags), alone)


@pytest.mark.landing
def test_copies_among_devices(run, tmp_path):
    one, two = (run(tmp_path / str(devices), devices, *PBT) for devices in (1, 2))
    _assert_same(two, one)
    copies = [(tmp_path / str(devices) / "lineage.csv").read_text() for devices in (1, 2)]
    assert copies[0] == copies[1] and len(copies[0].splitlines()) > 1


@pytest.mark.landing
@pytest.mark.parametrize(("before", "after"), [(2, 1), pytest.param(1, 4, marks=pytest.mark.landing)])
def test_it_goes_on_with_another_number_of_devices(start, run, alone, tmp_path, before, after):
    workdir = tmp_path / "w"
    process = start(workdir, before)
    while not any((workdir / "checkpoints" / "population").glob("step_*/ledger")):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(1e-3)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=300)
    assert process.returncode == 128 + signal.SIGTERM
    _assert_same(run(workdir, after), alone)
