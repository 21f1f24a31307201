"""The search space as the command line says it: a hyperparameter in each `--space`."""

import re
from collections.abc import Callable
from typing import Any

from hpjax.config.checks import read_literal
from hpjax.config.hyperparameters import find_hyperparameter, unknown_hyperparameter
from hpjax.errors import ConfigError


def parse_space_flag(flag: str) -> tuple[str, Any]:
    """Returns name and specification of `NAME=a,b,…`, `NAME=low:high[:log]` or `NAME=low:high:step`.

    Blanks, brackets around all of it, quotation marks around a value and a comma after the last one are
    allowed. ` if OTHER=a,b` behind it, and further ` and OTHER=a,b`, say beside which values it exists.

    Raises:
      ConfigError: The flag has another form.
    """
    spoken, *conditions = re.split(r"\sif\s", flag, maxsplit=1)
    name, spec = _parse_values(flag, spoken)
    if not conditions:
        return name, spec
    named = [_parse_condition(flag, text) for text in re.split(r"\sand\s", conditions[0])]
    when = dict(named)
    if len(when) < len(named):
        raise ConfigError("--space", flag, "each OTHER once behind `if`: OTHER=a,b")
    return name, {**(spec if isinstance(spec, dict) else {"choices": spec}), "when": when}


def _parse_condition(flag: str, text: str) -> tuple[str, tuple]:
    name, values = _parse_values(flag, text)
    if isinstance(values, dict):
        raise ConfigError("--space", flag, "values behind `if`: NAME=… if OTHER=a,b [and OTHER=a,b]")
    return name, values


def _parse_values(flag: str, spoken: str) -> tuple[str, Any]:
    name, equals, text = spoken.partition("=")
    name, text = name.strip(), _unwrap(text)
    if not equals or not name or not text:
        raise ConfigError("--space", flag, "NAME=a,b,… or NAME=low:high[:log|:step]")
    if (found := find_hyperparameter(name)) is None:
        raise unknown_hyperparameter("--space", name, flag)
    parts, kind = [part.strip() for part in text.split(":")], found.type
    if len(parts) == 1 or kind is str or not _may_be_range(parts, kind):  # FILE.py:CLASS is a choice
        return name, tuple(_number(flag, part, kind) for part in text.split(","))
    if len(parts) not in (2, 3):
        raise ConfigError("--space", flag, "NAME=low:high[:log|:step]")
    spec: dict[str, Any] = {"low": _number(flag, parts[0], kind), "high": _number(flag, parts[1], kind)}
    if len(parts) == 3:
        spec |= {"log": True} if parts[2] == "log" else {"step": _step(flag, parts[2], kind)}
    return name, spec


def _unwrap(text: str) -> str:
    """Returns a specification without brackets around it and without a comma at its end."""
    text = text.strip()
    while text[:1] + text[-1:] in ("[]", "()", "{}"):
        text = text[1:-1].strip()
    return text.removesuffix(",").rstrip()


def _may_be_range(parts: list[str], kind: type) -> bool:
    """Returns whether texts between colons are a range's; an option of a model may be text with a colon."""
    numbers = (isinstance(read_literal(part), int | float) for part in parts[:2])
    return kind is not object or all(numbers)


def _step(flag: str, text: str, kind: type) -> Any:
    try:
        if isinstance(step := _READ[kind](text), int | float):
            return step
    except ValueError:
        pass
    allowed = f"log or a step (one of the {_WORDS[kind]}) as the third part, not {text!r}"
    raise ConfigError("--space", flag, allowed)


def _number(flag: str, text: str, kind: type) -> Any:
    text = text.strip()
    if text[:1] == text[-1:] and text[:1] in ("'", '"') and len(text) > 1:
        text, kind = text[1:-1], str if kind is object else kind
    try:
        return _READ[kind](text)
    except ValueError:
        raise ConfigError("--space", flag, f"values that are {_WORDS[kind]}") from None


_WORDS = {int: "whole numbers", float: "numbers", str: "text", object: "numbers"}
_READ: dict[type, Callable[[str], Any]] = {int: int, float: float, str: str, object: read_literal}
