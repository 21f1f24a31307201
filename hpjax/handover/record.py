"""What a workdir says of a trial: with whom, from what and in which lanes it was trained."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hpjax.config.fields import Config
from hpjax.config.hyperparameters import apply_hyperparameters
from hpjax.config.parsing import parse_config
from hpjax.errors import CheckpointError, ConfigError, WorkdirError
from hpjax.handover.agreement import list_ancestors
from hpjax.lanes.machine import describe_machine, find_devices
from hpjax.search.space import parse_space
from hpjax.store.files import read_json
from hpjax.store.records import load_copies, load_epochs, load_trials
from hpjax.store.rows import CopyRow, EpochRow, TrialRow
from hpjax.store.workdir import CONFIG_NAME, SUMMARY_NAME
from hpjax.trained.load import find_trial


@dataclass(frozen=True)
class Record:
    """What a workdir says of a trial and of those that it went on from.

    Attributes:
      path: the workdir.
      config: the trial's.
      row: the trial's.
      rows: of all trials, by number.
      epochs: of all trials.
      copies: of one trial's state to another.
      needed: how many epochs of which trials are trained.
      swept: names of the hyperparameters that were searched.
    """

    path: Path
    config: Config
    row: TrialRow
    rows: dict[int, TrialRow]
    epochs: list[EpochRow]
    copies: list[CopyRow]
    needed: dict[int, int]
    swept: tuple[str, ...]


@dataclass(frozen=True)
class Place:
    """Where the trials lie in a population such as they were trained in.

    Attributes:
      lanes: their lanes, by trial.
      num_lanes: of the population.
      lanes_per_call: of the layout.
      devices: that they are spread over.
      same: whether that is known to be how all of it was trained.
    """

    lanes: dict[int, int]
    num_lanes: int
    lanes_per_call: int
    devices: int
    same: bool


def read_record(path: Path, trial: int | str) -> Record:
    """Returns what a workdir says of a trial.

    Args:
      path: the workdir.
      trial: the trial's number, or `best`.

    Raises:
      CheckpointError: There is no such trial, or it has no whole epoch.
      WorkdirError: What is there isn't what a sweep writes.
    """
    row, rows = find_trial(path, trial), {row.trial: row for row in load_trials(path)}
    if not row.epochs:
        raise CheckpointError(f"nothing was recorded of trial {row.trial} of {path}: it has no whole epoch")
    try:
        config = parse_config(read_json(path / CONFIG_NAME))
        swept = parse_space(config.sweep.space).names
        own = apply_hyperparameters(config, started_with(row, swept))
    except ConfigError as error:
        raise WorkdirError(
            f"{path / CONFIG_NAME} isn't what this version of hpjax writes: {error}"
        ) from error
    copies = load_copies(path)
    needed = list_ancestors(row.trial, row.epochs, copies)
    if missing := [number for number in needed if number not in rows]:
        raise WorkdirError(f"{path} is damaged: trial {missing[0]}, whose state was copied, isn't recorded")
    return Record(path, own, row, rows, load_epochs(path), copies, needed, tuple(swept))


def started_with(row: TrialRow, swept: Sequence[str]) -> dict[str, Any]:
    """Returns the searched hyperparameters that a trial began with, by name."""
    values = row.initial or row.hyperparameters
    return {name: values[name] for name in swept if name in values}


def place_alone(record: Record) -> Place:
    """Returns a lane of its own, in a call of its own, for each trial."""
    lanes = {number: lane for lane, number in enumerate(sorted(record.needed))}
    return Place(lanes, len(lanes), 1, 1, _was_sequential(record))


def _was_sequential(record: Record) -> bool:
    plan = _read_plan(record)
    return plan is not None and _is_sequential(plan) and _is_the_same_machine(record)


def _is_sequential(plan: dict[str, int]) -> bool:
    # A call on several devices is another program, whose last bits are others.
    return plan["lanes_per_call"] == plan["devices"] == 1


def find_place(record: Record) -> Place:
    """Returns the lanes that the trial and its ancestors were in, as far as that is recorded."""
    plan = _read_plan(record)
    if plan is None or _is_sequential(plan):
        return place_alone(record)
    per_call, lanes = plan["lanes_per_call"], plan["lanes"]
    group = sorted(row.trial for row in record.rows.values() if row.group == record.row.group)
    together = [record.rows[number] for number in group]
    # Else lanes were filled again, taken from the end, or took batches of their own.
    kept = len(group) == lanes and all(row.epochs >= record.row.epochs for row in together)
    kept = kept and len({row.seed_index for row in together}) == 1 and record.needed.keys() <= set(group)
    if not kept:
        numbers = sorted(record.needed)
        most = -(-len(numbers) // per_call) * per_call
        return Place({number: lane for lane, number in enumerate(numbers)}, most, per_call, 1, False)
    placed = {number: group.index(number) for number in record.needed}
    return _cut(Place(placed, lanes, per_call, plan["devices"], _is_the_same_machine(record)))


def _cut(place: Place) -> Place:
    """Returns the one shard's lanes that matter, where all trials are in it."""
    shard = place.lanes_per_call * place.devices
    firsts = {lane // shard * shard for lane in place.lanes.values()}
    if len(firsts) > 1:
        return place
    (first,) = firsts
    size = min(shard, place.num_lanes - first)
    lanes = {number: lane - first for number, lane in place.lanes.items()}
    return replace(place, lanes=lanes, num_lanes=size, lanes_per_call=-(-size // place.devices))


def _read_plan(record: Record) -> dict[str, int] | None:
    """Returns how the trial's group was run; None where that isn't recorded, or changed on the way."""
    summary = _read_summary(record)
    layouts, reduced = summary.get("layouts"), summary.get("reduced_to_lanes")
    group = record.row.group
    if not isinstance(layouts, list) or not 0 <= group < len(layouts) or reduced:
        return None
    plan = layouts[group]
    names = ("lanes", "lanes_per_call", "devices")
    if not isinstance(plan, dict):
        return None
    if not all(type(plan.get(name)) is int and 1 <= plan[name] <= 1 << 12 for name in names):
        return None
    if not _keeps_its_lanes(plan.get("changes") or [], plan["lanes_per_call"]):
        return None
    return {name: plan[name] for name in names} if plan["devices"] <= len(find_devices()) else None


def _keeps_its_lanes(changes: Any, lanes_per_call: int) -> bool:
    """Returns whether changes of layout were of threads alone: the program is the same one then."""
    rows = changes if isinstance(changes, list) else [None]
    return all(isinstance(row, dict) and row.get("lanes_per_call") == lanes_per_call for row in rows)


def _read_summary(record: Record) -> dict[str, Any]:
    with contextlib.suppress(WorkdirError):  # a sweep that has just begun has none
        return read_json(record.path / SUMMARY_NAME)
    return {}


def _is_the_same_machine(record: Record) -> bool:
    """Returns whether equal programs give equal bits: where lowerings are chosen by timing, they differ."""
    machine = describe_machine()
    timed = machine["backend"] != "cpu" or record.config.lanes.tune
    return not timed and _read_summary(record).get("machine") == machine
