"""What may follow a convolution in evaluation: a bias, a sum and a ReLU, which a GPU computes with it."""

import functools

import jax
import jax.numpy as jnp
from jax import custom_batching
from jaxtyping import Array, Float

from hpjax.ops.lowerings import lanes_into_features, lanes_out_of_features
from hpjax.ops.sums import along_features


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def add_bias(
    x: Float[Array, "batch height width features"],
    bias: Float[Array, " features"],
    added: Float[Array, "batch height width features"] | None = None,
    relu: bool = False,
) -> Float[Array, "batch height width features"]:
    """Returns `x + bias + added`, after a ReLU where asked.

    XLA's GPU backend takes all that into the convolution that gives `x`, which then writes its result once.
    Under `vmap` it only does so where it sees the lanes' features as features: as cuDNN's groups have them.

    Args:
      x: what a convolution gives.
      bias: a value per feature; of the dtype of `x`.
      added: a sum's other term; None: there is none.
      relu: whether a ReLU follows.
    """
    return _all_lanes(relu)(x, bias, added)


def _forward(x, bias, added, relu):
    y = add_bias(x, bias, added, relu)
    return y, (y if relu else None, added is not None)


def _backward(relu, saved, dy):
    y, has_added = saved
    dx = jnp.where(y > 0, dy, 0) if relu else dy
    return dx, dx.sum((0, 1, 2)), dx if has_added else None


add_bias.defvjp(_forward, _backward)


@functools.cache
def _all_lanes(relu: bool):
    """Returns the function of one trial, which takes lanes as further features."""

    def one(x, bias, added):
        y = x + along_features(bias, x.ndim)
        y = y if added is None else y + added
        return jnp.maximum(y, 0) if relu else y

    computed = custom_batching.custom_vmap(one)

    @computed.def_vmap
    def of_lanes(lanes, batched, x, bias, added):
        operands = [
            v if has or v is None else jnp.broadcast_to(v, (lanes, *v.shape))
            for v, has in zip((x, bias, added), batched, strict=True)
        ]
        y = one(*(None if v is None else lanes_into_features(v) for v in operands))
        return lanes_out_of_features(y, lanes), True

    return computed
