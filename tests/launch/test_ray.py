"""Workers of a real cluster on this machine: the same sweep, the same tables, whatever dies meanwhile."""

import csv
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import tiny_network
from ray_cluster import list_workers, running_cluster
from tiny_sweep import write_sweep

ray = pytest.importorskip("ray", reason="needs Ray")
pytestmark = pytest.mark.ray

ROOT = Path(__file__).parents[2]
CONFIG = write_sweep(epochs=20, lanes=4)
ASHA = (
    "--config.sweep.sampler=random",
    "--config.sweep.trials=8",
    "--config.sweep.pruner=successive_halving",
    "--space=learning_rate=1e-4:3e-3:log",
)
GROUPS = ("--space=batch_size=10,12,25", "--space=learning_rate=1e-4,1e-3")
PBT = ("--config.sweep.metric=train_loss", "--config.sweep.pbt.every_epochs=1", "--config.lanes.count=0")


@pytest.fixture(scope="module")
def cluster():
    """A cluster of three nodes, which are processes of this machine."""
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def start(tmp_path_factory, cluster):
    config = tmp_path_factory.mktemp("config") / "config.py"
    config.write_text(CONFIG)

    def start(workdir: Path, *flags: str, folder: Path = ROOT) -> subprocess.Popen:
        command = [sys.executable, "-m", "hpjax.main", f"--config={config}", f"--workdir={workdir}", *flags]
        return subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)

    def on_cluster(workdir: Path, *flags: str, folder: Path = ROOT) -> subprocess.Popen:
        given = ("--launcher=ray", f"--ray_address={cluster.address}", "--ray_deadline=10")
        return start(workdir, *given, *flags, folder=folder)

    start.on_cluster = on_cluster
    return start


def _finish(process: subprocess.Popen, workdir: Path):
    _, text = process.communicate(timeout=300)
    assert process.returncode == 0, text
    with open(workdir / "epochs.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    losses = {
        (row["trial"], int(row["epoch"])): [float(row[name] or 0) for name in ("train_loss", "test_loss")]
        for row in rows
    }
    assert len(losses) == len(rows)  # nothing is counted twice
    return losses, text


def _assert_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for key, losses in ours.items():
        # As between any two layouts: sums in another order, which Adam turns into steps.
        tolerance = 1e-5 if key[1] == 1 else 2e-3 if key[1] <= 4 else 0.1
        np.testing.assert_allclose(losses, theirs[key], rtol=tolerance, err_msg=key)


@pytest.fixture(scope="module")
def alone(start, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("alone") / "w"
    return _finish(start(workdir), workdir)[0]


def _wait_for_checkpoint(process: subprocess.Popen, workdir: Path) -> None:
    while not any((workdir / "checkpoints" / "population").glob("step_*/ledger")):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)


@pytest.mark.exhaustive
def test_workers_give_what_one_process_gives(start, alone, tmp_path):
    """Five trials, four lanes, three workers: two have one lane; the last trial takes whichever is free."""
    workdir = tmp_path / "w"
    _assert_same(_finish(start.on_cluster(workdir), workdir)[0], alone)


@pytest.mark.exhaustive
@pytest.mark.parametrize("flags", [pytest.param(ASHA, id="asha"), pytest.param(PBT, id="pbt")])
def test_pruning_and_copies_across_workers(start, tmp_path, flags):
    here, there = tmp_path / "here", tmp_path / "there"
    ours = _finish(start.on_cluster(there, *flags), there)[0]
    _assert_same(ours, _finish(start(here, *flags), here)[0])
    if flags is PBT:
        copies = [(workdir / "lineage.csv").read_text() for workdir in (here, there)]
        assert copies[0] == copies[1] and len(copies[0].splitlines()) > 1


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGKILL, marks=pytest.mark.landing),
        pytest.param(signal.SIGSTOP, marks=pytest.mark.exhaustive),
    ],
)
def test_a_worker_that_dies_or_is_frozen(start, alone, tmp_path, number):
    workdir = tmp_path / "w"
    process = start.on_cluster(workdir)
    _wait_for_checkpoint(process, workdir)
    list_workers()[0].send_signal(number)
    ours, text = _finish(process, workdir)
    assert "going on from the last checkpoint" in text
    _assert_same(ours, alone)
    summary = json.loads((workdir / "summary.json").read_text())
    assert [layout["lanes"] for layout in summary["layouts"]] == [4]
    psutil.wait_procs(list_workers(), timeout=60)
    assert not list_workers()  # they end with the sweep


