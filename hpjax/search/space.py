"""The search space: choices and ranges of hyperparameters, some of which exist only under a condition."""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hpjax.errors import ConfigError
from hpjax.hyperparameters import HYPERPARAMETERS, check_value

FORMS = "choices (0.01, 1.0) or a range {low, high[, log][, step]}"


@dataclass(frozen=True)
class Axis:
    """One hyperparameter's values.

    Attributes:
      name: the hyperparameter.
      choices: its values; empty for a range.
      low: smallest value of a range.
      high: largest value of a range.
      log: the range is even in the logarithm.
      step: distance of a range's values; None: any value in it.
      when: other choices under which it exists, by name; empty: always.
    """

    name: str
    choices: tuple = ()
    low: float | int = 0
    high: float | int = 0
    log: bool = False
    step: float | int | None = None
    when: dict[str, tuple] = field(default_factory=dict)

    @property
    def values(self) -> tuple:
        """All values in order; of a range with a step.

        Raises:
          ConfigError: The range has no step.
        """
        if self.choices:
            return self.choices
        if self.step is None and HYPERPARAMETERS[self.name].type is not int:
            raise ConfigError(
                f"sweep.space.{self.name}", f"{self.low}:{self.high}", "a step, or choices, in a grid"
            )
        step = self.step or 1
        count = int(math.floor((self.high - self.low) / step + 1e-9)) + 1
        return tuple(self.low + i * step for i in range(count))

    def applies(self, values: Mapping[str, Any]) -> bool:
        """Returns whether the hyperparameter exists beside these values."""
        return all(values.get(name) in allowed for name, allowed in self.when.items())


@dataclass(frozen=True)
class Space:
    """All axes; conditions refer to earlier ones."""

    axes: tuple[Axis, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The hyperparameters, in order."""
        return tuple(axis.name for axis in self.axes)

    def grid(self) -> list[dict[str, Any]]:
        """Returns every setting once, the last axis fastest.

        Raises:
          ConfigError: A range has no step.
        """
        settings: list[dict[str, Any]] = [{}]
        for axis in self.axes:
            settings = [
                {**setting, axis.name: value} if axis.applies(setting) else setting
                for setting, value in itertools.product(settings, axis.values)
                if axis.applies(setting) or value == axis.values[0]
            ]
        return settings


def parse_space(spec: Mapping[str, Any]) -> Space:
    """Returns the space that `sweep.space` describes.

    Raises:
      ConfigError: A hyperparameter, a value or a form isn't allowed.
    """
    axes = {name: _parse_axis(name, value) for name, value in spec.items()}
    ordered: dict[str, Axis] = {}
    while len(ordered) < len(axes):
        ready = [a for a in axes.values() if a.name not in ordered and all(n in ordered for n in a.when)]
        if not ready:
            stuck = next(a for a in axes.values() if a.name not in ordered)
            raise ConfigError(
                f"sweep.space.{stuck.name}.when", stuck.when, f"conditions on {', '.join(axes)}"
            )
        ordered.update({axis.name: axis for axis in ready})
    return Space(tuple(ordered.values()))


def parse_space_flag(flag: str) -> tuple[str, Any]:
    """Returns name and specification of `NAME=a,b,…`, `NAME=low:high[:log]` or `NAME=low:high:step`.

    Raises:
      ConfigError: The flag has another form.
    """
    name, equals, text = flag.partition("=")
    if not equals or not name or not text:
        raise ConfigError("--space", flag, "NAME=a,b,… or NAME=low:high[:log|:step]")
    if name not in HYPERPARAMETERS:
        raise ConfigError("--space", name, f"a hyperparameter: {', '.join(HYPERPARAMETERS)}")
    kind = HYPERPARAMETERS[name].type
    if ":" not in text:
        return name, tuple(_number(flag, part, kind) for part in text.split(","))
    parts = text.split(":")
    if len(parts) not in (2, 3):
        raise ConfigError("--space", flag, "NAME=low:high[:log|:step]")
    spec: dict[str, Any] = {"low": _number(flag, parts[0], kind), "high": _number(flag, parts[1], kind)}
    if len(parts) == 3:
        spec |= {"log": True} if parts[2] == "log" else {"step": _number(flag, parts[2], kind)}
    return name, spec


def _number(flag: str, text: str, kind: type) -> Any:
    try:
        return kind(text)
    except ValueError:
        raise ConfigError("--space", flag, f"values that are {_WORDS[kind]}") from None


_WORDS = {int: "whole numbers", float: "numbers", str: "text"}


def _parse_axis(name: str, spec: Any) -> Axis:
    key = f"sweep.space.{name}"
    if name not in HYPERPARAMETERS:
        raise ConfigError(key, spec, f"a hyperparameter: {', '.join(HYPERPARAMETERS)}")
    if isinstance(spec, list | tuple):
        return Axis(name, choices=_parse_choices(key, name, spec))
    if not isinstance(spec, Mapping):
        raise ConfigError(key, spec, FORMS)
    if unknown := set(spec) - {"low", "high", "log", "step", "choices", "when"}:
        raise ConfigError(
            f"{key}.{min(unknown)}", spec[min(unknown)], "low, high, log, step, choices or when"
        )
    when = _parse_condition(key, spec.get("when", {}))
    if "choices" in spec:
        return Axis(name, choices=_parse_choices(key, name, spec["choices"]), when=when)
    return _parse_range(key, name, spec, when)


def _parse_choices(key: str, name: str, spec: Any) -> tuple:
    if not isinstance(spec, list | tuple) or not spec:
        raise ConfigError(key, spec, "at least one value")
    values = tuple(_parse_value(key, name, value) for value in spec)
    if len(set(values)) < len(values):
        raise ConfigError(key, spec, "each value once")
    return values


def _parse_range(key: str, name: str, spec: Mapping, when: dict) -> Axis:
    if HYPERPARAMETERS[name].type is str or "low" not in spec or "high" not in spec:
        raise ConfigError(key, dict(spec), FORMS)
    low, high = (_parse_value(key, name, spec[end]) for end in ("low", "high"))
    log, step = spec.get("log", False), spec.get("step")
    if low >= high:
        raise ConfigError(key, dict(spec), "low less than high")
    if not isinstance(log, bool) or (log and (low <= 0 or step)):
        raise ConfigError(key, dict(spec), "log true or false; with log, low greater than 0 and no step")
    if step is not None and not (isinstance(step, int | float) and 0 < step <= high - low):
        raise ConfigError(f"{key}.step", step, f"a number greater than 0 and at most {high - low}")
    return Axis(name, (), low, high, log, step, when)


def _parse_value(key: str, name: str, value: Any) -> Any:
    try:
        checked = check_value(name, value)
    except ConfigError as error:
        raise ConfigError(key, value, error.allowed) from None
    return value if name == "kernel_width" else checked


def _parse_condition(key: str, when: Any) -> dict[str, tuple]:
    if not isinstance(when, Mapping):
        raise ConfigError(f"{key}.when", when, "{hyperparameter: values}")
    return {name: tuple(v) if isinstance(v, list | tuple) else (v,) for name, v in when.items()}
