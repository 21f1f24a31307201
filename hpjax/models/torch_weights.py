"""Weights under PyTorch's names, into a Flax model and out of it."""

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from hpjax.errors import ModelError
from hpjax.models.pretrained import find_weights

_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
_IGNORED = "num_batches_tracked"  # PyTorch counts batches, but uses the count only where momentum is None


def from_torch(model: nnx.Module, state_dict: Mapping[str, Any] | str | os.PathLike) -> nnx.Module:
    """Returns a copy of `model` with the given weights.

    The head (`linear3` or `fc`) stays as it is where the weights are for another number of classes.

    Args:
      model: one of hpjax's, or any whose attributes are named as in the PyTorch original.
      state_dict: arrays under PyTorch's names, or the path of a `.safetensors`, `.pth` or `.pt` file.

    Raises:
      ModelError: A file can't be read, or tensors are missing, extra or misshapen; names each of them.
    """
    graphdef, state = nnx.split(model)
    weights = match_weights(model, state_dict)
    return nnx.merge(graphdef, nnx.merge_state(state, weights), copy=True)


def match_weights(model: nnx.Module, state_dict: Mapping[str, Any] | str | os.PathLike) -> nnx.State:
    """Returns the leaves of `model` that the given weights determine: all but a head of another size.

    Args:
      model: as for `from_torch`; its own values aren't read, so that shapes will do.
      state_dict: as for `from_torch`.

    Raises:
      ModelError: As `from_torch` does.
    """
    if not isinstance(state_dict, Mapping):
        state_dict = load_state_dict(state_dict)
    tensors = {k: _to_numpy(v) for k, v in state_dict.items() if not k.endswith(_IGNORED)}
    flat = nnx.to_flat_state(nnx.state(model))
    leaves = {name: (path, v) for path, v in flat if (name := _torch_name(path, v))}
    maps = _flattened_inputs(model)
    fresh = _fresh_head(model, leaves, tensors)
    _check(leaves, tensors, fresh, maps)
    weights = {}
    for name in leaves.keys() - fresh:
        path, variable = leaves[name]
        value = _from_torch_layout(tensors[name], variable.ndim, maps.get(name))
        # A copy: on CPU an array may otherwise share the memory of a torch tensor, which training overwrites.
        weights[path] = variable.replace(jnp.array(value, variable.dtype, copy=True))
    return nnx.from_flat_state(weights)


def to_torch(model: nnx.Module) -> dict[str, np.ndarray]:
    """Returns the weights and running statistics of `model` as arrays under PyTorch's names and layouts."""
    maps, tensors = _flattened_inputs(model), {}
    for path, variable in nnx.to_flat_state(nnx.state(model)):
        if name := _torch_name(path, variable):
            value = np.asarray(variable[...])
            tensors[name] = np.ascontiguousarray(_to_torch_layout(value, maps.get(name)))
            if name.endswith("running_var"):
                tensors[name.replace("running_var", _IGNORED)] = np.zeros((), np.int64)
    return tensors


