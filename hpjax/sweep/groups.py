"""A group of a sweep: what is done before its first epoch and after its last one."""

import dataclasses
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from hpjax.config.fields import Config
from hpjax.config.hyperparameters import apply_hyperparameters
from hpjax.data.dataset import Dataset
from hpjax.lanes.correction import Correction, create_correction
from hpjax.lanes.engine import EpochResult, Layout
from hpjax.lanes.group import create_program, create_task
from hpjax.lanes.program import Program
from hpjax.lanes.task import Task
from hpjax.search.pbt import make_plan_copies
from hpjax.search.trial import Trial
from hpjax.sweep.events import TrialEvents, Upkeep
from hpjax.sweep.loop import GroupRun
from hpjax.sweep.planning import (
    choose_lanes,
    describe_work,
    enlarge_plan,
    introduce,
    limit_lanes,
    note_setup,
    write_plan,
)
from hpjax.sweep.session import Group, RunState, Session
from hpjax.sweep.workers import Crew, LaneLimit, find_or_create

log = logging.getLogger("hpjax")


@dataclass
class OpenGroup:
    """A group that runs.

    Attributes:
      group: what it is.
      crew: who trains its lanes.
      run: its lanes, and the trials in them.
      in_use: how many lanes; with fewer it would need less memory.
      epoch: what `run.run_epoch` gives, while it runs; None between two epochs.
      idle_since: seconds since some moment in the past, of the end of its last epoch.
    """

    group: Group
    crew: Crew
    run: GroupRun
    in_use: LaneLimit
    epoch: Future[tuple[EpochResult, float]] | None = None
    idle_since: float = 0.0

    def state(self, folder: Path | None) -> RunState:
        """Returns what it goes on from, between two epochs; arguments as of `Crew.save`."""
        return RunState(self.group, self.run.ledger(), self.crew.save(self.run.engine, folder))


