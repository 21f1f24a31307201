"""Models by name: hpjax's own, and classes from users' files."""

import functools
import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from flax import nnx

from hpjax.errors import ConfigError, ModelError
from hpjax.models.cnn import CustomCNN
from hpjax.models.resnet import ResNet18

_MODELS = {"custom_cnn": CustomCNN, "resnet18": ResNet18}
MODEL_NAMES = tuple(_MODELS)


def create_model(
    name: str,
    *,
    num_classes: int,
    image_size: int,
    kernel_widths: Sequence[int] = (5, 5, 7),
    padding: str = "reference",
    rngs: nnx.Rngs,
) -> nnx.Module:
    """Returns a model with fresh weights; can be traced, the seed in `rngs` too.

    Args:
      name: one of `MODEL_NAMES`, or `FILE.py:CLASS`: a flax.nnx module of the user's, of whose `__init__`
        those arguments of this function are passed that it accepts.
      num_classes: how many logits.
      image_size: side of the square images in pixels.
      kernel_widths: custom_cnn's widths of its square kernels.
      padding: custom_cnn's padding, `reference` or `same`.
      rngs: streams of which `params` is used.

    Raises:
      ConfigError: No such model, or an argument that it doesn't allow.
      ModelError: The user's file can't be imported.
    """
    model_class = _MODELS.get(name) or load_model_class(name)
    arguments = {
        "num_classes": num_classes,
        "image_size": image_size,
        "kernel_widths": tuple(kernel_widths),
        "padding": padding,
        "rngs": rngs,
    }
    return model_class(**_accepted(model_class, arguments))


def load_model_class(name: str) -> type[nnx.Module]:
    """Returns the class that `FILE.py:CLASS` names.

    Raises:
      ConfigError: There is no such file, or no such class of flax.nnx in it.
      ModelError: The file can't be imported.
    """
    file, _, class_name = name.rpartition(":")
    if not file.endswith(".py"):
        raise ConfigError("model.name", name, f"{', '.join(MODEL_NAMES)} or FILE.py:CLASS")
    path = Path(file).expanduser().resolve()
    if not path.is_file():
        raise ConfigError("model.name", name, f"a Python file that exists before the colon; {path} doesn't")
    model_class = getattr(_load_module(path, path.stat().st_mtime_ns), class_name, None)
    if not (isinstance(model_class, type) and issubclass(model_class, nnx.Module)):
        raise ConfigError(
            "model.name", name, f"the name of a flax.nnx.Module class in {path} after the colon"
        )
    return model_class


@functools.cache
def _load_module(path: Path, modified: int) -> ModuleType:
    # Cached, since two loads of one file would give two classes, and so two graphs that don't compare equal.
    name = f"hpjax_model_{path.stem}_{hashlib.sha256(f'{path}:{modified}'.encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ModelError(f"{path} can't be imported: {type(error).__name__}: {error}") from error
    return module


def _accepted(model_class: type, arguments: dict) -> dict:
    parameters = inspect.signature(model_class.__init__).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return arguments
    return {name: value for name, value in arguments.items() if name in parameters}
