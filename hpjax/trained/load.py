"""Trained models: a finished trial's weights, in its model."""

import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from hpjax.config.own_code import OwnCode
from hpjax.config.parsing import check_field
from hpjax.config.paths import expand_path
from hpjax.config.user_files import is_own, keep_own_code, read_code
from hpjax.data.deep import Scale
from hpjax.errors import CheckpointError, ConfigError, HpjaxError, ModelError, UserCodeError
from hpjax.lanes.machine import find_devices
from hpjax.models.options import dynamic_values
from hpjax.models.registry import create_model, describe_inputs
from hpjax.store.arrays import fit_template
from hpjax.store.checkpoints import load_trial_checkpoint
from hpjax.store.files import read_json
from hpjax.store.ranking import parse_ranking
from hpjax.store.records import load_trials
from hpjax.store.rows import TrialRow
from hpjax.store.typed import is_dict_of, read_as
from hpjax.store.workdir import SUMMARY_NAME, TRIALS
from hpjax.train.inputs import InputRule
from hpjax.train.state import init_rngs
from hpjax.trained.classifier import BATCH_SIZE, Classifier, Forward, Images
from hpjax.trained.inputs import take_arrays, take_images

MOST_CLASSES = 1_000_000
MOST_LENGTH = 1 << 24  # of an axis of inputs


BEST = "best"


class Inputs(NamedTuple):
    """What a model takes.

    Attributes:
      shape: of one input.
      dtype: `float32`, of images in [0, 1]; or `int32`.
      rule: what the model brings them to.
    """

    shape: tuple[int, ...]
    dtype: str
    rule: InputRule


class _Pair(NamedTuple):
    model: nnx.Module
    variables: dict[str, Any]


class TrainedTrial(_Pair):
    """A trial's model with its weights; also the pair of `model` and `variables`.

    Attributes:
      model: in evaluation mode.
      variables: `{"params", "batch_stats"}` as nested dicts of arrays.
      row: what the sweep recorded of the trial.
      metadata: what its checkpoint says besides, as JSON values.
      inputs: what the model takes.
    """

    row: TrialRow
    metadata: dict[str, Any]
    found: Classifier | str  # of images; or what it is instead
    inputs: Inputs

    @property
    def classifier(self) -> Classifier:
        """The model with its preprocessing; raises ModelError where it doesn't tell classes of images."""
        if isinstance(self.found, str):
            raise ModelError(self.found)
        return self.found

    @property
    def classes(self) -> tuple[str, ...]:
        """Names, in the order of the logits."""
        return self.model.class_names  # type: ignore[attr-defined]

    def predict(self, images: Images, batch_size: int = BATCH_SIZE):
        """Returns each image's class probabilities; see `Classifier.predict`."""
        return self.classifier.predict(images, batch_size)


def load_trial(
    workdir: str | Path, trial: int | str, model_file: str | os.PathLike | None = None
) -> TrainedTrial:
    """Returns a trial's model with its weights, ready to predict: those its rank was measured with.

    `trained.predict(images)` gives class probabilities of image files, in the order of `trained.classes`.

    With `sweep.select=final` they are those of its last epoch, with `best` those of its best one.

    `model(images)` takes images, `[batch, height, width, channels]`, of the size that the trial was trained
    on: uint8, or floats in [0, 1]. It gives logits, `[batch, classes]`, in the order of the data set's sorted
    class names. `model(images, resize=True)` takes images of any size, and resizes them.

    Nothing that lies in a workdir is run, nor a file that it names: a model of the user's own is imported
    from the file that is given here, if that is what the trial was trained with.

    Args:
      workdir: the sweep's folder; nothing in it is changed.
      trial: the trial's number, as in `trials.csv`, or `best`: of those that have ended, the one that ranks
        first.
      model_file: the Python file of the user's own model; where it lies, and its name, don't matter.

    Returns:
      The trial, which unpacks into its model, in evaluation mode and with its logits' names as
      `class_names`, and its variables.

    Raises:
      WorkdirError: There is no sweep in `workdir`.
      ConfigError: `model_file` doesn't exist, or the trial's model is none of the user's own.
      UserCodeError: `model_file` isn't given, or isn't what the trial was trained with, or fails.
      CheckpointError: There is no such trial, its weights weren't kept, or they are damaged; says which are.
    """
    path = Path(expand_path(str(workdir)))
    row = find_trial(path, trial)
    directory = path / TRIALS
    find_devices()
    weights, metadata = load_trial_checkpoint(directory, row.trial)
    where, whose = f"{directory / f'trial_{row.trial:05d}'}", f"trial {row.trial} of {path}"
    arguments = _check_metadata(metadata, where)
    with keep_own_code():  # what is compared is what is run
        name = choose_model(arguments.name, metadata.get("code"), model_file, whose)
        inputs = _read_inputs(metadata, arguments, where)
        # Classes of images; or something else.
        of_images = not (metadata.get("arrays") or metadata.get("answers") or len(inputs.shape) != 3)
        take: Any = take_images if of_images else take_arrays
        model, variables = _build({**vars(arguments), "name": name}, weights, where)
        model = take(model, inputs.shape, dynamic_values(type(model), arguments.options), inputs.rule)
    classes, scale = _class_names(metadata, where), _read_scale(metadata, where)
    model.class_names = classes  # type: ignore[attr-defined]
    trained = TrainedTrial(model, variables)
    trained.row, trained.metadata, trained.inputs = row, metadata, inputs
    if of_images:
        trained.found = Classifier(whose, classes, inputs.shape, scale, make_forward(model))  # type: ignore[arg-type]
    else:
        trained.found = (
            f"{whose} was trained on arrays that are no images, or another task than classes: expected "
            "load_trial(…).model(inputs), which takes them"
        )
    return trained


