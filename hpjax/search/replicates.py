"""Which run of which setting each trial is, whatever seeds a sweep began with and was extended to."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Stage:
    """From where on a sweep has had other numbers: it was extended.

    Attributes:
      first: the number of the first trial that was asked for with them.
      seeds: with how many each setting is run.
      epochs: of each trial.
    """

    first: int
    seeds: int
    epochs: int


class Place(NamedTuple):
    """What a trial's number says."""

    setting: int  # counted from 0
    first: int  # the number of the setting's first trial
    seed_index: int  # which run of its setting it is, from 0


class Replicates:
    """The order of a sweep's trials.

    Each setting is run with all its seeds in a row. Where the seeds became more, those that are missing come
    first, setting by setting, and then new settings: numbers that were given stay.

    Args:
      stages: of the sweep, the first one beginning at 0; of each the seeds count.
    """

    def __init__(self, stages: Sequence[Stage]):
        self._seeds = stages[-1].seeds
        self._listed: list[Place] = []  # those of all stages but the last, and the seeds that these lack
        self._of: list[list[int]] = []  # their numbers, by setting
        for stage, following in zip(stages, [*stages[1:], None], strict=True):
            self._complete(stage.seeds)
            if following is not None:
                self._end(stage.seeds, following.first)

    def __getitem__(self, number: int) -> Place:
        if number < len(self._listed):
            return self._listed[number]
        setting, seed_index = divmod(number - len(self._listed), self._seeds)
        return Place(len(self._of) + setting, number - seed_index, seed_index)

    def numbers(self, setting: int) -> list[int]:
        """Returns the numbers of a setting's trials."""
        if setting < len(self._of):
            return self._of[setting]
        first = len(self._listed) + (setting - len(self._of)) * self._seeds
        return list(range(first, first + self._seeds))

    def _complete(self, seeds: int) -> None:
        for setting, numbers in enumerate(self._of):
            for seed_index in range(len(numbers), seeds):
                self._add(Place(setting, numbers[0], seed_index))

    def _end(self, seeds: int, count: int) -> None:
        """Makes the list what had been asked for when a stage ended."""
        while len(self._listed) > count:
            self._of[self._listed.pop().setting].pop()
        while len(self._listed) < count:
            self._add(self._next(seeds))

    def _next(self, seeds: int) -> Place:
        number = len(self._listed)
        if self._of and len(self._of[-1]) < seeds:
            return Place(len(self._of) - 1, self._of[-1][0], len(self._of[-1]))
        return Place(len(self._of), number, 0)

    def _add(self, place: Place) -> None:
        if place.setting == len(self._of):
            self._of.append([])
        self._of[place.setting].append(len(self._listed))
        self._listed.append(place)
