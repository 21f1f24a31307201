"""The settings that are tried before a sweep begins: those that data or a model may refuse."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from hpjax.config.hyperparameters import option_of
from hpjax.search.axis import Axis
from hpjax.search.space import Space

# What data or a model may refuse.
SHAPING = ("model", "kernel_width", "padding", "freeze", "image_size", "batch_size")


def list_extremes(space: Space, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Returns every combination of the choices, and of the ends of ranges, of some hyperparameters."""
    ends = (dataclasses.replace(axis, choices=_ends(axis)) for axis in space.axes if axis.name in names)
    return Space(tuple(ends)).grid()


def list_variants(space: Space) -> list[dict[str, Any]]:
    """Returns the extremes of what shapes a network, and each value of each option of a model by itself.

    All combinations of options would be too many to try: one that fails is met by its group.
    """
    options = [axis for axis in space.axes if option_of(axis.name) and not axis.dynamic]
    found = [_complete(space, setting) for setting in list_extremes(space, SHAPING)]
    conditional = [axis for axis in space.axes if axis.name in SHAPING and axis.when]
    found += [_complete(space, _reach(space, axis, value)) for axis in conditional for value in _ends(axis)]
    for axis in options:
        for value in _ends(axis):
            reached = _reach(space, axis, value)
            found += [_complete(space, {**model, **reached}) for model in list_extremes(space, ("model",))]
    found = [setting for setting in found if setting is not None] or [_complete(space, {}) or {}]
    return [setting for i, setting in enumerate(found) if setting not in found[:i]]


def _ends(axis: Axis) -> tuple:
    return axis.choices or (axis.low, axis.high)


def _reach(space: Space, axis: Axis, value: Any) -> dict[str, Any]:
    """Returns a value with those of other hyperparameters under which it exists."""
    axes = {other.name: other for other in space.axes}
    reached: dict[str, Any] = {}
    for name, allowed in axis.when.items():
        there = [other for other in axes[name].choices or allowed if other in allowed]
        reached |= _reach(space, axes[name], (there or list(allowed))[0])
    return {**reached, axis.name: value}


def _complete(space: Space, fixed: dict[str, Any]) -> dict[str, Any] | None:
    """Returns a setting of what shapes a network and of its options, where these aren't given the first.

    Where no setting that is allowed has these, others; None where none has what is given.
    """
    setting: dict[str, Any] = {}
    for axis in space.axes:
        if axis.applies(setting):
            setting[axis.name] = fixed.get(axis.name, _ends(axis)[0])
    shaping = dict(_shaping(setting))
    if space.find(shaping) is not None:
        return shaping
    found = space.find(fixed)
    return None if found is None else dict(_shaping(found))


def _shaping(setting: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    return ((name, value) for name, value in setting.items() if name in SHAPING or option_of(name))
