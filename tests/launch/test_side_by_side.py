"""Groups run side by side where there are several workers; here these are objects of this process."""

import dataclasses
import json
import signal
import threading
import time

import numpy as np
import pytest
from tiny_network import MODEL

from hpjax.config import parse_config
from hpjax.errors import OutOfMemory, WorkdirError
from hpjax.lanes.correction import Correction
from hpjax.lanes.engine import Layout
from hpjax.launch.ray import RayCrew
from hpjax.launch.worker import Worker
from hpjax.store.checkpoints import read_newest_ledger
from hpjax.store.steps import load_folder
from hpjax.store.workdir import POPULATION
from hpjax.sweep import events, planning
from hpjax.sweep.events import Upkeep
from hpjax.sweep.groups import Opener
from hpjax.sweep.ledgers import list_runs, name_arrays
from hpjax.sweep.protocol import Status, combine
from hpjax.sweep.run import Interrupted, plan_sweep, run_sweep
from hpjax.sweep.workers import WorkersLost, deal

SIZES, RATES = (10, 12, 25), (1e-4, 1e-3)


class Workers:
    """Workers that are asked in the thread of their group."""

    def __init__(self, num: int):
        self._workers, self._lent, self.asked = [Worker() for _ in range(num)], set(), []
        self.recovered, self.leaving, self.are_elsewhere = 0, False, True
        self.before_epoch = lambda worker: None
        self._devices = {worker: worker.describe() for worker in self._workers}

    @property
    def size(self):
        return len(self._workers)

    def welcome(self):
        pass

    def are_leaving(self):
        return self.leaving

    def recover(self):
        self._lent.clear()
        self.recovered, self.leaving = self.recovered + 1, False

    def describe(self):
        return self._devices[self._workers[0]]

    def lend(self, num):
        free = [worker for worker in self._workers if worker not in self._lent][:num]
        assert len(free) == num
        self._lent.update(free)
        return RayCrew(self, {worker: self._devices[worker] for worker in free})

    def take_back(self, crew):
        self._lent.difference_update(crew.actors)

    def send(self, work):
        return work

    def ask(self, calls, should_stop=None, to_the_end=False):
        del should_stop, to_the_end
        for worker, _, arguments in calls:
            if arguments[:1] == ("run_epoch",):
                self.asked.append(worker)
                self.before_epoch(worker)
        return [getattr(worker, name)(*arguments) for worker, name, arguments in calls]


@pytest.fixture(autouse=True)
def _saved_often(monkeypatch):
    monkeypatch.setattr(events, "CHECKPOINT_SHARE", 1.0)


def _config(lanes=2, **sweep):
    return parse_config(
        {
            "model": MODEL,
            "data": {"name": "digits", "image_size": 12, "max_train_examples": 50, "max_test_examples": 30},
            "train": {"epochs": 4},
            "lanes": {"strategy": "fused", "count": lanes, "devices": 1},
            "sweep": {"space": {"batch_size": SIZES, "learning_rate": RATES}, **sweep},
            "trackers": (),
        }
    )


RANDOM = {"sampler": "random", "trials": 5, "seeds": 2}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return run_sweep(_config(), tmp_path_factory.mktemp("alone") / "w")


def _assert_same(ours, theirs, rtol=0.0):
    """To the bit where each worker has as many lanes of a group as one would have alone."""
    for mine, other in zip(ours.epochs, theirs.epochs, strict=True):
        assert (mine.trial, mine.epoch) == (other.trial, other.epoch)
        losses = [(row.train_loss, row.test_loss or row.validation_loss) for row in (mine, other)]
        np.testing.assert_allclose(*losses, rtol=rtol)
    assert [row.hyperparameters for row in ours.trials] == [row.hyperparameters for row in theirs.trials]
    assert [row.status for row in ours.trials] == ["complete"] * len(theirs.trials)


