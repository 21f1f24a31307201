"""What is checked before anything is trained: a sweep doesn't fail in its last group for what was known."""

import contextlib
import dataclasses
import functools
import inspect
import logging
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
from flax import nnx

from hpjax.config.fields import Config, TaskConfig
from hpjax.config.hyperparameters import apply_hyperparameters
from hpjax.config.user_files import blaming, describe_failure, failing_lines, is_interruption
from hpjax.data.dataset import Dataset
from hpjax.errors import ConfigError, HpjaxError, UserCodeError, text_of
from hpjax.lanes.exhaustion import is_out_of_memory
from hpjax.lanes.group import (
    create_group_recipe,
    example_shapes,
    fit_batch_size,
    model_arguments,
    trial_hparams,
)
from hpjax.lanes.machine import find_devices
from hpjax.lanes.program import Program
from hpjax.lanes.residents import Examples
from hpjax.lanes.rules import create_augment
from hpjax.lanes.shuffle import draw
from hpjax.lanes.task import Task
from hpjax.models.options import describe_class
from hpjax.models.registry import MODEL_NAMES, create_model, load_model_class
from hpjax.models.torch_weights import from_torch
from hpjax.search.objective import Objective, create_objective
from hpjax.search.samplers import check_pruner, check_sampler
from hpjax.search.space import Space, parse_space
from hpjax.search.untried import Untried
from hpjax.store.rows import EpochRow, to_columns
from hpjax.sweep.effects import find_idle
from hpjax.sweep.optimizers import check_optimizers
from hpjax.sweep.spec import create_space, list_models
from hpjax.sweep.variants import list_variants
from hpjax.tasks import SPLITS, choose_metrics
from hpjax.train.inputs import prepare_inputs
from hpjax.train.state import create_state, init_rngs
from hpjax.train.step import Batch, train_step

log = logging.getLogger("hpjax")

LATE = 1_000_000  # an epoch by which every metric has a value


def check_config(config: Config) -> None:
    """Checks what can be told without the data, before a workdir is touched.

    Raises:
      HpjaxError: The space, the sampler, the pruner, an enqueued setting, or a file of the user's own is
        wrong; or there is no device.
    """
    there = len(find_devices())
    space = create_space(config)
    _check_constraint(config, space)
    if config.sweep.sampler == "grid":
        space.grid()
    for axis in space.axes:
        if axis.step and axis.high - axis.last > 1e-6 * axis.step:
            told = "sweep.space.%s ends at %g: its step of %g doesn't lead to %g"
            log.warning(told, axis.name, axis.last, axis.step, axis.high)
    for setting in config.sweep.enqueue:
        space.check("sweep.enqueue", setting)
        if space.find(setting) is None:
            raise ConfigError("sweep.enqueue", setting, "a setting that sweep.constraints allows")
    _warn_of_repeats(config, space)
    _check_objective(config)
    check_sampler(config.sweep)
    check_pruner(config.sweep)
    if config.lanes.devices > there:
        raise ConfigError("lanes.devices", config.lanes.devices, f"at most {there}: no more are there")


def _check_constraint(config: Config, space: Space) -> None:
    """Says how much of a space is allowed, where that can be counted; raises ConfigError where nothing is."""
    if space.constraint is None:
        return
    everything = dataclasses.replace(space, constraint=None)
    count = Untried(everything).count
    if config.sweep.sampler == "grid":
        count = len(everything.grid())
    if count is None:
        if space.find({}) is None:
            raise space.refuse_all()
        return
    if not (allowed := len(space.grid())):
        told = f"a function that allows some of the {count} settings of sweep.space"
        raise ConfigError("sweep.constraints", config.sweep.constraints, told)
    log.info("sweep.constraints allows %d of the %d settings of sweep.space", allowed, count)


def _warn_of_repeats(config: Config, space: Space) -> None:
    sweep = config.sweep
    if sweep.sampler == "grid" or sweep.pbt:
        return
    if (count := Untried(space).count) is not None and sweep.trials > count:
        told = "sweep.trials=%d is more than the %d settings of sweep.space: each is tried once"
        log.warning(f"{told}; sweep.seeds=N runs each with N seeds", sweep.trials, count)


def _check_objective(config: Config) -> None:
    """Tries the objective on an epoch such as the sweep will have: a column that it needs may be missing.

    Raises:
      HpjaxError: There is no such metric, or it fails.
    """
    metric, validates = config.sweep.metric, config.data.validation_fraction > 0
    objective = create_objective(metric, validates, config.task)
    measured = choose_metrics(config.task.loss, config.task.metrics)
    columns = {
        split: {f"{split}_loss": 1.0} | {f"{split}_{name}": 0.5 for name in measured} for split in SPLITS
    }
    there, missing = ("validation", "test") if validates else ("test", "validation")
    row = EpochRow(trial=0, epoch=1, train_loss=1.0, epoch_seconds=1.0, images_per_second=1.0)
    epoch = to_columns(row) | columns["train"] | columns[there]
    problem = _failure(objective, epoch)
    if problem is None:
        return
    if _failure(objective, epoch | columns[missing]) is None:
        by_test = "a function that doesn't need the test set, which is read once, after the selection"
        allowed = by_test if validates else "data.validation_fraction greater than 0 with this metric"
        raise ConfigError("sweep.metric", metric, allowed)
    if isinstance(problem, HpjaxError):
        raise problem


