"""What is promised of lanes on several devices. `test_mesh.py` runs this in a process that has eight."""

import dataclasses
import functools
import itertools
import time
from collections import defaultdict

import jax
import numpy as np
import pytest
import test_engine
from drawn_images import draw_split
from test_engine import TRIALS, WILD

from hpjax.data.batches import stream_batches
from hpjax.lanes import engine as engine_module
from hpjax.lanes.capacity import choose_layout
from hpjax.lanes.engine import Engine, Layout
from hpjax.lanes.mesh import first_devices
from hpjax.lanes.probe import Probe
from hpjax.lanes.residents import place
from hpjax.lanes.shuffle import Shuffle
from hpjax.lanes.task import Task

FIVE = [*TRIALS, WILD]  # no number of devices divides them
ALONE = Layout(5)
EXCHANGES = (
    "all-gather",
    "all-reduce",
    "all-to-all",
    "collective-permute",
    "collective-broadcast",
    "reduce-scatter",
    "send(",
    "recv(",
)


@pytest.fixture(scope="module")
def program():
    return test_engine._program()


@pytest.fixture(scope="module")
def task():
    return Task(draw_split(44, 0), {"test": draw_split(20, 1)}, 16, eval_batch_size=8)


def _start(program, task, layout, trials=FIVE):
    engine = Engine(program, task, TRIALS[0], len(trials), layout)
    for lane, trial in enumerate(trials):
        engine.admit(lane, trial)
    return engine


def _assert_same(ours, theirs, rtol=1e-4, lanes=(0, 1, 2, 3)):
    lanes = list(lanes)
    np.testing.assert_allclose(ours.train.loss[lanes], theirs.train.loss[lanes], rtol=rtol)
    np.testing.assert_array_equal(ours.train.count, theirs.train.count)
    np.testing.assert_array_equal(ours.diverged_step, theirs.diverged_step)
    assert ours.evaluated.keys() == theirs.evaluated.keys()
    for name, sums in ours.evaluated.items():
        np.testing.assert_allclose(sums.loss[lanes], theirs.evaluated[name].loss[lanes], rtol=10 * rtol)


FOUR, TURNS = Layout(2, devices=4), Layout(1, devices=2, threads=2)  # three calls, the last filled up
MORE = [
    pytest.param(layout, marks=pytest.mark.landing)
    for layout in (
        Layout(1, devices=8),  # more devices than trials
        Layout(3, devices=2),
        Layout(1, devices=2),
        Layout(3, devices=2, steps_per_call=2),
    )
]


@pytest.mark.parametrize("streamed", [False, pytest.param(True, marks=pytest.mark.landing)])
@pytest.mark.parametrize("layout", [FOUR, TURNS, *MORE], ids=str)
def test_they_give_what_one_gives(program, task, layout, streamed):
    alone = _start(program, task, ALONE)
    spread = _start(program, dataclasses.replace(task, streamed=streamed), layout)
    in_step, apart = [Shuffle(5, 0)] * 5, [Shuffle(5, 1), Shuffle(5, 2), None, Shuffle(6, 0), Shuffle(5, 1)]
    _assert_same(spread.run_epoch(in_step, ("test",)), alone.run_epoch(in_step, ("test",)))
    # An idle lane takes any batches. Other kernels compute a single lane's; Adam turns roundings into steps.
    ours, theirs = spread.run_epoch(apart, ("test",)), alone.run_epoch(apart, ("test",))
    _assert_same(ours, theirs, rtol=5e-3, lanes=(0, 1, 3))
    for engine in (spread, alone):
        engine.keep_best(np.arange(5.0))
    for lane in (0, 1, 3):
        close = functools.partial(np.testing.assert_allclose, atol=0.02)
        jax.tree.map(close, spread.weights(lane), alone.weights(lane))


@pytest.mark.parametrize("after", [FOUR, ALONE, *MORE], ids=str)
def test_lanes_go_on_on_any_number_of_devices(program, task, after):
    before = _start(program, task, TURNS)
    before.run_epoch([Shuffle(5, 0)] * 5, ())
    arrays = before.snapshot()
    engine = Engine(program, task, TRIALS[0], 5, after)
    engine.restore(arrays)
    for name, array in engine.snapshot().items():
        np.testing.assert_array_equal(array, arrays[name], err_msg=name)
    passes = [Shuffle(5, 1)] * 5
    _assert_same(engine.run_epoch(passes, ("test",)), before.run_epoch(passes, ("test",)))


def test_the_same_devices_give_the_same_bits(program, task):
    snapshots = []
    for _ in range(2):
        engine = _start(program, task, FOUR)
        engine.run_epoch([Shuffle(5, 0)] * 5, ())
        snapshots.append(engine.snapshot())
    for name, array in snapshots[0].items():
        np.testing.assert_array_equal(array, snapshots[1][name], err_msg=name)


