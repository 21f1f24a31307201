"""The sweeps of `configs/`, on small images: the same on four devices and on a cluster that loses a node."""

import csv
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ray_cluster import running_cluster

pytest.importorskip("ray", reason="needs Ray")
pytestmark = [pytest.mark.slow, pytest.mark.exhaustive, pytest.mark.ray]

ROOT = Path(__file__).parents[2]
SMALL = {
    "wd": ("train.epochs=10", "sweep.space.weight_decay=(0.01, 0.1, 1.0)"),  # a lane on each node
    # Trials are pruned after an epoch: what they had by then is the same to 1e-5 however lanes are spread.
    "asha": (
        *("train.epochs=4", "sweep.trials=24", "sweep.metric=validation_loss"),
        "sweep.space.learning_rate.high=0.001",  # higher ones make much of float rounding within 4 epochs
    ),
}
SIZES = (
    *("train.batch_size=32", "data.name=synthetic_scenes", "data.image_size=48"),
    *("data.max_train_examples=240", "data.max_test_examples=60"),
)
WORDS = ("trial", "setting", "status", "epochs", "message")  # the columns of trials.csv that name or count


@pytest.mark.parametrize("name", SMALL)
def test_one_device_four_devices_and_a_node_that_dies(tmp_path, name):
    one = _finish(_start(name, tmp_path / "one"), tmp_path / "one")
    four = _finish(_start(name, tmp_path / "four", devices=4), tmp_path / "four")
    _assert_same(four, one)
    with running_cluster() as cluster:
        flags = ("--launcher=ray", f"--ray_address={cluster.address}", "--ray_deadline=10")
        process = _start(name, tmp_path / "nodes", *flags)
        while not any((tmp_path / "nodes/checkpoints/population").glob("step_*/ledger")):
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.01)
        cluster.remove_node(sorted(cluster.worker_nodes, key=str)[0], allow_graceful=False)
        nodes = _finish(process, tmp_path / "nodes", expected="going on from the last checkpoint")
    _assert_same(nodes, one)


def _start(name: str, workdir: Path, *flags: str, devices: int = 1) -> subprocess.Popen:
    xla = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    small = [f"--config.{field}" for field in (*SMALL[name], *SIZES)]
    command = [sys.executable, "-m", "hpjax.main", f"--config=configs/{name}.py", f"--workdir={workdir}"]
    environment = {**os.environ, "XLA_FLAGS": xla}
    return subprocess.Popen(
        [*command, *small, *flags], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
    )


def _finish(process: subprocess.Popen, workdir: Path, expected: str = "") -> tuple[list[dict], list[dict]]:
    _, text = process.communicate(timeout=600)
    assert process.returncode == 0 and expected in text, text
    tables = []
    for table in ("trials.csv", "epochs.csv"):
        with open(workdir / table, encoding="utf-8") as file:
            tables.append(list(csv.DictReader(file)))
    return tables[0], tables[1]


def _assert_same(ours, theirs):
    words = [[[row[name] for name in WORDS] for row in trials] for trials, _ in (ours, theirs)]
    assert words[0] == words[1]
    names = [name for name in ours[1][0] if name.endswith("_loss") and ours[1][0][name]]
    assert len(names) == 2  # training, and what the metric is of
    for row, other in zip(ours[1], theirs[1], strict=True):
        assert (row["trial"], row["epoch"]) == (other["trial"], other["epoch"])
        losses = [[float(of[name]) for name in names] for of in (row, other)]
        # As between any two layouts: sums in another order, which Adam turns into steps.
        tolerance = 1e-5 if row["epoch"] == "1" else 1e-2 if int(row["epoch"]) <= 4 else 0.1
        np.testing.assert_allclose(*losses, rtol=tolerance, err_msg=str(row))
