"""Ways to compute K lanes' convolutions: how lanes are put together, and by which kernel each is computed.

A lowering's name is a kernel (one lane: `wide_scan`) or a strategy and a kernel (`unrolled:wide_scan`):

- `merged`: the lanes' images in one batch; for a kernel that all lanes share.
- `dense`: the lanes' output channels side by side; for images that all lanes share.
- `grouped`: the lanes as XLA's feature groups.
- `unrolled`: one computation per lane in one program.
- `mapped`: a loop over lanes.
- `batched`: the kernel's own operations with a lane axis, so products become batched products.
- `block_diagonal`: one dense convolution of the lanes' channels with a kernel that is zero across lanes.
  Zero times NaN is NaN: a lane that diverges reaches the others. Offered for benchmarks, never chosen. So
  does the `grouped` weight gradient on XLA's CPU backend.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from hpjax.ops import kernels, target
from hpjax.ops.geometry import Geometry
from hpjax.ops.kernels import Numerics

OPS = ("forward", "input_gradient", "weight_gradient")
LEAKING = "block_diagonal"
BESIDE_CHANNELS = 3  # where a GPU has the lanes: axis of `[batch, height, width, lanes, channels]`
Own = tuple[bool, bool]


def lowering_names(op: str = "forward", lanes: int = 1, own: Own = (True, True)) -> tuple[str, ...]:
    """Returns the lowerings that can compute `op`.

    Args:
      op: one of `OPS`.
      lanes: number of lanes.
      own: whether each of the two operands has a lane axis, rather than being shared by all lanes.
    """
    names = tuple(_kernels(op))
    if lanes == 1:
        return names
    looped = [f"{strategy}:{name}" for strategy in ("unrolled", "mapped", "batched") for name in names]
    packed = [f"{strategy}:{name}" for strategy in _packings(op, own) for name in names]
    # jax's own rule would group a batched one.
    looped.remove("batched:native")
    return (*packed, *looped, "grouped:native", f"{LEAKING}:native")


def lower_lane(
    name: str, op: str, a: Array, b: Array, widths, geometry: Geometry, numerics: Numerics
) -> Array:
    """Returns one lane's result by the kernel `name`.

    Args:
      name: one of `lowering_names(op)`.
      op: `forward` (images, kernel), `input_gradient` (output gradient, kernel) or `weight_gradient` (images,
        output gradient).
      a: first operand.
      b: second operand.
      widths: height and width of the kernel.
      geometry: windows; for `input_gradient` the transposed ones.
      numerics: dtype of the result and precision.
    """
    if op == "weight_gradient":
        return kernels.WEIGHT_GRADIENT[name](a, b, widths, geometry, numerics)
    return _kernels(op)[name](a, b, geometry, numerics)


def lower_lanes(
    name: str,
    op: str,
    a: Float[Array, "..."],
    b: Float[Array, "..."],
    own: Own,
    widths: tuple[int, int],
    geometry: Geometry,
    numerics: Numerics,
) -> Float[Array, "lanes ..."]:
    """Returns all lanes' results by the lowering `name`; operands as in `lower_lane`, lanes first."""
    strategy, _, kernel = name.partition(":")
    one = functools.partial(lower_lane, kernel, op, widths=widths, geometry=geometry, numerics=numerics)
    if strategy in ("grouped", LEAKING):
        a, b = _with_lanes(a, b, own)
        assert kernel == "native"
        return _STRATEGIES[strategy](op, a, b, widths, geometry, numerics)
    if strategy == "dense":
        return _dense(op, one, a, b)
    return _STRATEGIES[strategy](one, a, b, own)


def result_axis(op: str, own: Own) -> int:
    """Returns where training has the lanes of a result: in front, or on a GPU beside images' channels."""
    in_front = target.backend() == "cpu" or op == "weight_gradient" or not own[1]
    return 0 if in_front else BESIDE_CHANNELS


def _kernels(op: str) -> dict[str, Callable]:
    return {
        "forward": kernels.FORWARD,
        "input_gradient": kernels.INPUT_GRADIENT,
        "weight_gradient": kernels.WEIGHT_GRADIENT,
    }[op]


