"""What each field of the configuration may hold."""

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from hpjax.errors import ConfigError

OPTIMIZERS = ("sgd", "momentum", "nesterov", "adam", "adamw", "lamb", "lion", "rmsprop", "adafactor")
MODELS = ("custom_cnn", "resnet18")
SOURCES = ("auto", "intel_scenes", "folder", "digits", "synthetic_scenes")
TRACKERS = ("tensorboard", "wandb", "mlflow")
METRICS = ("auto", "validation_loss", "validation_accuracy", "test_loss", "test_accuracy", "train_loss")

CHOICES: dict[str, tuple[str, ...]] = {
    "model.padding": ("reference", "same"),
    "data.augment": ("none", "flip", "flip_crop"),
    "data.residency": ("auto", "device", "stream"),
    "data.remainder": ("pad", "drop"),
    "data.on_bad_image": ("fail", "skip"),
    "optimizer.name": OPTIMIZERS,
    "optimizer.weight_decay_mode": ("coupled", "decoupled"),
    "optimizer.schedule": ("constant", "cosine", "linear"),
    "train.precision": ("float32", "bfloat16"),
    "sweep.sampler": ("grid", "random", "qmc", "tpe", "gp", "cmaes"),
    "sweep.pruner": ("none", "median", "successive_halving", "hyperband", "wilcoxon", "threshold", "patient"),
    "sweep.select": ("final", "best"),
    "lanes.strategy": ("auto", "fused", "sequential"),
    "lanes.data_order": ("shared", "own"),
}

_Check = tuple[Callable[[Any], bool], str]
_POSITIVE: _Check = (lambda x: x > 0, "a number greater than 0")
_NOT_NEGATIVE: _Check = (lambda x: x >= 0, "a number of at least 0")
_FRACTION: _Check = (lambda x: 0 <= x < 1, "a number in [0, 1)")
_COUNT: _Check = (lambda x: x >= 1, "a whole number of at least 1")
_MAX_FLOAT = 3.4028234e38
_MIN_FLOAT = 1.1754944e-38
_MAX_INT = 2**31 - 1
MAX_SEED = 2**32 - 1
_COUNT_OR_0: _Check = (lambda x: x >= 0, "a whole number of at least 0")

RANGES: dict[str, _Check] = {
    "seed": (lambda x: 0 <= x <= _MAX_INT, f"a whole number from 0 to {_MAX_INT}"),
    "model.kernel_widths": (
        lambda x: len(x) == 3 and all(_is_int(w) and 1 <= w <= 63 for w in x),
        "three whole numbers from 1 to 63",
    ),
    "data.image_size": (lambda x: x == 0 or 8 <= x <= 1024, "0 (the source's own) or 8 to 1024 pixels"),
    "data.validation_fraction": _FRACTION,
    "data.max_train_examples": _COUNT_OR_0,
    "data.max_test_examples": _COUNT_OR_0,
    "optimizer.learning_rate": _POSITIVE,
    "optimizer.weight_decay": _NOT_NEGATIVE,
    "optimizer.momentum": _FRACTION,
    "optimizer.b1": _FRACTION,
    "optimizer.b2": _FRACTION,
    "optimizer.eps": _POSITIVE,
    "optimizer.clip_norm": _NOT_NEGATIVE,
    "optimizer.warmup_fraction": _FRACTION,
    "train.epochs": _COUNT,
    "train.batch_size": (lambda x: x >= 2, "a whole number of at least 2 (BN needs two images)"),
    "train.label_smoothing": _FRACTION,
    "train.dropout_rate": _FRACTION,
    "sweep.trials": _COUNT_OR_0,
    "sweep.seeds": _COUNT,
    "sweep.final_seeds": _COUNT_OR_0,
    "lanes.count": _COUNT_OR_0,
    "lanes.devices": _COUNT_OR_0,
    "checkpoint.every_epochs": _COUNT_OR_0,
    "checkpoint.every_minutes": _NOT_NEGATIVE,
    "checkpoint.keep": _COUNT_OR_0,
}

PBT: dict[str, _Check] = {
    "every_epochs": (lambda x: _is_int(x) and x >= 1, "a whole number of at least 1"),
    "fraction": (lambda x: 0 < x <= 0.5, "a number in (0, 0.5]"),
    "perturb": (lambda x: x > 1, "a factor greater than 1"),
}


def check_field(key: str, value: Any, default: Any) -> Any:
    """Returns `value` in its field's type.

    Args:
      key: the dotted key.
      value: what was given.
      default: the field's default; shows its type.

    Raises:
      ConfigError: The value is of another type or out of range.
    """
    value = _check_type(key, value, default)
    if key in CHOICES and value not in CHOICES[key]:
        raise ConfigError(key, value, f"one of {', '.join(CHOICES[key])}")
    if key in RANGES and not RANGES[key][0](value):
        raise ConfigError(key, value, RANGES[key][1])
    if key in _FURTHER:
        _FURTHER[key](key, value)
    return value


