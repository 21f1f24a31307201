"""Lanes of several workers act as one engine's; here the workers are objects of this process."""

import dataclasses
import gc
import pickle
import weakref
from pathlib import Path

import numpy as np
import pytest
import tiny_network
from tiny_network import DATA, MODEL

from hpjax.config import parse_config
from hpjax.config.user_files import keep_own_code, kept_code
from hpjax.data.dataset import load_dataset
from hpjax.errors import ConfigError, UserCodeError, WorkdirError
from hpjax.lanes.engine import Engine, Layout, Stopped
from hpjax.lanes.group import create_program, create_task, trial_hparams
from hpjax.lanes.shuffle import Shuffle
from hpjax.launch.lanes import SpreadLanes
from hpjax.launch.worker import LanesGone, Worker
from hpjax.search.trial import Trial
from hpjax.store.parts import SavedLanes, begin_parts
from hpjax.sweep.inputs import hash_files
from hpjax.sweep.workers import Work

RATES = (1e-4, 3e-4, 1e-3, 2e-3, 3e-3)
CONFIG = parse_config({"model": MODEL, "data": DATA, "train": {"batch_size": 12}})

SMALL = Trial(0, {"image_size": 24}, 0)


class Pool:
    """Workers that are asked one after the other."""

    def ask(self, calls, should_stop=None, to_the_end=False):
        del should_stop, to_the_end
        return [getattr(worker, name)(*args) for worker, name, args in calls]


@pytest.fixture(scope="module")
def group():
    dataset = load_dataset(CONFIG.data, CONFIG.seed)
    work = Work("sweep", "key", CONFIG, Trial(0, {}, 0), True, {}, hash_files(CONFIG), {})
    return work, create_program(CONFIG, dataset), create_task(CONFIG, dataset, True)


@pytest.fixture
def here(group):
    work, program, task = group
    return _admitted(Engine(program, task, work.hparams, len(RATES), Layout(2)))


@pytest.fixture
def spread(group, workers):
    return _spread(group, workers, len(RATES))


@pytest.fixture(scope="module")
def workers():
    return [Worker(), Worker()]


def _spread(group, workers, num_lanes):
    work, program, task = group
    return _admitted(SpreadLanes(Pool(), workers, work, program, task, num_lanes, Layout(2)))


def _hparams(lane):
    return trial_hparams(CONFIG, lane)._replace(learning_rate=np.float32(RATES[lane]))


def _admitted(lanes):
    for lane in range(lanes.num_lanes):
        lanes.admit(lane, _hparams(lane))
    return lanes


def _run(lanes, epoch=0):
    return lanes.run_epoch([Shuffle(5, epoch)] * lanes.num_lanes, ("test",))


