"""Models by name: hpjax's own, and classes from users' files."""

import inspect
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from flax import nnx

from hpjax.config.user_files import load_from_file
from hpjax.errors import ConfigError
from hpjax.models.cnn import CustomCNN
from hpjax.models.options import check_options
from hpjax.models.resnet import ResNet18, ResNet34

_MODELS = {"custom_cnn": CustomCNN, "resnet18": ResNet18, "resnet34": ResNet34}
MODEL_NAMES = tuple(_MODELS)


def create_model(
    name: str,
    *,
    num_classes: int,
    image_size: int | Sequence[int] = 0,
    input_shape: Sequence[int] = (),
    kernel_widths: Sequence[int] = (5, 5, 7),
    padding: str = "reference",
    options: Mapping[str, Any] = MappingProxyType({}),
    rngs: nnx.Rngs,
) -> nnx.Module:
    """Returns a model with fresh weights; can be traced, the seed in `rngs` too.

    Args:
      name: one of `MODEL_NAMES`, or `FILE.py:CLASS`: a flax.nnx module of the user's, of whose `__init__`
        those arguments of this function are passed that it accepts.
      num_classes: how many logits, or numbers.
      image_size: side of the square images in pixels, or height and width; 0: inputs are no images.
      input_shape: of one input; empty: that of a square image in colours.
      kernel_widths: custom_cnn's widths of its square kernels.
      padding: custom_cnn's padding, `reference` or `same`.
      options: further arguments of its `__init__`; those that its class declares to be dynamic are left out.
      rngs: streams of which `params` is used.

    Raises:
      ConfigError: No such model, or an argument that it doesn't allow.
      UserCodeError: The user's file can't be imported, or its class doesn't build.
    """
    model_class = find_model_class(name)
    size = tuple(image_size) if isinstance(image_size, Sequence) else image_size
    shape = tuple(input_shape) or (*(size if isinstance(size, tuple) else (size, size)), 3)
    if name in _MODELS and len(shape) != 3:
        allowed = f"FILE.py:CLASS, a model of your own: inputs of {list(shape)} are no images"
        raise ConfigError("model.name", name, allowed)
    arguments = {
        "num_classes": num_classes,
        "image_size": size,
        "input_shape": shape,
        "kernel_widths": tuple(kernel_widths),
        "padding": padding,
        "rngs": rngs,
    }
    return model_class(**_accepted(model_class, arguments) | check_options(model_class, options))


def is_square_rgb(shape: Sequence[int]) -> bool:
    """Returns whether inputs of a shape are square images in colours."""
    return len(shape) == 3 and shape[0] == shape[1] and shape[2] == 3


def describe_inputs(shape: Sequence[int]) -> dict[str, Any]:
    """Returns the arguments of `create_model` that say what inputs are like, as JSON values."""
    if is_square_rgb(shape):
        return {"image_size": shape[0]}
    if len(shape) != 3:
        return {"image_size": 0, "input_shape": list(shape)}
    height, width, _ = shape
    return {"image_size": height if height == width else [height, width], "input_shape": list(shape)}


def find_model_class(name: str) -> type[nnx.Module]:
    """Returns the class of one of `MODEL_NAMES`, or the one that `FILE.py:CLASS` names.

    Raises:
      ConfigError: There is no such model.
      UserCodeError: The user's file can't be imported.
    """
    return _MODELS.get(name) or load_model_class(name)


def load_model_class(name: str) -> type[nnx.Module]:
    """Returns the class that `FILE.py:CLASS` names.

    Raises:
      ConfigError: There is no such file, or no such class of flax.nnx in it.
      UserCodeError: The file can't be imported.
    """
    path, model_class = load_from_file("model.name", name, f"{', '.join(MODEL_NAMES)} or FILE.py:CLASS")
    if not (isinstance(model_class, type) and issubclass(model_class, nnx.Module)):
        raise ConfigError(
            "model.name", name, f"the name of a flax.nnx.Module class in {path} after the colon"
        )
    return model_class


def _accepted(model_class: type, arguments: dict) -> dict:
    parameters = inspect.signature(model_class.__init__).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return {name: arguments[name] for name in arguments if name in parameters or name != "input_shape"}
    return {name: value for name, value in arguments.items() if name in parameters}
