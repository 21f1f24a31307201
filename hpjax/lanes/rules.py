"""What a configuration says of a task, with what only the data know: the rules that a program is made of."""

import functools
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hpjax.config.fields import Config
from hpjax.config.user_files import blaming, is_own, load_from_file
from hpjax.data.augment import Augment, make_augment
from hpjax.data.dataset import Dataset, Split
from hpjax.errors import ConfigError
from hpjax.tasks import (
    CLASSES,
    LABELS,
    METRICS,
    MOST_CLASSES_OF_AUROC,
    NUMBERS,
    choose_metrics,
    kind_of,
)
from hpjax.train.inputs import AS_THEY_ARE, InputRule
from hpjax.train.loss import LossRule

IMAGENET = InputRule((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_CHUNK = 4096  # examples that are looked at a time


def create_loss_rule(config: Config, dataset: Dataset) -> LossRule:
    """Returns what is made small and measured.

    Raises:
      ConfigError: A metric or class weights don't go with the data, or there is no such function.
      UserCodeError: The user's file can't be imported.
    """
    task, targets = config.task, dataset.train.labels
    metrics = choose_metrics(task.loss, task.metrics)
    _check_metrics(config, dataset)
    plain = kind_of(task.loss) == CLASSES and metrics == ("accuracy",) and task.class_weights == "none"
    if plain:
        return LossRule()  # the same for any number of classes
    return LossRule(
        name=task.loss,
        metrics=metrics,
        outputs=dataset.num_outputs,
        targets=targets.ndim - 1,
        class_weights=_weigh(config, dataset),
        centre=_find_moments(dataset.train).centre if "r2" in metrics else (),
        own=_load_loss(task.loss) if is_own(task.loss) else None,
    )


def create_input_rule(config: Config, dataset: Dataset) -> InputRule:
    """Returns what inputs are brought to.

    Raises:
      ConfigError: The inputs are whole numbers, or no colours.
    """
    normalize, inputs = config.data.normalize, dataset.train.images
    if normalize == "none":
        return AS_THEY_ARE
    if inputs.dtype == np.int32:
        raise ConfigError("data.normalize", normalize, "none with inputs that are whole numbers")
    if isinstance(normalize, tuple):
        mean, std = normalize
        return InputRule((float(mean),), (float(std),))
    if normalize == "imagenet":
        if dataset.input_shape[2:] != (3,):
            raise ConfigError("data.normalize", normalize, f"images of 3 channels, not {dataset.input_shape}")
        return IMAGENET
    moments = _find_moments(dataset.train)
    return InputRule(moments.mean, moments.std)


def create_augment(config: Config, dataset: Dataset) -> Augment | None:
    """Returns the random changes of training images; None where there are none.

    Raises:
      ConfigError: The inputs are no images.
    """
    name = config.data.augment
    if name == "none":
        return None
    if len(dataset.input_shape) != 3:
        allowed = f"none with inputs of {list(dataset.input_shape)}, which are no images"
        raise ConfigError("data.augment", name, allowed)
    return make_augment(name)


def _check_metrics(config: Config, dataset: Dataset) -> None:
    """Checks metrics that were asked for by what the targets turn out to be."""
    kinds = (CLASSES,) if dataset.train.labels.ndim == 1 else (LABELS, NUMBERS)
    for name in config.task.metrics:
        if not {*kinds} & {*METRICS[name].kinds}:
            raise ConfigError("task.metrics", name, f"a metric of {' or '.join(kinds)}, as the targets are")
    if "auroc" in config.task.metrics and dataset.num_outputs > MOST_CLASSES_OF_AUROC:
        allowed = f"no auroc with more than {MOST_CLASSES_OF_AUROC} classes, here {dataset.num_outputs}"
        raise ConfigError("task.metrics", config.task.metrics, allowed)


def _weigh(config: Config, dataset: Dataset) -> tuple[float, ...]:
    given, targets = config.task.class_weights, dataset.train.labels
    if given == "none":
        return ()
    if isinstance(given, tuple):
        if len(given) != dataset.num_outputs:
            raise ConfigError("task.class_weights", given, f"{dataset.num_outputs} numbers, one per class")
        return tuple(map(float, given))
    if targets.ndim == 1:
        counts = np.bincount(targets, minlength=dataset.num_outputs)
        return tuple((len(targets) / (len(counts) * np.maximum(counts, 1))).tolist())
    positive = targets.sum(0, dtype=np.float64)
    return tuple(((len(targets) - positive) / np.maximum(positive, 1)).clip(1e-3).tolist())


class _Moments(NamedTuple):
    mean: tuple[float, ...]  # of inputs, by channel or feature
    std: tuple[float, ...]
    centre: tuple[float, ...]  # of targets


_KNOWN: weakref.WeakKeyDictionary[Split, _Moments] = weakref.WeakKeyDictionary()


def _find_moments(split: Split) -> _Moments:
    """Returns the moments of training examples; bytes count from 0 to 1. Measured once."""
    if split not in _KNOWN:
        mean, std = _measure(split.images) if split.images.dtype != np.int32 else ((), ())
        centre = split.labels.mean(0, dtype=np.float64) if split.labels.ndim == 2 else np.zeros(0)
        _KNOWN[split] = _Moments(mean, std, tuple(centre.tolist()))
    return _KNOWN[split]


def _measure(inputs: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    count = inputs.size // inputs.shape[-1]
    mean = sum(rows.sum(0) for rows in _rows(inputs)) / count
    # In a second pass: the difference of two large sums would lose digits.
    std = np.sqrt(sum(np.square(rows - mean).sum(0) for rows in _rows(inputs)) / count)
    std = np.where(std > 1e-7 * np.maximum(1, np.abs(mean)), std, 1)  # what never varies isn't blown up
    return tuple(np.asarray(mean).tolist()), tuple(std.tolist())


def _rows(inputs: np.ndarray) -> Iterator[np.ndarray]:
    """Yields all values, a column per channel or feature: some examples at a time."""
    scale = 255 if inputs.dtype == np.uint8 else 1
    for start in range(0, len(inputs), _CHUNK):
        yield inputs[start : start + _CHUNK].reshape(-1, inputs.shape[-1]).astype(np.float64) / scale


def _load_loss(name: str) -> Callable[..., Any]:
    path, function = load_from_file("task.loss", name, "FILE.py:FUNCTION")
    if not callable(function):
        raise ConfigError("task.loss", name, f"the name of a function in {path} after the colon")
    return _blamed(name, path, function)


@functools.lru_cache(maxsize=64)  # rules with one function are to compare equal
def _blamed(name: str, path: Path, function: Callable[..., Any]) -> Callable[..., Any]:
    def compute(outputs: Any, targets: Any) -> Any:
        with blaming(f"task.loss={name!r} failed", path):
            return function(outputs, targets)

    return compute
