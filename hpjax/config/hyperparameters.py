"""Hyperparameters by name: which field each one sets, and whether a program must be compiled anew for it."""

import dataclasses
import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hpjax.config.checks import check_field
from hpjax.config.fields import Config, to_dict
from hpjax.errors import ConfigError


@dataclass(frozen=True)
class Hyperparameter:
    """One axis that a space may have.

    Attributes:
      name: as it stands in a space.
      key: the field it sets.
      dynamic: a number inside the program (a lane's own), not one that shapes it.
      type: float, int or str.
    """

    name: str
    key: str
    dynamic: bool
    type: type


def _list() -> dict[str, Hyperparameter]:
    dynamic = {
        "optimizer": ("learning_rate", "weight_decay", "momentum", "b1", "b2", "eps", "clip_norm"),
        "train": ("label_smoothing", "dropout_rate"),
    }
    static = {
        "model": "model.name",
        "kernel_width": "model.kernel_widths",
        "padding": "model.padding",
        "image_size": "data.image_size",
        "augment": "data.augment",
        "batch_size": "train.batch_size",
        "epochs": "train.epochs",
        "precision": "train.precision",
        "optimizer": "optimizer.name",
        "weight_decay_mode": "optimizer.weight_decay_mode",
        "schedule": "optimizer.schedule",
        "warmup_fraction": "optimizer.warmup_fraction",
    }
    numbers = {
        "kernel_width": int,
        "image_size": int,
        "batch_size": int,
        "epochs": int,
        "warmup_fraction": float,
    }
    found = [Hyperparameter(n, f"{s}.{n}", True, float) for s, names in dynamic.items() for n in names]
    found += [Hyperparameter(n, key, False, numbers.get(n, str)) for n, key in static.items()]
    return {h.name: h for h in found}


HYPERPARAMETERS = _list()


def apply_hyperparameters(config: Config, values: Mapping[str, Any]) -> Config:
    """Returns the configuration of one trial.

    Args:
      config: the sweep's.
      values: hyperparameters by name; those that are None don't apply to this trial.

    Raises:
      ConfigError: A hyperparameter is unknown or its value isn't allowed.
    """
    for name, value in values.items():
        if value is not None:
            config = _set(config, name, value)
    return config


def static_key(config: Config) -> str:
    """Returns what shapes the program as canonical JSON: trials with equal keys form a group."""
    plain = to_dict(config)
    for h in HYPERPARAMETERS.values():
        if h.dynamic:
            section, field = h.key.split(".")
            del plain[section][field]
    return json.dumps({name: plain[name] for name in ("model", "data", "optimizer", "train")}, sort_keys=True)


def check_value(name: str, value: Any) -> Any:
    """Returns one hyperparameter's value in its type.

    Raises:
      ConfigError: The hyperparameter is unknown, or the value isn't allowed.
    """
    if name not in HYPERPARAMETERS:
        raise unknown_hyperparameter(f"sweep.space.{name}", name, value)
    section, field = HYPERPARAMETERS[name].key.split(".")
    default = getattr(getattr(Config(), section), field)
    return check_field(f"{section}.{field}", _widths(name, value, default), default)


def unknown_hyperparameter(key: str, name: str, value: Any) -> ConfigError:
    """Returns the error for a name, given with `value` under `key`, that is no hyperparameter's."""
    if name == "seed":
        return ConfigError(key, value, "sweep.seeds=N, which runs each setting with N seeds")
    near = difflib.get_close_matches(name, HYPERPARAMETERS, 1)
    allowed = f"did you mean {near[0]}?" if near else f"{', '.join(HYPERPARAMETERS)}"
    return ConfigError(key, value, f"a hyperparameter{'; ' if near else ': '}{allowed}")


def _set(config: Config, name: str, value: Any) -> Config:
    value = check_value(name, value)
    section, field = HYPERPARAMETERS[name].key.split(".")
    changed = dataclasses.replace(getattr(config, section), **{field: value})
    return dataclasses.replace(config, **{section: changed})


def _widths(name: str, value: Any, default: Any) -> Any:
    return (value,) * len(default) if name == "kernel_width" else value
