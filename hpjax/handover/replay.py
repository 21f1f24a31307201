"""Training a trial again, alone, from what its sweep recorded of it."""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpjax.config.fields import Config
from hpjax.config.hyperparameters import apply_hyperparameters
from hpjax.config.own_code import MAIN
from hpjax.config.parsing import parse_config
from hpjax.config.paths import expand_path
from hpjax.config.user_files import is_own, keep_own_code
from hpjax.errors import CheckpointError, ConfigError, WorkdirError
from hpjax.handover.agreement import Agreement, compare, list_ancestors
from hpjax.lanes.engine import Engine, Layout
from hpjax.lanes.group import create_program, create_task, trial_hparams
from hpjax.lanes.machine import describe_machine
from hpjax.lanes.probe import steps_per_call
from hpjax.lanes.shuffle import Shuffle
from hpjax.models.pretrained import hash_weights
from hpjax.ops import tuning
from hpjax.ops.compiler import use_compilation_cache
from hpjax.search.space import parse_space
from hpjax.store.changes import WEIGHTS
from hpjax.store.files import read_json
from hpjax.store.records import load_copies, load_epochs, load_trials
from hpjax.store.rows import CopyRow, EpochRow, TrialRow
from hpjax.store.workdir import CONFIG_NAME, SUMMARY_NAME
from hpjax.sweep.datasets import Datasets
from hpjax.sweep.inputs import Inputs, find_inputs
from hpjax.sweep.loop import measure_lane
from hpjax.trained.load import choose_model, find_trial

LAYOUTS = ("recorded", "alone")
Notify = Callable[[int, Mapping[str, float]], Any]


@dataclass(frozen=True)
class _Record:
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
class _Place:
    """Where the trials lie in a population such as they were trained in.

    Attributes:
      lanes: their lanes, by trial.
      num_lanes: of the population.
      lanes_per_call: of the layout.
      same: whether that is known to be how all of it was trained.
    """

    lanes: dict[int, int]
    num_lanes: int
    lanes_per_call: int
    same: bool


@keep_own_code()
def replay_trial(
    workdir: str | Path,
    trial: int | str,
    model_file: str | None = None,
    layout: str = "recorded",
    notify: Notify = lambda epoch, columns: None,
) -> Agreement:
    """Trains a trial again and compares every epoch with what was recorded.

    A member of a population is trained with those that it went on from. Nothing is run that the workdir
    contains or names; see `load_trial`.

    Args:
      workdir: the sweep's folder; nothing in it is changed.
      trial: the trial's number, or `best`.
      model_file: the Python file of the user's own model.
      layout: `recorded`, with as many lanes in a call as there were; or `alone`.
      notify: told each epoch of the trial, with its columns.

    Raises:
      HpjaxError: There is no such trial, nothing was recorded of it, or data, weights or code aren't those
        that it was trained with.
    """
    use_compilation_cache()
    record = _read_record(Path(expand_path(str(workdir))), trial)
    inputs = find_inputs(record.path) or Inputs({}, {})
    config = _with_model(record, inputs, model_file)
    _check_weights(config, inputs)
    dataset = Datasets(config, record.path, dict(inputs.fingerprints)).load(config)
    tuning.enable(config.lanes.tune)
    task = create_task(config, dataset, test_each_epoch=config.data.validation_fraction == 0)
    place = _find_place(record) if layout == "recorded" else _alone(record)
    engine = _create_engine(record, config, place, create_program(config, dataset), task)
    replayed = _train(record, config, place, engine, notify)
    images = {"train": len(task.train), **{name: len(split) for name, split in task.evaluated.items()}}
    return Agreement(tuple(compare(record.epochs, replayed)), images, place.same)


