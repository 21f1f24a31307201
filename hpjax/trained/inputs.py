"""What a loaded model takes: images as they come, of the size that it was trained on or resized to it."""

import functools
import logging
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.core import Tracer
from jaxtyping import Array, Float

from hpjax.data.images import Size, image_shape
from hpjax.errors import ModelError
from hpjax.train.inputs import AS_THEY_ARE, InputRule, prepare_inputs

log = logging.getLogger("hpjax")

# Noise may leave [0, 1]; values up to 255 weren't scaled, and values below -1 were normalized already.
DARKEST, BRIGHTEST = -1.0, 2.0


def take_images(
    model: nnx.Module,
    size: Size,
    options: Mapping[str, float] = MappingProxyType({}),
    rule: InputRule = AS_THEY_ARE,
) -> nnx.Module:
    """Has a model take uint8 images as well, resize them on request, and name what it can't take.

    Args:
      model: takes float images in [0, 1]; it is changed.
      size: side in pixels of the squares in colours that it was trained on, or height, width and channels.
      options: what its `__call__` is given besides: the trial's own numbers that its class calls dynamic.
      rule: what images were brought to.

    Returns:
      The model. `model(images, resize=True)` resizes `images` to what it was trained on; without, a network
      that takes other sizes takes them as they are.
    """
    model.__class__ = _subclass(type(model), image_shape(size), tuple(options.items()), rule)
    return model


def take_arrays(
    model: nnx.Module, shape: tuple[int, ...], options: Mapping[str, float], rule: InputRule
) -> nnx.Module:
    """Has a model take arrays of the user's own as a sweep gives them; `shape` is that of one input."""
    model.__class__ = _subclass_of_arrays(type(model), shape, tuple(options.items()), rule)
    return model


@functools.cache
def _subclass_of_arrays(
    base: type, shape: tuple[int, ...], options: tuple[tuple[str, float], ...], rule: InputRule
) -> type:
    class Loaded(base):
        @functools.wraps(base.__call__)
        def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            inputs = jnp.asarray(inputs)
            if inputs.dtype == jnp.uint8 and len(shape) != 3:  # bytes of images alone are scaled
                inputs = inputs.astype(jnp.int32)
            if inputs.shape[1:] != shape:
                given = f"{inputs.dtype}{list(inputs.shape)}"
                raise ModelError(f"the model can't take {given}: expected inputs of {list(shape)}")
            return super().__call__(prepare_inputs(inputs, rule), *args, **{**dict(options), **kwargs})

    return _as_base(Loaded, base, _subclass_of_arrays, shape, options, rule)


@functools.cache  # models of one class are to compare equal
def _subclass(
    base: type, shape: tuple[int, int, int], options: tuple[tuple[str, float], ...], rule: InputRule
) -> type:
    class Loaded(base):
        @functools.wraps(base.__call__)  # what it takes is asked of its signature
        def __call__(self, images: Any, *args: Any, resize: bool = False, **kwargs: Any) -> Any:
            images = scale_images(images, shape)
            if resize:
                # Antialiased, as those that it was trained on.
                images = jax.image.resize(images, (len(images), *shape), "bilinear")
            elif images.shape[1:] != shape:
                _warn_of_size(images.shape[1:3], shape[:2])
            try:
                return super().__call__(prepare_inputs(images, rule), *args, **{**dict(options), **kwargs})
            except Exception as error:
                if images.shape[1:] == shape:
                    raise
                raise _refuse(images, shape) from error

    return _as_base(Loaded, base, _subclass, shape, options, rule)


def _as_base(loaded: type, base: type, make: Callable[..., type], *given: Any) -> type:
    """Returns a subclass under its base's name; copies and pickles of models call `make(base, *given)`."""

    def reduce(self: Any, protocol: Any) -> Any:
        function, (_, *arguments), *rest = super(loaded, self).__reduce_ex__(protocol)
        return _rebuild, (function, make, (base, *given), *arguments), *rest

    loaded.__reduce_ex__ = reduce  # type: ignore[assignment]
    loaded.__name__, loaded.__qualname__ = base.__name__, base.__qualname__
    loaded.__module__, loaded.__doc__ = base.__module__, base.__doc__
    return loaded


def _rebuild(function: Callable[..., Any], make: Callable[..., type], given: tuple, *arguments: Any) -> Any:
    """Returns a copy or what was pickled, without its attributes: the class can't be found by its name."""
    return function(make(*given), *arguments)


def scale_images(images: Any, shape: tuple[int, int, int]) -> Float[Array, "batch height width channels"]:
    """Returns images as floats in [0, 1]; raises ModelError where they are none, or of other channels.

    Args:
      images: whole numbers from 0 to 255, or floats in [0, 1]; can be traced.
      shape: height and width that are expected, for messages, and channels.
    """
    images = images if isinstance(images, jax.Array) else np.asarray(images)
    whole = jnp.issubdtype(images.dtype, jnp.integer)
    numbers = whole or jnp.issubdtype(images.dtype, jnp.floating)
    if images.ndim != 4 or images.shape[-1] != shape[-1] or not numbers:
        raise _refuse(images, shape)
    if not isinstance(images, Tracer) and images.size and (told := describe_wrong_values(images)):
        raise _refuse(images, shape, f" with {told}")
    return jnp.asarray(images, jnp.float32) / 255 if whole else jnp.asarray(images)


def describe_wrong_values(images: Any) -> str:
    """Returns what is wrong with an array's values as those of images; empty: nothing."""
    low, high = float(images.min()), float(images.max())
    if jnp.issubdtype(images.dtype, jnp.integer):
        return "" if 0 <= low <= high <= 255 else f"values from {low:g} to {high:g}"
    if DARKEST <= low <= high <= BRIGHTEST:  # False of NaN
        return ""
    return f"values up to {high:g}" if high > BRIGHTEST else f"values from {low:g}"


@functools.cache  # once
def _warn_of_size(given: tuple[int, int], trained: tuple[int, int]) -> None:
    told = "images of %d x %d pixels, of a model that was trained on %d x %d: resize=True brings them to that"
    log.warning(told, *given, *trained)


def _refuse(images: Any, shape: tuple[int, int, int], more: str = "") -> ModelError:
    given = f"{images.dtype}{list(images.shape)}{more}"
    return ModelError(
        f"the model can't take {given}: expected {name_images(shape)} of uint8, or of floats in [0, 1]; "
        "resize=True takes images of any size"
    )


def name_images(shape: tuple[int, int, int]) -> str:
    """Returns what messages call an array of images of a height, width and number of channels."""
    return f"[images, {', '.join(map(str, shape))}]"