def _read_inputs(metadata: dict[str, Any], arguments: "_Arguments", where: str) -> Inputs:
    """Returns what the trial's model takes."""
    size: Any = arguments.image_size
    shape = tuple(arguments.input_shape) or (size, size, 3)
    given, features = metadata.get("inputs", {"mean": [], "std": []}), shape[-1]
    try:
        rule = read_as(_Rule, given)
        with np.errstate(over="ignore"):
            mean, std = (np.asarray(v, np.float64).astype(np.float32) for v in (rule.mean, rule.std))
        if mean.shape != std.shape or not (np.isfinite(mean) & np.isfinite(std) & (std > 0)).all():
            raise ValueError("its inputs have no finite mean and deviation")
        if len(rule.mean) not in (0, 1, features):
            raise ValueError(f"its inputs have {features} channels or features, and {len(rule.mean)} means")
    except (ValueError, OverflowError) as error:
        raise CheckpointError(f"checkpoint {where} is damaged: {error}") from error
    # Earlier versions don't say which arrays.
    dtype = "int32" if metadata.get("arrays") == "int32" else "float32"
    return Inputs(shape, dtype, InputRule(tuple(rule.mean), tuple(rule.std)))


def find_trial(path: Path, trial: int | str) -> TrialRow:
    """Returns what was recorded of a trial.

    Args:
      path: the sweep's folder.
      trial: its number, or `best`.

    Raises:
      WorkdirError: There is no sweep in `path`.
      CheckpointError: There is no such trial.
    """
    rows = load_trials(path)
    if trial == BEST:
        ranking = parse_ranking(path / SUMMARY_NAME, read_json(path / SUMMARY_NAME))
        if (best := ranking.find_best(row for row in rows if row.status != "running")) is None:
            raise CheckpointError(f"there is no best trial in {path}: none has ended well")
        return best
    for row in rows:
        if row.trial == trial:
            return row
    known = f"its trials are 0 to {max(row.trial for row in rows)}" if rows else "it has none yet"
    raise CheckpointError(f"there is no trial {trial} in {path}: {known}")


def make_forward(model: nnx.Module) -> Forward:
    """Returns the compiled `f(images)` of a model in evaluation mode: images in [0, 1] to logits."""
    graphdef, state = nnx.split(model)
    forward = jax.jit(lambda state, images: nnx.merge(graphdef, state, copy=True)(images))  # type: ignore[operator]
    return lambda images: forward(state, images)


def _read_scale(metadata: dict[str, Any], where: str) -> Scale | None:
    """Returns the scale of images of more than 8 bits; None where it was trained on none, or doesn't say."""
    ends = metadata.get("scale")
    if ends is None:
        return None
    if not isinstance(ends, list) or [type(end) for end in ends] != [float, float]:
        raise CheckpointError(f"checkpoint {where} is damaged: its scale is no pair of numbers")
    if not (all(map(math.isfinite, ends)) and ends[0] < ends[1]):
        raise CheckpointError(f"checkpoint {where} is damaged: its scale is empty or endless")
    return Scale(*ends, remark="")


def _class_names(metadata: dict[str, Any], where: str) -> tuple[str, ...]:
    names = metadata.get("classes")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise CheckpointError(f"checkpoint {where} is damaged: its classes are no list of names")
    return tuple(names)


@dataclass(frozen=True)
class _Arguments:
    """Of `create_model`, as a checkpoint has them."""

    name: str
    num_classes: int
    image_size: int | list[int]
    kernel_widths: list[int]
    padding: str
    options: dict[str, Any] = field(default_factory=dict)  # of earlier versions there are none
    input_shape: list[int] = field(default_factory=list)  # where it isn't that of a square image in colours


