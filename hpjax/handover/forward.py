"""A model's forward pass as a file that needs neither its Python code nor hpjax."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import export
from jaxtyping import Array

from hpjax.errors import ModelError, UserCodeError, text_of
from hpjax.trained.classifier import Forward

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
TOLERANCE = 1e-4  # of logits, relative where they exceed 1
_TRIED = 3  # images that an exported forward pass is compared on


class SerializedForward(NamedTuple):
    """What `jax.export` makes of a model.

    Attributes:
      content: of the file.
      batching: whether a batch is computed at once, or image by image.
    """

    content: bytes
    batching: str


def serialize_forward(
    model: nnx.Module, expected: Forward, shape: tuple[int, ...], name: str
) -> SerializedForward:
    """Returns a model's logits of images in [0, 1], `[batch, height, width, channels]`, for any batch.

    A model that needs to know its batch's size while it is traced is computed image by image.

    Args:
      model: in evaluation mode.
      expected: its logits, compiled.
      shape: height, width and channels of its images.
      name: what messages call it.

    Raises:
      UserCodeError: The model can't be exported.
      ModelError: What was exported computes something else.
    """
    graphdef, state = nnx.split(model)

    def at_once(images: Array) -> Array:
        return nnx.merge(graphdef, state, copy=True)(images)  # type: ignore[operator]

    def one_by_one(images: Array) -> Array:
        return jax.lax.map(lambda image: at_once(image[None])[0], images)

    images = jax.ShapeDtypeStruct((*export.symbolic_shape("batch"), *shape), jnp.float32)
    reason = ""
    for batching, compute in (("at once", at_once), ("image by image", one_by_one)):
        try:
            exported = export.export(jax.jit(compute), platforms=PLATFORMS)(images)
        except Exception as error:  # of the user's model, or of what jax can't export
            reason = text_of(error, 300)
            continue
        content = bytes(exported.serialize())
        check_logits(expected, load_forward(content), shape, f"{name}, exported with jax.export,")
        return SerializedForward(content, batching)
    raise UserCodeError(f"{name} can't be exported: {reason}")


def load_forward(content: bytes) -> Forward:
    """Returns the forward pass that was serialised; raises many kinds where that isn't one."""
    exported = export.deserialize(bytearray(content))
    call = jax.jit(exported.call)
    return lambda images: call(jnp.asarray(images, jnp.float32))


def check_logits(expected: Forward, found: Forward, shape: tuple[int, ...], name: str) -> None:
    """Raises ModelError where two forward passes differ on random images."""
    images = np.random.default_rng(0).random((_TRIED, *shape), np.float32)
    with jax.default_matmul_precision("highest"):
        one, other = (np.asarray(forward(images), np.float64) for forward in (expected, found))
    if one.shape != other.shape or not np.allclose(one, other, TOLERANCE, TOLERANCE, equal_nan=True):
        raise ModelError(f"{name} gives other logits than the model: nothing was exported")
