"""The search space: choices and ranges of hyperparameters, some of which exist only under a condition."""

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hpjax.config.hyperparameters import Hyperparameter, find_hyperparameter, unknown_hyperparameter
from hpjax.errors import ConfigError
from hpjax.search.axis import Axis, parse_value
from hpjax.search.constraint import KEY, Constraint

MOST_SETTINGS = 1_000_000  # that a grid may have
MOST_DRAWN = 1_000  # settings, until one is allowed
MOST_CHECKED = 2_000  # values of a range; which whole numbers are allowed is told apart among the first
Lookup = Callable[[str], Hyperparameter | None]
FORMS = "choices (0.01, 1.0) or a range {low, high[, log][, step]}"


@dataclass(frozen=True)
class Space:
    """All axes; conditions refer to earlier ones.

    Attributes:
      axes: the hyperparameters.
      constraint: says which settings are allowed; None: all.
    """

    axes: tuple[Axis, ...]
    constraint: Constraint | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The hyperparameters, in order."""
        return tuple(axis.name for axis in self.axes)

    @property
    def dynamic(self) -> tuple[str, ...]:
        """Those of them whose values are numbers inside the program."""
        return tuple(axis.name for axis in self.axes if axis.dynamic)

    def grid(self) -> list[dict[str, Any]]:
        """Returns every setting that is allowed once, the last axis fastest.

        Raises:
          ConfigError: A range has no step, or there are too many settings to list.
          UserCodeError: The constraint fails.
        """
        for axis in self.axes:
            axis.require_step()
        if (count := math.prod(axis.count for axis in self.axes)) > MOST_SETTINGS:
            raise ConfigError("sweep.space", f"{count:.3g} settings", f"at most {MOST_SETTINGS:,} in a grid")
        settings: list[dict[str, Any]] = [{}]
        for axis in self.axes:
            settings = [
                {**setting, axis.name: value} if axis.applies(setting) else setting
                for setting, value in itertools.product(settings, axis.values)
                if axis.applies(setting) or value == axis.values[0]
            ]
        return [setting for setting in settings if self.allows(setting)]

    def allows(self, setting: Mapping[str, Any]) -> bool:
        """Returns whether a whole setting is allowed."""
        return self.constraint is None or self.constraint.allows(setting)

    def refuse_all(self) -> ConfigError:
        """Returns the error for a constraint that allows nothing, or so little that it isn't found."""
        assert self.constraint is not None
        allowed = f"a function that allows more of sweep.space: of {MOST_DRAWN:,} settings drawn, none was"
        return ConfigError(KEY, self.constraint.name, allowed)

    def find(self, fixed: Mapping[str, Any], rng: np.random.Generator | None = None) -> dict[str, Any] | None:
        """Returns an allowed setting, drawn at random, with some values given; None if none was found."""
        rng = rng or np.random.default_rng(0)
        for _ in range(MOST_DRAWN if self.constraint else 1):
            setting: dict[str, Any] = {}
            for axis in self.axes:
                if axis.applies(setting):
                    drawn = axis.draw(rng)  # in any case: what is given doesn't change the others
                    setting[axis.name] = fixed.get(axis.name, drawn)
            if self.allows(setting):
                return setting
        return None

    def check(self, key: str, setting: Mapping[str, Any]) -> None:
        """Raises ConfigError where a setting, given under `key`, lies outside the space."""
        axes = {axis.name: axis for axis in self.axes}
        for name, value in setting.items():
            if name not in axes:
                known = f"one of {', '.join(axes)}" if axes else "none"
                raise ConfigError(f"{key}.{name}", value, f"a hyperparameter of sweep.space: {known}")
            axes[name].check(f"{key}.{name}", value)


def count_static(space: Space) -> int:
    """Returns how many combinations of static hyperparameters there are at most, `MOST_SETTINGS` if more."""
    counts = (axis.count if axis.is_finite else MOST_SETTINGS for axis in _static_axes(space))
    return min(math.prod(counts), MOST_SETTINGS)


def list_static(space: Space, most: int) -> list[dict[str, Any]] | None:
    """Returns the combinations of static hyperparameters; None where they are ranges or more than `most`."""
    axes = _static_axes(space)
    names = {axis.name for axis in axes}
    listed = all(axis.choices and set(axis.when) <= names for axis in axes)
    if not listed or count_static(space) > most:
        return None
    return [setting for setting in Space(axes).grid() if space.find(setting) is not None]


def _static_axes(space: Space) -> tuple[Axis, ...]:
    return tuple(axis for axis in space.axes if not axis.dynamic)


