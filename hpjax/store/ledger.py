"""A checkpoint's ledger: what belongs to its arrays, and the proof that they are what was saved."""

import hashlib
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hpjax.errors import CheckpointError, WorkdirError
from hpjax.store.files import describe_os_error, is_file, parse_json, read_file
from hpjax.store.typed import read_as
from hpjax.store.workdir import atomic_write, sync_folder

ITEM, FILE_NAME, ARRAYS = "ledger", "ledger.json", "arrays"
_OLD_MANIFEST = "manifest.json"
_MOST_AXES = 16

# Orbax writes these after the ledger is sealed, and nothing that is loaded depends on them.
_BOOKKEEPING = {"_CHECKPOINT_METADATA", "commit_success.txt", f"{ITEM}/commit_success.txt"}


@dataclass(frozen=True)
class Content:
    """What a checkpoint's ledger says.

    Attributes:
      folder: the checkpoint's name.
      files: size and SHA-256 of each of its files, by name.
      empty: shape and dtype of the arrays without elements, by name: Orbax keeps none.
      ledger: what its writer handed over.

    """

    folder: str
    files: dict[str, dict[str, Any]]
    empty: dict[str, list[Any]]
    ledger: dict[str, Any]


class Unreadable(CheckpointError):
    """A checkpoint isn't known to be damaged, but this program can't read it."""


def seal_ledger(file: Path, arrays: Path) -> None:
    """Makes the arrays' files durable, and adds their sizes and hashes, and its own hash, to a ledger.

    Args:
      file: the ledger, a JSON object.
      arrays: the folder of the arrays; may be missing.

    Raises:
      OSError: the disk refuses.

    """
    content = json.loads(file.read_text(encoding="utf-8"))
    content.pop("sha256", None)  # of one that is sealed again
    names = _list_files(arrays) if arrays.exists() else []
    content["files"] = {f"{ARRAYS}/{name}": _describe(arrays / name) for name in names}
    for name in names:
        _sync_file(arrays / name)
    for parent in {(arrays / name).parent for name in names}:
        sync_folder(parent)
    content["sha256"] = _hash(content)
    atomic_write(file, json.dumps(content))


def read_ledger(folder: Path) -> Content:
    """Returns the content of a checkpoint's ledger, without checking the arrays.

    Raises:
      CheckpointError: it is missing or damaged, or belongs to another checkpoint.
      Unreadable: an earlier version of hpjax wrote it.
      WorkdirError: it can't be read now, which says nothing about its content.

    """
    file = folder / ITEM / FILE_NAME
    if is_file(folder / _OLD_MANIFEST):
        raise Unreadable(
            f"checkpoint {folder} was written by an earlier version of hpjax: "
            "go on with that version, or choose another workdir"
        )
    if not is_file(file):
        raise CheckpointError(f"checkpoint {folder} is incomplete: {FILE_NAME} is missing")
    try:
        values = parse_json(read_file(file))
        if values.pop("sha256") != _hash(values):
            raise ValueError
        content = read_as(Content, values)
        _check_empty(content.empty)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"checkpoint {folder} is damaged: {FILE_NAME} is not what was saved") from error
    if content.folder != folder.name:
        raise CheckpointError(f"checkpoint {folder} is damaged: it is {content.folder} under another name")
    return content


def _check_empty(empty: dict[str, list[Any]]) -> None:
    """Raises ValueError or TypeError where a ledger would have arrays made that have elements."""
    for shape, dtype in empty.values():
        np.dtype(dtype)
        if len(shape) > _MOST_AXES or not all(type(n) is int and n >= 0 for n in shape) or math.prod(shape):
            raise ValueError("no array without elements")


def check_files(folder: Path, files: dict[str, Any]) -> None:
    """Checks every file of a checkpoint against its ledger's list.

    Raises:
      CheckpointError: a file is missing, extra or changed.
      WorkdirError: a file can't be read now.

    """
    found = set(_list_files(folder))
    for name, entry in files.items():
        if name not in found:
            raise CheckpointError(f"checkpoint {folder} is damaged: {name} is missing")
        if _describe(folder / name) != entry:
            raise CheckpointError(f"checkpoint {folder} is damaged: {name} is not what was saved")
    if extra := sorted(found - files.keys() - _BOOKKEEPING - {f"{ITEM}/{FILE_NAME}"}):
        raise CheckpointError(f"checkpoint {folder} is damaged: {extra[0]} was not saved there")


def _list_files(folder: Path) -> list[str]:
    names = []
    for root, _, files in os.walk(folder, onerror=_raise_unreadable):
        names += [os.path.relpath(os.path.join(root, name), folder) for name in files]
    return sorted(names)


def _raise_unreadable(error: OSError) -> None:
    raise WorkdirError(describe_os_error("read", error.filename, error)) from error


def _describe(path: Path) -> dict[str, object]:
    if os.path.islink(path) or not is_file(path):
        return {"size": -1, "sha256": ""}
    try:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return {"size": file.tell(), "sha256": digest}
    except OSError as error:
        raise WorkdirError(describe_os_error("read", path, error)) from error


def _hash(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _sync_file(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
