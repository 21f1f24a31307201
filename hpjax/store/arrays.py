"""A tree of arrays and a JSON dict in one verified folder, written by Orbax."""

import contextlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from hpjax.errors import CheckpointError, WorkdirError
from hpjax.store.manifest import check_manifest, write_manifest
from hpjax.store.workdir import atomic_write, describe_os_error, sync_folder

_ARRAYS, _LEDGER = "arrays", "ledger.json"
TEMPORARY = ".tmp"
_OVERHEAD = 1 << 18  # bytes that Orbax and the file system need besides the arrays
Nested = dict[str, Any]


class Unreadable(CheckpointError):
    """A checkpoint has the files that were saved, but Orbax can't read them."""


def copy_to_host(tree: PyTree) -> Nested:
    """Returns a tree of arrays as nested dicts of numpy, those of jax as copies, safe from donation.

    All transfers from the device are started before the first is waited for.
    """
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    for _, leaf in leaves:
        if isinstance(leaf, jax.Array):
            leaf.copy_to_host_async()
    nested: Nested = {}
    for path, leaf in leaves:
        # On CPU np.asarray is a view of the device's buffer, which the next step overwrites.
        _insert(nested, _name_path(path), np.array(leaf, copy=isinstance(leaf, jax.Array) or None))
    return nested


def fit_template(nested: Nested, template: PyTree, where: object) -> PyTree:
    """Returns the arrays in the template's structure.

    Args:
      nested: what `load_folder` returned.
      template: a tree of anything with `shape` and `dtype`: arrays or `jax.ShapeDtypeStruct`.
      where: the checkpoint, for the message.

    Raises:
      CheckpointError: names every array that is missing, extra, or of another shape or dtype.

    """
    leaves, treedef = jax.tree_util.tree_flatten_with_path(template)
    found = dict(_walk(nested))
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


def save_folder(folder: Path, arrays: Nested, ledger: Mapping) -> None:
    """Writes arrays and ledger to a folder that appears at once, whole, or not at all.

    Raises:
      WorkdirError: the disk is full, read-only or refuses; the folder's old content stays.

    """
    temporary = folder.with_name(f"{folder.name}{TEMPORARY}")
    try:
        _remove(temporary)
        temporary.mkdir(parents=True)
        _reserve(temporary, arrays)
        _save_arrays(temporary, arrays)
        empty = {
            "/".join(path): [leaf.shape, leaf.dtype.name] for path, leaf in _walk(arrays) if not leaf.size
        }
        content = {"folder": folder.name, "ledger": ledger, "empty": empty}
        atomic_write(temporary / _LEDGER, json.dumps(content))
        write_manifest(temporary)
        _replace_folder(temporary, folder)
    except (WorkdirError, MemoryError):
        raise
    except OSError as error:
        raise WorkdirError(describe_os_error("write checkpoint", folder, error)) from error
    except Exception as error:  # Orbax and TensorStore report a full disk as ValueError and others
        raise WorkdirError(f"can't write checkpoint {folder}: {_explain(error)}") from error
    finally:
        _remove(temporary)


def load_folder(folder: Path) -> tuple[Nested, dict]:
    """Returns a folder's arrays as nested dicts of numpy, and its ledger, after checking every byte.

    Nothing in the folder is ever executed: it is JSON and numbers, never a pickle.

    Raises:
      CheckpointError: the folder is missing, torn, truncated or changed.
      Unreadable: it is whole, but written by another version of Orbax, or this is a bad moment.
      WorkdirError: a file can't be read now.

    """
    if not folder.is_dir():
        raise CheckpointError(f"there is no checkpoint {folder}")
    check_manifest(folder)
    content = _read_content(folder)
    if (name := content.get("folder")) != folder.name:
        raise CheckpointError(f"checkpoint {folder} is damaged: it is {name} under another name")
    nested = _load_arrays(folder / _ARRAYS) if (folder / _ARRAYS).exists() else {}
    for name, (shape, dtype) in content["empty"].items():
        _insert(nested, tuple(name.split("/")), np.zeros(shape, dtype))
    return nested, content["ledger"]


