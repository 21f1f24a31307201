"""Splits of the data set that lie on a device: each one once, whoever uses it."""

import weakref
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Shaped

from hpjax.data.splits import Split

_PLACED: weakref.WeakKeyDictionary[Split, dict[Any, "Examples"]] = weakref.WeakKeyDictionary()


class Examples(NamedTuple):
    """A split of the data set on a device."""

    images: Shaped[Array, "examples ..."]
    labels: Shaped[Array, "examples *targets"]


def place(split: Split, device: Any) -> Examples:
    """Returns the split on `device`: copied there at the first call, for as long as the split is in use."""
    placed = _PLACED.setdefault(split, {})
    if device not in placed:
        placed[device] = Examples(*jax.device_put((split.images, split.labels), device))
    return placed[device]
