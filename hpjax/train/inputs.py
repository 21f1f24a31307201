"""What a model is given of the data: images of bytes as numbers, and numbers on one scale."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array

from hpjax.ops.sums import along_features


class InputRule(NamedTuple):
    """What inputs are brought to, the same for all trials of a group.

    Attributes:
      mean: what is taken from inputs, of each channel or feature or of all; empty: they stay as they are.
      std: what they are then divided by.
    """

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


AS_THEY_ARE = InputRule()


def prepare_inputs(inputs: Array, rule: InputRule = AS_THEY_ARE, dtype=jnp.float32) -> Array:
    """Returns what the model is given: bytes scaled to [0, 1], other whole numbers (tokens) as they are."""
    if inputs.dtype != jnp.uint8 and jnp.issubdtype(inputs.dtype, jnp.integer):
        return inputs
    inputs = decode_images(inputs, dtype)
    if not rule.mean:
        return inputs
    mean, std = (along_features(jnp.asarray(v, dtype), inputs.ndim) for v in (rule.mean, rule.std))
    return (inputs - mean) / std


def decode_images(images: Array, dtype=jnp.float32) -> Array:
    """Returns uint8 images scaled to [0, 1] as `dtype`; floats are only cast."""
    if images.dtype == jnp.uint8:
        return images.astype(dtype) * jnp.asarray(1 / 255, dtype)
    return images.astype(dtype)