@pytest.mark.parametrize(
    "kill",
    [
        pytest.param("worker", marks=pytest.mark.landing),
        *(pytest.param(name, marks=pytest.mark.exhaustive) for name in ("nothing", "node", "driver")),
    ],
)
def test_groups_run_side_by_side(start, cluster, tmp_path, kill):
    """Each on a worker of its own; whatever dies, all go on from the same checkpoint."""
    here, there = tmp_path / "here", tmp_path / "there"
    alone = _finish(start(here, *GROUPS), here)[0]
    process = start.on_cluster(there, *GROUPS)
    _wait_for_checkpoint(process, there)
    if kill == "worker":
        list_workers()[-1].kill()
    elif kill == "node":
        cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
    elif kill == "driver":
        process.kill()
        process.communicate()
        process = start(there, *GROUPS)  # all three groups have begun; here they take turns
    try:
        _assert_same(_finish(process, there)[0], alone)
    finally:
        if kill == "node":
            cluster.add_node(num_cpus=1)
    lines = (there / "history.jsonl").read_text("utf-8").splitlines()
    kinds = [(event["kind"], event.get("group")) for event in map(json.loads, lines)]
    before = kinds[: [kind for kind, _ in kinds].index("finish")]
    assert {group for kind, group in before if kind == "start"} == {0, 1, 2}


@pytest.mark.exhaustive
def test_the_only_worker_dies(start, alone, tmp_path):
    workdir = tmp_path / "w"
    process = start.on_cluster(workdir, "--ray_workers=1")
    _wait_for_checkpoint(process, workdir)
    list_workers()[0].kill()
    ours, text = _finish(process, workdir)
    _assert_same(ours, alone)
    assert text.count("no worker is left") <= 1 and "1 of 1 workers are there" in text


@pytest.mark.exhaustive
def test_files_are_named_from_where_the_command_is_run(start, alone, tmp_path):
    """And are read once, there: an edit while the sweep runs doesn't reach a worker that starts again."""
    network = tmp_path / "net.py"
    network.write_text(Path(tiny_network.__file__).read_text("utf-8"), "utf-8")
    workdir = tmp_path / "w"
    process = start.on_cluster(workdir, "--config.model.name=net.py:Tiny", folder=tmp_path)
    _wait_for_checkpoint(process, workdir)
    network.write_text("raise ValueError", "utf-8")
    list_workers()[0].kill()
    _assert_same(_finish(process, workdir)[0], alone)


@pytest.mark.exhaustive
def test_a_node_that_is_lost(start, alone, cluster, tmp_path):
    workdir = tmp_path / "w"
    process = start.on_cluster(workdir)
    _wait_for_checkpoint(process, workdir)
    cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
    try:
        ours, text = _finish(process, workdir)
    finally:
        cluster.add_node(num_cpus=1)
    assert "2 of 3 workers are there" in text
    _assert_same(ours, alone)


@pytest.mark.exhaustive
def test_a_node_that_is_told_to_end(start, cluster, tmp_path):
    """All lanes are saved, and go on elsewhere before it does."""
    here, there = tmp_path / "here", tmp_path / "there"
    flags = ("--config.train.epochs=400", "--config.lanes.strategy=sequential")
    process = start.on_cluster(there, *flags)
    _wait_for_checkpoint(process, there)
    leaving = next(iter(cluster.worker_nodes))
    cluster.add_node(num_cpus=1)  # room for the worker that has to leave
    reason = ["--reason=DRAIN_NODE_REASON_PREEMPTION", "--reason-message=preempted"]
    place = [f"--address={cluster.address}", f"--node-id={leaving.node_id}"]
    command = [str(Path(sys.executable).with_name("ray")), "drain-node", *place, *reason]
    subprocess.run([*command, "--deadline-remaining-seconds=100"], check=True, capture_output=True)
    ours, text = _finish(process, there)
    cluster.remove_node(leaving)
    assert "about to end; all lanes are saved: going on from the last checkpoint" in text
    assert re.search("[23] of 3 workers are there", text)  # the third one may still be starting
    assert ours == _finish(start(here, *flags), here)[0]  # a lane is a program of its own: to the bit


@pytest.mark.exhaustive
def test_the_process_that_was_started_dies(start, alone, tmp_path):
    workdir = tmp_path / "w"
    process = start.on_cluster(workdir)
    _wait_for_checkpoint(process, workdir)
    process.kill()
    process.communicate()
    _assert_same(_finish(start.on_cluster(workdir), workdir)[0], alone)


@pytest.mark.exhaustive
def test_it_stops_and_goes_on_without_a_cluster(start, alone, tmp_path):
    workdir = tmp_path / "w"
    process = start.on_cluster(workdir)
    _wait_for_checkpoint(process, workdir)
    process.send_signal(signal.SIGTERM)
    _, text = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, text
    _assert_same(_finish(start(workdir), workdir)[0], alone)


def test_what_is_wrong_is_one_line(start, tmp_path):
    for flags, said in [
        (("--launcher=ray", "--ray_address=127.0.0.1:1"), "no Ray cluster at 127.0.0.1:1"),
        (("--ray_workers=2",), "expected --launcher=ray --ray_workers="),
        (("--launcher=slurm",), "local|ray"),
    ]:
        process = start(tmp_path / "w", *flags)
        _, text = process.communicate(timeout=120)
        assert process.returncode == 2, text
        assert said in text and len(text.strip().splitlines()) == 1, text


@pytest.mark.landing
def test_it_is_interrupted_before_a_worker_is_there(start, tmp_path):
    process = start.on_cluster(tmp_path / "w", "--ray_workers=9")  # waits for those that have no room
    while not list_workers():
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    _, text = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, text
    assert text.strip().splitlines()[-1] == "hpjax: interrupted"