def _read_record(path: Path, trial: int | str) -> _Record:
    row, rows = find_trial(path, trial), {row.trial: row for row in load_trials(path)}
    if not row.epochs:
        raise CheckpointError(f"nothing was recorded of trial {row.trial} of {path}: it has no whole epoch")
    try:
        config = parse_config(read_json(path / CONFIG_NAME))
        swept = parse_space(config.sweep.space).names
        own = apply_hyperparameters(config, _started_with(row, swept))
    except ConfigError as error:
        raise WorkdirError(
            f"{path / CONFIG_NAME} isn't what this version of hpjax writes: {error}"
        ) from error
    copies = load_copies(path)
    needed = list_ancestors(row.trial, row.epochs, copies)
    if missing := [number for number in needed if number not in rows]:
        raise WorkdirError(f"{path} is damaged: trial {missing[0]}, whose state was copied, isn't recorded")
    return _Record(path, own, row, rows, load_epochs(path), copies, needed, tuple(swept))


def _started_with(row: TrialRow, swept: Sequence[str]) -> dict[str, Any]:
    values = row.initial or row.hyperparameters
    return {name: values[name] for name in swept if name in values}


def _with_model(record: _Record, inputs: Inputs, model_file: str | None) -> Config:
    """Returns the trial's configuration with a model that may be run: of hpjax, or the file that is given."""
    name, whose = record.config.model.name, f"trial {record.row.trial} of {record.path}"
    hashes = [found for place, found in inputs.files.items() if place in _list_places(record, name)]
    chosen = choose_model(name, hashes[0] if hashes else None, model_file, whose)
    model = dataclasses.replace(record.config.model, name=chosen)
    return dataclasses.replace(record.config, model=model)


def _list_places(record: _Record, name: str) -> list[str]:
    """Returns where, in the sweep's configuration, a model of the user's own may be named."""
    if "model" not in record.swept or not is_own(name):
        return ["model.name"]
    choices = record.config.sweep.space["model"]
    return [f"sweep.space.model[{i}]" for i, choice in enumerate(choices) if choice == name]


def _check_weights(config: Config, inputs: Inputs) -> None:
    begun = inputs.files.get(WEIGHTS, {}).get(MAIN)
    if config.model.pretrained and begun and hash_weights(config.model.pretrained) != begun:
        allowed = "the weights that the sweep was begun with: their content is another"
        raise ConfigError("model.pretrained", config.model.pretrained, allowed)


def _alone(record: _Record) -> _Place:
    lanes = {number: lane for lane, number in enumerate(sorted(record.needed))}
    return _Place(lanes, len(lanes), 1, _was_sequential(record))


def _was_sequential(record: _Record) -> bool:
    plan = _read_plan(record)
    return plan is not None and plan["lanes_per_call"] == 1 and _is_the_same_machine(record)


