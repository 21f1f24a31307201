"""The one checker of values, by the rules in the metadata of the fields they are given for."""

import contextlib
import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from hpjax.config.fields import FIELDS
from hpjax.config.names import find_field, find_value
from hpjax.config.paths import expand_path
from hpjax.config.rules import MAX_INT, Field, Rule, is_int, list_fields
from hpjax.errors import ConfigError

_MAX_FLOAT = 3.4028234e38
_MIN_FLOAT = 1.1754944e-38
_LONGEST_RANGE = 1_000_000  # that is listed


def check_value(key: str, value: Any, field: Field) -> Any:
    """Returns `value` in its field's type, with `~` and variables replaced where it is a path.

    Args:
      key: the dotted key.
      value: what was given.
      field: what it is given for.

    Raises:
      ConfigError: The value is of another type or not allowed.
    """
    value, rule = to_plain(value), field.rule
    if rule.path and isinstance(value, str):
        value = expand_path(value)
    if rule.tuples and isinstance(value, list | tuple):
        return _check_tuple(key, value, rule)
    if rule.tuples and type(value) is not type(field.default):
        raise ConfigError(key, value, rule.allowed)
    value = _check_type(key, value, field.default)
    items = _list_items(key, value)
    if rule.options:
        known = list_fields(rule.options)
        return {name: _check_option(key, name, value[name], known) for name in value}
    if rule.choices:
        for name, item in items:
            _check_choice(name, item, key, rule)
    if rule.check and not rule.check.holds(value):
        raise ConfigError(key, value, rule.check.allowed)
    for name, item in items:
        if rule.each and not rule.each.holds(item):
            raise ConfigError(name, item, rule.each.allowed)
    return value


def check_single(key: str, value: Any) -> Any:
    """Returns a value that is no tuple or mapping, as Python's own; raises ConfigError for others."""
    value = _check_plain(key, value)
    if isinstance(value, tuple | dict):
        raise ConfigError(key, value, "a number, text, true, false or None")
    return value


def unknown_field(section: str, name: str, value: Any, known: Iterable[str]) -> ConfigError:
    """Returns the error for a name that isn't among a section's fields (`section`: "" at the top)."""
    known = list(known)
    prefix = f"{section}." if section else ""
    near = difflib.get_close_matches(name.split(".")[0], known, 1)
    meant = find_field(name.split(".")[0], FIELDS) or (f"{prefix}{near[0]}" if near else "")
    meant = meant or find_field(name, FIELDS)
    allowed = f"a known field; did you mean {meant}?" if meant else f"one of {', '.join(known)}"
    return ConfigError(f"{prefix}{name}", value, allowed)


def to_plain(value: Any) -> Any:
    """Returns scalars and arrays of NumPy, and ranges, as Python's own values; others as they are."""
    if isinstance(value, range):
        return value if value[_LONGEST_RANGE:] else tuple(value)
    kind = getattr(value, "dtype", None)
    if kind is None or not hasattr(value, "tolist"):
        return value
    if getattr(value, "shape", None) == ():
        # The shortest number that reads back as the same: 0.1, not a float32's 0.10000000149011612.
        return float(str(value)) if str(kind) in ("float16", "float32") else value.tolist()
    return [to_plain(item) for item in value]


def read_literal(text: str) -> Any:
    """Returns the number, truth value or None that a text stands for; the text itself where it is none."""
    words = {"true": True, "True": True, "false": False, "False": False, "None": None}
    if text in words:
        return words[text]
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text


def is_mapping(value: Any) -> bool:
    """Returns whether a value has names and values; a `ConfigDict` has, though it is no `Mapping`."""
    return hasattr(value, "items") and not isinstance(value, type)


def _list_items(key: str, value: Any) -> list[tuple[str, Any]]:
    """Returns the keys and values that a rule's choices, and `each`, are about."""
    if is_mapping(value):
        return [(f"{key}.{name}", item) for name, item in value.items()]
    return [(key, item) for item in value] if isinstance(value, tuple) else [(key, value)]


def _check_choice(name: str, value: Any, key: str, rule: Rule) -> None:
    matches = isinstance(value, str) and any(re.fullmatch(form.pattern, value) for form in rule.forms)
    # A tuple's item may be of any type, even one that can't be looked up.
    if not matches and value not in list(rule.choices):
        meant = find_value(key, value, rule.choices)
        raise ConfigError(name, value, rule.allowed + (f"; did you mean {meant}?" if meant else ""))


def _check_tuple(key: str, value: Any, rule: Rule) -> tuple:
    value = _check_plain(key, value)
    if not rule.tuples or not rule.tuples.holds(value):
        raise ConfigError(key, value, rule.allowed)
    return value


def _check_option(key: str, name: str, value: Any, known: Mapping[str, Field]) -> Any:
    if name not in known:
        raise unknown_field(key, name, value, known)
    return check_value(f"{key}.{name}", value, known[name])


def _check_type(key: str, value: Any, default: Any) -> Any:
    if isinstance(default, float):
        return _check_float(key, value)
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise ConfigError(key, value, "true or false")
        return value
    if isinstance(default, int):
        if not is_int(value):
            raise ConfigError(key, value, "a whole number")
        if abs(value) > MAX_INT:
            raise ConfigError(key, value, f"a whole number of at most {MAX_INT}")
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
    value = to_plain(value)
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
