"""Splits of the data set that lie on a device: each one once, whoever uses it."""

import weakref
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Int32, UInt8

from hpjax.data.splits import Split

_PLACED: weakref.WeakKeyDictionary[Split, dict[Any, "Examples"]] = weakref.WeakKeyDictionary()


class Examples(NamedTuple):
    """A split of the data set on a device."""

    images: UInt8[Array, "examples height width 3"]
    labels: Int32[Array, " examples"]


def place(split: Split, device: Any) -> Examples:
    """Returns the split on `device`: copied there at the first call, for as long as the split is in use."""
    placed = _PLACED.setdefault(split, {})
    if device not in placed:
        placed[device] = Examples(*jax.device_put((split.images, split.labels), device))
    return placed[device]