def load_state_dict(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Returns the arrays of a `.safetensors` file, or of a `.pth` or `.pt` file (which needs torch).

    Args:
      path: of the file, or another name that `hpjax.models.pretrained.find_weights` knows.

    Raises:
      ModelError: There is no such file, it holds something else, or torch isn't installed.
    """
    path = find_weights(path)
    loaders = {".safetensors": _load_safetensors, ".pth": _load_pickled, ".pt": _load_pickled}
    if path.suffix not in loaders:
        raise ModelError(f"can't read weights from {path}: expected a .safetensors, .pth or .pt file")
    try:
        return {name: _to_numpy(value) for name, value in loaders[path.suffix](path).items()}
    except ModelError:
        raise
    except Exception as error:
        # The readers raise many kinds for a broken file; all mean the same to the user.
        reason = str(error).strip().split("\n")[0]
        raise ModelError(f"can't read weights from {path}: {type(error).__name__}: {reason}") from error


def _load_safetensors(path: Path) -> Mapping[str, Any]:
    from safetensors.numpy import load_file

    return load_file(path)


def _load_pickled(path: Path) -> Mapping[str, Any]:
    try:
        import torch
    except ImportError as error:
        raise ModelError(
            f"reading {path} needs torch (pip install torch), or convert it to .safetensors"
        ) from error
    with warnings.catch_warnings():  # torch's, of a file that isn't what it expects: the error says it
        warnings.simplefilter("ignore")
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    loaded = loaded.get("state_dict", loaded) if isinstance(loaded, Mapping) else loaded
    if not isinstance(loaded, Mapping) or not all(hasattr(v, "shape") for v in loaded.values()):
        raise ModelError(f"{path} doesn't hold a state dict: expected tensors by name")
    return loaded


def _to_numpy(value: Any) -> np.ndarray:
    if hasattr(value, "detach"):  # a torch tensor, perhaps bfloat16, which NumPy lacks
        value = value.detach().cpu()
        value = value.float() if value.is_floating_point() else value
    return np.asarray(value)


def _torch_name(path: tuple, variable: nnx.Variable) -> str:
    """Returns PyTorch's name of a leaf; '' for what PyTorch doesn't store, as random streams."""
    if not isinstance(variable, nnx.Param | nnx.BatchStat):
        return ""
    *parents, leaf = (str(part) for part in path)
    return ".".join((*parents, _LEAVES.get(leaf, leaf)))


def _flattened_inputs(model: nnx.Module) -> dict[str, tuple[int, int, int]]:
    find = getattr(model, "flattened_inputs", dict)
    return {f"{layer}.weight": shape for layer, shape in find().items()}


def _fresh_head(model: nnx.Module, leaves: dict, tensors: dict[str, np.ndarray]) -> set[str]:
    """Returns the names of the head's leaves if the weights are for another number of classes."""
    weight = f"{getattr(model, 'HEAD', '')}.weight"
    if weight not in leaves or weight not in tensors or tensors[weight].ndim != 2:
        return set()
    features, classes = leaves[weight][1].shape
    given = tensors[weight].shape
    return (
        {weight, weight.replace("weight", "bias")} if given[1] == features and given[0] != classes else set()
    )


def _check(leaves: dict, tensors: dict[str, np.ndarray], fresh: set[str], maps: dict) -> None:
    missing = [name for name in leaves if name not in tensors and name not in fresh]
    extra = [name for name in tensors if name not in leaves]
    shapes = {name: _torch_shape(variable, maps.get(name)) for name, (_, variable) in leaves.items()}
    misshapen = [
        f"{name} {tuple(tensors[name].shape)}, expected {shape}"
        for name, shape in shapes.items()
        if name in tensors and name not in fresh and tuple(tensors[name].shape) != shape
    ]
    problems = {"missing": missing, "not in the model": extra, "misshapen": misshapen}
    if any(problems.values()):
        listed = "; ".join(f"{what}: {', '.join(sorted(names))}" for what, names in problems.items() if names)
        raise ModelError(f"the weights don't fit the model: {listed}")


def _torch_shape(variable: nnx.Variable, feature_map: tuple[int, int, int] | None) -> tuple[int, ...]:
    return _to_torch_layout(np.broadcast_to(np.float32(0), variable.shape), feature_map).shape


def _from_torch_layout(value: np.ndarray, ndim: int, feature_map: tuple[int, int, int] | None) -> np.ndarray:
    if feature_map is not None:
        height, width, channels = feature_map
        value = value.reshape(-1, channels, height, width).transpose(0, 2, 3, 1).reshape(value.shape)
    return value.transpose({4: (2, 3, 1, 0), 2: (1, 0)}[ndim]) if ndim in (2, 4) else value


def _to_torch_layout(value, feature_map: tuple[int, int, int] | None):
    if feature_map is not None:
        value = value.reshape(*feature_map, -1).transpose(2, 0, 1, 3).reshape(value.shape)
    return value.transpose({4: (3, 2, 0, 1), 2: (1, 0)}[value.ndim]) if value.ndim in (2, 4) else value