def import_writer() -> None:
    """Imports Orbax ahead of the first save; that takes seconds."""
    import orbax.checkpoint  # noqa: F401


def read_ledger(folder: Path) -> dict:
    """Returns a folder's ledger without checking its arrays.

    Raises:
      CheckpointError: it is missing or damaged.
      WorkdirError: it can't be read now.

    """
    return _read_content(folder)["ledger"]


def remove_leftovers(directory: Path) -> None:
    """Removes what saves that were cut off left in a directory."""
    for leftover in directory.glob(f"*{TEMPORARY}*"):
        _remove(leftover)


def set_aside(folder: Path) -> None:
    """Renames a damaged checkpoint, so that it is found no more, and is removed with the next leftovers.

    Raises:
      WorkdirError: the disk refuses.

    """
    aside = folder.with_name(f"{folder.name}{TEMPORARY}-damaged")
    _remove(aside)
    try:
        os.rename(folder, aside)
    except OSError as error:
        raise WorkdirError(describe_os_error("rename", folder, error)) from error
    sync_folder(folder.parent)


def remove_folder(folder: Path) -> None:
    """Removes a checkpoint so that no part of it can pass for a whole."""
    doomed = folder.with_name(f"{folder.name}{TEMPORARY}-old")
    with contextlib.suppress(OSError):
        _remove(doomed)
        os.rename(folder, doomed)
    _remove(doomed)


def _reserve(folder: Path, arrays: Nested) -> None:
    """Raises OSError where the disk has no room for the arrays: Orbax reports that in a hundred lines."""
    file = folder / "room"
    with open(file, "wb") as stream:
        os.posix_fallocate(stream.fileno(), 0, sum(leaf.nbytes for _, leaf in _walk(arrays)) + _OVERHEAD)
    file.unlink()


def _save_arrays(folder: Path, arrays: Nested) -> None:
    import orbax.checkpoint as ocp

    filled: Nested = {}
    for path, leaf in _walk(arrays):
        if leaf.size:  # Orbax refuses arrays without elements; the ledger keeps their shapes
            _insert(filled, path, leaf)
    if filled:
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
            checkpointer.save((folder / _ARRAYS).absolute(), args=ocp.args.PyTreeSave(filled))


def _read_content(folder: Path) -> dict:
    try:
        content = json.loads((folder / _LEDGER).read_text())
        content["ledger"]  # noqa: B018
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"checkpoint {folder} is damaged: {_LEDGER} can't be read") from error
    except OSError as error:
        raise WorkdirError(describe_os_error("read", folder / _LEDGER, error)) from error
    return content


def _load_arrays(folder: Path) -> Nested:
    import orbax.checkpoint as ocp

    try:
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
            return checkpointer.restore(folder.absolute())
    except MemoryError:
        raise
    except Exception as error:  # of whole files: another version of Orbax wrote them, or it is a bad moment
        raise Unreadable(f"checkpoint {folder.parent} can't be read: {_explain(error)}") from error


def _replace_folder(new: Path, folder: Path) -> None:
    # Folders can't be swapped in one call everywhere; the old one is whole until the new one is.
    if folder.exists():
        remove_folder(folder)
    os.rename(new, folder)
    sync_folder(folder.parent)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def _explain(error: Exception) -> str:
    code = re.search(r"os[ _]error(?:_code)?\W*(\d+)", str(error), re.IGNORECASE)
    if code:
        return os.strerror(int(code[1]))
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _name_path(path: tuple) -> tuple[str, ...]:
    return tuple(jax.tree_util.keystr((key,), simple=True) for key in path) or ("value",)


def _insert(nested: Nested, path: tuple[str, ...], leaf: np.ndarray) -> None:
    for name in path[:-1]:
        nested = nested.setdefault(name, {})
    nested[path[-1]] = leaf


def _walk(nested: Nested, prefix: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], np.ndarray]]:
    pairs = []
    for name, item in nested.items():
        pairs += _walk(item, (*prefix, name)) if isinstance(item, dict) else [((*prefix, name), item)]
    return pairs


def _describe(leaf: Any) -> str:
    return f"{np.dtype(leaf.dtype).name}{list(leaf.shape)}"
