"""The promises about lanes, on a network small enough to compile quickly."""

import dataclasses
import gc
import weakref

import jax
import numpy as np
import pytest
from drawn_images import draw_split
from tiny_network import MODEL

from hpjax.config import parse_config
from hpjax.data.dataset import Dataset
from hpjax.lanes.engine import Engine, Layout
from hpjax.lanes.group import create_program
from hpjax.lanes.mesh import first_devices
from hpjax.lanes.program import Program
from hpjax.lanes.residents import place
from hpjax.lanes.shuffle import Shuffle
from hpjax.lanes.task import Task
from hpjax.train.hparams import create_hparams

EPOCHS = 2
TRIALS = [
    create_hparams(learning_rate=1e-3, weight_decay=0.01, seed=0),
    create_hparams(learning_rate=3e-3, weight_decay=0.0, seed=1, dropout_rate=0.2),
    create_hparams(learning_rate=1e-4, weight_decay=1.0, seed=2, label_smoothing=0.1),
    create_hparams(learning_rate=1e-2, weight_decay=0.1, seed=3, clip_norm=1.0),
]
WILD = create_hparams(learning_rate=1e30, seed=1)


def _program(augment=None):
    config = parse_config({"model": MODEL, "train": {"batch_size": 16}})
    train, test = draw_split(44, 0), draw_split(20, 1)
    data = Dataset("drawn", tuple("abcdef"), train, None, test, fingerprint="")
    program = create_program(config, data)
    return program if augment is None else Program(program.recipe, program._init, augment)


@pytest.fixture(scope="module")
def program():
    return _program()


@pytest.fixture(scope="module")
def task():
    return Task(draw_split(44, 0), {"test": draw_split(20, 1)}, 16, eval_batch_size=8)


def _train(program, task, trials, layout=None, epochs=EPOCHS):
    engine = Engine(program, task, TRIALS[0], len(trials), layout or Layout(len(trials)))
    for lane, trial in enumerate(trials):
        engine.admit(lane, trial)
    results = [engine.run_epoch([Shuffle(5, e)] * len(trials), tuple(task.evaluated)) for e in range(epochs)]
    return engine, results


def _loss(results, lane):
    return [float(r.train.loss[lane] / r.train.count[lane]) for r in results]


@pytest.mark.parametrize("lane", range(4))
def test_a_lane_equals_the_trial_alone(program, task, lane):
    _, together = _train(program, task, TRIALS)
    _, alone = _train(program, task, [TRIALS[lane]])
    # Sums are taken in another order with more lanes; Adam carries that on for six steps.
    np.testing.assert_allclose(_loss(together, lane), _loss(alone, 0), rtol=1e-4)
    np.testing.assert_allclose(
        together[-1].evaluated["test"].loss[lane], alone[-1].evaluated["test"].loss[0], rtol=1e-3
    )


def test_position_and_neighbours_do_not_matter(program, task):
    _, a = _train(program, task, TRIALS)
    _, b = _train(program, task, [TRIALS[3], WILD, TRIALS[0], TRIALS[1]])
    np.testing.assert_allclose(_loss(a, 0), _loss(b, 2), rtol=1e-5)
    np.testing.assert_allclose(_loss(a, 3), _loss(b, 0), rtol=1e-5)


def test_a_diverging_lane_changes_no_other_to_the_bit(program, task):
    calm, _ = _train(program, task, TRIALS)
    wild, results = _train(program, task, [TRIALS[0], WILD, *TRIALS[2:]])
    assert results[-1].diverged_step[1] >= 0
    assert (np.delete(results[-1].diverged_step, 1) == -1).all()
    for name, array in calm.snapshot().items():
        for lane in (0, 2, 3):
            np.testing.assert_array_equal(array[lane], wild.snapshot()[name][lane], err_msg=name)


def test_twice_gives_the_same_bits(program, task):
    first, _ = _train(program, task, TRIALS)
    second, _ = _train(program, task, TRIALS)
    for name, array in first.snapshot().items():
        np.testing.assert_array_equal(array, second.snapshot()[name], err_msg=name)


@pytest.mark.parametrize(
    "layout",
    [
        Layout(2),
        Layout(1, threads=3),
        Layout(4, steps_per_call=2),
        *(pytest.param(layout, marks=pytest.mark.landing) for layout in (Layout(1), Layout(3))),
    ],
)
def test_layouts_agree(program, task, layout):
    _, fused = _train(program, task, TRIALS)
    _, other = _train(program, task, TRIALS, layout)
    for lane in range(4):
        np.testing.assert_allclose(_loss(fused, lane), _loss(other, lane), rtol=1e-4)
        np.testing.assert_array_equal(fused[-1].train.count, other[-1].train.count)


def test_counts_every_example_once(program, task):
    _, results = _train(program, task, TRIALS)
    assert (results[0].train.count == 44).all()
    assert (results[0].evaluated["test"].count == 20).all()


