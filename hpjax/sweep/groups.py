"""The groups of a sweep, one after the other: each is planned, compiled, run to its end and closed."""

import dataclasses
import json
import logging

from hpjax.config.fields import Config
from hpjax.config.hyperparameters import HYPERPARAMETERS, apply_hyperparameters, static_key
from hpjax.data.dataset import Dataset
from hpjax.errors import CheckpointError
from hpjax.lanes.capacity import Choice, choose_layout, count_devices, fixed_choice
from hpjax.lanes.engine import Engine, Layout, Stopped
from hpjax.lanes.group import create_program, create_task, trial_hparams
from hpjax.lanes.population import count_bytes
from hpjax.lanes.program import Program
from hpjax.lanes.task import Task
from hpjax.ops import tuning
from hpjax.search.pbt import make_plan_copies
from hpjax.search.plan import GroupPlan, Plan
from hpjax.search.queue import most_unfinished
from hpjax.search.space import list_static
from hpjax.search.trial import Trial
from hpjax.store.rows import TrialRow
from hpjax.store.tables import find_best
from hpjax.store.workdir import atomic_write
from hpjax.sweep.events import SessionHost, read_test
from hpjax.sweep.loop import GroupRun
from hpjax.sweep.preflight import check_groups
from hpjax.sweep.session import Group, Interrupted, Lanes, Saved, Session

log = logging.getLogger("hpjax")

MOST_WAITING = 64  # trials asked for together
PROGRAMS_KEPT = 4  # groups' compiled programs that live at once
MOST_PLANNED = 12  # groups of a search that a plan measures


def run_groups(session: Session) -> None:
    """Runs every group to its end, the one that a checkpoint found running first.

    Raises:
      Interrupted: A signal arrived; everything is saved.
    """
    if not session.workdir.resumed:
        check_groups(session.config, session.dataset)
    if saved := session.take_saved():
        _run_group(session, saved.group.key, saved)
    _run_waiting(session)
    _select(session)
    _run_waiting(session)
    if not session.config.checkpoint.keep:
        _forget_weights(session)
    session.checkpoints.wait()


def _run_waiting(session: Session) -> None:
    while (key := session.queue.next_group(session.study)) is not None:
        _run_group(session, key)


def _forget_weights(session: Session) -> None:
    """Removes what was kept for the test alone, once a kill can't undo the test any more."""
    if kept := session.weights.trials():
        session.save(block=True)
    for trial in kept:
        session.weights.forget(trial)
    session.weights.wait()


def plan_groups(session: Session) -> Plan:
    """Returns the plan of the groups that are known before anything is trained.

    All of a grid's; of a search, every combination of a few static choices, else the first that is asked for.
    """
    check_groups(session.config, session.dataset)
    if session.config.sweep.sampler != "grid":
        for first in _list_first(session):
            config = apply_hyperparameters(session.config, first.hyperparameters)
            _plan_one(session, static_key(config), first)
        return session.plan
    while (key := session.queue.next_group(session.study)) is not None:
        _plan_one(session, key, _look_ahead(session, key))
        while session.queue.take(key, session.study) is not None:
            pass
    return dataclasses.replace(session.plan, most_groups=len(session.plans))


def _list_first(session: Session) -> list[Trial]:
    """Returns a trial of each group that a search may have, or of the first one where that isn't known."""
    known = list_static(session.space, MOST_PLANNED)
    if known is not None:
        return [Trial(0, setting, session.config.seed) for setting in known]
    key = session.queue.next_group(session.study)
    return [_look_ahead(session, key)] if key else []


def _plan_one(session: Session, key: str, first: Trial) -> None:
    config = apply_hyperparameters(session.config, first.hyperparameters)
    dataset = session.dataset(config)
    task = create_task(config, dataset, session.tests_each_epoch)
    tuning.enable(config.lanes.tune)
    _choose(session, key, first, create_program(config, dataset), task)