def _find_place(record: _Record) -> _Place:
    """Returns the lanes that the trial and its ancestors were in, as far as that is recorded."""
    plan = _read_plan(record)
    if plan is None or plan["lanes_per_call"] == 1:
        return _alone(record)
    per_call, lanes = plan["lanes_per_call"], plan["lanes"]
    group = sorted(row.trial for row in record.rows.values() if row.group == record.row.group)
    together = [record.rows[number] for number in group]
    # Else lanes were filled again, taken from the end, or took batches of their own.
    kept = len(group) == lanes and all(row.epochs >= record.row.epochs for row in together)
    kept = kept and len({row.seed_index for row in together}) == 1
    if not kept:
        numbers = sorted(record.needed)
        most = -(-len(numbers) // per_call) * per_call
        return _Place({number: lane for lane, number in enumerate(numbers)}, most, per_call, False)
    placed = {number: group.index(number) for number in record.needed}
    return _cut(_Place(placed, lanes, per_call, _is_the_same_machine(record)))


def _cut(place: _Place) -> _Place:
    """Returns the one call's lanes that matter, where all trials are in it."""
    firsts = {lane // place.lanes_per_call * place.lanes_per_call for lane in place.lanes.values()}
    if len(firsts) > 1:
        return place
    (first,) = firsts
    size = min(place.lanes_per_call, place.num_lanes - first)
    lanes = {number: lane - first for number, lane in place.lanes.items()}
    return dataclasses.replace(place, lanes=lanes, num_lanes=size, lanes_per_call=size)


def _read_plan(record: _Record) -> dict[str, int] | None:
    """Returns how the trial's group was run; None where that isn't recorded, or changed on the way."""
    summary = _read_summary(record)
    layouts, reduced = summary.get("layouts"), summary.get("reduced_to_lanes")
    group = record.row.group
    if not isinstance(layouts, list) or not 0 <= group < len(layouts) or reduced:
        return None
    plan = layouts[group]
    names = ("lanes", "lanes_per_call", "devices")
    if not isinstance(plan, dict) or plan.get("changes"):
        return None
    if not all(type(plan.get(name)) is int and 1 <= plan[name] <= 1 << 12 for name in names):
        return None
    return {name: plan[name] for name in names} if plan["devices"] == 1 else None


def _read_summary(record: _Record) -> dict[str, Any]:
    with contextlib.suppress(WorkdirError):  # a sweep that has just begun has none
        return read_json(record.path / SUMMARY_NAME)
    return {}


def _is_the_same_machine(record: _Record) -> bool:
    """Returns whether equal programs give equal bits: elsewhere than on a CPU they are chosen by timing."""
    machine = describe_machine()
    return machine["backend"] == "cpu" and _read_summary(record).get("machine") == machine


def _create_engine(record: _Record, config: Config, place: _Place, program, task) -> Engine:
    layout = Layout(place.lanes_per_call, steps_per_call())
    hparams = {
        n: _hparams(record, config, n, _started_with(record.rows[n], record.swept)) for n in place.lanes
    }
    engine = Engine(program, task, hparams[record.row.trial], place.num_lanes, layout)
    for number, lane in place.lanes.items():
        engine.admit(lane, hparams[number])
    return engine


def _hparams(record: _Record, config: Config, trial: int, values: Mapping[str, Any]):
    dynamic = {name: value for name, value in values.items() if name != "model"}
    return trial_hparams(apply_hyperparameters(config, dynamic), record.rows[trial].seed)


def _train(
    record: _Record, config: Config, place: _Place, engine: Engine, notify: Notify
) -> dict[tuple[int, int], dict[str, float]]:
    """Returns the columns of all epochs, by trial and epoch."""
    found = {}
    for epoch in range(record.row.epochs):
        shuffles: list[Shuffle | None] = [None] * engine.num_lanes
        busy = [number for number, until in record.needed.items() if epoch < until]
        for number in busy:
            shuffles[place.lanes[number]] = _shuffle(config, record.rows[number], epoch)
        result = engine.run_epoch(shuffles, tuple(engine.task.evaluated))
        for number in busy:
            found[number, epoch + 1] = measure_lane(result, place.lanes[number])
        notify(epoch + 1, found[record.row.trial, epoch + 1])
        _copy(record, config, place, engine, epoch + 1)
    return found


def _shuffle(config: Config, row: TrialRow, epoch: int) -> Shuffle:
    if config.lanes.data_order == "shared":
        return Shuffle(config.seed, row.order_offset + epoch)
    return Shuffle(config.seed + row.seed_index, epoch)


def _copy(record: _Record, config: Config, place: _Place, engine: Engine, epoch: int) -> None:
    """Has trials go on from others' states, as they did after an epoch."""
    needed = record.needed
    copies = [c for c in record.copies if c.epoch == epoch and c.epoch < needed.get(c.trial, 0)]
    if not copies:
        return
    sources = list(range(engine.num_lanes))
    for copy in copies:
        sources[place.lanes[copy.trial]] = place.lanes[copy.source]
    engine.copy_lanes(sources)
    for copy in copies:
        engine.set_hparams(
            place.lanes[copy.trial], _hparams(record, config, copy.trial, copy.hyperparameters)
        )
