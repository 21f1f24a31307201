"""What each group is going to be: its lanes, how they are called, and what that takes."""

import dataclasses
import json
import logging
import time

from hpjax.config.fields import Config
from hpjax.config.hyperparameters import apply_hyperparameters, static_key
from hpjax.config.user_files import kept_code
from hpjax.data.dataset import Dataset
from hpjax.errors import OutOfMemory
from hpjax.lanes.capacity import Choice
from hpjax.lanes.engine import Layout
from hpjax.lanes.group import create_program, create_task
from hpjax.lanes.population import count_bytes
from hpjax.lanes.program import Program
from hpjax.lanes.task import Task
from hpjax.report.heading import describe_start
from hpjax.search.plan import GroupPlan, Plan
from hpjax.search.queue import may_be_side_by_side, most_unfinished
from hpjax.search.space import list_static
from hpjax.search.trial import Trial
from hpjax.store.workdir import atomic_write
from hpjax.sweep.preflight import check_groups
from hpjax.sweep.session import Session
from hpjax.sweep.workers import Asked, Crew, LaneLimit, Work, deal

log = logging.getLogger("hpjax")

MOST_LANES = 64  # of a group, where the config doesn't say
MOST_PLANNED = 12  # groups of a search that a plan measures


def plan_groups(session: Session) -> Plan:
    """Returns the plan of the groups that are known before anything is trained.

    All of a grid's; of a search, every combination of a few static choices, else the first that is asked for.
    """
    check_groups(session.spec.config, session.datasets.load)
    known = list_first(session)
    side_by_side = may_be_side_by_side(session.spec.config)
    workers = session.workers.size
    shares = deal([trials for _, trials in known], workers) if side_by_side else [workers]
    for i, (first, trials) in enumerate(known):
        _plan_one(session, first, trials, shares[min(i, len(shares) - 1)])
    if session.spec.config.sweep.sampler == "grid":
        return dataclasses.replace(session.plan, most_groups=len(session.plans))
    return session.plan


def introduce(session: Session, dataset: Dataset) -> None:
    """Says, before the first group of a process, what is trained on what."""
    about, workers = session.workers.describe(), session.workers.size
    devices = session.spec.config.lanes.devices or about.machine["devices"]
    device = about.kind if devices == 1 else f"{devices} devices ({about.kind})"
    device = device if workers == 1 else f"{workers} workers, each {device}"
    log.info("%s", describe_start(device, session.spec.config, dataset, session.num_trials))


def list_first(session: Session) -> list[tuple[Trial, int]]:
    """Returns a trial of each group that is known, and how many it has, or may have.

    All of a grid's; of a search, those that it may have, or the first one where that isn't known.
    """
    queue, spec = session.stores.queue, session.spec
    if spec.config.sweep.sampler == "grid":
        return [(queue.first(group), queue.count(group)) for group in queue.groups()]
    known, budget = list_static(spec.space, MOST_PLANNED), session.stores.study.budget
    if known is not None:
        return [(Trial(0, setting, spec.config.seed), budget) for setting in known]
    group = queue.next_group()
    return [(queue.first(group), budget)] if group else []


def _plan_one(session: Session, first: Trial, trials: int, workers: int) -> None:
    start = session.begin_setup()
    config = apply_hyperparameters(session.spec.config, first.hyperparameters)
    dataset = session.datasets.load(config)
    if not session.plans:
        introduce(session, dataset)
    task = create_task(config, dataset, session.spec.tests_each_epoch)
    crew = session.workers.lend(workers)
    work, program = describe_work(session, first), create_program(config, dataset)
    try:
        choose_lanes(session, crew, work, trials, program, task)
    finally:
        session.workers.take_back(crew)
    note_setup(session, start)


def note_setup(session: Session, start: float) -> None:
    """Notes with the last of the plans how long its group took to set up, which began at `start`."""
    session.plans[-1] = dataclasses.replace(session.plans[-1], setup_seconds=time.monotonic() - start)


def describe_work(session: Session, first: Trial) -> Work:
    """Returns what the lanes of a trial's group do, for those who train them."""
    spec, inputs = session.spec, (dict(session.datasets.fingerprints), session.files, kept_code())
    key = static_key(apply_hyperparameters(spec.config, first.hyperparameters), spec.space.dynamic)
    return Work(session.name, key, spec.config, first, spec.tests_each_epoch, *inputs, session.data)


