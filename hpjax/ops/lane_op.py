"""A convolution's operation on one lane, as a primitive of JAX with a rule of its own for lanes.

`custom_vmap` would do, but for where it leaves the lanes: in front. On a GPU they belong beside the channels,
where convolutions of all lanes take them as groups: in front, all activations were shuffled before and after
each convolution.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import custom_batching
from jax.core import ShapedArray
from jax.experimental.layout import Layout, with_layout_constraint
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir
from jaxtyping import Array

from hpjax.ops import lowerings, target, tuning
from hpjax.ops.geometry import Geometry
from hpjax.ops.kernels import Numerics
from hpjax.ops.key import create_key


def lane_op(
    op: str, a: Array, b: Array, widths: tuple[int, int], geometry: Geometry, numerics: Numerics
) -> Array:
    """Returns one lane's result of `op`, by the lowering that is chosen; all lanes' under `vmap`.

    Args:
      op: as in `lowerings.lower_lane`, as are its operands and all else.
      a: first operand.
      b: second operand.
      widths: height and width of the kernel.
      geometry: windows.
      numerics: dtype of the result and precision.
    """
    name = tuning.choose(create_key(op, a, b, (False, False), widths, geometry))
    return _primitive.bind(a, b, name=name, op=op, widths=widths, geometry=geometry, numerics=numerics)


def _lower(a: Array, b: Array, *, name: str, op: str, **windows: Any) -> Array:
    return lowerings.lower_lane(name, op, a, b, **windows)


@functools.cache
def _compiled(**parameters: Any):
    return jax.jit(functools.partial(_lower, **parameters))


_primitive = Primitive("lane_op")
_primitive.def_impl(lambda a, b, **parameters: _compiled(**parameters)(a, b))
mlir.register_lowering(_primitive, mlir.lower_fun(_lower, multiple_results=False))


@_primitive.def_abstract_eval
def _shape(a: Any, b: Any, **parameters: Any) -> Any:
    shape = jax.eval_shape(
        functools.partial(_lower, **parameters), *(jax.ShapeDtypeStruct(v.shape, v.dtype) for v in (a, b))
    )
    return ShapedArray(shape.shape, shape.dtype)


def _add_lanes(operands: tuple, axes: tuple, *, name: str, op: str, **windows: Any) -> tuple[Array, int]:
    del name
    own = (axes[0] is not None, axes[1] is not None)
    lanes_first = (
        jnp.moveaxis(v, axis, 0) if has else v for v, axis, has in zip(operands, axes, own, strict=True)
    )
    y = _lanes_op(op, own, **windows)(*lanes_first)
    if op == "weight_gradient" and own[1] and target.backend() != "cpu":
        # As the weights lie: in another layout XLA copies weights and moments into that, at every step.
        y = with_layout_constraint(y, Layout(tuple(range(y.ndim))))
    axis = lowerings.result_axis(op, own)
    return (jnp.moveaxis(y, 0, axis), axis) if axis else (y, axis)


batching.primitive_batchers[_primitive] = _add_lanes


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