def test_dropping_the_remainder(program):
    task = Task(draw_split(44, 0), {}, 16, keep_remainder=False)
    _, results = _train(program, task, TRIALS[:2])
    assert (results[0].train.count == 32).all()
    assert task.steps_per_epoch == 2


@pytest.mark.parametrize("layout", [Layout(2, threads=2), pytest.param(Layout(4), marks=pytest.mark.landing)])
def test_streamed_images_give_the_same(program, task, layout):
    _, resident = _train(program, task, TRIALS)
    _, streamed = _train(program, dataclasses.replace(task, streamed=True), TRIALS, layout)
    for lane in range(4):
        np.testing.assert_allclose(_loss(resident, lane), _loss(streamed, lane), rtol=1e-4)
        np.testing.assert_array_equal(resident[-1].train.count, streamed[-1].train.count)


def test_snapshot_and_restore_go_on_exactly(program, task):
    engine, _ = _train(program, task, TRIALS)
    arrays = engine.snapshot()
    expected = engine.run_epoch([Shuffle(5, 2)] * 4, ("test",))
    other = Engine(program, task, TRIALS[0], 4, Layout(4))
    other.restore(arrays)
    result = other.run_epoch([Shuffle(5, 2)] * 4, ("test",))
    np.testing.assert_array_equal(result.train.loss, expected.train.loss)
    np.testing.assert_array_equal(result.evaluated["test"].loss, expected.evaluated["test"].loss)


def test_a_recycled_lane_equals_the_trial_alone(program, task):
    engine, _ = _train(program, task, TRIALS)
    engine.admit(1, TRIALS[3])
    recycled = [engine.run_epoch([Shuffle(5, e), Shuffle(5, e - 2), Shuffle(5, e), None], ()) for e in (2, 3)]
    alone = Engine(program, task, TRIALS[0], 1, Layout(1))
    alone.admit(0, TRIALS[3])
    expected = [alone.run_epoch([Shuffle(5, e)], ()) for e in (0, 1)]
    np.testing.assert_allclose(_loss(recycled, 1), _loss(expected, 0), rtol=1e-4)


def test_rearranging_keeps_and_copies_lanes(program, task):
    engine, _ = _train(program, task, TRIALS)
    before = engine.snapshot()
    engine.rearrange([3, 0])
    after = engine.snapshot()
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array[[3, 0]])


def test_a_copied_lane_goes_on_from_the_source_as_itself(program, task):
    engine, _ = _train(program, task, TRIALS)
    engine.keep_best(np.array([0.1, 0.2, 0.3, 0.4]))
    before = engine.snapshot()
    engine.copy_lanes([0, 3, 2, 3])
    engine.set_hparams(1, TRIALS[1]._replace(learning_rate=np.float32(0.5)))
    after = engine.snapshot()
    for name, array in before.items():
        own = name.startswith((".best", ".hparams", ".state.rng"))
        np.testing.assert_array_equal(after[name][[0, 2, 3]], array[[0, 2, 3]], err_msg=name)
        expected = 0.5 if name == ".hparams.learning_rate" else array[1 if own else 3]
        np.testing.assert_array_equal(after[name][1], expected, err_msg=name)
    assert any(name.startswith(".state.opt_state") for name in before)


@pytest.mark.parametrize("layout", [Layout(2), Layout(1)])
def test_lanes_are_copied_across_shards(program, task, layout):
    fused, _ = _train(program, task, TRIALS, epochs=1)
    apart, _ = _train(program, task, TRIALS, layout, epochs=1)
    results = []
    for engine in (fused, apart):
        engine.copy_lanes([0, 3, 0, 3])
        results.append([engine.run_epoch([Shuffle(5, 1)] * 4, ())])
    for lane in range(4):
        np.testing.assert_allclose(_loss(results[0], lane), _loss(results[1], lane), rtol=1e-4)


def test_best_weights_stay_when_scores_fall(program, task):
    engine, _ = _train(program, task, TRIALS[:2], epochs=1)
    engine.keep_best(np.array([0.5, 0.1]))
    kept = engine.weights(0)
    engine.run_epoch([Shuffle(5, 1)] * 2, ())
    engine.keep_best(np.array([0.4, 0.2]))
    jax.tree.map(np.testing.assert_array_equal, engine.weights(0), kept)
    assert any(
        (np.asarray(a) != np.asarray(b)).any()
        for a, b in zip(jax.tree.leaves(engine.weights(1)), jax.tree.leaves(kept), strict=True)
    )


