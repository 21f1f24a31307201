"""The groups of a sweep, one after the other: each is compiled, run to its end and closed."""

import dataclasses
import logging

from hpjax.config.fields import Config
from hpjax.config.hyperparameters import apply_hyperparameters
from hpjax.data.dataset import Dataset
from hpjax.lanes.correction import Correction, create_correction
from hpjax.lanes.engine import Layout, Stopped
from hpjax.lanes.group import create_program, create_task
from hpjax.lanes.program import Program
from hpjax.lanes.task import Task
from hpjax.search.pbt import make_plan_copies
from hpjax.search.trial import Trial
from hpjax.sweep.events import TrialEvents, Upkeep
from hpjax.sweep.judging import judge_winner
from hpjax.sweep.loop import GroupRun
from hpjax.sweep.planning import (
    choose_lanes,
    describe_work,
    introduce,
    limit_lanes,
    note_setup,
    write_plan,
)
from hpjax.sweep.preflight import check_groups
from hpjax.sweep.selection import forget_kept, read_test, select_winner
from hpjax.sweep.session import Group, Interrupted, RunState, Session
from hpjax.sweep.workers import LaneLimit, find_or_create

log = logging.getLogger("hpjax")


def run_groups(session: Session) -> None:
    """Runs every group to its end, the one that a checkpoint found running first.

    Raises:
      Interrupted: A signal arrived; everything is saved.
    """
    if not session.tally.saves:  # begins, or begins anew after it ended before its first checkpoint
        with session.interruptible():
            idle = check_groups(session.spec.config, session.datasets.load)
            session.tally.without_effect = idle
    found, session.found = session.found, None
    if found is not None:
        _run_group(session, found.group.key, found)
    _run_waiting(session)
    select_winner(session)
    _run_waiting(session)
    with session.interruptible():
        read_test(session)
        judge_winner(session)
    forget_kept(session)
    session.stores.checkpoints.wait()


def _run_waiting(session: Session) -> None:
    while (key := session.stores.queue.next_group()) is not None:
        _run_group(session, key)


def _run_group(session: Session, key: str, found: RunState | None = None) -> None:
    with session.interruptible():  # measuring may take a minute
        run = _open_run(session, key, found)
    try:
        run.run()
    except Stopped:
        session.stores.checkpoints.wait()
        session.write_tables()  # as new as the history: an epoch that was left unfinished is in neither
        raise Interrupted(session.signals.received, session.workdir.path) from None
    _close_group(session, run)


def _open_run(session: Session, key: str, found: RunState | None) -> GroupRun:
    start = session.begin_setup()
    session.lanes_in_use = LaneLimit(1, 1)  # what memory is needed for now has nothing to do with lanes
    first = found.group.first if found else session.stores.queue.first(key)
    config = apply_hyperparameters(session.spec.config, first.hyperparameters)
    _release_datasets(session, config)
    dataset = session.datasets.load(config)
    if not session.programs:
        introduce(session, dataset)
    program = _find_program(session, key, config, dataset)
    task = create_task(config, dataset, session.spec.tests_each_epoch)
    if found:
        return _resume(session, found, config, program, task)
    return _begin(session, key, first, config, program, task, start)


def _release_datasets(session: Session, config: Config) -> None:
    """Lets go of the images that no trial will see any more, where it is known which trials are left."""
    queue = session.stores.queue
    if session.stores.study.left and session.spec.config.sweep.sampler != "grid":
        return
    waiting = [queue.first(group).hyperparameters for group in queue.groups()]
    needed = [apply_hyperparameters(session.spec.config, swept) for swept in waiting]
    session.datasets.keep_only([config, *needed])


def _find_program(session: Session, key: str, config: Config, dataset: Dataset) -> Program:
    """Returns the group's program; a search comes back to a group, and finds it traced and compiled."""

    def create() -> Program:
        program = create_program(config, dataset)
        session.check_weights()  # it has just read them
        return program

    return find_or_create(session.programs, key, create)


def _begin(
    session: Session, key: str, first: Trial, config: Config, program: Program, task: Task, start: float
) -> GroupRun:
    work = describe_work(session, first)
    choice, num_lanes = choose_lanes(session, work, session.stores.queue.count(key), program, task)
    note_setup(session, start)
    write_plan(session)
    log.info("%s", session.plan)
    layout = choice.layout
    session.lanes_in_use = LaneLimit(layout.at_once, -(-choice.num_lanes // layout.devices))
    group, correction = Group(key, first, layout), create_correction(choice)
    return _create_run(session, group, correction, num_lanes, config, program, task)


def _resume(session: Session, found: RunState, config: Config, program: Program, task: Task) -> GroupRun:
    saved = Layout(**found.ledger["layout"])
    layout = limit_lanes(session, saved)
    write_plan(session)
    # Its trials are under way: none of them can wait.
    session.lanes_in_use = LaneLimit(layout.at_once, layout.at_once)
    group = dataclasses.replace(found.group, layout=layout)
    watched = layout == saved  # what was planned for another layout says nothing about this one
    correction = Correction(**found.ledger["correction"]) if watched else Correction(decided=True)
    run = _create_run(session, group, correction, len(found.ledger["slots"]), config, program, task)
    run.resume(found.ledger, found.arrays)
    return run


def _create_run(
    session: Session,
    group: Group,
    correction: Correction,
    num_lanes: int,
    config: Config,
    program: Program,
    task: Task,
) -> GroupRun:
    spec, upkeep = session.spec, Upkeep(session)
    events = TrialEvents(spec, session.stores, session.tally, session.leader, session.datasets, group, upkeep)
    work = describe_work(session, group.first)
    engine = session.workers.create_lanes(work, program, task, num_lanes, group.layout, upkeep.stop_now)
    plan_copies = make_plan_copies(spec.config, spec.space)
    splits = tuple(task.evaluated)
    return GroupRun(config, engine, correction, spec.objective, spec.ranking, splits, events, plan_copies)


def _close_group(session: Session, run: GroupRun) -> None:
    tally = session.tally
    tally.groups += 1
    tally.lane_epochs += run.lane_epochs
    tally.busy_lane_epochs += run.busy_lane_epochs
    tally.traces += run.engine.traces
    run.engine.program.traces.clear()  # they are counted
    session.plans[-1] = dataclasses.replace(session.plans[-1], **run.correction.describe())
    write_plan(session)
    session.save()
    session.pace.refresh("checkpoint")
