"""Trees of arrays as nested dicts of numpy, safe from donation, and back."""

from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from hpjax.errors import CheckpointError

Nested = dict[str, Any]


def copy_to_host(tree: PyTree) -> Nested:
    """Returns a tree of arrays as nested dicts of numpy, those of jax as copies, safe from donation.

    All transfers from the device are started before the first is waited for.
    """
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    for _, leaf in leaves:
        if isinstance(leaf, jax.Array):
            leaf.copy_to_host_async()
    # On CPU np.asarray is a view of the device's buffer, which the next step overwrites.
    return nest(
        (_name_path(path), np.array(leaf, copy=isinstance(leaf, jax.Array) or None)) for path, leaf in leaves
    )


def fit_template(nested: Nested, template: PyTree, where: object) -> PyTree:
    """Returns the arrays in the template's structure.

    Args:
      nested: what a checkpoint held.
      template: a tree of anything with `shape` and `dtype`: arrays or `jax.ShapeDtypeStruct`.
      where: the checkpoint, for the message.

    Raises:
      CheckpointError: names every array that is missing, extra, or of another shape or dtype.

    """
    leaves, treedef = jax.tree_util.tree_flatten_with_path(template)
    found = dict(walk(nested))
    expected = {_name_path(path): leaf for path, leaf in leaves}
    problems = [f"{'/'.join(path)} is missing" for path in expected if path not in found]
    problems += [f"{'/'.join(path)} is not expected" for path in found if path not in expected]
    for path in expected.keys() & found.keys():
        have, want = _describe(found[path]), _describe(expected[path])
        if have != want:
            problems.append(f"{'/'.join(path)} is {have} instead of {want}")
    if problems:
        raise CheckpointError(f"checkpoint {where} doesn't fit: {'; '.join(sorted(problems))}")
    return jax.tree_util.tree_unflatten(treedef, [found[path] for path in expected])


def walk(nested: Nested, prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], np.ndarray]]:
    """Yields every array with its path."""
    for name, item in nested.items():
        if isinstance(item, dict):
            yield from walk(item, (*prefix, name))
        else:
            yield (*prefix, name), item


def nest(leaves: Iterable[tuple[tuple[str, ...], np.ndarray]]) -> Nested:
    """Returns arrays under their paths as nested dicts: what `walk` takes apart."""
    root: Nested = {}
    for path, leaf in leaves:
        nested = root
        for name in path[:-1]:
            nested = nested.setdefault(name, {})
        nested[path[-1]] = leaf
    return root


def _name_path(path: tuple) -> tuple[str, ...]:
    return tuple(jax.tree_util.keystr((key,), simple=True) for key in path) or ("value",)


def _describe(leaf: Any) -> str:
    return f"{np.dtype(leaf.dtype).name}{list(leaf.shape)}"
