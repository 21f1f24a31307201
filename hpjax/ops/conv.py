"""A convolution that stays fast under `vmap`: its own rules for lanes, forward and both gradients."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.export import is_symbolic_dim
from jaxtyping import Array

from hpjax.ops.geometry import Geometry, create_geometry
from hpjax.ops.kernels import Numerics
from hpjax.ops.lane_op import lane_op

_NHWC = (("NHWC", "HWIO", "NHWC"), lax.conv_dimension_numbers((1,) * 4, (1,) * 4, ("NHWC", "HWIO", "NHWC")))
_DTYPES = (jnp.float32, jnp.bfloat16, jnp.float16, jnp.float64)


def conv(
    lhs: Array,
    rhs: Array,
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
) -> Array:
    """Returns the convolution of `lhs` with `rhs`; a drop-in for `jax.lax.conv_general_dilated`.

    Two-dimensional NHWC/HWIO/NHWC convolutions of floats without groups or input dilation take hpjax's
    lowerings; everything else is passed on to `lax`. Under `vmap`, an operand without a lane axis stays
    shared. Sums are float32 at least. First-order reverse-mode derivatives only.

    Args:
      lhs: images, `[batch, height, width, channels]` for hpjax's lowerings.
      rhs: kernel, `[kernel_height, kernel_width, channels, features]` for hpjax's lowerings.
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
    return lane_op("forward", x, w, windows.widths, windows.geometry, windows.numerics)


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
    dx = None if w is None else lane_op("input_gradient", dy, w, widths, transposed, own)
    dw = None if x is None else lane_op("weight_gradient", x, dy, widths, geometry, own)
    return dx, dw


_conv.defvjp(_conv_forward, _conv_backward, symbolic_zeros=True)