@pytest.mark.parametrize(
    "layout",
    [
        Layout(2, threads=2),
        *(pytest.param(x, marks=pytest.mark.landing) for x in (Layout(4), Layout(3, steps_per_call=2))),
    ],
)
def test_lanes_out_of_step_equal_the_trials_alone(program, task, layout):
    """Each is at a pass of its own; two of them happen to be at the same one."""
    passes = [Shuffle(5, 0), Shuffle(5, 3), Shuffle(6, 0), Shuffle(5, 3)]
    engine = Engine(program, task, TRIALS[0], 4, layout)
    for lane, trial in enumerate(TRIALS):
        engine.admit(lane, trial)
    together = [engine.run_epoch([p._replace(epoch=p.epoch + e) for p in passes], ()) for e in range(2)]
    for lane, trial in enumerate(TRIALS):
        alone = Engine(program, task, TRIALS[0], 1, Layout(1))
        alone.admit(0, trial)
        first = passes[lane]
        expected = [alone.run_epoch([first._replace(epoch=first.epoch + e)], ()) for e in range(2)]
        # Other kernels compute batches of the lanes' own; Adam turns roundings into steps, here up to 0.01.
        np.testing.assert_allclose(_loss(together, lane)[0], _loss(expected, 0)[0], rtol=1e-4)
        np.testing.assert_allclose(_loss(together, lane)[1], _loss(expected, 0)[1], rtol=5e-3)


@pytest.mark.parametrize("layout", [Layout(2, threads=2), pytest.param(Layout(4), marks=pytest.mark.landing)])
def test_lanes_out_of_step_are_streamed(program, task, layout):
    passes = [Shuffle(5, 0), Shuffle(5, 3), None, Shuffle(6, 0)]
    losses = []
    for streamed in (False, True):
        engine = Engine(program, dataclasses.replace(task, streamed=streamed), TRIALS[0], 4, layout)
        for lane, trial in enumerate(TRIALS):
            engine.admit(lane, trial)
        losses.append(engine.run_epoch(passes, ()).train.loss[[0, 1, 3]])
    np.testing.assert_allclose(*losses, rtol=1e-4)


@pytest.mark.landing
def test_augmentations_follow_the_pass(task):
    def darken(key, images):
        factor = jax.random.uniform(key, (images.shape[0], 1, 1, 1))
        return (images.astype(factor.dtype) * factor).astype(images.dtype)

    program = _program(darken)
    engine = Engine(program, task, TRIALS[0], 3, Layout(3))
    for lane in range(3):
        engine.admit(lane, TRIALS[0])
    shared = engine.run_epoch([Shuffle(5, 1)] * 3, ()).train.loss
    again = Engine(program, task, TRIALS[0], 3, Layout(3))
    for lane in range(3):
        again.admit(lane, TRIALS[0])
    own = again.run_epoch([Shuffle(5, 1), Shuffle(5, 2), Shuffle(5, 1)], ()).train.loss
    np.testing.assert_allclose(own[[0, 2]], shared[[0, 2]], rtol=1e-4)
    assert abs(own[1] / shared[1] - 1) > 1e-3


def test_one_trace_however_many_trials(task):
    program = _program()
    engine = Engine(program, task, TRIALS[0], 2, Layout(2))
    for epoch in range(4):
        engine.admit(epoch % 2, TRIALS[epoch])
        engine.run_epoch([Shuffle(5, epoch)] * 2, ("test",))
    shared = {("train", 2, False): 1, ("train_masked", 2, False): 1, ("evaluate", 2, False): 1}
    assert program.traces == shared and engine.traces == 1
    for epoch in range(3):
        engine.run_epoch([Shuffle(5, epoch), Shuffle(5, 3)], ("test",))
    assert program.traces == {**shared, ("train", 2, True): 1, ("train_masked", 2, True): 1}
    assert engine.traces == 2


def test_a_last_single_step_is_one_of_the_loops(task):
    program = _program()
    task = dataclasses.replace(task, train=draw_split(3 * task.batch_size, 0))
    engine = Engine(program, task, TRIALS[0], 2, Layout(2, steps_per_call=2))
    engine.run_epoch([Shuffle(5, 0)] * 2, ())
    assert program.traces == {("train", 2, False): 1}


def test_a_split_lies_on_a_device_once(program, task):
    mesh = first_devices(1)
    first = place(task.train, mesh)
    Engine(program, task, TRIALS[0], 2, Layout(2))
    assert place(task.train, mesh) is first
    split = draw_split(8, 3)
    images = weakref.ref(place(split, mesh).images)
    del split
    gc.collect()
    assert images() is None


def test_only_what_saves_work_is_dropped(program, task):
    engine, _ = _train(program, task, TRIALS, Layout(2), epochs=1)
    before = engine.snapshot()
    assert engine.shrink([0, 1, 2]) is None
    assert engine.shrink([]) is None
    assert engine.shrink([1, 3]) == [1, 3]
    after = engine.snapshot()
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array[[1, 3]], err_msg=name)
    assert engine.shrink([1]) == [1]


@pytest.mark.parametrize("layout", [Layout(1), Layout(3), Layout(2, threads=2)])
def test_a_change_of_layout_moves_lanes_and_nothing_else(program, task, layout):
    engine, _ = _train(program, task, TRIALS, epochs=1)
    before = engine.snapshot()
    engine.change_layout(layout)
    after = engine.snapshot()
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array, err_msg=name)
    assert np.isfinite(engine.run_epoch([Shuffle(5, 1)] * 4, ()).train.loss).all()
