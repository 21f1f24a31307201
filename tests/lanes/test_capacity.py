"""Layouts are measured on real programs, remembered, and bounded by memory."""

import dataclasses
import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_network import MODEL

from hpjax.config import parse_config
from hpjax.data.dataset import load_dataset
from hpjax.lanes import capacity, probe
from hpjax.lanes.capacity import Candidate, choose_layout
from hpjax.lanes.engine import Engine
from hpjax.lanes.group import create_program, create_task, trial_hparams
from hpjax.lanes.shuffle import Shuffle
from hpjax.ops import memory

choose = functools.partial(choose_layout, devices=1)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HPJAX_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def group():
    config = parse_config(
        {
            "model": MODEL,
            "data": {"name": "synthetic_scenes", "image_size": 24, "max_train_examples": 48},
            "train": {"batch_size": 12},
        }
    )
    dataset = load_dataset(config.data, 0)
    program, task = create_program(config, dataset), create_task(config, dataset, True)
    return program, task, trial_hparams(config, 0)


def test_auto_measures_and_remembers(group):
    program, *_ = group
    choice = choose(*group, wanted=4, name="mine")
    assert choice.speedup >= 1 and choice.memory_bytes > 0
    assert choice.num_lanes == choice.layout.lanes_per_shard * choice.layout.threads <= 4
    traces = dict(program.traces)
    assert choose(*group, wanted=4, name="mine") == choice
    assert dict(program.traces) == traces


def test_what_was_measured_is_not_compiled_again(group, caplog):
    program, task, hparams = group
    choice = choose(*group, wanted=2)
    with jax.log_compiles(), caplog.at_level("WARNING", logger="jax"):
        jax.jit(lambda x: x - choice.num_lanes)(1.0)  # is new, so it must be in the log
        engine = Engine(program, task, hparams, choice.num_lanes, choice.layout)
        engine.run_epoch([Shuffle(0, 0)] * choice.num_lanes, ())
    compiled = [r.getMessage() for r in caplog.records if "Finished XLA compilation" in r.getMessage()]
    assert compiled and not [text for text in compiled if "_train_one" in text]


@pytest.mark.parametrize("steps", [1, probe.MANY_STEPS])
def test_what_memory_was_asked_of_is_not_compiled_again(group, caplog, monkeypatch, steps):
    _, task, hparams = group
    monkeypatch.setattr(probe, "steps_per_call", lambda: steps)
    config = parse_config({"model": MODEL, "data": {"image_size": 24}})
    dataset = load_dataset(dataclasses.replace(config.data, name="synthetic_scenes"), 0)
    measured = capacity.Probe(create_program(config, dataset), task, hparams)  # none that is compiled yet
    with jax.log_compiles(), caplog.at_level("WARNING", logger="jax"):
        assert measured.memory(2) > 0
        assert measured.seconds(Candidate(2, steps=steps), repeats=1) > 0
        assert measured.evaluation_memory(2) > 0
        Engine(measured.program, task, hparams, 2, capacity.Layout(2, steps)).evaluate("test")
    compiled = [r.getMessage() for r in caplog.records if "Finished XLA compilation" in r.getMessage()]
    assert sum("_train_" in text for text in compiled) == 1
    assert sum("_evaluate_" in text for text in compiled) == 1


def test_speed_up_is_over_a_lane_alone_that_was_measured_again(group, monkeypatch):
    seen = []

    def seconds(self, candidate, repeats=5):
        seen.append(candidate)
        slow = 10.0 if seen.count(candidate) == 1 and candidate == Candidate(1) else 1.0
        return slow * (1.5 if candidate == Candidate(1) else 1.0)

    monkeypatch.setattr(capacity.Probe, "seconds", seconds)
    monkeypatch.setattr(capacity, "_host_threads", lambda: 2)
    assert choose(*group, wanted=2).speedup == 1.5


def test_what_is_remembered_decides(group):
    key = "layout of 4 lanes: mine"
    times = {Candidate(1): 4.0, Candidate(2, 2): 1.0}
    memory.remember(key, "", {candidate.name: ms for candidate, ms in times.items()})
    choice = choose(*group, wanted=4, name="mine")
    assert (choice.layout.lanes_per_shard, choice.layout.threads, choice.num_lanes) == (2, 2, 4)
    np.testing.assert_allclose(choice.speedup, 4.0)


def test_a_damaged_memory_is_measured_again(group, cache):
    memory.remember(
        "layout of 2 lanes: mine", "", {"nonsense": 1.0, "[0, 1, 1]": 1.0, "{}": 1.0, "[1]x": 1.0}
    )
    assert choose(*group, wanted=2, name="mine").speedup >= 1
    memory.cache_path().write_text("{")
    assert choose(*group, wanted=2, name="mine").speedup >= 1


def test_lanes_stay_within_memory(group, monkeypatch):
    alone = capacity.Probe(*group)
    one, two = (max(alone.memory(lanes), alone.evaluation_memory(lanes)) for lanes in (1, 2))
    assert two > one > 0
    room = (one + 1.5 * (two - one)) / capacity.MEMORY_MARGIN
    monkeypatch.setattr(capacity, "device_memory_limit", lambda: room)
    assert choose(*group, wanted=16, strategy="fused").num_lanes == 2
    assert choose(*group, wanted=16).num_lanes <= 2


