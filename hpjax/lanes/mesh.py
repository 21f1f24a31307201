"""The devices that lanes lie on: one, or a mesh of several that the lane axis is split over.

Programs are written for the lanes of one device. On a mesh every device runs the same program on its own
lanes in the same call, and none waits for, or sends to, another.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding

LANES = "lanes"  # the mesh's only axis
STATIC = "static"  # in place of an axis: an argument that is no array


class Mesh:
    """Devices, and how arrays lie on them.

    Args:
      devices: of one host; equal ones.

    Attributes:
      devices: as given.
      lanes: the sharding of arrays whose leading axis is lanes; their number is a multiple of the devices'.
      everywhere: the sharding of arrays that every device has all of.
    """

    def __init__(self, devices: Sequence[Any]):
        self.devices = tuple(devices)
        self._mesh = jax.sharding.Mesh(np.array(self.devices), (LANES,))
        if self.size > 1:
            self.lanes: Any = NamedSharding(self._mesh, PartitionSpec(LANES))
            self.everywhere: Any = NamedSharding(self._mesh, PartitionSpec())
        else:
            self.lanes = self.everywhere = SingleDeviceSharding(self.devices[0])

    @property
    def size(self) -> int:
        """How many devices there are."""
        return len(self.devices)

    def map(self, f: Callable[..., Any], in_axes: Sequence[Any]) -> Callable[..., Any]:
        """Returns `f` run on every device, with the lanes of that device.

        Args:
          f: a function of arrays; all that it returns has a leading axis of lanes.
          in_axes: for each argument 0 (its leading axis is lanes), None (every device has all of it), a tree
            of these, or `STATIC`.
        """
        if self.size == 1:
            return f

        def mapped(*args: Any) -> Any:
            axes = [*in_axes, *[None] * (len(args) - len(in_axes))]
            kept = [i for i, axis in enumerate(axes) if axis is not STATIC]

            def call(*arrays: Any) -> Any:
                given = dict(zip(kept, arrays, strict=True))
                return f(*(given.get(i, arg) for i, arg in enumerate(args)))

            specs = tuple(_spec(axes[i]) for i in kept)
            out = PartitionSpec(LANES)
            # Nothing is exchanged between devices, so there is nothing to check about what varies over them.
            split = jax.shard_map(call, mesh=self._mesh, in_specs=specs, out_specs=out, check_vma=False)
            return split(*(args[i] for i in kept))

        return mapped

    def pieces(self, tree: Any) -> list[Any]:
        """Returns each device's own lanes of arrays that are split over them; nothing is copied."""
        if self.size == 1:
            return [tree]
        leaves, structure = jax.tree.flatten(tree)
        on = [{shard.device: shard.data for shard in leaf.addressable_shards} for leaf in leaves]
        return [jax.tree.unflatten(structure, [leaf[device] for leaf in on]) for device in self.devices]

    def join(self, pieces: Sequence[Any], in_axis: int | None = 0) -> Any:
        """Returns arrays made of what lies on each device; nothing is copied.

        Args:
          pieces: a tree of arrays for each device, of equal shapes.
          in_axis: 0: of each device's lanes; None: of what every device has all of.
        """
        if self.size == 1:
            return pieces[0]
        sharding, factor = (self.everywhere, 1) if in_axis is None else (self.lanes, self.size)

        def joined(*parts: Any) -> Any:
            shape = parts[0].shape
            shape = (factor * shape[0], *shape[1:])
            return jax.make_array_from_single_device_arrays(shape, sharding, list(parts))

        return jax.tree.map(joined, *pieces)


def first_devices(count: int) -> Mesh:
    """Returns the mesh of the first `count` devices."""
    return Mesh(jax.devices()[:count])


def _spec(axes: Any) -> Any:
    spec = lambda axis: PartitionSpec() if axis is None else PartitionSpec(LANES)  # noqa: E731
    return jax.tree.map(spec, axes, is_leaf=lambda axis: axis is None)
