"""A strided convolution's input gradient without the zeros between pixels: one small convolution per phase.

Such a gradient is a convolution of the output's gradient with zeros between its pixels. Every pixel of the
result, by its place modulo the stride, meets the same few taps; all others meet zeros. So each phase is a
convolution of its own with those taps alone, and the phases are put between each other.
"""

import functools
import itertools
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from hpjax.ops.geometry import Geometry


class Phase(NamedTuple):
    """The outputs at `start`, `start + step`, … along an axis, and the taps that they meet."""

    start: int
    count: int
    taps: slice
    dilation: int  # of the taps, in pixels of the undilated input
    padding: tuple[int, int]


def find_phases(geometry: Geometry, axis: int, size: int, width: int) -> list[Phase]:
    """Returns the phases along `axis` that meet any tap, for an input of `size` and a kernel of `width`."""
    step, spread = geometry.input_dilation[axis], geometry.kernel_dilation[axis]
    before = geometry.padding[axis][0]
    outputs = geometry.output_sizes((size, size), (width, width))[axis]
    found = []
    for start in range(min(step, outputs)):
        offsets = {tap: start + tap * spread - before for tap in range(width)}
        taps = [tap for tap, offset in offsets.items() if offset % step == 0]
        if taps:
            count, first = -(-(outputs - start) // step), offsets[taps[0]] // step
            between = taps[1] - taps[0] if len(taps) > 1 else 1
            dilation = between * spread // step if len(taps) > 1 else 1
            after = count + first + (len(taps) - 1) * dilation - size
            found.append(
                Phase(start, count, slice(taps[0], taps[-1] + 1, between), dilation, (-first, after))
            )
    return found


def convolve_phases(x: Array, w: Array, geometry: Geometry, convolve: Callable[..., Array]) -> Array:
    """Returns the convolution of `x`, which `geometry` dilates.

    Args:
      x: `[batch, height, width, channels]`.
      w: `[height, width, channels of a group, features]`.
      geometry: without strides.
      convolve: `f(x, w, geometry)`, which computes the undilated ones.
    """
    assert geometry.strides == (1, 1)
    sizes, widths, steps = x.shape[1:3], w.shape[:2], geometry.input_dilation
    outputs = geometry.output_sizes(sizes, widths)
    parts = []
    axes = (find_phases(geometry, axis, sizes[axis], widths[axis]) for axis in (0, 1))
    for phases in itertools.product(*axes):
        rows, columns = phases
        own = Geometry((1, 1), (rows.padding, columns.padding), (1, 1), (rows.dilation, columns.dilation))
        part = convolve(x, w[rows.taps, columns.taps], own)
        between = [
            (p.start, out - p.start - (p.count - 1) * step - 1, step - 1)
            for p, out, step in zip(phases, outputs, steps, strict=True)
        ]
        parts.append(lax.pad(part, jnp.zeros((), part.dtype), [(0, 0, 0), *between, (0, 0, 0)]))
    return functools.reduce(jnp.add, parts)
