"""What is checked before anything is trained: a sweep doesn't fail in its last group for what was known."""

import contextlib
import dataclasses
import inspect
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from hpjax.config.fields import Config
from hpjax.config.hyperparameters import apply_hyperparameters
from hpjax.config.user_files import describe_failure
from hpjax.data.dataset import Dataset
from hpjax.errors import ConfigError, HpjaxError, UserCodeError
from hpjax.lanes.group import check_batch_size, model_arguments, optimizer_rule, trial_hparams
from hpjax.models.registry import MODEL_NAMES, create_model, load_model_class
from hpjax.models.torch_weights import from_torch
from hpjax.search.objective import Objective, create_objective
from hpjax.search.samplers import check_pruner, check_sampler
from hpjax.search.space import Space, parse_space
from hpjax.store.rows import EpochRow
from hpjax.train.state import create_recipe, create_state, init_rngs
from hpjax.train.step import Batch, train_step

SHAPING = ("model", "kernel_width", "padding", "image_size", "batch_size")  # what data or a model may refuse


def check_config(config: Config) -> None:
    """Checks what can be told without the data, before a workdir is touched.

    Raises:
      HpjaxError: The space, the sampler, the pruner, an enqueued setting, or a file of the user's own is
        wrong.
    """
    space = parse_space(config.sweep.space)
    if config.sweep.sampler == "grid":
        space.grid()
    for setting in config.sweep.enqueue:
        space.check("sweep.enqueue", setting)
    _check_objective(config)
    check_sampler(config.sweep)
    check_pruner(config.sweep)
    for setting in _extremes(space, ("model",)):
        name = apply_hyperparameters(config, setting).model.name
        if name not in MODEL_NAMES:
            load_model_class(name)
    if config.lanes.devices > (there := len(jax.devices())):
        raise ConfigError("lanes.devices", config.lanes.devices, f"at most {there}: no more are there")


def _check_objective(config: Config) -> None:
    """Tries the objective on an epoch such as the sweep will have: a column that it needs may be missing.

    Raises:
      HpjaxError: There is no such metric, or it fails.
    """
    metric, validates = config.sweep.metric, config.data.validation_fraction > 0
    objective = create_objective(metric, validates)
    columns = {
        "validation": {"validation_loss": 1.0, "validation_accuracy": 0.5},
        "test": {"test_loss": 1.0, "test_accuracy": 0.5},
    }
    there, missing = ("validation", "test") if validates else ("test", "validation")
    row = EpochRow(trial=0, epoch=1, train_loss=1.0, epoch_seconds=1.0, images_per_second=1.0)
    epoch = dataclasses.asdict(row) | columns[there]
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
        return "no finite number" if math.isnan(objective.value(epoch)) else None
    except HpjaxError as error:
        return error


def check_groups(config: Config, load: Callable[[Config], Dataset]) -> None:
    """Checks every model and batch size of the space against the data.

    Args:
      config: the sweep's.
      load: returns the data set of a trial's configuration.

    Raises:
      HpjaxError: An image is too small for a network, a batch larger than the data, or a network can't be
        built, loaded or trained.
    """
    trials = [apply_hyperparameters(config, s) for s in _extremes(parse_space(config.sweep.space), SHAPING)]
    dataset = load(trials[0])
    for batch_size in dict.fromkeys(trial.train.batch_size for trial in trials):
        check_batch_size(batch_size, dataset)
    checked = []
    for trial in trials:
        size = load(trial).train.images.shape[1]  # its fingerprint is known from now on
        arguments = {**model_arguments(trial, dataset), "image_size": size}
        if arguments not in checked:
            checked.append(arguments)
            _check_model(trial, arguments)


def _extremes(space: Space, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Returns every combination of the choices, and of the ends of ranges, of some hyperparameters."""
    axes = (axis for axis in space.axes if axis.name in names)
    ends = (dataclasses.replace(axis, choices=axis.choices or (axis.low, axis.high)) for axis in axes)
    return Space(tuple(ends)).grid()


def _check_model(config: Config, arguments: dict[str, Any]) -> None:
    with _blaming(config.model.name):
        nnx.eval_shape(lambda: create_model(rngs=init_rngs(0), **arguments))
        if config.model.name not in MODEL_NAMES:
            _trace(config, arguments)
    if config.model.pretrained:
        from_torch(create_model(rngs=init_rngs(0), **arguments), config.model.pretrained)


def _trace(config: Config, arguments: dict[str, Any]) -> None:
    """Evaluates and trains on two examples, without computing anything."""

    def create() -> nnx.Module:
        return create_model(rngs=init_rngs(0), **arguments)

    def predict(images: jax.Array) -> jax.Array:
        model = create()
        model.eval()
        return model(images)  # type: ignore[operator]

    size, expected = arguments["image_size"], (2, arguments["num_classes"])
    images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    logits = jax.eval_shape(predict, images)
    if getattr(logits, "shape", None) != expected:
        raise UserCodeError(f"model.name={config.model.name!r} gives {logits}: expected logits of {expected}")
    hparams = trial_hparams(config, config.seed)
    recipe = create_recipe(nnx.eval_shape(create), optimizer_rule(config, 2), config.train.precision)
    state = jax.eval_shape(lambda: create_state(create(), recipe, hparams))
    batch = Batch(images, jax.ShapeDtypeStruct((2,), jnp.int32), jax.ShapeDtypeStruct((2,), jnp.float32))  # type: ignore[arg-type]
    jax.eval_shape(train_step, state, hparams, batch)


@contextlib.contextmanager
def _blaming(name: str) -> Iterator[None]:
    """Says in one line what a model of the user's own raises."""
    try:
        yield
    except HpjaxError:
        raise
    except Exception as error:
        if name in MODEL_NAMES:
            raise
        file = inspect.getfile(load_model_class(name))
        raise UserCodeError(f"model.name={name!r} failed: {describe_failure(error, Path(file))}") from error
