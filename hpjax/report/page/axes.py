"""The searched hyperparameters as figures have them: what varied, and how its values lie on a scale."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from hpjax.report.page.source import PageSource
from hpjax.report.style import format_value, is_log_like, is_number, spell
from hpjax.search.axis import Axis
from hpjax.store.rows import TrialRow, Value, named_value

MOST_LISTED = 12  # values that are told apart; more are taken together


@dataclass(frozen=True, eq=False)
class DrawnAxis:
    """A hyperparameter of which at least two values were measured.

    Attributes:
      axis: what was searched.
      values: of each measured trial that has one, by its number.
    """

    axis: Axis
    values: Mapping[int, Any]

    @property
    def name(self) -> str:
        """The hyperparameter."""
        return self.axis.name

    @cached_property
    def distinct(self) -> list[Any]:
        """Its values: numbers in order, else as texts are."""
        return sorted(set(self.values.values()), key=None if self.numeric else format_value)

    @cached_property
    def numeric(self) -> bool:
        """Whether all values have a place on a scale of numbers."""
        return all(map(is_number, self.values.values()))

    @cached_property
    def log(self) -> bool:
        """Whether that scale is a logarithmic one."""
        if not self.numeric or min(self.distinct) <= 0:
            return False
        return self.axis.log or is_log_like(self.distinct)

    @property
    def listed(self) -> bool:
        """Whether each value is shown for itself; of a range that has an end of them, where they are few."""
        return not self.numeric or (self.axis.is_finite and len(self.distinct) <= MOST_LISTED)

    def place(self, trials: Sequence[int]) -> np.ndarray:
        """Returns where trials lie: from 0 to 1 on a scale, or the number of their value among the listed."""
        if self.listed:
            numbers = {value: number for number, value in enumerate(self.distinct)}
            return np.array([numbers[self.values[trial]] for trial in trials], float)
        low, high = (self._scale(value) for value in (self.distinct[0], self.distinct[-1]))
        return np.array([(self._scale(self.values[trial]) - low) / (high - low) for trial in trials])

    def _scale(self, value: float) -> float:
        return math.log(value) if self.log else float(value)

    def describe(self) -> dict[str, Any]:
        """Returns what a figure must know to draw it; `levels` are listed values, in order."""
        levels = self.distinct if self.numeric else [format_value(value) for value in self.distinct]
        about = {"column": self.name, "name": spell(self.name), "numeric": self.numeric, "log": self.log}
        return {**about, "listed": self.listed, "levels": levels if self.listed else []}


def list_axes(source: PageSource) -> list[DrawnAxis]:
    """Returns the searched hyperparameters of which several values were measured, in their order."""
    axes = []
    for axis in source.axes:
        values = {trial.trial: _value(trial, axis.name) for trial in source.ranked}
        drawn = DrawnAxis(axis, {trial: value for trial, value in values.items() if value is not None})
        if len(set(drawn.values.values())) > 1:
            axes.append(drawn)
    return axes


def _value(trial: TrialRow, name: str) -> Value:
    return named_value(trial.hyperparameters, name)