def _run_group(session: Session, key: str, saved: Saved | None = None) -> None:
    session.lanes = Lanes(1, 1)  # what memory is needed for now has nothing to do with lanes
    first = saved.group.first if saved else _look_ahead(session, key)
    config = apply_hyperparameters(session.config, first.hyperparameters)
    dataset = session.dataset(config)
    tuning.enable(config.lanes.tune)
    program = _find_program(session, key, config, dataset)
    task = create_task(config, dataset, session.tests_each_epoch)
    run = _resume(session, saved, config, program, task) if saved else None
    run = run or _begin(session, key, first, config, program, task)
    try:
        run.run()
    except Stopped:
        session.checkpoints.wait()
        raise Interrupted(session.signals.received, session.workdir.path) from None
    _close_group(session, run)


def _find_program(session: Session, key: str, config: Config, dataset: Dataset) -> Program:
    """Returns the group's program; a search comes back to a group, and finds it traced and compiled."""
    programs = session.programs
    program = programs.pop(key, None) or create_program(config, dataset)
    programs[key] = program  # now the newest
    if len(programs) > PROGRAMS_KEPT:
        del programs[next(iter(programs))]
    return program


def _begin(
    session: Session, key: str, first: Trial, config: Config, program: Program, task: Task
) -> GroupRun:
    choice = _choose(session, key, first, program, task)
    _write_plan(session)
    log.info("%s", session.plan)
    at_once, resident = choice.layout.lanes_per_shard * choice.layout.threads, choice.num_lanes
    session.lanes = Lanes(at_once, -(-resident // choice.layout.devices))
    return _create_run(session, Group(key, first, choice.layout), resident, config, program, task)


def _resume(session: Session, saved: Saved, config: Config, program: Program, task: Task) -> GroupRun:
    layout = _limit(session, saved.group.layout)
    session.plans[-1] |= {"lanes_per_call": layout.lanes_per_shard, "threads": layout.threads}
    _write_plan(session)
    at_once = layout.lanes_per_shard * layout.threads
    session.lanes = Lanes(at_once, at_once)  # its trials are under way: none of them can wait
    group = dataclasses.replace(saved.group, layout=layout)
    run = _create_run(session, group, len(saved.run["slots"]), config, program, task)
    run.resume(saved.run, saved.arrays)
    return run


def _create_run(
    session: Session, group: Group, num_lanes: int, config: Config, program: Program, task: Task
) -> GroupRun:
    host = SessionHost(session, group)
    hparams = trial_hparams(config, group.first.seed)
    engine = Engine(program, task, hparams, num_lanes, group.layout, host.stop_now)
    plan_copies = make_plan_copies(session.config, session.space)
    return GroupRun(config, engine, session.objective, tuple(task.evaluated), host, plan_copies)


def _close_group(session: Session, run: GroupRun) -> None:
    session.tally["groups"] += 1
    session.tally["lane_epochs"] += run.lane_epochs
    session.tally["busy_lane_epochs"] += run.busy_lane_epochs
    session.tally["traces"] += run.engine.traces
    run.engine.program.traces.clear()  # they are counted
    session.save()
    session.pace.refresh("checkpoint")


def _look_ahead(session: Session, key: str) -> Trial:
    if session.config.sweep.sampler == "grid":
        session.queue.look_ahead(session.study, MOST_WAITING)
    return session.queue.peek(key)[0]


def _choose(session: Session, key: str, first: Trial, program: Program, task: Task) -> Choice:
    lanes = session.config.lanes
    config = apply_hyperparameters(session.config, first.hyperparameters)
    hparams, left = trial_hparams(config, first.seed), _count_trials(session, key)
    wanted = min(left, MOST_WAITING, most_unfinished(session.config) or left)
    if session.config.sweep.pbt:  # a population is compared with itself: all of it, however many would pay
        lanes = dataclasses.replace(lanes, count=lanes.count or wanted)
    if most := session.most.at_once:  # what may not fit isn't measured
        asked = min(lanes.count or wanted, session.most.resident * count_devices(lanes.devices))
        choice = fixed_choice(lanes.strategy, asked, lanes.devices, most)
    else:
        name = f"{static_key(config)} on {len(task.train)} images"
        steps = _count_trials(session, key) * config.train.epochs * task.steps_per_epoch
        choice = choose_layout(
            program, task, hparams, wanted, lanes.count, lanes.strategy, lanes.devices, name, steps
        )
    one = program.shapes(hparams, 1)
    plan = _plan_group(session, key, first, task, choice)
    saved = {"population_bytes": count_bytes(one) * choice.num_lanes, "weights_bytes": count_bytes(one.best)}
    session.plans.append(dataclasses.asdict(dataclasses.replace(plan, **saved)))
    return choice


def _limit(session: Session, layout: Layout) -> Layout:
    """Returns the layout with no more lanes a call than fit and than the config, now, asks for."""
    lanes = session.config.lanes
    most = min(n for n in (layout.lanes_per_shard, session.most.at_once, lanes.count) if n)
    per_shard = 1 if lanes.strategy == "sequential" else most
    threads = 1 if session.most.at_once else layout.threads
    return dataclasses.replace(layout, lanes_per_shard=per_shard, threads=threads)


def _write_plan(session: Session) -> None:
    text = json.dumps(session.plan.to_dict(), indent=2) + "\n"
    atomic_write(session.workdir.path / "plan.json", text)


def _plan_group(session: Session, key: str, first: Trial, task: Task, choice: Choice) -> GroupPlan:
    swept = first.hyperparameters
    static = {name: value for name, value in swept.items() if not HYPERPARAMETERS[name].dynamic}
    sweep, layout, trials = session.config.sweep, choice.layout, _count_trials(session, key)
    known = sweep.sampler == "grid"
    return GroupPlan(
        static,
        trials=trials if known else None,
        most_trials=trials,
        may_end_early=not known or sweep.pruner != "none",
        lanes=choice.num_lanes,
        lanes_per_call=layout.lanes_per_shard,
        threads=layout.threads,
        devices=layout.devices,
        steps_per_epoch=task.steps_per_epoch,
        epochs=apply_hyperparameters(session.config, swept).train.epochs,
        memory_bytes=choice.memory_bytes,
        lane_step_seconds=choice.lane_step_seconds.get(layout.lanes_per_shard, 0.0),
        speedup=choice.speedup,
    )


def _count_trials(session: Session, key: str) -> int:
    """Returns how many trials the group may still have."""
    waiting = len(session.queue.peek(key))
    return waiting if session.config.sweep.sampler == "grid" else waiting + session.study.left


def _select(session: Session) -> None:
    """Reads the test split for what validation selected, and lets its further seeds wait for their turn.

    Done once, however often the sweep is continued. Now, because the further seeds' weights may take the
    place of those that are kept.
    """
    sweep, metric = session.config.sweep, session.table_metric
    trials, winner = session.records.trials(), session.find_winner()
    if session.tally["final_setting"] is not None or winner is None:
        return
    best = find_best(trials, metric)
    chosen = winner.trials if sweep.final_seeds else () if best is None else (best.trial,)
    if not session.tests_each_epoch:
        _test(session, [trial for trial in trials if trial.trial in chosen])
    if sweep.final_seeds:
        session.tally["final_setting"] = winner.setting
    for seed_index in range(sweep.seeds, sweep.seeds + sweep.final_seeds):
        session.queue.add(session.study.ask_again(winner.setting, seed_index))


def _test(session: Session, trials: list[TrialRow]) -> None:
    for trial in trials:
        if trial.final_test_loss is not None:
            continue
        if trial.trial not in session.weights.trials():
            keep = session.config.checkpoint.keep
            log.warning(
                "trial %d isn't tested: its weights weren't kept (checkpoint.keep=%d)", trial.trial, keep
            )
        else:
            swept = {n: value for n, value in trial.hyperparameters.items() if n in session.space.names}
            try:
                weights = session.weights.load(trial.trial)[0]
            except CheckpointError as error:  # the sweep is worth finishing without
                log.warning("%s: trial %d has no test accuracy", error, trial.trial)
                session.tally["not_tested"] = [*session.tally["not_tested"], trial.trial]
                continue
            read_test(session, trial.trial, swept, trial.seed, weights)
