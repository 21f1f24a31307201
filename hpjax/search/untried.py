"""Settings of a finite space that no trial has had: a sampler's repeats would train the same trial again."""

import contextlib
import math
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from hpjax.search.samplers import create_distribution
from hpjax.search.space import MOST_DRAWN, Space

if TYPE_CHECKING:
    import optuna

MOST_LISTED = 20_000  # settings; a larger space is not listed, and a setting may be drawn again


def _list_settings(space: Space) -> list[dict[str, Any]] | None:
    """Returns every setting of a space that is allowed; None where there is no end of them, or very many."""
    listed = all(axis.is_finite for axis in space.axes)
    listed = listed and math.prod(axis.count for axis in space.axes) <= MOST_LISTED
    return space.grid() if listed else None


class Untried:
    """The settings of a space that are left.

    Args:
      space: what is searched.
      tried: the settings of earlier trials.
    """

    def __init__(self, space: Space, tried: Iterable[Mapping[str, Any]] = ()):
        self._space = space
        settings = _list_settings(space)
        self.count = None if settings is None else len(settings)  # of all; None: there is no end of them
        self._left = None if settings is None else {self._identify(setting): setting for setting in settings}
        for setting in tried:
            self.remove(setting)

    def remove(self, setting: Mapping[str, Any]) -> None:
        """Notes that a trial has a setting."""
        if self._left is not None:
            with contextlib.suppress(ValueError, TypeError):  # a journal may hold what the space doesn't
                self._left.pop(self._identify(setting), None)

    def choose(
        self,
        wanted: Mapping[str, Any],
        near: bool,
        seed: tuple[int, ...],
        fixed: Mapping[str, Any] = MappingProxyType({}),
    ) -> Mapping[str, Any]:
        """Returns the setting that is wanted, or another one where a trial has had it already.

        Args:
          wanted: what a sampler or a user has named.
          near: whether to take the one that is most like it, and else any.
          seed: of the choice.
          fixed: values that it is to have, where one that has them is left.
        """
        if not self._left or (place := self._identify(wanted)) in self._left:
            return wanted
        asked = self._identify(fixed)
        agreeing = [o for o in self._left if all(a in (-1, b) for a, b in zip(asked, o, strict=True))]
        places = agreeing or list(self._left)
        np.random.default_rng(seed).shuffle(places)
        return self._left[min(places, key=lambda other: self._differ(place, other)) if near else places[0]]

    def _identify(self, setting: Mapping[str, Any]) -> tuple[int, ...]:
        """Returns which value each axis has, by its number; -1 where there is none."""
        axes = self._space.axes
        return tuple(axis.place(setting[axis.name]) if axis.name in setting else -1 for axis in axes)

    def _differ(self, place: tuple[int, ...], other: tuple[int, ...]) -> float:
        """Returns how unlike two settings are: choices differ by 1, values of a range by their distance."""
        unlike = 0.0
        for axis, a, b in zip(self._space.axes, place, other, strict=True):
            unlike += float(a != b) if axis.choices or min(a, b) < 0 else abs(a - b) / axis.count
        return unlike


def choose_settings(
    create: Callable[[int], "optuna.samplers.BaseSampler"],
    space: Space,
    choose: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None,
) -> "optuna.samplers.BaseSampler":
    """Returns a sampler that asks others for whole settings, until one is allowed, and answers with that.

    Args:
      create: returns who is asked in an attempt, counted from 0.
      space: what is searched, and what of it is allowed.
      choose: returns an allowed setting for any other, which is then asked for once; None: there is none.
    """
    from optuna.samplers import BaseSampler

    first = create(0)

    class Choosing(BaseSampler):
        def infer_relative_search_space(self, study: Any, trial: Any) -> dict:
            return {}

        def sample_relative(self, study: Any, trial: Any, search_space: Any) -> dict:
            drawn = (_draw(create(n) if n else first, space, study, trial) for n in range(MOST_DRAWN))
            allowed = map(choose, drawn) if choose else filter(space.allows, drawn)
            found = next(allowed, None)
            if found is None:
                raise space.refuse_all()
            self.setting = found
            return {}

        def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
            return self.setting[param_name]

        def before_trial(self, study: Any, trial: Any) -> None:
            first.before_trial(study, trial)

        def after_trial(self, study: Any, trial: Any, state: Any, values: Any) -> None:
            first.after_trial(study, trial, state, values)

    return Choosing()


def _draw(sampler: "optuna.samplers.BaseSampler", space: Space, study: Any, trial: Any) -> dict[str, Any]:
    """Returns a whole setting, as Optuna would ask the sampler for it."""
    among = sampler.infer_relative_search_space(study, trial)
    values = dict(sampler.sample_relative(study, trial, among))
    for axis in sorted(space.axes, key=lambda axis: bool(axis.when)):  # in the order of `Study._ask`
        if not axis.applies(values):
            values.pop(axis.name, None)
        elif axis.is_finite and axis.count == 1:  # Optuna doesn't ask for it either
            values[axis.name] = axis.values[0]
        elif axis.name not in values:
            asked = axis.name, create_distribution(axis)
            values[axis.name] = sampler.sample_independent(study, trial, *asked)
    return values