def _failure(objective: Objective, epoch: dict[str, Any]) -> HpjaxError | str | None:
    """Returns what is wrong with the objective's value of an epoch; None if nothing is."""
    try:
        value = objective.measure(epoch)
    except HpjaxError as error:
        return error
    if value is None and _has_no_value(objective, {**epoch, "epoch": LATE}):
        return UserCodeError(f"sweep.metric={objective.name!r} gives None: expected a number")
    return None if value is None or math.isfinite(value) else "no finite number"


def _has_no_value(objective: Objective, epoch: dict[str, Any]) -> bool:
    try:
        return objective.measure(epoch) is None
    except HpjaxError:  # no sweep has so many epochs
        return False


def check_groups(config: Config, load: Callable[[Config], Dataset]) -> dict[str, str]:
    """Checks every model and batch size of the space against the data, and warns of what has no effect.

    Args:
      config: the sweep's.
      load: returns the data set of a trial's configuration.

    Returns:
      Hyperparameters that are swept and have no effect anywhere, each with the reason.

    Raises:
      HpjaxError: An image is too small for a network, the images too few for a batch, a network can't be
        built, loaded or trained, or nothing that is swept has an effect.
    """
    trials = [apply_hyperparameters(config, setting) for setting in list_variants(create_space(config))]
    dataset = load(trials[0])
    _check_batch_sizes(sorted({trial.train.batch_size for trial in trials}), len(dataset.train))
    checked = []
    for trial in trials:
        dataset = load(trial)  # its fingerprint is known from now on
        arguments = model_arguments(trial, dataset)
        batch_size = trial.train.batch_size if _is_traced(trial) else 0
        if (known := (arguments, trial.model.freeze, batch_size)) not in checked:
            checked.append(known)
            _check_model(trial, arguments, dataset)
    check_optimizers(config, trials[0], load)
    return _check_effects(config, load)


def _check_effects(config: Config, load: Callable[[Config], Dataset]) -> dict[str, str]:
    space = create_space(config)
    with blaming_models(config):
        idle = find_idle(config, space, load)
    nowhere = {found.name: found.why for found in idle if not found.where}
    for name, why in nowhere.items():
        # Batches larger than the data are taken for what they are: all of it.
        if name != "batch_size" and nowhere.keys() >= {
            axis.name for axis in space.axes if len(axis.choices) != 1
        }:
            key, value = f"sweep.space.{name}", config.sweep.space[name]
            raise ConfigError(
                key, value, f"a hyperparameter that has an effect; {why}, so all trials are one"
            )
    for found in idle:
        told = "; `when` would leave such trials out" if found.where else ""
        log.warning("sweep.space.%s%s", found, told)
    return nowhere


def _check_batch_sizes(batch_sizes: list[int], num_examples: int) -> None:
    if larger := [size for size in batch_sizes if fit_batch_size(size, num_examples) < size]:
        sizes = ", ".join(map(str, larger))
        log.warning(
            "train.batch_size=%s is more than the %d training images: a step takes all of these, an epoch is "
            "one step",
            *(sizes, num_examples),
        )


def _check_model(config: Config, arguments: dict[str, Any], dataset: Dataset) -> None:
    with _blaming(config):
        model = _create_twice(config.model.name, lambda: create_model(rngs=init_rngs(0), **arguments))
        if _is_traced(config):
            if not jax.tree.leaves(nnx.state(model, nnx.Param)):
                raise UserCodeError(f"model.name={config.model.name!r} has no nnx.Param: nothing to train")
            _trace(config, arguments, dataset)
            _trace_program(config, arguments, dataset)
        head = create_group_recipe(config, dataset, model).optimizer.head
        if head and not hasattr(type(model), "HEAD"):
            _tell_head(config.model.name, head)
    if config.model.pretrained:
        from_torch(create_model(rngs=init_rngs(0), **arguments), config.model.pretrained)


@functools.cache  # once for each model of a process
def _tell_head(model: str, head: str) -> None:
    log.info("the head of %s is %s, created last; HEAD in its class would name another", model, head)


def _is_traced(config: Config) -> bool:
    """Returns whether what is trained is tried before: it isn't all of hpjax's own."""
    return config.model.name not in MODEL_NAMES or config.task != TaskConfig()


