"""Hyperparameters by name: which field each one sets, and whether a program must be compiled anew for it."""

import dataclasses
import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hpjax.config.fields import FIELDS, Config
from hpjax.config.names import find_field
from hpjax.config.parsing import check_field, to_dict
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


# Every field that says how it can be searched.
HYPERPARAMETERS = {
    field.axis: Hyperparameter(field.axis, key, field.rule.dynamic, field.type)
    for key, field in FIELDS.items()
    if field.axis
}


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
    key = HYPERPARAMETERS[name].key
    default = FIELDS[key].default
    return check_field(key, (value,) * len(default) if isinstance(default, tuple) else value)


def unknown_hyperparameter(key: str, name: str, value: Any) -> ConfigError:
    """Returns the error for a name, given with `value` under `key`, that is no hyperparameter's."""
    if name == "seed":
        return ConfigError(key, value, "sweep.seeds=N, which runs each setting with N seeds")
    meant = _find_meant(name)
    allowed = f"; did you mean {meant}?" if meant else f": {', '.join(HYPERPARAMETERS)}"
    return ConfigError(key, value, f"a hyperparameter{allowed}")


def _find_meant(name: str) -> str:
    """Returns the hyperparameter that sets the field that a name stands for, or is spelled almost so."""
    keys = {h.key: h.name for h in HYPERPARAMETERS.values()}
    if (meant := keys.get(name) or keys.get(find_field(name, FIELDS))) is not None:
        return meant
    return next(iter(difflib.get_close_matches(name, HYPERPARAMETERS, 1)), "")


def _set(config: Config, name: str, value: Any) -> Config:
    value = check_value(name, value)
    section, field = HYPERPARAMETERS[name].key.split(".")
    changed = dataclasses.replace(getattr(config, section), **{field: value})
    return dataclasses.replace(config, **{section: changed})