def _history(result):
    lines = (result.workdir / "history.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("num", [2, pytest.param(3, marks=pytest.mark.landing)])
def test_the_tables_are_those_of_one_worker(num, alone, tmp_path):
    workers = Workers(num)
    met = threading.Barrier(num, timeout=60)  # fails where an epoch waits for another group's end

    def meet(worker):
        if len(workers.asked) <= num:
            met.wait()

    workers.before_epoch = meet
    result = run_sweep(_config(), tmp_path / "w", workers=workers)
    _assert_same(result, alone)
    assert result.summary["groups"] == 3
    starts = [event["group"] for event in _history(result) if event["kind"] == "start"]
    ends = [event["kind"] for event in _history(result)].index("finish")
    begun = {event["group"] for event in _history(result)[:ends] if event["kind"] == "start"}
    assert begun == set(range(num)) and set(starts) == {0, 1, 2}
    assert set(workers.asked) == set(workers._workers)
    page = (result.workdir / "report.html").read_text("utf-8")
    assert "groups of trials run side by side" in page
    page = (alone.workdir / "report.html").read_text("utf-8")
    assert "groups of trials run one after the other" in page


@pytest.mark.landing
def test_a_search_whose_trials_are_the_same_whenever_they_are_asked_for(tmp_path):
    result = run_sweep(_config(**RANDOM), tmp_path / "ours", workers=Workers(2))
    _assert_same(result, run_sweep(_config(**RANDOM), tmp_path / "theirs"), rtol=1e-3)
    starts = [event["group"] for event in _history(result) if event["kind"] == "start"]
    assert starts != sorted(starts)


@pytest.mark.landing
@pytest.mark.parametrize("sweep", [{"pruner": "median"}, {"sampler": "tpe", "trials": 6}])
def test_what_depends_on_what_came_before_takes_turns(sweep, tmp_path):
    result = run_sweep(_config(**sweep), tmp_path / "w", workers=Workers(2))
    running = None
    for event in _history(result):
        if event["kind"] == "start":
            assert running in (None, event["group"])
            running = event["group"]
        elif event["kind"] == "finish":
            running = None if event["trial"] % 2 else running  # of two lanes


def _stop_at(count):
    """Returns a boundary that stops the sweep the so manyth time."""
    met, boundary = [], Upkeep.boundary

    def stop(upkeep, status):
        met.append(status)
        if len(met) == count:
            upkeep._session.signals.received = signal.SIGTERM
        return boundary(upkeep, status)

    return stop


@pytest.mark.landing
@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("after", [2, 4, 7])
def test_it_goes_on_from_all_of_them(after, workers, alone, tmp_path):
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(Upkeep, "boundary", _stop_at(after))
        run_sweep(_config(), tmp_path / "w", workers=Workers(3))
    more = {} if workers == 1 else {"workers": Workers(workers)}
    result = run_sweep(_config(), tmp_path / "w", **more)
    _assert_same(result, alone, rtol=1e-3)  # the last group may have got two workers
    assert result.summary["groups"] == 3
    plans = json.loads((tmp_path / "w" / "plan.json").read_text("utf-8"))["groups"]
    assert [plan["static"]["batch_size"] for plan in plans] == list(SIZES)


@pytest.mark.landing
@pytest.mark.parametrize("seen", [True, False])
def test_workers_write_their_lanes_where_they_see_the_workdir(seen, alone, tmp_path, monkeypatch):
    if not seen:
        monkeypatch.setattr(Worker, "can_write", lambda worker, folder: False)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(Upkeep, "boundary", _stop_at(4))
        run_sweep(_config(), tmp_path / "w", workers=Workers(3))
    population = tmp_path / "w" / POPULATION
    newest = max(population.glob("step_*"))
    arrays, ledger = load_folder(newest)
    lanes = [len(run["ledger"]["slots"]) for run in ledger["runs"]]
    assert len(lanes) == 3  # groups
    if seen:  # this process had none of them
        assert not arrays
        parts = [ledger["parts"][f"run_{i}"]["parts"] for i in range(3)]
        assert [sum(part["lanes"] for part in of_run) for of_run in parts] == lanes
    else:
        assert [len(next(iter(arrays[f"run_{i}"].values()))) for i in range(3)] == lanes
    _assert_same(run_sweep(_config(), tmp_path / "w", workers=Workers(3)), alone, rtol=1e-3)
    ledgers = [load_folder(step)[1] for step in population.glob("step_*")]
    kept = {entry["folder"] for ledger in ledgers for entry in ledger.get("parts", {}).values()}
    assert {path.name for path in (population / "lanes").iterdir()} == kept


@pytest.mark.landing
def test_lanes_that_cant_be_written_leave_nothing_behind(alone, tmp_path, monkeypatch):
    """What the others have written at the same time is of no use then, and the disk may be full."""
    population, written, write = tmp_path / "w" / POPULATION, [], Worker.write_lanes

    def fail(worker, folder):
        if any(population.glob("step_*")):  # one of several, of the second checkpoint
            if written:
                raise WorkdirError("can't write checkpoint: No space left on device")
            written.append(folder)
        return write(worker, folder)

    monkeypatch.setattr(Worker, "write_lanes", fail)
    monkeypatch.setattr(Upkeep, "boundary", _stop_at(7))
    with pytest.raises(WorkdirError, match="No space left"):
        run_sweep(_config(), tmp_path / "w", workers=Workers(3))
    assert written
    ledger = load_folder(max(population.glob("step_*")))[1]
    named = {entry["folder"] for entry in ledger["parts"].values()}
    assert {path.name for path in (population / "lanes").iterdir()} == named
    monkeypatch.undo()
    _assert_same(run_sweep(_config(), tmp_path / "w", workers=Workers(3)), alone, rtol=1e-3)


@pytest.mark.landing
@pytest.mark.parametrize("count", [1, 4, 8])
def test_one_of_them_is_lost(count, alone, tmp_path):
    workers = Workers(3)

    def lose(worker):
        if len(workers.asked) == count:
            raise WorkersLost("a worker was lost")

    workers.before_epoch = lose
    _assert_same(run_sweep(_config(), tmp_path / "w", workers=workers), alone)
    assert workers.recovered == 1


def _hold_second_group(workers, monkeypatch):
    """Has the second worker's group wait, after its first epoch, until the first one's is at its end.

    Nothing is saved meanwhile: a checkpoint waits for both.
    """
    monkeypatch.setattr(events, "CHECKPOINT_SHARE", 1e-9)

    def wait(worker):
        first, second = workers._workers
        if worker is second and workers.asked.count(second) == 2:
            while len(workers._lent) == 2:
                time.sleep(0.01)

    workers.before_epoch = wait


@pytest.mark.landing
@pytest.mark.parametrize("count", [0, 2])
def test_an_idle_worker_takes_trials_of_a_group_that_runs(count, tmp_path, monkeypatch):
    """The group has more lanes then, unless it was said how many there are to be."""
    monkeypatch.setattr(planning, "MOST_LANES", 2)  # of a worker
    space = {"batch_size": (10, 12), "learning_rate": (1e-4, 2e-4, 3e-4, 5e-4, 1e-3)}
    workers, asked, ask = Workers(2), [], Workers.ask
    monkeypatch.setattr(
        Workers,
        "ask",
        lambda pool, calls, *more, **named: (
            asked.extend(call[2][0] for call in calls if call[2]) or ask(pool, calls, *more, **named)
        ),
    )
    _hold_second_group(workers, monkeypatch)
    result = run_sweep(_config(lanes=count, space=space), tmp_path / "w", workers=workers)
    if not count:
        assert "take_out" not in asked  # no lane went to another worker
    _assert_same(result, run_sweep(_config(space=space), tmp_path / "alone"), rtol=1e-3)
    first, second = workers._workers
    rounds = 3 if count else 2  # of five trials on two lanes, or on two and then four
    assert workers.asked.count(second) == 4 * rounds
    assert workers.asked.count(first) > 4 * 3  # those of its own group
    layouts = result.summary["layouts"]
    assert [(layout["lanes"], layout["devices"]) for layout in layouts] == [(2, 1), (count or 4, 2)]
    assert sum(row.epochs for row in result.trials) == 40 and result.summary["groups"] == 2


@pytest.mark.landing
def test_memory_that_runs_out_on_an_idle_worker_doesnt_end_the_sweep(tmp_path, monkeypatch):
    """Not even where lanes train one at a time: it goes on as it did before."""
    monkeypatch.setattr(planning, "MOST_LANES", 1)
    space = {"batch_size": (10, 12), "learning_rate": (1e-4, 2e-4, 3e-4)}
    workers, enlarged = Workers(2), []
    _hold_second_group(workers, monkeypatch)

    def fail(opener, group, crew):
        enlarged.append(group)
        with monkeypatch.context() as patch:
            patch.setattr(Worker, "create_lanes", lambda *_: (_ for _ in ()).throw(MemoryError))
            enlarge(opener, group, crew)

    enlarge = Opener.enlarge
    monkeypatch.setattr(Opener, "enlarge", fail)
    result = run_sweep(_config(lanes=0, space=space), tmp_path / "w", workers=workers)
    assert len(enlarged) == 1 and [row.epochs for row in result.trials] == [4] * 6


@pytest.mark.landing
@pytest.mark.parametrize("more", [2, 3])
def test_idle_workers_go_to_groups_that_wait_for_equally_many_trials(more, tmp_path, monkeypatch):
    monkeypatch.setattr(planning, "MOST_LANES", 1)
    space = {"batch_size": (10, 12), "learning_rate": (1e-4, 2e-4, 3e-4, 5e-4, 1e-3)}
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(Upkeep, "boundary", _stop_at(2))
        run_sweep(_config(lanes=0, space=space), tmp_path / "w", workers=Workers(2))
    workers = Workers(2 + more)
    run_sweep(_config(lanes=0, space=space), tmp_path / "w", workers=workers)
    assert set(workers.asked[: 2 * (2 + more)]) == set(workers._workers)  # within two rounds


@pytest.mark.landing
def test_what_an_idle_worker_took_is_in_the_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(planning, "MOST_LANES", 2)
    space = {"batch_size": (10, 12), "learning_rate": (1e-4, 2e-4, 3e-4, 5e-4, 1e-3)}
    workers = Workers(2)
    _hold_second_group(workers, monkeypatch)
    enlarged, enlarge = [], Opener.enlarge

    def note(opener, group, crew):
        enlarge(opener, group, crew)
        monkeypatch.setattr(events, "CHECKPOINT_SHARE", 1.0)
        enlarged.append(len(workers.asked))

    def lose(upkeep, runs, block):
        save(upkeep, runs, block)
        if enlarged and len(enlarged) < 2:
            enlarged.append(0)
            raise WorkersLost("a worker was lost")

    save = Upkeep.save
    monkeypatch.setattr(Opener, "enlarge", note)
    monkeypatch.setattr(Upkeep, "save", lose)
    result = run_sweep(_config(lanes=0, space=space), tmp_path / "w", workers=workers)
    _assert_same(result, run_sweep(_config(space=space), tmp_path / "alone"), rtol=1e-3)
    assert workers.recovered == 1 and result.summary["layouts"][1]["devices"] == 2


@pytest.mark.landing
@pytest.mark.parametrize("failing", ["create_lanes", "admit"])
def test_workers_of_a_group_that_cant_be_opened_are_free_again(failing, tmp_path, monkeypatch):
    """Memory runs out once, as the second group is opened."""
    workers, calls, ask = Workers(3), [], Workers.ask

    def fail_once(pool, asked, *more, **named):
        for _, name, arguments in asked:
            calls.extend([1] if failing in (name, *arguments[:1]) else [])
            if failing in (name, *arguments[:1]) and len(calls) == 3:
                raise MemoryError
        return ask(pool, asked, *more, **named)

    monkeypatch.setattr(Workers, "ask", fail_once)
    result = run_sweep(_config(lanes=4), tmp_path / "w", workers=workers)
    assert [row.epochs for row in result.trials] == [4] * 6 and not workers._lent


@pytest.mark.landing
def test_a_signal_while_a_group_is_opened_saves_the_others(alone, tmp_path, monkeypatch):
    workers, opened, open_group = Workers(2), [], Opener.open

    def open_then_signal(opener, *arguments):
        group = open_group(opener, *arguments)
        opened.append(group)
        if len(opened) == 3:
            opener._session.signals.received = signal.SIGTERM
        return group

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(Opener, "open", open_then_signal)
        run_sweep(_config(), tmp_path / "w", workers=workers)
    epochs = [group.run.epoch for group in opened]
    assert epochs[2] == 0  # none of its epochs was begun
    before = len(workers.asked)
    _assert_same(run_sweep(_config(), tmp_path / "w", workers=workers), alone, rtol=1e-3)
    assert len(workers.asked) - before == 3 * 4 - sum(epochs)  # nothing was done again


@pytest.mark.landing
def test_an_epoch_isnt_recorded_where_another_was_left_unfinished(alone, tmp_path, monkeypatch):
    """A signal right after all were saved: what is in the tables is in the checkpoint."""
    saves, save = [], Upkeep.save

    def save_then_signal(upkeep, runs, block):
        save(upkeep, runs, block)
        saves.append(1)
        if len(saves) == 1:
            upkeep._session.signals.received = signal.SIGTERM

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(Upkeep, "save", save_then_signal)
        run_sweep(_config(), tmp_path / "w", workers=Workers(3))
    checkpoint = read_newest_ledger(tmp_path / "w" / "checkpoints" / "population")
    table = (tmp_path / "w" / "epochs.csv").read_text("utf-8").splitlines()[1:]
    assert checkpoint["tally"]["epochs"] == len(table) > 0
    _assert_same(run_sweep(_config(), tmp_path / "w", workers=Workers(3)), alone, rtol=1e-3)


@pytest.mark.landing
def test_lanes_go_on_on_as_many_workers_as_they_had(tmp_path):
    """However few trials are left: they were in the memory of so many."""
    space = {"batch_size": (10, 12), "learning_rate": (1e-4, 3e-4, 1e-3)}
    workers = Workers(4)

    def lose(worker):
        if len(workers.asked) == 9:
            raise WorkersLost("a worker was lost")

    workers.before_epoch = lose
    result = run_sweep(_config(lanes=4, space=space), tmp_path / "w", workers=workers)
    assert [layout["devices"] for layout in result.summary["layouts"]] == [2, 2]


@pytest.mark.landing
def test_one_of_them_is_about_to_end(alone, tmp_path, monkeypatch):
    """All are saved at once, whether or not it is time, and nothing is done again."""
    monkeypatch.setattr(events, "CHECKPOINT_SHARE", 1e-9)
    workers = Workers(3)

    def notify(worker):
        workers.leaving |= len(workers.asked) == 5

    workers.before_epoch = notify
    _assert_same(run_sweep(_config(), tmp_path / "w", workers=workers), alone)
    assert workers.recovered == 1 and len(workers.asked) == 3 * 4


@pytest.mark.landing
def test_memory_that_runs_out_is_its_groups(tmp_path):
    """Both lanes are more than there is memory for: they take turns from then on, as on one worker."""
    workers = Workers(3)

    def exhaust(worker):
        if worker._engine.layout.at_once > 1 and worker is workers._workers[1]:
            raise MemoryError

    workers.before_epoch = exhaust
    result = run_sweep(_config(), tmp_path / "w", workers=workers)
    assert result.summary["reduced_to_lanes"] == 1
    assert [row.epochs for row in result.trials] == [4] * 6
    workers.before_epoch = lambda worker: (_ for _ in ()).throw(MemoryError)
    with pytest.raises(OutOfMemory, match="one lane at a time"):
        run_sweep(_config(), tmp_path / "none", workers=workers)


@pytest.mark.landing
def test_the_plan_is_of_groups_side_by_side():
    plan = plan_sweep(_config(), workers=Workers(2))
    assert [group.workers for group in plan.groups] == [1, 1, 1] and plan.workers == 2
    total = sum(group.seconds for group in plan.groups)
    assert plan.seconds == pytest.approx(max(total / 2, *(group.seconds for group in plan.groups)))
    one = max(group.population_bytes for group in plan.groups)
    assert plan.disk_bytes >= 3 * 2 * one  # a checkpoint holds both groups that run
    search = plan_sweep(_config(**RANDOM), workers=Workers(2))
    slowest = max(group.trial_seconds for group in search.groups)
    assert search.seconds == pytest.approx(slowest * search.trials / 2)


@pytest.mark.parametrize(
    ("sizes", "workers", "dealt"),
    [
        ([], 3, []),
        ([5], 1, [1]),
        ([5, 5], 1, [1]),
        ([5, 5, 5], 2, [1, 1]),
        ([5, 5], 3, [2, 1]),
        ([30, 2], 4, [3, 1]),
        ([1, 1], 4, [1, 1]),
        ([1], 3, [1]),
        ([2, 8], 5, [1, 4]),
    ],
)
def test_workers_are_where_trials_are(sizes, workers, dealt):
    assert deal(sizes, workers) == dealt


def test_what_is_shown_is_of_all_of_them():
    first, second = Status(3, 2, 1, 3, 9, 10.0), Status(5, 1, 5, 5, 8, 4.0)
    assert combine([first, second], newest=second) == Status(5, 3, 1, 5, 9, 14.0)
    idle = Status(9, 0, 0, 0, 9, 1.0)  # it is at its end
    assert combine([first, idle], newest=idle) == dataclasses.replace(first, epoch=9)
    assert combine([idle], newest=idle) == idle


def test_a_checkpoint_of_an_older_version_has_one_run():
    lanes = {"params": np.zeros((2, 3))}
    counts = {"epoch": 0, "lane_epochs": 0, "busy_lane_epochs": 0, "correction": Correction().to_dict()}
    ledger = {"slots": [None, None], "layout": vars(Layout(2)), **counts}
    run = {"group": {}, "ledger": ledger}
    assert list_runs({"run": run}, lanes) == [(run, lanes)]
    assert list_runs({"run": None}, {"none": np.zeros(1)}) == list_runs({}, {}) == []
    assert list_runs({"runs": [run, run]}, name_arrays([lanes, lanes])) == [(run, lanes)] * 2
    assert list_runs({"runs": []}, name_arrays([])) == []
    with pytest.raises(ValueError, match="aren't those of the arrays"):
        list_runs({"runs": [run]}, name_arrays([{"params": np.zeros((3, 3))}]))
