"""A convolution that stays fast under `vmap`: its own rules for lanes, forward and both gradients."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import custom_batching, lax
from jax.export import is_symbolic_dim
from jaxtyping import Array, Float

from hpjax.ops import lowerings, tuning
from hpjax.ops.geometry import Geometry, create_geometry
from hpjax.ops.kernels import Numerics
from hpjax.ops.key import create_key

_NHWC = (("NHWC", "HWIO", "NHWC"), lax.conv_dimension_numbers((1,) * 4, (1,) * 4, ("NHWC", "HWIO", "NHWC")))
_DTYPES = (jnp.float32, jnp.bfloat16, jnp.float16, jnp.float64)


def conv(
    lhs: Float[Array, "batch height width channels"],
    rhs: Float[Array, "kernel_height kernel_width channels features"],
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    batch_group_count: int = 1,
    precision: lax.PrecisionLike = None,
    preferred_element_type: jax.typing.DTypeLike | None = None,
    out_sharding: Any = None,
) -> Float[Array, "batch out_height out_width features"]:
    """Returns the convolution of `lhs` with `rhs`; a drop-in for `jax.lax.conv_general_dilated`.

    Two-dimensional NHWC/HWIO/NHWC convolutions of floats without groups or input dilation take hpjax's
    lowerings; everything else is passed on to `lax`. Under `vmap`, an operand without a lane axis stays
    shared. Sums are float32 at least. First-order reverse-mode derivatives only.

    Args:
      lhs: images.
      rhs: kernel.
      window_strides: pixels from window to window, per spatial axis.
      padding: `SAME`, `VALID`, `SAME_LOWER`, or pixels before and after, per spatial axis.
      lhs_dilation: as in `lax`.
      rhs_dilation: pixels from tap to tap of the kernel, per spatial axis.
      dimension_numbers: as in `lax`; `("NHWC", "HWIO", "NHWC")` for hpjax's lowerings.
      feature_group_count: as in `lax`.
      batch_group_count: as in `lax`.
      precision: as in `lax`.
      preferred_element_type: dtype of the result; that of `lhs` where None.
      out_sharding: as in `lax`; where given, `lax` does the work.
    """
    grouped = feature_group_count != 1 or batch_group_count != 1
    if grouped or out_sharding is not None or not _is_ours(lhs, rhs, dimension_numbers, lhs_dilation):
        return lax.conv_general_dilated(
            lhs,
            rhs,
            window_strides,
            padding,
            lhs_dilation,
            rhs_dilation,
            dimension_numbers,
            feature_group_count,
            batch_group_count,
            precision,
            preferred_element_type,
            out_sharding=out_sharding,
        )
    geometry = create_geometry(lhs.shape[1:3], rhs.shape[:2], window_strides, padding, rhs_dilation)
    if min(geometry.output_sizes(lhs.shape[1:3], rhs.shape[:2])) < 1:
        return lax.conv_general_dilated(
            lhs, rhs, window_strides, padding, None, rhs_dilation, dimension_numbers, precision=precision
        )
    dtype = np.dtype(preferred_element_type or lhs.dtype)
    numerics = Numerics(dtype, tuple(precision) if isinstance(precision, list) else precision)
    return _conv(lhs, rhs, _Windows(_pair(lhs.shape[1:3]), _pair(rhs.shape[:2]), geometry, numerics))


def _pair(sizes: Sequence[int]) -> tuple[int, int]:
    height, width = sizes
    return height, width


def _is_ours(lhs: Array, rhs: Array, dimension_numbers: object, lhs_dilation: Sequence[int] | None) -> bool:
    lhs, rhs = jnp.asarray(lhs), jnp.asarray(rhs)
    if any(map(is_symbolic_dim, (*lhs.shape, *rhs.shape))):
        return False  # exported for any batch size: a lowering is chosen by numbers
    right_shapes = (
        lhs.ndim == rhs.ndim == 4 and lhs.shape[-1] == rhs.shape[2] and lhs.size > 0 and rhs.size > 0
    )
    right_dtypes = lhs.dtype == rhs.dtype and lhs.dtype in _DTYPES
    undilated = lhs_dilation is None or all(d == 1 for d in lhs_dilation)
    return right_shapes and right_dtypes and undilated and dimension_numbers in _NHWC


class _Windows(NamedTuple):
    """What is static about a convolution."""

    sizes: tuple[int, int]
    widths: tuple[int, int]
    geometry: Geometry
    numerics: Numerics


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _conv(x, w, windows: _Windows):
    return _lane_op("forward", windows.widths, windows.geometry, windows.numerics)(x, w)


def _conv_forward(x, w, windows):
    # Each gradient needs the other operand: images without gradients need neither the work nor a saved
    # kernel.
    saved = (x.value if w.perturbed else None, w.value if x.perturbed else None)
    return _conv(x.value, w.value, windows), saved


def _conv_backward(windows, saved, dy):
    x, w = saved
    if isinstance(dy, jax.custom_derivatives.SymbolicZero):
        return None, None
    sizes, widths, geometry, numerics = windows
    dtype = x.dtype if w is None else w.dtype
    own, dy = Numerics(dtype, numerics.precision), dy.astype(dtype)
    transposed = geometry.transposed(sizes, widths)
    dx = None if w is None else _lane_op("input_gradient", widths, transposed, own)(dy, w)
    dw = None if x is None else _lane_op("weight_gradient", widths, geometry, own)(x, dy)
    return dx, dw


_conv.defvjp(_conv_forward, _conv_backward, symbolic_zeros=True)


@functools.cache
def _lane_op(op: str, widths: tuple[int, int], geometry: Geometry, numerics: Numerics):
    """Returns `op` of one lane, which turns into `_lanes_op` under `vmap`."""

    @custom_batching.custom_vmap
    def one(a, b):
        key = create_key(op, a, b, (False, False), widths, geometry)
        return lowerings.lower_lane(tuning.choose(key), op, a, b, widths, geometry, numerics)

    @one.def_vmap
    def add_lanes(lanes, batched, a, b):
        del lanes
        return _lanes_op(op, tuple(batched), widths, geometry, numerics)(a, b), True

    return one


@functools.cache
def _lanes_op(
    op: str, own: tuple[bool, bool], widths: tuple[int, int], geometry: Geometry, numerics: Numerics
):
    """Returns `op` of many lanes; a further `vmap` multiplies the lanes."""

    @custom_batching.custom_vmap
    def many(a, b):
        key = create_key(op, a, b, own, widths, geometry)
        if key.lanes == 1:
            a, b = (v[0] if has else v for v, has in zip((a, b), own, strict=True))
            return lowerings.lower_lane(tuning.choose(key), op, a, b, widths, geometry, numerics)[None]
        return lowerings.lower_lanes(tuning.choose(key), op, a, b, own, widths, geometry, numerics)

    @many.def_vmap
    def multiply_lanes(outer, batched, a, b):
        inner = a.shape[int(batched[0])] if own[0] else b.shape[int(batched[1])]
        flat = [_flat(v, outer, inner, *flags) for v, *flags in zip((a, b), batched, own, strict=True)]
        wider = tuple(new or old for new, old in zip(batched, own, strict=True))
        y = _lanes_op(op, wider, widths, geometry, numerics)(*flat)
        return y.reshape(outer, inner, *y.shape[1:]), True

    return many


def _flat(v: Array, outer: int, inner: int, batched: bool, own: bool) -> Array:
    """Returns `v` with `outer * inner` lanes, unless it is shared on both levels."""
    if not (batched or own):
        return v
    if not batched:
        v = v[None]
    if not own:
        v = v[:, None]
    return jnp.broadcast_to(v, (outer, inner, *v.shape[2:])).reshape(-1, *v.shape[2:])
