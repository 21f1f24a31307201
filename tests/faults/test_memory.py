"""Memory that runs out makes calls smaller; memory that lasts stays flat."""

import gc
import json
import os
import signal
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import psutil
import pytest
from tiny_network import DATA, MODEL

from hpjax.config import parse_config
from hpjax.errors import OutOfMemory
from hpjax.lanes.engine import Engine
from hpjax.lanes.program import Program
from hpjax.sweep import Interrupted, datasets, run_sweep, session
from hpjax.sweep.loop import GroupRun

pytestmark = pytest.mark.slow
SMALL = {
    "model": MODEL,
    "data": DATA,
    "train": {"batch_size": 12, "epochs": 3},
    "lanes": {"strategy": "fused", "count": 4, "devices": 1},
    "trackers": (),
}
EVERY = 5  # epochs between two measurements
LEAST_MEASURED = 9  # times
RATES = {"space": {"learning_rate": (1e-4, 3e-4, 1e-3, 3e-3)}}


@pytest.fixture
def exhaust(monkeypatch):
    """Makes training steps of more than so many lanes fail from an epoch on, as a full device does.

    A real device can't be filled to the byte, so the failure is put in at the call of the program; it is
    the one that jax raises for an allocation that really fails.
    """

    def start(most_lanes: int, first_epoch: int) -> None:
        train, run_epoch = Program.train, GroupRun.run_epoch
        epochs, steps = [], []

        def run(self, state, sums, *arguments):
            steps.append(1)
            if sums.loss.shape[0] > most_lanes and len(epochs) >= first_epoch and len(steps) > 1:
                jnp.zeros(2**50, jnp.uint8).block_until_ready()
            return train(self, state, sums, *arguments)

        def begin(run):
            epochs.append(1)
            steps.clear()
            return run_epoch(run)

        monkeypatch.setattr(Program, "train", run)
        monkeypatch.setattr(GroupRun, "run_epoch", begin)

    return start


@pytest.mark.landing
def test_out_of_memory_goes_on_with_fewer_lanes_a_call(tmp_path, exhaust, caplog):
    config = parse_config({**SMALL, "sweep": RATES})
    calm = run_sweep(config, tmp_path / "calm")
    exhaust(most_lanes=1, first_epoch=2)
    result = run_sweep(config, tmp_path / "exhausted")
    assert [(r.trial, r.epoch) for r in result.epochs] == [(r.trial, r.epoch) for r in calm.epochs]
    for a, b in zip(result.epochs, calm.epochs, strict=True):
        # Sums of another order of lanes; three epochs of Adam amplify the last bits.
        np.testing.assert_allclose(a.test_loss, b.test_loss, rtol=1e-3)
    summary = json.loads((result.workdir / "summary.json").read_text())
    plan = json.loads((result.workdir / "plan.json").read_text())
    assert summary["reduced_to_lanes"] == 1 and summary["finished"]
    assert [group["lanes_per_call"] for group in plan["groups"]] == [1]
    assert "out of memory with 4 lanes at once: going on with 2" in caplog.text


@pytest.mark.landing
def test_no_memory_for_one_lane_is_one_line_and_blocks_nothing(tmp_path, exhaust, monkeypatch):
    config = parse_config({**SMALL, "sweep": RATES})
    with monkeypatch.context():
        exhaust(most_lanes=0, first_epoch=1)
        with pytest.raises(OutOfMemory, match="one lane at a time: lower train.batch_size"):
            run_sweep(config, tmp_path / "sweep")
    monkeypatch.undo()
    result = run_sweep(config, tmp_path / "sweep")
    assert [trial.status for trial in result.trials] == ["complete"] * 4


def _fail_above(lanes: int, monkeypatch) -> None:
    """Makes epochs of a population of more lanes fail, as a full device does: see `exhaust`."""
    run_epoch = GroupRun.run_epoch

    def run(self):
        if self.engine.num_lanes > lanes:
            jnp.zeros(2**50, jnp.uint8).block_until_ready()
        return run_epoch(self)

    monkeypatch.setattr(GroupRun, "run_epoch", run)


