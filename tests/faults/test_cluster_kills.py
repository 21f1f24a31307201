"""Workers, nodes and drivers are killed again and again: the sweep ends as if they hadn't been."""

import contextlib
import itertools
import signal
import time

import psutil
import pytest
from ray_cluster import list_workers, running_cluster
from sweeps import Sweep, Sweeps, assert_same_sweep, count_bytes

pytest.importorskip("ray", reason="needs Ray")
pytestmark = [pytest.mark.slow, pytest.mark.exhaustive, pytest.mark.ray]

KILLS = 3  # unless told otherwise
DEADLINE = 5  # seconds that a worker may be silent
WAYS = ("workers killed", "workers frozen", "nodes killed", "drivers killed")


def test_a_cluster_is_killed_piece_by_piece(tmp_path, request, rng, counted):
    """A kill comes once a checkpoint was saved since the one before, or right after that one was noticed."""
    kills = request.config.getoption("--kills", KILLS)
    sweeps = Sweeps("cluster_sweep.py", tmp_path)
    reference = tmp_path / "uninterrupted"
    sweeps.finish(reference)
    ways = itertools.cycle(WAYS)
    with running_cluster() as cluster:
        for number in itertools.count():
            if kills <= 0:
                break
            workdir = tmp_path / f"killed_{number}"
            sweep = _start(sweeps, cluster, workdir)
            while kills and sweep.wait_for(_saved_after(workdir)):
                way = next(ways)
                time.sleep(rng.uniform(0, 1))
                sweep = _kill(way, sweeps, cluster, sweep, rng)
                if sweep is None:  # it had ended
                    break
                kills -= 1
                counted[f"{way} in a cluster"] += 1
            if sweep is not None:
                status, text = sweep.end()
                assert status == 0, text
            assert_same_sweep(workdir, reference)
            counted["bytes compared after kills in a cluster"] += count_bytes(reference)


def _start(sweeps: Sweeps, cluster, workdir) -> Sweep:
    flags = ("--launcher=ray", f"--ray_address={cluster.address}", f"--ray_deadline={DEADLINE}")
    return sweeps.start(workdir, *flags)


def _saved_after(workdir):
    """Returns whether a checkpoint was saved since this was called, and is whole."""
    folder = workdir / "checkpoints" / "population"
    newest = lambda: max(  # noqa: E731
        (path.parent.name for path in folder.glob("step_*/ledger")), default=""
    )
    before = newest()
    return lambda: newest() > before


def _kill(way: str, sweeps: Sweeps, cluster, sweep: Sweep, rng) -> Sweep | None:
    """Kills something; returns the sweep that goes on, None where it had ended before."""
    if way == "drivers killed":
        sweep.process.kill()
        status, text = sweep.end()
        assert status in (0, -signal.SIGKILL), text
        return None if status == 0 else _start(sweeps, cluster, sweep.workdir)
    if way == "nodes killed":
        cluster.remove_node(rng.choice(sorted(cluster.worker_nodes, key=str)), allow_graceful=False)
        cluster.add_node(num_cpus=1)
        return sweep if sweep.process.poll() is None else _ended(sweep)
    with contextlib.suppress(psutil.NoSuchProcess, IndexError):
        number = signal.SIGSTOP if way == "workers frozen" else signal.SIGKILL
        rng.choice(list_workers()).send_signal(number)
    return sweep if sweep.process.poll() is None else _ended(sweep)


def _ended(sweep: Sweep) -> None:
    status, text = sweep.end()
    assert status == 0, text