def unknown_field(section: str, name: str, value: Any, known: Iterable[str]) -> ConfigError:
    """Returns the error for a name that isn't among a section's fields (`section`: "" at the top)."""
    known = list(known)
    prefix = f"{section}." if section else ""
    near = difflib.get_close_matches(name.split(".")[0], known, 1)
    allowed = f"a known field; did you mean {prefix}{near[0]}?" if near else f"one of {', '.join(known)}"
    return ConfigError(f"{prefix}{name}", value, allowed)


def _check_type(key: str, value: Any, default: Any) -> Any:
    if isinstance(default, float):
        return _check_float(key, value)
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise ConfigError(key, value, "true or false")
        return value
    if isinstance(default, int):
        if not _is_int(value):
            raise ConfigError(key, value, "a whole number")
        if abs(value) > _MAX_INT:
            raise ConfigError(key, value, f"a whole number of at most {_MAX_INT}")
        return value
    if isinstance(default, str):
        if not isinstance(value, str) or not value.isprintable():
            raise ConfigError(key, value, "text without control characters")
        return value
    if isinstance(default, tuple):
        if not isinstance(value, list | tuple):
            raise ConfigError(key, value, "a tuple")
        return tuple(_check_plain(key, v) for v in value)
    if not is_mapping(value):
        raise ConfigError(key, value, "a mapping")
    return _check_plain(key, value)


def _check_plain(key: str, value: Any) -> Any:
    """Takes what JSON can hold, so that a workdir can; lists become tuples."""
    if is_mapping(value):
        if bad := [name for name in value if not isinstance(name, str)]:
            raise ConfigError(key, bad[0], "names that are text")
        return {name: _check_plain(f"{key}.{name}", v) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return tuple(_check_plain(key, v) for v in value)
    if isinstance(value, int | float) and not abs(value) <= _MAX_FLOAT:
        raise ConfigError(key, value, "a finite number")
    if value is not None and not isinstance(value, str | int | float):
        raise ConfigError(key, value, "numbers, text, tuples and mappings")
    return value


def _check_float(key: str, value: Any) -> float:
    """Takes what float32 holds: a lane's hyperparameters are float32."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) <= _MAX_FLOAT:
        raise ConfigError(key, value, "a finite number")
    if 0 < abs(value) < _MIN_FLOAT:
        raise ConfigError(key, value, f"0, or a number of at least {_MIN_FLOAT:g}")
    return float(value)


def _check_model(key: str, value: str) -> None:
    if value not in MODELS and ".py:" not in value:
        raise ConfigError(key, value, f"one of {', '.join(MODELS)}, or FILE.py:CLASS")


def _check_source(key: str, value: str) -> None:
    if value not in SOURCES and not (value.startswith("tfds:") and value != "tfds:"):
        raise ConfigError(key, value, f"one of {', '.join(SOURCES)}, or tfds:NAME")


def _check_metric(key: str, value: str) -> None:
    if value not in METRICS and ".py:" not in value:
        raise ConfigError(key, value, f"one of {', '.join(METRICS)}, or FILE.py:FUNCTION")


def _check_space(key: str, value: Mapping[str, Any]) -> None:
    for name, axis in value.items():
        if axis in ((), {}):
            raise ConfigError(f"{key}.{name}", axis, "at least one value")


def _check_enqueue(key: str, value: tuple) -> None:
    for setting in value:
        if not isinstance(setting, Mapping):
            raise ConfigError(key, setting, "a tuple of {hyperparameter: value}")


def _check_pbt(key: str, options: Mapping[str, Any]) -> None:
    for name, value in options.items():
        if name not in PBT:
            raise unknown_field(key, name, value, PBT)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not PBT[name][0](value):
            raise ConfigError(f"{key}.{name}", value, PBT[name][1])


def _check_trackers(key: str, value: tuple) -> None:
    for tracker in value:
        if tracker not in TRACKERS:
            raise ConfigError(key, tracker, f"among {', '.join(TRACKERS)}")


_FURTHER: dict[str, Callable[[str, Any], None]] = {
    "model.name": _check_model,
    "data.name": _check_source,
    "sweep.metric": _check_metric,
    "sweep.space": _check_space,
    "sweep.enqueue": _check_enqueue,
    "sweep.pbt": _check_pbt,
    "trackers": _check_trackers,
}


def is_mapping(value: Any) -> bool:
    """Returns whether a value has names and values; a `ConfigDict` has, though it is no `Mapping`."""
    return hasattr(value, "items") and not isinstance(value, type)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