def parse_space(spec: Mapping[str, Any], find: Lookup = find_hyperparameter) -> Space:
    """Returns the space that `sweep.space` describes.

    Args:
      spec: a value of `sweep.space`.
      find: returns what is known of a hyperparameter; of a model's options, the class knows more than names.

    Raises:
      ConfigError: A hyperparameter, a value or a form isn't allowed.
    """
    axes = {name: _parse_axis(name, value, find) for name, value in spec.items()}
    ordered: dict[str, Axis] = {}
    while len(ordered) < len(axes):
        ready = [a for a in axes.values() if a.name not in ordered and all(n in ordered for n in a.when)]
        if not ready:
            stuck = next(a for a in axes.values() if a.name not in ordered)
            raise ConfigError(
                f"sweep.space.{stuck.name}.when", stuck.when, f"conditions on {', '.join(axes)}"
            )
        ordered.update({axis.name: axis for axis in ready})
    for axis in ordered.values():
        for name, values in axis.when.items():
            _check_condition(f"sweep.space.{axis.name}.when.{name}", ordered[name], values)
    return Space(tuple(ordered.values()))


def _check_condition(key: str, axis: Axis, values: tuple) -> None:
    """Raises ConfigError where a condition never holds; it may name values that the space leaves out."""
    for value in values:
        parse_value(key, axis.hyperparameter, value)
    refused = ConfigError(key, values, "at least one value")
    for value in reversed(values):
        try:
            return axis.check(key, value)
        except ConfigError as error:
            refused = error
    raise refused


def _parse_axis(name: str, spec: Any, find: Lookup) -> Axis:
    key = f"sweep.space.{name}"
    if (found := find(name)) is None:
        raise unknown_hyperparameter(key, name, spec)
    if isinstance(spec, list | tuple):
        return Axis(name, choices=_parse_choices(key, found, spec), declared=found)
    if not isinstance(spec, Mapping):
        raise ConfigError(key, spec, FORMS)
    if unknown := set(spec) - {"low", "high", "log", "step", "choices", "when"}:
        raise ConfigError(
            f"{key}.{min(unknown)}", spec[min(unknown)], "low, high, log, step, choices or when"
        )
    when = _parse_condition(key, spec.get("when", {}))
    if "choices" in spec:
        if more := set(spec) & {"low", "high", "log", "step"}:
            raise ConfigError(f"{key}.{min(more)}", spec[min(more)], "choices or a range, not both")
        return Axis(name, choices=_parse_choices(key, found, spec["choices"]), when=when, declared=found)
    return _parse_range(key, found, spec, when)


def _parse_choices(key: str, found: Hyperparameter, spec: Any) -> tuple:
    if not isinstance(spec, list | tuple) or not spec:
        raise ConfigError(key, spec, "at least one value")
    values = tuple(parse_value(key, found, value) for value in spec)
    if len(set(values)) < len(values):
        raise ConfigError(key, spec, "each value once")
    return values


def _parse_range(key: str, found: Hyperparameter, spec: Mapping, when: dict) -> Axis:
    if found.type in (str, bool) or "low" not in spec or "high" not in spec:
        raise ConfigError(key, dict(spec), FORMS)
    low, high = (parse_value(key, found, spec[end]) for end in ("low", "high"))
    if found.type is object:
        low, high = _as_ends(key, spec, low, high)
    log, step = spec.get("log", False), spec.get("step")
    if low > high:
        raise ConfigError(key, dict(spec), "low of at most high")
    if not isinstance(log, bool) or (log and (low <= 0 or step)):
        raise ConfigError(key, dict(spec), "log true or false; with log, low greater than 0 and no step")
    if low == high:
        return Axis(found.name, choices=(low,), when=when, declared=found)
    _check_step(f"{key}.step", step, high - low, type(low))
    axis = Axis(found.name, (), low, high, log, step, when, found)
    if isinstance(low, int):
        _check_values(key, found, spec, range(low, high + 1, step or 1))
    return axis


def _as_ends(key: str, spec: Mapping, *ends: Any) -> tuple[Any, ...]:
    """Returns a range's ends as whole numbers, or both as numbers where one of them or the step is none."""
    if not all(isinstance(end, int | float) and not isinstance(end, bool) for end in ends):
        raise ConfigError(key, dict(spec), FORMS)
    whole = all(isinstance(value, int) for value in (*ends, spec.get("step") or 1))
    return ends if whole else tuple(map(float, ends))


def _check_values(key: str, found: Hyperparameter, spec: Mapping, values: range) -> None:
    for value in values[:MOST_CHECKED]:
        try:
            found.check(value)
        except ConfigError as error:
            raise ConfigError(
                key, dict(spec), f"a range, or a step, without {value}: {error.allowed}"
            ) from None


def _check_step(key: str, step: Any, most: float, kind: type) -> None:
    word = "whole number" if kind is int else "number"
    right = isinstance(step, kind if kind is int else int | float) and not isinstance(step, bool)
    if step is not None and not (right and 0 < step <= most):
        raise ConfigError(key, step, f"a {word} greater than 0 and at most {most}")


def _parse_condition(key: str, when: Any) -> dict[str, tuple]:
    if not isinstance(when, Mapping):
        raise ConfigError(f"{key}.when", when, "{hyperparameter: values}")
    return {name: tuple(v) if isinstance(v, list | tuple) else (v,) for name, v in when.items()}