def choose_lanes(
    session: Session, crew: Crew, work: Work, trials: int, program: Program, task: Task
) -> tuple[Choice, int]:
    """Returns how each worker trains its lanes of a group, and how many lanes there are of all of them.

    It is added to the session's plans.

    Args:
      session: the sweep's.
      crew: the group's workers.
      work: what the group's lanes do.
      trials: how many it has, or may have.
      program: what is compiled for it.
      task: what it learns.
    """
    lanes, config = work.config.lanes, work.of_trial
    # A population's size is no matter of who trains it.
    most = MOST_LANES if config.sweep.pbt else MOST_LANES * crew.size
    wanted, count = min(trials, most, most_unfinished(config) or trials), lanes.count
    if config.sweep.pbt:  # a population is compared with itself: all of it, however many would pay
        count = count or wanted
    name = f"{work.key} on {len(task.train)} images"
    steps = trials * config.train.epochs * task.steps_per_epoch
    each = -(-wanted // crew.size), -(-count // crew.size)
    asked = Asked(*each, lanes.strategy, lanes.devices, name, -(-steps // crew.size), stays_in_step(config))
    choice = crew.choose_layout(work, program, task, asked, session.limit)
    num_lanes = min(choice.num_lanes * crew.size, count or wanted)
    one = program.shapes(work.hparams, 1)
    saved = {"population_bytes": count_bytes(one) * num_lanes, "weights_bytes": count_bytes(one.best)}
    plan = _describe_group(session, crew, work.first, trials, task, choice, num_lanes)
    session.plans.append(dataclasses.replace(plan, **saved))
    return choice, num_lanes


def stays_in_step(config: Config) -> bool:
    """Returns whether lanes take the same batches, as long as none diverges; else each takes its own."""
    # Of equal seeds, trials that all run to their end stay at the same pass over the examples.
    same = config.sweep.seeds == 1 and config.sweep.pruner == "none"
    return same or config.lanes.data_order == "shared"


def limit_lanes(session: Session, crew: Crew, number: int, layout: Layout) -> Layout:
    """Returns the layout with no more lanes a call than fit and than the config, now, asks for.

    For lanes that a checkpoint found under way; the plan of their group, of that number, says so.
    """
    lanes, limit = session.spec.config.lanes, session.limit
    most = min(n for n in (layout.lanes_per_shard, limit.at_once, lanes.count) if n)
    per_shard = 1 if lanes.strategy == "sequential" else most
    threads = 1 if limit.at_once else layout.threads
    there = session.workers.describe().machine["devices"]
    devices = min(n for n in (layout.devices, there, lanes.devices) if n)
    workers = min(crew.size, session.plans[number].lanes)
    of_all = {"workers": workers, "devices": devices * workers}
    session.plans[number] = dataclasses.replace(
        session.plans[number], lanes_per_call=per_shard, threads=threads, **of_all
    )
    return dataclasses.replace(layout, lanes_per_shard=per_shard, threads=threads, devices=devices)


def enlarge_plan(plan: GroupPlan, workers: int, lanes: int) -> GroupPlan:
    """Returns the plan of a group that has got more workers, with as many lanes on all of them."""
    workers, each = min(workers, lanes), plan.devices // plan.workers
    population = plan.population_bytes // plan.lanes * lanes
    sizes = {"lanes": lanes, "workers": workers, "devices": each * workers, "population_bytes": population}
    return dataclasses.replace(plan, **sizes)


def halve_lanes(used: LaneLimit, keep_population: bool) -> LaneLimit:
    """Returns the limit to go on with after memory ran out with so many lanes.

    Args:
      used: lanes at once and in memory.
      keep_population: whether all lanes that are in memory have to stay there.

    Raises:
      OutOfMemory: One lane at a time is too much.
    """
    if used.at_once > 1:
        most = used.at_once // 2
        log.warning("out of memory with %d lanes at once: going on with %d", used.at_once, most)
        return LaneLimit(most, used.resident if keep_population else most)
    if used.resident > 1 and not keep_population:
        most = used.resident // 2
        log.warning("out of memory with %d lanes, one at a time: going on with %d", used.resident, most)
        return LaneLimit(1, most)
    raise OutOfMemory(
        "out of memory with one lane at a time: lower train.batch_size or data.image_size, "
        "or give the process more"
    )


def write_plan(session: Session) -> None:
    """Writes `plan.json`."""
    text = json.dumps(session.plan.to_dict(), indent=2) + "\n"
    atomic_write(session.workdir.path / "plan.json", text)


def _describe_group(
    session: Session, crew: Crew, first: Trial, trials: int, task: Task, choice: Choice, num_lanes: int
) -> GroupPlan:
    swept = first.hyperparameters
    dynamic = session.spec.space.dynamic
    static = {name: value for name, value in swept.items() if name not in dynamic}
    sweep, layout = session.spec.config.sweep, choice.layout
    known, workers = sweep.sampler == "grid", min(crew.size, num_lanes)
    return GroupPlan(
        static,
        trials=trials if known else None,
        most_trials=trials,
        may_end_early=not known or sweep.pruner != "none",
        lanes=num_lanes,
        lanes_per_call=layout.lanes_per_shard,
        threads=layout.threads,
        workers=workers,
        devices=layout.devices * workers,
        steps_per_epoch=task.steps_per_epoch,
        epochs=apply_hyperparameters(session.spec.config, swept).train.epochs,
        memory_bytes=choice.memory_bytes,
        available_bytes=crew.available_bytes(),
        lane_step_seconds=choice.lane_step_seconds.get(layout.lanes_per_shard, 0.0),
        speedup=choice.speedup,
        streamed=task.streamed,
    )
