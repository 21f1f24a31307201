"""Splits of the data set that lie on devices: on each of them once, whoever uses it."""

import weakref
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Shaped

from hpjax.data.splits import Split
from hpjax.lanes.mesh import Mesh

_PLACED: weakref.WeakKeyDictionary[Split, dict[Any, "Examples"]] = weakref.WeakKeyDictionary()


class Examples(NamedTuple):
    """A split of the data set on a device, or the same on several."""

    images: Shaped[Array, "examples ..."]
    labels: Shaped[Array, "examples *targets"]


def place(split: Split, mesh: Mesh) -> Examples:
    """Returns the split on every device: copied there at the first call, for as long as it is in use."""
    placed = _PLACED.setdefault(split, {})
    for device in mesh.devices:
        if device not in placed:
            placed[device] = Examples(*jax.device_put((split.images, split.labels), device))
    return mesh.join([placed[device] for device in mesh.devices], in_axis=None)
