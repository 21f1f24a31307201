"""Weights by name: which module each belongs to, and which of them are trained."""

from collections.abc import Sequence
from typing import Any

import jax
from flax import nnx


def name_weights(tree: Any) -> list[str]:
    """Returns the names of a tree's weights in the order of its leaves, e.g. `layer1.0.conv1.kernel`."""
    paths = (path for path, _ in jax.tree_util.tree_leaves_with_path(tree))
    return [join_path(key.key for key in path if isinstance(key, jax.tree_util.DictKey)) for path in paths]


def join_path(path: Any) -> str:
    """Returns the path of a module or a weight as it is written, e.g. `layer1.0.conv1`."""
    return ".".join(map(str, path))


def is_within(name: str, modules: Sequence[str]) -> bool:
    """Returns whether a weight, or a module, is one of the modules or belongs to one."""
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def split_weights(params: nnx.State, frozen: Sequence[str]) -> tuple[nnx.State, nnx.State]:
    """Returns the weights that are trained, and those of the frozen modules."""
    if not frozen:
        return params, nnx.State({})
    kept, trained = nnx.split_state(params, lambda path, _: is_within(join_path(path), frozen), ...)
    return trained, kept


def join_weights(trained: nnx.State, kept: nnx.State) -> nnx.State:
    """Returns all weights; the inverse of `split_weights`."""
    return nnx.merge_state(trained, kept) if kept else trained


def keep_frozen(new: nnx.State, old: nnx.State, frozen: Sequence[str]) -> nnx.State:
    """Returns `new` with the old values wherever they belong to a frozen module."""
    if not frozen:
        return new
    leaves, structure = jax.tree.flatten(new)
    olds, names = jax.tree.leaves(old), name_weights(new)
    chosen = [o if is_within(name, frozen) else n for n, o, name in zip(leaves, olds, names, strict=True)]
    return jax.tree.unflatten(structure, chosen)


def hold_statistics(model: nnx.Module, frozen: Sequence[str]) -> None:
    """Has batch norm of frozen modules use its running statistics, in training too."""
    for path, module in nnx.iter_modules(model):
        if is_within(join_path(path), frozen) and hasattr(module, "use_running_average"):
            module.use_running_average = True  # type: ignore[attr-defined]
