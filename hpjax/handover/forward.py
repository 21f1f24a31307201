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
    model: nnx.Module, expected: Forward, shape: tuple[int, ...], name: str, dtype: str = "float32"
) -> SerializedForward:
    """Returns a model's outputs as a program of inputs `[batch, *shape]`, for any batch.

    A model that needs to know its batch's size while it is traced is computed image by image.

    Args:
      model: in evaluation mode.
      expected: its outputs, compiled.
      shape: of one input.
      name: what messages call it.
      dtype: of inputs: `float32`, of images in [0, 1]; or `int32`.

    Raises:
      UserCodeError: The model can't be exported.
      ModelError: What was exported computes something else.
    """
    graphdef, state = nnx.split(model)

    def at_once(inputs: Array) -> Array:
        return nnx.merge(graphdef, state, copy=True)(inputs)  # type: ignore[operator]

    def one_by_one(inputs: Array) -> Array:
        return jax.lax.map(lambda one: at_once(one[None])[0], inputs)

    inputs = jax.ShapeDtypeStruct((*export.symbolic_shape("batch"), *shape), dtype)
    reason = ""
    for batching, compute in (("at once", at_once), ("image by image", one_by_one)):
        try:
            exported = export.export(jax.jit(compute), platforms=PLATFORMS)(inputs)
        except Exception as error:  # of the user's model, or of what jax can't export
            reason = text_of(error, 300)
            continue
        content = bytes(exported.serialize())
        check_outputs(
            expected, load_forward(content, dtype), shape, f"{name}, exported with jax.export,", dtype
        )
        return SerializedForward(content, batching)
    raise UserCodeError(f"{name} can't be exported: {reason}")


def load_forward(content: bytes, dtype: str = "float32") -> Forward:
    """Returns the forward pass that was serialised; raises many kinds where that isn't one."""
    exported = export.deserialize(bytearray(content))
    call = jax.jit(exported.call)
    return lambda inputs: call(jnp.asarray(inputs, dtype))


def check_outputs(
    expected: Forward, found: Forward, shape: tuple[int, ...], name: str, dtype: str = "float32"
) -> None:
    """Raises ModelError where two forward passes differ on random inputs."""
    rng = np.random.default_rng(0)
    # Tokens that any model knows.
    inputs = rng.random((_TRIED, *shape)) if dtype == "float32" else rng.integers(0, 2, (_TRIED, *shape))
    with jax.default_matmul_precision("highest"):
        one, other = (np.asarray(forward(inputs.astype(dtype)), np.float64) for forward in (expected, found))
    if one.shape != other.shape or not np.allclose(one, other, TOLERANCE, TOLERANCE, equal_nan=True):
        raise ModelError(f"{name} gives other outputs than the model: nothing was exported")