@pytest.mark.parametrize("layout", [FOUR, TURNS, *MORE], ids=str)
def test_single_lanes_are_moved_to_the_bit(program, task, layout):
    engine = _start(program, task, layout)
    engine.run_epoch([Shuffle(5, 0)] * 5, ())
    before = engine.snapshot()
    third = engine.take_out(3)
    for name, array in third.items():
        np.testing.assert_array_equal(array, before[name][3], err_msg=name)
    engine.put(0, third)
    engine.copy_lanes([0, 3, 2, 3, 1])
    engine.set_hparams(4, TRIALS[2])
    after = engine.snapshot()
    for name, array in before.items():
        own = name.startswith((".best", ".hparams", ".state.rng"))
        expected = array[[3, 1, 2, 3, 4] if own else [3, 3, 2, 3, 1]].copy()
        if name.startswith(".hparams"):
            expected[4] = array[2]
        np.testing.assert_array_equal(after[name], expected, err_msg=name)
    assert engine.shrink([1, 3]) == [1, 3]
    for name, array in engine.snapshot().items():
        np.testing.assert_array_equal(array, after[name][[1, 3]], err_msg=name)


def test_no_device_waits_for_another(program, task):
    """No operation of the compiled programs sends anything from one device to another."""
    mesh = first_devices(4)
    probe = Probe(program, task, TRIALS[0], devices=4)
    spread, population, data = program.on(mesh), probe._population(2), place(task.train, mesh)
    order, key = jax.device_put(tuple(probe._draw(2)), mesh.everywhere)
    sums, options = probe._sums(2), population.hparams.options
    state = population.state
    compiled = [
        spread.train_one.lower(state, sums, population.hparams, data, order, key, 0),
        spread.train_many.lower(state, sums, population.hparams, data, order, key, 0, 2),
        spread.evaluate_many.lower(state, data, 8, options),
    ]
    for lowered in compiled:
        text = lowered.compile().as_text()
        assert "num_partitions=4" in text
        assert not [name for name in EXCHANGES if name in text]


def test_one_trace_for_all_devices(task):
    program = test_engine._program()
    engine = _start(program, task, Layout(3, devices=2))
    for epoch in range(3):
        engine.admit(epoch, TRIALS[epoch])
        engine.run_epoch([Shuffle(5, epoch)] * 5, ("test",))
    assert engine.traces == 1
    assert engine.program.traces == {
        ("train", 3, False): 1,
        ("train_masked", 3, False): 1,
        ("evaluate", 3, False): 1,
    }
    assert engine.program is program.on(first_devices(2))


def test_all_devices_are_at_work_at_the_same_time(task):
    stamps = defaultdict(list)

    def note(device):
        stamps[int(device)].append(time.perf_counter())

    def augment(key, images):
        del key
        jax.debug.callback(note, jax.lax.axis_index("lanes"))
        return images

    program = test_engine._program(augment)
    engine = _start(program, task, Layout(3, devices=2))
    engine.run_epoch([Shuffle(5, 0)] * 5, ())
    stamps.clear()
    for epoch in range(1, 11):
        engine.run_epoch([Shuffle(5, epoch)] * 5, ())
    jax.effects_barrier()
    assert {device: len(times) for device, times in stamps.items()} == {0: 30, 1: 30}
    by_time = [device for _, device in sorted((t, device) for device in stamps for t in stamps[device])]
    # In turns, each would have its steps of an epoch without the other's in between.
    assert sum(a != b for a, b in itertools.pairwise(by_time)) > 2 * 10


def test_streamed_batches_are_read_once(program, task, monkeypatch):
    """And give what others give."""
    read = []

    def counted(*args):
        for images, labels in stream_batches(*args):
            read.append(len(labels))
            yield images, labels

    monkeypatch.setattr(engine_module, "stream_batches", counted)
    engine = _start(program, dataclasses.replace(task, streamed=True), FOUR)
    streamed = engine.run_epoch([Shuffle(5, 0)] * 5, ())
    assert read == [16, 16, 16]
    _assert_same(streamed, _start(program, task, FOUR).run_epoch([Shuffle(5, 0)] * 5, ()))


def test_layouts_are_measured_on_all_devices(program, task):
    choice = choose_layout(program, task, TRIALS[0], wanted=8, devices=4)
    assert choice.layout.devices == 4 and choice.num_lanes <= 8
    engine = _start(program, task, choice.layout, [TRIALS[0]] * choice.num_lanes)
    engine.run_epoch([Shuffle(5, 0)] * choice.num_lanes, ("test",))


def test_no_more_devices_are_used_than_there_are_trials(program, task):
    assert choose_layout(program, task, TRIALS[0], wanted=1).layout.devices == 1
    assert choose_layout(program, task, TRIALS[0], wanted=3, strategy="fused").layout == Layout(1, devices=3)


def test_memory_is_a_devices_own(program, task):
    one, four = Probe(program, task, TRIALS[0]), Probe(program, task, TRIALS[0], devices=4)
    assert four.memory(2) == pytest.approx(one.memory(2), rel=0.05)
    assert four.evaluation_memory(2) == pytest.approx(one.evaluation_memory(2), rel=0.05)
