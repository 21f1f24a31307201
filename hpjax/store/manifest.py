"""Proof that a folder is whole: a list of its files with sizes and hashes, written last."""

import hashlib
import json
import os
from pathlib import Path

from hpjax.errors import CheckpointError, WorkdirError
from hpjax.store.workdir import atomic_write, describe_os_error, sync_folder

MANIFEST_NAME = "manifest.json"


def write_manifest(folder: Path) -> None:
    """Makes a folder's files durable and lists them in `manifest.json`."""
    files = {name: _describe(folder / name) for name in _list_files(folder)}
    for name in files:
        _sync_file(folder / name)
    for parent in {(folder / name).parent for name in files}:
        sync_folder(parent)
    atomic_write(folder / MANIFEST_NAME, json.dumps({"files": files, "sha256": _hash_entries(files)}))


def check_manifest(folder: Path) -> None:
    """Checks every file of a folder against its manifest.

    Raises:
      CheckpointError: the manifest is missing or damaged, or a file is missing, extra or changed.
      WorkdirError: a file can't be read now, which says nothing about its content.

    """
    files = _read_manifest(folder)
    found = set(_list_files(folder))
    for name, entry in files.items():
        if name not in found:
            raise CheckpointError(f"checkpoint {folder} is damaged: {name} is missing")
        if _describe(folder / name) != entry:
            raise CheckpointError(f"checkpoint {folder} is damaged: {name} is not what was saved")
    if extra := sorted(found - files.keys()):
        raise CheckpointError(f"checkpoint {folder} is damaged: {extra[0]} was not saved there")


def _read_manifest(folder: Path) -> dict[str, dict]:
    try:
        manifest = json.loads((folder / MANIFEST_NAME).read_text())
        files = manifest["files"]
        if manifest["sha256"] != _hash_entries(files):
            raise ValueError
    except FileNotFoundError as error:
        raise CheckpointError(f"checkpoint {folder} is incomplete: {MANIFEST_NAME} is missing") from error
    except OSError as error:
        raise WorkdirError(describe_os_error("read", folder / MANIFEST_NAME, error)) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"checkpoint {folder} is damaged: {MANIFEST_NAME} can't be read") from error
    return files


def _list_files(folder: Path) -> list[str]:
    names = []
    for root, _, files in os.walk(folder, onerror=_raise_unreadable):
        names += [os.path.relpath(os.path.join(root, name), folder) for name in files]
    return sorted(name for name in names if name != MANIFEST_NAME)


def _raise_unreadable(error: OSError) -> None:
    raise WorkdirError(describe_os_error("read", error.filename, error)) from error


def _describe(path: Path) -> dict[str, object]:
    if path.is_symlink() or not path.is_file():
        return {"size": -1, "sha256": ""}
    try:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return {"size": file.tell(), "sha256": digest}
    except OSError as error:
        raise WorkdirError(describe_os_error("read", path, error)) from error


def _hash_entries(files: dict[str, dict]) -> str:
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def _sync_file(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