@dataclass(frozen=True)
class _Rule:
    mean: list[float]
    std: list[float]


def _check_metadata(metadata: dict[str, Any], where: str) -> _Arguments:
    """Returns what a model is built with, each value within what a sweep can have had."""
    try:
        arguments = read_as(_Arguments, metadata.get("model"))
        check_field("model.name", arguments.name)
        if not 1 <= arguments.num_classes <= MOST_CLASSES:
            raise ValueError(f"num_classes can't be {arguments.num_classes}")
        size, shape = arguments.image_size, arguments.input_shape
        if not shape and (type(size) is not int or check_field("data.image_size", size) < 1):
            raise ValueError(f"image_size can't be {size}")
        if not all(1 <= length <= MOST_LENGTH for length in shape):
            raise ValueError(f"input_shape can't be {shape}")
        if shape and describe_inputs(shape)["image_size"] != size:
            raise ValueError(f"input_shape can't be {shape} with an image_size of {size}")
        check_field("model.kernel_widths", arguments.kernel_widths)
        check_field("model.padding", arguments.padding)
        check_field("model.options", arguments.options)
    except (ValueError, ConfigError) as error:
        raise CheckpointError(f"checkpoint {where} is damaged: {error}") from error
    return arguments


def choose_model(name: str, hashes: Any, model_file: str | os.PathLike | None, whose: str) -> str:
    """Returns the model's name for `create_model`: hpjax's own, or in the file that was given.

    Args:
      name: as it was recorded.
      hashes: of the files that it was trained with, by module, as they were recorded.
      model_file: the file that is given.
      whose: what messages call the trial.

    Raises:
      ConfigError: The file doesn't exist, or none is needed.
      UserCodeError: A file is needed, or another one.
    """
    if not is_own(name):
        if model_file is not None:
            raise ConfigError("model_file", os.fspath(model_file), f"None: {whose} is a {name}")
        return name
    file, _, attribute = name.rpartition(":")
    if model_file is None:
        raise UserCodeError(
            f"{whose} has a model of your own, {attribute[:99]} of {file[:999]}: "
            "pass model_file=PATH (--model_file=PATH) if you trust that file; nothing is run unasked"
        )
    code = _read_file(os.fspath(model_file), attribute)
    if not is_dict_of(str, hashes) or not hashes:
        raise UserCodeError(f"{whose} doesn't say what {file} held: it can't be told whether this is it")
    for other in sorted(hashes.keys() | code.hashes.keys()):
        if hashes.get(other) != code.hashes.get(other):
            differs = code.path.parent / other if other else code.path
            raise UserCodeError(
                f"model_file={str(code.path)!r} is not allowed: {whose} was trained with another content of "
                f"{differs}; pass the file as it was"
            )
    return f"{code.path}:{attribute}"


def _read_file(file: str, attribute: str) -> OwnCode:
    try:
        if file.endswith(".py"):
            return read_code("model_file", f"{file}:{attribute}")
    except ConfigError:
        pass  # there is no such file
    raise ConfigError("model_file", file, "the Python file of the trial's model")


def _build(
    arguments: dict[str, Any], weights: dict[str, Any], where: str
) -> tuple[nnx.Module, dict[str, Any]]:
    # Shapes first: a model is made where weights of its size lie in memory already.
    try:
        shapes = nnx.eval_shape(lambda: create_model(rngs=init_rngs(0), **arguments))
    except HpjaxError:
        raise
    except Exception as error:  # of the user's class, or of a size that the network doesn't take
        raise CheckpointError(f"checkpoint {where} doesn't fit {arguments['name']}: {error}") from error
    _check_weights(shapes, weights, where)
    model = create_model(rngs=init_rngs(0), **arguments)
    _, params, _, batch_stats = nnx.split(model, nnx.Param, nnx.RngState, ...)
    variables = jax.tree.map(jnp.asarray, _check_weights(model, weights, where))
    nnx.replace_by_pure_dict(params, variables["params"])
    nnx.replace_by_pure_dict(batch_stats, variables.get("batch_stats", {}))
    nnx.update(model, params, batch_stats)
    model.eval()
    return model, variables


def _check_weights(model: nnx.Module, weights: dict[str, Any], where: str) -> dict[str, Any]:
    """Returns the weights in the model's structure; raises CheckpointError where they are another's."""
    _, params, _, batch_stats = nnx.split(model, nnx.Param, nnx.RngState, ...)
    template = {"params": nnx.to_pure_dict(params), "batch_stats": nnx.to_pure_dict(batch_stats)}
    return fit_template(weights, template, where)