def test_evaluation_must_fit_too(group, monkeypatch):
    alone = capacity.Probe(*group)
    trained, evaluated = ([f(lanes) for lanes in (1, 2)] for f in (alone.memory, alone.evaluation_memory))
    assert evaluated[1] > trained[1]  # 250 images at once, not 12
    assert evaluated[1] > trained[0] + 2 * (trained[1] - trained[0])  # three lanes could be trained
    room = (evaluated[1] + 1000) / capacity.MEMORY_MARGIN
    monkeypatch.setattr(capacity, "device_memory_limit", lambda: room)
    choice = choose(*group, wanted=16, strategy="fused")
    assert choice.num_lanes == 2 and choice.memory_bytes == evaluated[1]


def test_all_images_on_the_device_count(group):
    program, task, hparams = group
    test = task.evaluated["test"]
    more = dataclasses.replace(task, evaluated={**task.evaluated, "more": test})
    memories = [capacity.Probe(program, t, hparams).memory(1) for t in (task, more)]
    assert memories[1] - memories[0] == test.images.nbytes + test.labels.nbytes


def test_what_is_called_is_what_is_analysed(group, monkeypatch):
    """On a device that loops over steps by itself; here a CPU that is told to."""
    monkeypatch.setattr(probe, "steps_per_call", lambda: 2)
    program, *_ = group
    before = program.traces["train", 3, False]
    measured = capacity.Probe(*group)
    assert measured.memory(3) > 0
    measured.seconds(Candidate(3, 1, 2), repeats=1)
    assert program.traces["train", 3, False] == before + 1


def test_a_short_sweep_tries_no_wider_program(group, monkeypatch):
    monkeypatch.setattr(capacity, "PATIENCE", 1e9)
    tried = []
    seconds = capacity.Probe.seconds
    monkeypatch.setattr(capacity.Probe, "seconds", lambda *a, **k: tried.append(a[1]) or seconds(*a, **k))
    short = choose(*group, wanted=4, name="mine", lane_steps=10)
    assert short.layout.lanes_per_shard == 1 and {candidate.lanes for candidate in tried} == {1}
    monkeypatch.setattr(capacity, "PATIENCE", 0)
    choose(*group, wanted=4, name="mine", lane_steps=20)
    assert 2 in {candidate.lanes for candidate in tried}  # what little was measured isn't enough for more
    tried.clear()
    assert choose(*group, wanted=4, name="mine", lane_steps=10) == short and not tried


def _allocate(num_bytes):
    return jax.block_until_ready(jnp.zeros(num_bytes, jnp.uint8) + 1)


def test_a_layout_that_memory_runs_out_with_is_not_taken(group, monkeypatch):
    """A failure that jax raises for an allocation that really fails, at the calls of wide programs."""
    tried, advance = [], capacity.Probe._advance

    def fail(probe, shard, *arguments):
        tried.append(lanes := shard[0].step.shape[0])
        return advance(probe, shard, *arguments) if lanes < 2 else _allocate(2**50)

    monkeypatch.setattr(capacity.Probe, "_advance", fail)
    choice = choose(*group, wanted=16, name="mine")
    assert choice.layout.lanes_per_shard == 1 and set(tried) == {1, 2}
    asked = choose(*group, wanted=16, count=4, strategy="fused")  # training will tell
    assert asked.num_lanes == 4 and asked.memory_bytes > 0 and not asked.lane_step_seconds


def test_a_layout_that_is_asked_for_is_estimated(group):
    for strategy, lanes in (("fused", 3), ("sequential", 1)):
        choice = choose(*group, wanted=8, count=3, strategy=strategy)
        assert choice.memory_bytes == capacity.Probe(*group).memory(lanes) > 0
        assert choice.lane_step_seconds[lanes] > 0


def test_what_is_asked_for_is_taken(group):
    assert choose(*group, wanted=8, count=4, strategy="fused").layout.lanes_per_shard == 4
    assert choose(*group, wanted=8, count=4, strategy="sequential").layout.lanes_per_shard == 1
    assert choose(*group, wanted=1).layout.lanes_per_shard == 1
    assert choose(*group, wanted=9, count=3).num_lanes == 3


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({Candidate(1): 1.0, Candidate(1, 2): 0.99}, Candidate(1)),
        ({Candidate(1): 1.0, Candidate(1, 2): 0.6, Candidate(2): 0.59}, Candidate(1, 2)),
        ({Candidate(1): 1.0, Candidate(2): 1.1, Candidate(4): 0.5}, Candidate(4)),
        ({Candidate(1): 1.0, Candidate(1, 1, 8): 0.5}, Candidate(1, 1, 8)),
    ],
)
def test_a_wider_program_must_be_clearly_faster(seconds, expected):
    assert capacity._fastest(seconds) == expected


@pytest.mark.parametrize("candidate", [Candidate(1), Candidate(4, 2), Candidate(8, 1, probe.MANY_STEPS)])
def test_a_candidate_reads_back_from_its_name(candidate):
    assert probe.parse_candidate(candidate.name) == candidate


def test_lanes_out_of_step_are_measured_with_batches_of_their_own(group):
    program, *_ = group
    choice = choose(*group, wanted=2, name="mine", in_step=False)
    assert ("train", 2, True) in program.traces
    assert choose(*group, wanted=2, name="mine", in_step=False) == choice
    assert memory.load().keys() >= {"layout of 2 lanes out of step: mine"}


def test_no_layout_asks_which_cores_where_that_is_unknown(monkeypatch):
    monkeypatch.delattr("os.sched_getaffinity")
    assert capacity._host_threads() >= 1


@pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="needs a system that binds processes to cores"
)
def test_what_is_measured_on_some_cores_counts_for_so_many_alone():
    allowed = os.sched_getaffinity(0)
    before = memory.cache_path()
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert memory.device_name().endswith(" x1")
        assert len(allowed) == 1 or memory.cache_path() != before
    finally:
        os.sched_setaffinity(0, allowed)