def _assert_equal(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        np.testing.assert_array_equal(ours[name], array, err_msg=name)


def test_an_epoch(here, spread):
    assert spread.num_lanes == 5 and spread.lanes_per_device == 3 and spread.traces == 0
    ours, theirs = _run(spread), _run(here)
    np.testing.assert_allclose(ours.train.loss, theirs.train.loss, rtol=1e-5)
    np.testing.assert_allclose(ours.evaluated["test"].loss, theirs.evaluated["test"].loss, rtol=1e-3)
    np.testing.assert_array_equal(ours.train.count, theirs.train.count)
    np.testing.assert_array_equal(ours.diverged_step, theirs.diverged_step)
    assert spread.traces <= 2 >= here.traces
    np.testing.assert_allclose(spread.evaluate("test").loss, ours.evaluated["test"].loss, rtol=1e-6)


def test_lanes_are_moved_to_the_bit(here, spread):
    _run(spread)
    here.restore(before := spread.snapshot())
    _assert_equal(here.snapshot(), before)
    for lanes in (here, spread):
        lanes.keep_best(np.array([0.1, 0.5, 0.3, 0.4, 0.2]))
        lanes.put(4, lanes.take_out(0))
        lanes.copy_lanes([3, 1, 0, 4, 2])  # near and far, and all at once
        lanes.set_hparams(2, _hparams(4))
    _assert_equal(spread.snapshot(), here.snapshot())
    for lane in range(5):
        _assert_equal(
            {str(k): v for k, v in _flat(spread.weights(lane))},
            {str(k): v for k, v in _flat(here.weights(lane))},
        )


def _flat(tree, path=()):
    for name, value in tree.items():
        yield from _flat(value, (*path, name)) if isinstance(value, dict) else [((*path, name), value)]


@pytest.mark.parametrize("busy", [[4], [3, 4], [0, 1, 2], [0, 4]])
def test_few_that_are_left_are_spread_evenly(spread, busy):
    _run(spread)
    before = spread.snapshot()
    kept = spread.shrink(busy)
    assert set(busy) <= set(kept)
    assert len(kept) == spread.num_lanes == {1: 1, 2: 2, 3: 4}[len(busy)]
    assert max(spread._sizes) - min(spread._sizes) <= 1
    _assert_equal(spread.snapshot(), {name: array[kept] for name, array in before.items()})
    spread.change_layout(Layout(1))
    _assert_equal(spread.snapshot(), {name: array[kept] for name, array in before.items()})
    _run(spread, 1)


@pytest.mark.parametrize("after", [1, 3])
def test_a_checkpoint_goes_on_on_other_workers(group, spread, workers, after):
    _run(spread)
    arrays = spread.snapshot()
    expected = _run(spread, 1)
    other = _spread(group, [Worker() for _ in range(after)], 2)
    other.restore(arrays)
    _assert_equal(other.snapshot(), arrays)
    np.testing.assert_allclose(_run(other, 1).train.loss, expected.train.loss, rtol=1e-4)


@pytest.mark.parametrize("after", [1, 3])
def test_each_worker_writes_and_reads_its_own_lanes(group, spread, workers, after, tmp_path):
    _run(spread)
    arrays, folder = spread.snapshot(), begin_parts(tmp_path / "lanes")
    saved = SavedLanes(folder, spread.write(folder))
    assert [part.lanes for part in saved.parts] == [3, 2]
    _assert_equal(saved.load(), arrays)
    spread.restore({name: array[::-1] for name, array in arrays.items()})
    other = _spread(group, [Worker() for _ in range(after)], 2)
    other.read(pickle.loads(pickle.dumps(saved)))
    _assert_equal(other.snapshot(), arrays)


def test_what_a_worker_doesnt_see_is_written_by_none(spread, workers, tmp_path, monkeypatch):
    folder, can = begin_parts(tmp_path / "lanes"), Worker.can_write
    monkeypatch.setattr(Worker, "can_write", lambda self, path: self is workers[0] and can(self, path))
    assert spread.write(folder) is None and not list(folder.iterdir())


def test_more_workers_than_lanes(group, workers):
    spread = _spread(group, workers, 1)
    assert spread.num_lanes == 1 and np.isfinite(_run(spread).train.loss).all()


def test_a_worker_trains_on_nothing_else(group):
    work, *_ = group
    other = dataclasses.replace(work, sweep="2", files={"model.name": {"": "other"}})
    worker = Worker()
    worker.create_lanes(work, 1, Layout(1))  # of a sweep before
    with pytest.raises(WorkdirError, match="a worker has other weights"):
        worker.create_lanes(other, 1, Layout(1))
    names = {f"{DATA['name']}:{DATA['image_size']}": "another"}
    other = dataclasses.replace(work, sweep="3", fingerprints=names)
    with pytest.raises(WorkdirError, match="other images"):
        worker.create_lanes(other, 1, Layout(1))


def test_a_worker_lets_go_of_a_groups_images(group):
    """Also of those on its device: a grid over image sizes has no two of them there."""
    work, *_ = group
    worker = Worker()
    worker.create_lanes(work, 1, Layout(1))
    images = weakref.ref(worker._engine.task.train)
    worker.create_lanes(dataclasses.replace(work, key="of another group", first=SMALL), 1, Layout(1))
    gc.collect()
    assert images() is None


def test_a_worker_runs_code_as_the_sweep_has_read_it(group, tmp_path):
    file = tmp_path / "net.py"
    file.write_text(Path(tiny_network.__file__).read_text("utf-8"), "utf-8")
    config = parse_config({"model": {"name": f"{file}:Tiny"}, "data": DATA})
    with keep_own_code():
        work = dataclasses.replace(group[0], config=config, files=hash_files(config), code=kept_code())
    file.write_text("raise ValueError", "utf-8")
    worker = Worker()
    worker.create_lanes(pickle.loads(pickle.dumps(work)), 1, Layout(1))
    assert len(worker.call("snapshot")) > 0


def test_lanes_of_a_worker_that_was_restarted_are_gone(group):
    with pytest.raises(LanesGone):
        Worker().call("snapshot")


def test_a_worker_says_whether_it_is_at_work(group, monkeypatch):
    """One that is asked for something and never is has lost the call."""
    work, worker, said = group[0], Worker(), []
    assert not worker.ping()
    worker.create_lanes(work, 1, Layout(1))
    monkeypatch.setattr(Engine, "snapshot", lambda engine: said.append(worker.ping()))
    worker.call("snapshot")
    assert said == [True] and not worker.ping()


def test_a_worker_stops_what_nobody_waits_for(group):
    work, *_ = group
    worker = Worker()
    worker.create_lanes(work, 1, Layout(1))
    worker.stop()
    with pytest.raises(Stopped):
        worker.call("run_epoch", [Shuffle(5, 0)], ())
    worker.create_lanes(work, 1, Layout(1))
    worker.call("run_epoch", [Shuffle(5, 0)], ())


@pytest.mark.parametrize("error", [ConfigError("a.b", 3, "less"), UserCodeError("file.py, line 3: no")])
def test_errors_cross_processes(error):
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error) and str(again) == str(error) and vars(again) == vars(error)