@pytest.mark.landing
def test_one_lane_a_call_goes_on_with_fewer_in_memory(tmp_path, monkeypatch, caplog):
    config = parse_config(
        {**SMALL, "sweep": RATES, "lanes": {"strategy": "sequential", "count": 4, "devices": 1}}
    )
    _fail_above(2, monkeypatch)
    result = run_sweep(config, tmp_path / "sweep")
    assert [trial.status for trial in result.trials] == ["complete"] * 4
    plan = json.loads((result.workdir / "plan.json").read_text())
    assert [(group["lanes"], group["lanes_per_call"]) for group in plan["groups"]] == [(2, 1)]
    assert "out of memory with 4 lanes, one at a time: going on with 2" in caplog.text


@pytest.mark.landing
def test_a_population_is_kept_whole_and_advanced_by_smaller_calls(tmp_path, exhaust):
    pbt = {"every_epochs": 1, "fraction": 0.5, "perturb": 1.2}
    sweep = {"space": {"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}}, "sampler": "random"}
    config = parse_config({**SMALL, "sweep": {**sweep, "trials": 4, "pbt": pbt}})
    exhaust(most_lanes=2, first_epoch=0)
    result = run_sweep(config, tmp_path / "sweep")
    plan = json.loads((result.workdir / "plan.json").read_text())
    assert [(group["lanes"], group["lanes_per_call"]) for group in plan["groups"]] == [(4, 2)]


@pytest.mark.landing
def test_memory_of_the_host_that_runs_out_in_a_save(tmp_path, monkeypatch):
    """Memory for the host's copy: a real failed allocation of numpy's, of which no machine has enough."""
    snapshot, failed = Engine.snapshot, []

    def copy(engine):
        if engine.layout.lanes_per_shard > 2:
            failed.append(1)
            np.ones(2**60, np.uint8)
        return snapshot(engine)

    monkeypatch.setattr(Engine, "snapshot", copy)
    result = run_sweep(parse_config({**SMALL, "sweep": RATES}), tmp_path / "sweep")
    assert failed and [trial.status for trial in result.trials] == ["complete"] * 4
    assert result.summary["reduced_to_lanes"] == 2


@pytest.mark.parametrize(("where", "name"), [(datasets, "load_dataset"), (session, "restore_population")])
def test_no_memory_before_the_first_lane_is_one_line(tmp_path, monkeypatch, where, name):
    config = parse_config({**SMALL, "sweep": RATES})
    with monkeypatch.context() as patch:
        patch.setattr(where, name, lambda *arguments: np.ones(2**60, np.uint8))
        with pytest.raises(OutOfMemory, match="^out of memory .*: lower .*, or give the process more$"):
            run_sweep(config, tmp_path / "sweep")
    assert run_sweep(config, tmp_path / "sweep").best


@pytest.mark.exhaustive
def test_continuous_lanes_hold_on_to_nothing(tmp_path, request, monkeypatch, counted):
    """Host memory, open files and arrays at the end are those after a warm-up."""
    seconds = request.config.getoption("--soak", 15.0)
    measured, begun = [], []
    run_epoch = GroupRun.run_epoch

    def measure(run):
        result = run_epoch(run)
        begun.append(time.monotonic())
        if run.epoch % EVERY == 0:
            measured.append(_resources())
        if time.monotonic() - begun[0] > seconds and len(measured) >= LEAST_MEASURED:
            os.kill(os.getpid(), signal.SIGTERM)
        return result

    monkeypatch.setattr(GroupRun, "run_epoch", measure)
    space = {"learning_rate": {"low": 1e-5, "high": 1e-2, "log": True}}
    sweep = {"space": space, "sampler": "random", "trials": 100_000, "pruner": "median"}
    with pytest.raises(Interrupted):
        run_sweep(parse_config({**SMALL, "sweep": sweep, "trackers": ("tensorboard",)}), tmp_path / "soak")
    third = len(measured) // 3
    warm, end = measured[third], measured[-1]
    epochs = EVERY * (len(measured) - 1 - third)
    growth = (end.memory - warm.memory) / epochs
    files = [min(m.files for m in some) for some in (measured[third - 1 : third + 2], measured[-3:])]
    assert files[1] <= files[0] + 4  # the fewest of several: a save that is under way has files open
    assert end.arrays <= warm.arrays + 8
    assert growth < 200e3, measured  # bytes an epoch, in which up to four lanes of 2 MB are admitted
    counted["soak epochs"] += epochs
    counted["soak growth of host memory in bytes an epoch"] += max(0, round(growth))


def _resources() -> "Resources":
    gc.collect()
    process = psutil.Process()
    return Resources(process.memory_info().rss, process.num_fds(), len(jax.live_arrays()))


class Resources(NamedTuple):
    memory: int
    files: int
    arrays: int
