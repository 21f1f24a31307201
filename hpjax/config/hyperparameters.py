"""Hyperparameters by name: which field each one sets, and whether a program must be compiled anew for it."""

import dataclasses
import difflib
import functools
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from hpjax.config.checks import check_single
from hpjax.config.fields import FIELDS, Config
from hpjax.config.names import find_field
from hpjax.config.parsing import check_field, to_dict
from hpjax.config.rules import Field
from hpjax.config.seeds import AXIS as SEED
from hpjax.errors import ConfigError

OPTION = "model."  # begins the name of a hyperparameter that is an option of the model
_OPTIONS = "model.options"


@dataclass(frozen=True)
class Hyperparameter:
    """One axis that a space may have.

    Attributes:
      name: as it stands in a space.
      key: the field it sets; of a model's option, `model.options.NAME`.
      dynamic: a number inside the program (a lane's own), not one that shapes it.
      type: float, int, str or bool; object where its values may be of several types.
      check: returns a value in its type; raises ConfigError where it isn't allowed.
    """

    name: str
    key: str
    dynamic: bool
    type: type
    check: Callable[[Any], Any] = dataclasses.field(compare=False, repr=False)


def _create(key: str, field: Field) -> Hyperparameter:
    return Hyperparameter(
        field.axis, key, field.rule.dynamic, field.type, functools.partial(_check_axis, key, field)
    )


def _check_axis(key: str, field: Field, value: Any) -> Any:
    default = field.default
    if field.rule.tuples:
        value = check_single(key, value)
    return check_field(key, (value,) * len(default) if isinstance(default, tuple) else value)


# Every field that says how it can be searched.
HYPERPARAMETERS = {field.axis: _create(key, field) for key, field in FIELDS.items() if field.axis}


def find_hyperparameter(name: Any) -> Hyperparameter | None:
    """Returns the hyperparameter of a name; None where there is none.

    Of a model's option, `model.NAME`, only the class knows more: it is taken to be static and of any type
    until it is declared (`hpjax.models.options`).
    """
    if name in HYPERPARAMETERS:
        return HYPERPARAMETERS[name]
    if name == SEED:  # a configuration keeps them apart from what is searched
        return Hyperparameter(name, name, True, int, functools.partial(check_field, name))
    if not option_of(name):
        return None
    key = f"{_OPTIONS}.{option_of(name)}"
    return Hyperparameter(name, key, False, object, functools.partial(check_single, key))


def option_of(name: Any) -> str:
    """Returns which option of the model a hyperparameter is: `width` of `model.width`; nothing if none."""
    if not isinstance(name, str) or not name.startswith(OPTION) or name in FIELDS:
        return ""
    option = name.removeprefix(OPTION)
    return option if option.isidentifier() else ""


def apply_hyperparameters(config: Config, values: Mapping[str, Any]) -> Config:
    """Returns the configuration of one trial.

    Args:
      config: the sweep's.
      values: hyperparameters by name; a field's that is None doesn't apply to this trial.

    Raises:
      ConfigError: A hyperparameter is unknown or its value isn't allowed.
    """
    for name, value in values.items():
        if option := option_of(name):
            config = _set_option(config, option, check_value(name, value))
        elif value is not None:
            config = _set(config, name, value)
    return config


def static_key(config: Config, dynamic: Collection[str] = ()) -> str:
    """Returns what shapes the program as canonical JSON: trials with equal keys form a group.

    Args:
      config: any trial's of the group.
      dynamic: hyperparameters that are numbers inside the program; those of fields are known.
    """
    plain = to_dict(config)
    for h in HYPERPARAMETERS.values():
        if h.dynamic:
            section, field = h.key.split(".")
            del plain[section][field]
    for name in dynamic:
        plain["model"]["options"].pop(option_of(name), None)
    return json.dumps({name: plain[name] for name in ("model", "data", "optimizer", "train")}, sort_keys=True)


def is_used(config: Config, name: str) -> bool:
    """Returns whether a field's hyperparameter may differ from its default, in any trial of the sweep.

    What isn't used is in no program.
    """
    section, field = HYPERPARAMETERS[name].key.split(".")
    default = getattr(getattr(Config(), section), field)
    return name in config.sweep.space or getattr(getattr(config, section), field) != default


def check_value(name: str, value: Any) -> Any:
    """Returns one hyperparameter's value in its type.

    Raises:
      ConfigError: The hyperparameter is unknown, or the value isn't allowed.
    """
    if (found := find_hyperparameter(name)) is None:
        raise unknown_hyperparameter(f"sweep.space.{name}", name, value)
    return found.check(value)


def unknown_hyperparameter(key: str, name: str, value: Any) -> ConfigError:
    """Returns the error for a name, given with `value` under `key`, that is no hyperparameter's."""
    meant = _find_meant(name)
    known = f"{', '.join(HYPERPARAMETERS)}, or {OPTION}NAME, an option of the model"
    allowed = f"; did you mean {meant}?" if meant else f": {known}"
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


def _set_option(config: Config, option: str, value: Any) -> Config:
    model = dataclasses.replace(config.model, options={**config.model.options, option: value})
    return dataclasses.replace(config, model=model)