def _create_twice(name: str, create: Callable[[], nnx.Module]) -> nnx.Module:
    """Returns the model's shapes; twice, since jax compares what isn't an array of the model's with itself.

    Raises:
      UserCodeError: That can't be compared.
    """
    allowed = "an array is a plain attribute: expected nnx.Variable (or nnx.Param, nnx.BatchStat) around it"
    model = nnx.eval_shape(create)
    try:
        nnx.eval_shape(create)
    except ValueError as error:
        found = re.search(r"was created on line .*?:(\d+):", text_of(error.__cause__, most=0))
        line = f"line {found[1]}: " if found else ""
        raise UserCodeError(f"model.name={name!r} failed: {line}{allowed}") from error
    # Single numbers can be compared, but not compiled: they belong to the trace that they were made in.
    for path, value in nnx.iter_graph(model):
        if isinstance(value, jax.Array):
            attribute = ".".join(map(str, path))
            raise UserCodeError(f"model.name={name!r} failed: {attribute}: {allowed}")
    return model


def _trace(config: Config, arguments: dict[str, Any], dataset: Dataset) -> None:
    """Evaluates and trains on two examples, without computing anything."""

    def create() -> nnx.Module:
        return create_model(rngs=init_rngs(0), **arguments)

    hparams = trial_hparams(config, config.seed)

    def predict(images: jax.Array) -> jax.Array:
        model = create()
        model.eval()
        return model(images, **hparams.options)  # type: ignore[operator]

    recipe, expected = create_group_recipe(config, dataset, nnx.eval_shape(create)), (2, dataset.num_outputs)
    images, labels, mask = example_shapes(dataset, 2)
    outputs = jax.eval_shape(predict, jax.eval_shape(prepare_inputs, images))
    if recipe.loss.own is None and getattr(outputs, "shape", None) != expected:
        what = "logits" if recipe.loss.targets == 0 else "outputs"
        raise UserCodeError(
            f"model.name={config.model.name!r} gives {outputs}: expected {what} of {expected}"
        )
    state = jax.eval_shape(lambda: create_state(create(), recipe, hparams))
    jax.eval_shape(train_step, state, hparams, Batch(images, labels, mask))


def _trace_program(config: Config, arguments: dict[str, Any], dataset: Dataset) -> None:
    """Lowers evaluating and training two lanes at the shapes that a sweep has; computes nothing."""

    def create(seed: Any) -> nnx.Module:
        return create_model(rngs=init_rngs(seed), **arguments)

    num = len(dataset.train)
    batch_size = fit_batch_size(config.train.batch_size, num)
    recipe = create_group_recipe(config, dataset, nnx.eval_shape(lambda: create(0)))
    init = lambda hparams: create_state(create(hparams.seed), recipe, hparams)  # noqa: E731
    program = Program(recipe, init, create_augment(config, dataset))
    lanes = 1 if config.lanes.count == 1 or config.lanes.strategy == "sequential" else 2
    population = program.shapes(trial_hparams(config, config.seed), lanes)
    data: Any = Examples(*example_shapes(dataset, num)[:2])
    sums, drawn = program.zero_sums(lanes), jax.eval_shape(lambda: tuple(draw(0, 0, num, batch_size)))
    program.train_one.lower(population.state, sums, population.hparams, data, *drawn, 0)
    options = population.hparams.options
    program.evaluate_one.lower(population.state, sums, data, 0, Task.eval_batch_size, options)


@contextlib.contextmanager
def _blaming(config: Config) -> Iterator[None]:
    """Says in one line what a model of the user's own raises, and with which of its class's options."""
    name, options = config.model.name, config.model.options
    own, what = name not in MODEL_NAMES, f"model.name={name!r} failed"
    if own and options:
        given = ", ".join(f"{option}={value!r}" for option, value in options.items())
        what += f" with model.options {given} of {describe_class(load_model_class(name))}"
    with blaming(what, _file_of(name)) if own else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def blaming_models(config: Config) -> Iterator[None]:
    """Says in one line what a sweep meets in a model of the user's own that was fine until then.

    Raises:
      UserCodeError: An exception of any kind passed through its file.
    """
    try:
        yield
    except BaseException as error:
        if isinstance(error, HpjaxError) or is_interruption(error) or is_out_of_memory(error):
            raise
        for name in _own_models(config):
            if failing_lines(error, file := _file_of(name)):
                raise UserCodeError(f"model.name={name!r} failed: {describe_failure(error, file)}") from error
        raise


def _own_models(config: Config) -> list[str]:
    """Returns the models of the user's own that trials may have."""
    names = list_models(config, parse_space(config.sweep.space))
    return [name for name in names if name not in MODEL_NAMES]


def _file_of(name: str) -> Path:
    return Path(inspect.getfile(load_model_class(name)))