def _packings(op: str, own: Own) -> tuple[str, ...]:
    if own == (False, True):
        return ("dense",)
    return ("merged",) if own == (True, False) and op != "weight_gradient" else ()


def _lane_count(a: Array, b: Array, own: Own) -> int:
    return a.shape[0] if own[0] else b.shape[0]


def _with_lanes(a: Array, b: Array, own: Own) -> tuple[Array, Array]:
    lanes = _lane_count(a, b, own)
    wide = [v if has else jnp.broadcast_to(v, (lanes, *v.shape)) for v, has in zip((a, b), own, strict=True)]
    return wide[0], wide[1]


def lanes_into_features(v: Array) -> Array:
    """Returns `[lanes, ..., channels]` as `[..., lanes * channels]`."""
    v = jnp.moveaxis(v, 0, -2)
    return v.reshape(*v.shape[:-2], -1)


def lanes_out_of_features(v: Array, lanes: int) -> Array:
    """Returns `[..., lanes * channels]` as `[lanes, ..., channels]`."""
    return jnp.moveaxis(v.reshape(*v.shape[:-1], lanes, -1), -2, 0)


def _merged(one: Callable, a: Array, b: Array, own: Own) -> Array:
    assert own == (True, False)
    y = one(a.reshape(-1, *a.shape[2:]), b)
    return y.reshape(*a.shape[:2], *y.shape[1:])


def _dense(op: str, one: Callable, a: Array, b: Array) -> Array:
    lanes = b.shape[0]
    # The input gradient's kernel carries its output channels next to last: it is flipped afterwards.
    if op == "input_gradient":
        b = b.swapaxes(-1, -2)
        joined = lanes_into_features(b).swapaxes(-1, -2)
    else:
        joined = lanes_into_features(b)
    return lanes_out_of_features(one(a, joined), lanes)


def _unrolled(one: Callable, a: Array, b: Array, own: Own) -> Array:
    lanes = range(_lane_count(a, b, own))
    return jnp.stack([one(a[k] if own[0] else a, b[k] if own[1] else b) for k in lanes])


def _mapped(one: Callable, a: Array, b: Array, own: Own) -> Array:
    mine = tuple(v for v, has in zip((a, b), own, strict=True) if has)

    def lane(values):
        values = iter(values)
        return one(next(values) if own[0] else a, next(values) if own[1] else b)

    return lax.map(lane, mine)


def _batched(one: Callable, a: Array, b: Array, own: Own) -> Array:
    axes = tuple(0 if has else None for has in own)
    return jax.vmap(one, axes)(a, b)


def _grouped(op: str, a: Array, b: Array, widths, geometry: Geometry, numerics: Numerics) -> Array:
    lanes = a.shape[0]
    if op == "input_gradient":
        b = kernels.flipped(b)
    x, other = lanes_into_features(a), lanes_into_features(b)
    if op == "weight_gradient":
        y = kernels.native_weight_gradient(x, other, widths, geometry, numerics, lanes)
    else:
        y = kernels.native(x, other, geometry, numerics, lanes)
    return lanes_out_of_features(y, lanes)


def _block_diagonal(op: str, a: Array, b: Array, widths, geometry: Geometry, numerics: Numerics) -> Array:
    lanes = a.shape[0]
    same_lane = jnp.eye(lanes, dtype=a.dtype)
    if op == "weight_gradient":
        x, dy = lanes_into_features(a), lanes_into_features(b)
        every = kernels.native_weight_gradient(x, dy, widths, geometry, numerics)
        every = every.reshape(*widths, lanes, a.shape[-1], lanes, b.shape[-1])
        return jnp.einsum("hwkikf->khwif", every)
    w = kernels.flipped(b) if op == "input_gradient" else b
    blocks = jnp.einsum("khwif,kl->hwkilf", w, same_lane)
    blocks = blocks.reshape(*widths, lanes * w.shape[-2], lanes * w.shape[-1])
    return lanes_out_of_features(kernels.native(lanes_into_features(a), blocks, geometry, numerics), lanes)


_STRATEGIES: dict[str, Callable] = {
    "merged": _merged,
    "unrolled": _unrolled,
    "mapped": _mapped,
    "batched": _batched,
    "grouped": _grouped,
    LEAKING: _block_diagonal,
}
