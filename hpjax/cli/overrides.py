"""Fields given on the command line, `--config.SECTION.FIELD=VALUE`, read by the types of their defaults."""

import ast
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from hpjax.config.checks import read_literal, unknown_field
from hpjax.config.fields import FIELDS, Config
from hpjax.config.parsing import to_dict
from hpjax.errors import ConfigError, UsageError, text_of

_FLAG = re.compile(r"--?(no)?config(?:\.([^=]*))?(?:=(.*))?", re.DOTALL)
_TRUTHS = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}


class Taken(NamedTuple):
    """What a command line says about the configuration.

    Attributes:
      file: value of `--config`; None where it isn't given.
      fields: values by dotted key, in order.
      rest: the other arguments.
    """

    file: str | None
    fields: dict[str, Any]
    rest: list[str]


def take_config(arguments: Sequence[str]) -> Taken:
    """Separates `--config=FILE` and `--config.…` from a command line's other arguments.

    Raises:
      HpjaxError: A field is unknown, or a value is missing.
    """
    file, fields, rest = None, {}, []
    waiting = iter(arguments)
    for argument in waiting:
        match = _FLAG.fullmatch(argument)
        if argument == "--":
            rest += [argument, *waiting]
        elif match is None or (match[1] and match[2] is None):
            rest.append(argument)
        elif match[2] is None:
            file = _value(argument, match[3], waiting)
        else:
            fields[match[2]] = _read(argument, bool(match[1]), match[2], match[3], waiting)
    return Taken(file, fields, rest)


def with_fields(given: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    """Returns nested dicts with these values set by dotted key; nothing given is changed.

    Raises:
      ConfigError: There is no place for a value, since choices stand where it says `low`.
    """
    for key, value in fields.items():
        given = _with(given, [], key.split("."), value)
    return given


def _with(given: Any, done: list[str], path: list[str], value: Any) -> Any:
    if not path:
        return value
    if isinstance(given, dict):
        return {**given, path[0]: _with(given.get(path[0], {}), [*done, path[0]], path[1:], value)}
    if any(".".join(done[:n]) in FIELDS for n in range(len(done))):
        allowed = f"no further name: {'.'.join(done)} is {text_of(given, 100)} in the config"
        raise ConfigError(f"--config.{'.'.join([*done, *path])}", value, allowed)
    return given  # no place for it, as `parse_config` will say


def _read(argument: str, negated: bool, key: str, text: str | None, waiting: Iterator[str]) -> Any:
    check_known(key, text)
    if key in FIELDS and FIELDS[key].type is bool and (text is None or negated):
        return not negated if text is None else text
    if negated:
        raise UsageError(f"{argument} is not allowed: expected --config.{key}=VALUE")
    return read_value(key, _value(argument, text, waiting))


def _value(argument: str, text: str | None, waiting: Iterator[str]) -> str:
    text = next(waiting, None) if text is None else text
    if text is None:
        raise UsageError(f"{argument} has no value: expected {argument}=VALUE")
    return text


def read_value(key: str, text: str) -> Any:
    """Returns a field's value as Python has it; text that isn't one as it is, to be refused by its check."""
    kind = type(FIELDS[key].default) if key in FIELDS else object
    if key in FIELDS and FIELDS[key].rule.tuples and ("," in text or text.lstrip().startswith(("(", "["))):
        kind = object  # a tuple, with brackets or without: shells take these for their own
    if kind is str:
        return text
    if kind is tuple and not text.strip():
        return ()  # needs no quotes, as brackets do in a shell
    if kind is bool:
        return _TRUTHS.get(text.lower(), text)
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            return text
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        words = kind is tuple and (FIELDS[key].type is str or FIELDS[key].rule.choices)
        if words:
            return tuple(word.strip() for word in text.split(",") if word.strip())
        return read_literal(text) if kind is object else text  # true and false, as in --space


def check_known(key: str, text: str | None) -> None:
    """Raises ConfigError where a dotted key leads nowhere in a configuration."""
    node: Any = to_dict(Config())
    done: list[str] = []
    for name in key.split("."):
        section = ".".join(done)
        if _is_free(section):
            return
        if not isinstance(node, dict):
            raise ConfigError(f"--config.{key}", text, f"no further name: {section} is one value")
        if name not in node:
            error = unknown_field(section, key.removeprefix(f"{section}."), text, node)
            raise ConfigError(f"--config.{key}", text, error.allowed)
        node = node[name]
        done.append(name)
    if isinstance(node, dict) and key not in FIELDS:
        fields = ", ".join(f"--config.{key}.{name}=…" for name in node)
        raise ConfigError(f"--config.{key}", text, f"one of its fields: {fields}")


def _is_free(key: str) -> bool:
    """Returns whether any name may stand below `key`."""
    return key in FIELDS and FIELDS[key].type is dict
