"""Training a trial again, alone, from what its sweep recorded of it."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hpjax.config.fields import Config
from hpjax.config.hyperparameters import apply_hyperparameters
from hpjax.config.own_code import MAIN
from hpjax.config.paths import expand_path
from hpjax.config.user_files import is_own, keep_own_code
from hpjax.errors import ConfigError, UserCodeError
from hpjax.handover.agreement import Agreement, compare
from hpjax.handover.record import Place, Record, find_place, place_alone, read_record, started_with
from hpjax.lanes.engine import Engine, Layout
from hpjax.lanes.group import create_program, create_task, trial_hparams
from hpjax.lanes.machine import find_devices
from hpjax.lanes.probe import steps_per_call
from hpjax.lanes.shuffle import Shuffle, choose_shuffle
from hpjax.models.pretrained import hash_weights
from hpjax.ops import tuning
from hpjax.ops.compiler import use_compilation_cache
from hpjax.store.changes import WEIGHTS
from hpjax.sweep.datasets import Datasets
from hpjax.sweep.inputs import Inputs, find_inputs
from hpjax.sweep.loop import measure_lane
from hpjax.trained.load import choose_model

Notify = Callable[[int, Mapping[str, float]], Any]


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
      layout: `recorded`, with as many lanes in a call and devices as there were; or `alone`.
      notify: told each epoch of the trial, with its columns.

    Raises:
      HpjaxError: There is no such trial, nothing was recorded of it, or data, weights or code aren't those
        that it was trained with.
    """
    find_devices()
    use_compilation_cache()
    record = read_record(Path(expand_path(str(workdir))), trial)
    inputs = find_inputs(record.path) or Inputs({}, {})
    _refuse_code(record)
    config = _with_model(record, inputs, model_file)
    _check_weights(config, inputs)
    dataset = Datasets(config, record.path, dict(inputs.fingerprints)).load(config)
    tuning.enable(config.lanes.tune)
    task = create_task(config, dataset, test_each_epoch=config.data.validation_fraction == 0)
    place = find_place(record) if layout == "recorded" else place_alone(record)
    engine = _create_engine(record, config, place, create_program(config, dataset), task)
    replayed = _train(record, config, place, engine, notify)
    images = {"train": len(task.train), **{name: len(split) for name, split in task.evaluated.items()}}
    return Agreement(tuple(compare(record.epochs, replayed)), images, place.same)


def _refuse_code(record: Record) -> None:
    """Raises UserCodeError where what trains comes from a file that nobody has named but the workdir."""
    config = record.config
    named = {"data.name": config.data.name, "task.loss": config.task.loss}
    for key, value in {**named, "optimizer.name": config.optimizer.name}.items():
        if is_own(value):
            raise UserCodeError(
                f"trial {record.row.trial} of {record.path} was trained with {key}={value!r}: replay runs no "
                "code that a workdir names; expected a trial without, or the sweep again in another workdir"
            )


def _with_model(record: Record, inputs: Inputs, model_file: str | None) -> Config:
    """Returns the trial's configuration with a model that may be run: of hpjax, or the file that is given."""
    name, whose = record.config.model.name, f"trial {record.row.trial} of {record.path}"
    hashes = [found for place, found in inputs.files.items() if place in _list_places(record, name)]
    chosen = choose_model(name, hashes[0] if hashes else None, model_file, whose)
    model = dataclasses.replace(record.config.model, name=chosen)
    return dataclasses.replace(record.config, model=model)


def _list_places(record: Record, name: str) -> list[str]:
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


def _create_engine(record: Record, config: Config, place: Place, program, task) -> Engine:
    layout = Layout(place.lanes_per_call, steps_per_call(), place.devices)
    hparams = {
        n: _hparams(record, config, n, started_with(record.rows[n], record.swept)) for n in place.lanes
    }
    engine = Engine(program, task, hparams[record.row.trial], place.num_lanes, layout)
    for number, lane in place.lanes.items():
        engine.admit(lane, hparams[number])
    return engine


def _hparams(record: Record, config: Config, trial: int, values: Mapping[str, Any]):
    dynamic = {name: value for name, value in values.items() if name != "model"}
    return trial_hparams(apply_hyperparameters(config, dynamic), record.rows[trial].seed)


def _train(
    record: Record, config: Config, place: Place, engine: Engine, notify: Notify
) -> dict[tuple[int, int], dict[str, float]]:
    """Returns the columns of all epochs, by trial and epoch."""
    found = {}
    for epoch in range(record.row.epochs):
        shuffles: list[Shuffle | None] = [None] * engine.num_lanes
        busy = [number for number, until in record.needed.items() if epoch < until]
        for number in busy:
            row = record.rows[number]
            shuffles[place.lanes[number]] = choose_shuffle(
                config, row.seed_index, epoch, row.order_offset + epoch
            )
        result = engine.run_epoch(shuffles, tuple(engine.task.evaluated))
        for number in busy:
            rule = engine.program.recipe.loss
            found[number, epoch + 1] = measure_lane(rule, result, place.lanes[number])
        notify(epoch + 1, found[record.row.trial, epoch + 1])
        _copy(record, config, place, engine, epoch + 1)
    return found


def _copy(record: Record, config: Config, place: Place, engine: Engine, epoch: int) -> None:
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
