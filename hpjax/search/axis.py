"""One hyperparameter's values in a search space."""

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hpjax.config.hyperparameters import Hyperparameter, find_hyperparameter
from hpjax.errors import ConfigError


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
      declared: what is known of the hyperparameter; None: what its name says.
    """

    name: str
    choices: tuple = ()
    low: float | int = 0
    high: float | int = 0
    log: bool = False
    step: float | int | None = None
    when: dict[str, tuple] = field(default_factory=dict)
    declared: Hyperparameter | None = field(default=None, compare=False, repr=False)

    @property
    def hyperparameter(self) -> Hyperparameter:
        """What is known of the hyperparameter."""
        found = self.declared or find_hyperparameter(self.name)
        assert found is not None, self.name
        return found

    @property
    def dynamic(self) -> bool:
        """Whether its values are numbers inside the program: lanes of one group have different ones."""
        return self.hyperparameter.dynamic

    @property
    def whole(self) -> bool:
        """Whether its values are whole numbers."""
        kind = self.hyperparameter.type
        if kind is not object:
            return kind is int
        return all(type(value) is int for value in self.choices or (self.low, self.high))

    @property
    def values(self) -> tuple:
        """All values in order; of a range with a step, or of whole numbers."""
        if self.choices:
            return self.choices
        return tuple(self.low + i * (self.step or 1) for i in range(self.count))

    @property
    def count(self) -> int:
        """How many values there are; of a range with a step, or of whole numbers."""
        if self.choices:
            return len(self.choices)
        return int(min((self.high - self.low) / (self.step or 1) + 1e-9, sys.maxsize // 2)) + 1

    @property
    def last(self) -> float | int:
        """The largest value of a range: its step may not lead to `high`."""
        return self.low + (self.count - 1) * self.step if self.step else self.high

    @property
    def is_finite(self) -> bool:
        """Whether there is an end of values."""
        return bool(self.choices) or self.step is not None or self.whole

    def require_step(self) -> None:
        """Raises ConfigError where there is no end of values."""
        if not self.is_finite:
            allowed = "a step, or choices, in a grid; or sweep.sampler=random and sweep.trials=N"
            raise ConfigError(f"sweep.space.{self.name}", f"{self.low}:{self.high}", allowed)

    def check(self, key: str, value: Any) -> None:
        """Raises ConfigError where `value`, given under `key`, isn't among the values."""
        parse_value(key, self.hyperparameter, value)
        if self.choices:
            held, allowed = value in self.choices, f"one of {', '.join(map(str, self.choices))}"
        else:
            steps = (value - self.low) / self.step if self.step else 0
            held = self.low <= value <= self.high and abs(steps - round(steps)) < 1e-8  # as Optuna rounds
            allowed = f"{self.low} to {self.high}" + (f" in steps of {self.step}" if self.step else "")
        if not held:
            raise ConfigError(key, value, f"{allowed}, as in sweep.space.{self.name}")

    def place(self, value: Any) -> int:
        """Returns which of its values one is, from 0; of an axis that has an end of them."""
        if self.choices:
            return self.choices.index(value)
        return round((value - self.low) / (self.step or 1))

    def draw(self, rng: np.random.Generator) -> Any:
        """Returns one of its values; in a range of numbers, evenly in the logarithm where it says so."""
        if self.is_finite:
            place = int(rng.integers(self.count))
            return self.choices[place] if self.choices else self.low + place * (self.step or 1)
        if self.log:
            drawn = math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
            return min(max(drawn, self.low), self.high)
        return float(rng.uniform(self.low, self.high))

    def applies(self, values: Mapping[str, Any]) -> bool:
        """Returns whether the hyperparameter exists beside these values."""
        return all(name in values and values[name] in allowed for name, allowed in self.when.items())


def parse_value(key: str, hyperparameter: Hyperparameter, value: Any) -> Any:
    """Returns a hyperparameter's value in its type; raises ConfigError, under `key`, if it isn't allowed."""
    try:
        checked = hyperparameter.check(value)
    except ConfigError as error:
        raise ConfigError(key, value, error.allowed) from None
    return value if hyperparameter.name == "kernel_width" else checked
