"""Random changes of training images that keep their class."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key, UInt8

from hpjax.errors import ConfigError

_SHIFT_SHARE = 8  # crops move by up to 1/8 of the side, as the 4 of 32 pixels usual for CIFAR

Augment = Callable[[Key[Array, ""], UInt8[Array, "batch size size 3"]], UInt8[Array, "batch size size 3"]]


def make_augment(name: str) -> Augment:
    """Returns `f(key, images) -> images`, which draws each image's change from `key`.

    Args:
      name: `none`, `flip` (mirrored left to right, half of the images) or `flip_crop` (and moved by up to an
        eighth of the side, what is missing at the border mirrored).

    Raises:
      ConfigError: There is no such augmentation.
    """
    if name not in AUGMENTS:
        raise ConfigError("data.augment", name, ", ".join(AUGMENTS))
    return AUGMENTS[name]


def keep(key: Key[Array, ""], images: UInt8[Array, "batch size size 3"]) -> UInt8[Array, "batch size size 3"]:
    """Returns the images as they are."""
    del key
    return images


def flip(key: Key[Array, ""], images: UInt8[Array, "batch size size 3"]) -> UInt8[Array, "batch size size 3"]:
    """Returns the images, each mirrored left to right with probability a half."""
    mirrored = jax.random.bernoulli(key, 0.5, (images.shape[0], 1, 1, 1))
    return jnp.where(mirrored, images[:, :, ::-1], images)


def flip_crop(
    key: Key[Array, ""], images: UInt8[Array, "batch size size 3"]
) -> UInt8[Array, "batch size size 3"]:
    """Returns the images, each perhaps mirrored, and moved by up to an eighth of its side."""
    flip_key, shift_key = jax.random.split(key)
    batch, height, width, _ = images.shape
    reach = jnp.array([[height // _SHIFT_SHARE, width // _SHIFT_SHARE]])
    shifts = jax.random.randint(shift_key, (batch, 2), -reach, reach + 1)
    return jax.vmap(_shift)(flip(flip_key, images), shifts)


AUGMENTS: dict[str, Augment] = {"none": keep, "flip": flip, "flip_crop": flip_crop}


def _shift(image: Array, shift: Array) -> Array:
    height, width, _ = image.shape
    rows = _reflect(jnp.arange(height) + shift[0], height)
    columns = _reflect(jnp.arange(width) + shift[1], width)
    return image[rows][:, columns]


def _reflect(index: Array, length: int) -> Array:
    """Returns indices beyond an end mirrored back at the end's element."""
    index = jnp.abs(index)
    return jnp.where(index >= length, 2 * (length - 1) - index, index)