class Opener:
    """Opens and closes groups.

    Args:
      session: the sweep's.
      upkeep: of all groups.
      should_stop: whether epochs are to be left unfinished.
    """

    def __init__(self, session: Session, upkeep: Upkeep, should_stop: Callable[[], bool]):
        self._session, self._upkeep, self._should_stop = session, upkeep, should_stop

    def open(self, key: str, found: RunState | None, crew: Crew, others: Sequence[OpenGroup]) -> OpenGroup:
        """Returns a group with its first trials in its lanes.

        Args:
          key: the group's.
          found: where a checkpoint found it; None: it begins.
          crew: who is to train its lanes.
          others: groups that run.
        """
        session = self._session
        start = session.begin_setup()
        session.lanes_in_use = LaneLimit(1, 1)  # what memory is needed for now has nothing to do with lanes
        first = found.group.first if found else session.stores.queue.first(key)
        config = apply_hyperparameters(session.spec.config, first.hyperparameters)
        self._release_datasets([config, *(other.run.config for other in others)])
        dataset = session.datasets.load(config)
        if not session.programs:
            introduce(session, dataset)
        program = self._find_program(key, config, dataset)
        task = create_task(config, dataset, session.spec.tests_each_epoch)
        if found:
            group = self._resume(found, crew, config, program, task)
        else:
            group = self._begin(key, first, crew, config, program, task, start)
        session.lanes_in_use = group.in_use
        group.run.refill()
        return group

    def count_lanes(self, group: OpenGroup, workers: int) -> int:
        """Returns how many lanes a group would have on so many workers: no more on each than it has there."""
        queue, run = self._session.stores.queue, group.run
        wanted = len(run.busy) + queue.count_waiting(group.group.key)
        each = self._lanes_each(group)
        most = self._session.spec.config.lanes.count or wanted
        return max(len(run.slots), min(each * workers, wanted, most))

    def _lanes_each(self, group: OpenGroup) -> int:
        return -(-group.run.engine.num_lanes // group.crew.size)

    def enlarge(self, group: OpenGroup, crew: Crew) -> None:
        """Gives a group more workers between two epochs, and its trials that wait the lanes there."""
        session, number = self._session, group.group.number
        num_lanes, each = self.count_lanes(group, group.crew.size + crew.size), self._lanes_each(group)
        # Where memory runs out now, the sweep goes on without this; it isn't at its end even with one lane.
        group.in_use = LaneLimit(group.in_use.at_once, max(2, group.in_use.resident))
        session.lanes_in_use = group.in_use
        group.crew.join(crew)  # first: whatever fails, they are given back with the others
        group.crew.spread(group.run.engine, num_lanes)
        session.plans[number] = enlarge_plan(session.plans[number], group.crew.size, num_lanes)
        write_plan(session)
        log.info("%d idle workers are given to a group: it has %d", crew.size, group.crew.size)
        if self._lanes_each(group) != each:
            group.run.correction.decided = True  # what was planned for more lanes says nothing about fewer
        group.run.take_in()

    def close(self, group: OpenGroup) -> None:
        """Counts what it did, and lets go of its workers."""
        tally, run, plans = self._session.tally, group.run, self._session.plans
        tally.groups += 1
        tally.lane_epochs += run.lane_epochs
        tally.busy_lane_epochs += run.busy_lane_epochs
        tally.traces += run.engine.traces
        run.engine.program.traces.clear()  # they are counted
        number = group.group.number
        plans[number] = dataclasses.replace(plans[number], **run.correction.describe())
        write_plan(self._session)
        self._session.workers.take_back(group.crew)

    def _release_datasets(self, running: Sequence[Config]) -> None:
        """Lets go of the images that no trial will see any more, where it is known which trials are left."""
        session = self._session
        queue = session.stores.queue
        if session.stores.study.left and session.spec.config.sweep.sampler != "grid":
            return
        waiting = [run.group.first for run in session.found]
        waiting += [queue.first(group) for group in queue.groups()]
        needed = [apply_hyperparameters(session.spec.config, trial.hyperparameters) for trial in waiting]
        session.datasets.keep_only([*running, *needed])

    def _find_program(self, key: str, config: Config, dataset: Dataset) -> Program:
        """Returns the group's program; a search comes back to a group, and finds it traced and compiled."""

        def create() -> Program:
            program = create_program(config, dataset)
            self._session.check_weights()  # it has just read them
            return program

        return find_or_create(self._session.programs, key, create)

    def _begin(
        self, key: str, first: Trial, crew: Crew, config: Config, program: Program, task: Task, start: float
    ) -> OpenGroup:
        session = self._session
        number, work = len(session.plans), describe_work(session, first)
        trials = session.stores.queue.count(key)
        choice, num_lanes = choose_lanes(session, crew, work, trials, program, task)
        note_setup(session, start)
        write_plan(session)
        log.info("%s", session.plan)
        layout = choice.layout
        in_use = LaneLimit(layout.at_once, -(-choice.num_lanes // layout.devices))
        session.lanes_in_use = in_use
        group, correction = Group(number, key, first, layout), create_correction(choice)
        run = self._create_run(group, crew, correction, num_lanes, config, program, task)
        return OpenGroup(group, crew, run, in_use, idle_since=time.monotonic())

    def _resume(self, found: RunState, crew: Crew, config: Config, program: Program, task: Task) -> OpenGroup:
        session = self._session
        saved = Layout(**found.ledger["layout"])
        layout = limit_lanes(session, crew, found.group.number, saved)
        write_plan(session)
        # Its trials are under way: none of them can wait.
        in_use = LaneLimit(layout.at_once, layout.at_once)
        session.lanes_in_use = in_use
        group = dataclasses.replace(found.group, layout=layout)
        watched = layout == saved  # what was planned for another layout says nothing about this one
        correction = Correction(**found.ledger["correction"]) if watched else Correction(decided=True)
        num_lanes = len(found.ledger["slots"])
        run = self._create_run(group, crew, correction, num_lanes, config, program, task)
        crew.restore(run.engine, found.lanes)
        run.resume(found.ledger)
        return OpenGroup(group, crew, run, in_use, idle_since=time.monotonic())

    def _create_run(
        self,
        group: Group,
        crew: Crew,
        correction: Correction,
        num_lanes: int,
        config: Config,
        program: Program,
        task: Task,
    ) -> GroupRun:
        session, spec = self._session, self._session.spec
        stores, counted = session.stores, (session.tally, session.leader)
        events = TrialEvents(spec, stores, *counted, session.datasets, group, self._upkeep)
        work = describe_work(session, group.first)
        engine = crew.create_lanes(work, program, task, num_lanes, group.layout, self._should_stop)
        plan_copies = make_plan_copies(spec.config, spec.space)
        splits = tuple(task.evaluated)
        return GroupRun(config, engine, correction, spec.objective, spec.ranking, splits, events, plan_copies)
