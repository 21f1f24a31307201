"""Lanes that were written by whoever trains them: parts of a population's checkpoint, which names them.

A checkpoint of lanes on many machines would not fit into one of them. Each writes its own lanes into the
workdir then, where it sees it; the checkpoint has the names, and appears only when all parts are on disk.
"""

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Container, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hpjax.errors import CheckpointError, WorkdirError
from hpjax.store.arrays import Nested
from hpjax.store.lock import is_held, writing
from hpjax.store.steps import Steps, load_folder, read_proved
from hpjax.store.typed import read_as
from hpjax.store.workdir import sync_folder

KEY = "parts"  # of a ledger
_PREFIX = "part"
_TOKEN = re.compile("[0-9a-f]{16}")
_NAME = re.compile(rf"[0-9a-f]{{16}}/{_PREFIX}_[0-9]+")
_READERS = 8  # threads that prove parts: a file server gives several more than one


@dataclass(frozen=True)
class Part:
    """Some lanes in a folder of their own.

    Attributes:
      name: of the folder, in that of its checkpoint's parts; no other part ever has it.
      lanes: how many.
    """

    name: str
    lanes: int


@dataclass(frozen=True)
class SavedLanes:
    """A group's lanes, in parts.

    Attributes:
      folder: of the parts of one checkpoint.
      parts: in the order of the lanes.
    """

    folder: Path
    parts: tuple[Part, ...]

    @property
    def num_lanes(self) -> int:
        """How many lanes there are."""
        return sum(part.lanes for part in self.parts)

    def load(self, first: int = 0, last: int | None = None) -> dict[str, np.ndarray]:
        """Returns the arrays of lanes `first` to before `last`, each with a leading axis of lanes.

        Raises:
          CheckpointError: A part is missing or damaged.
          WorkdirError: A file can't be read now.
        """
        found, begin, last = [], 0, self.num_lanes if last is None else last
        for part in self.parts:
            here = slice(max(first - begin, 0), min(max(last - begin, 0), part.lanes))
            begin += part.lanes
            if here.start < here.stop:
                found.append(_load_part(self.folder / part.name, here))
        if len(found) == 1:
            return found[0]
        # One by one, so that what is in memory twice is one array.
        return {name: np.concatenate([arrays.pop(name) for arrays in found]) for name in list(found[0])}


def begin_parts(directory: Path) -> Path:
    """Returns a new folder in that of all parts, for the parts of the next checkpoint.

    Raises:
      WorkdirError: It can't be made.
    """
    folder = directory / secrets.token_hex(8)
    with writing(folder):
        directory.mkdir(exist_ok=True)
        folder.mkdir()
    for made_in in (directory, directory.parent):
        sync_folder(made_in)
    return folder


def can_write_parts(folder: Path) -> bool:
    """Returns whether this process can write parts into a folder, such that the workdir's can remove them."""
    try:
        own = os.stat(folder).st_uid == os.geteuid()
    except OSError:
        return False
    return own and os.access(folder, os.R_OK | os.W_OK | os.X_OK)


def can_read_parts(folder: Path) -> bool:
    """Returns whether this process can read parts in a folder."""
    return os.path.isdir(folder) and os.access(folder, os.R_OK | os.X_OK)


def write_part(folder: Path, arrays: Mapping[str, np.ndarray]) -> Part:
    """Writes some lanes; returns their part when it is on disk.

    Args:
      folder: what `begin_parts` has returned, in whichever process.
      arrays: of the lanes, each with a leading axis of them.

    Raises:
      WorkdirError: The disk is full, read-only or refuses, or the folder is gone.
    """
    # Of its own: where others write, Orbax and `Steps` would tidy up.
    own, number = folder / secrets.token_hex(8), secrets.randbits(31)
    with _staying(own):
        own.mkdir()
        with _Parts(own, _PREFIX, digits=1, limit=1) as parts:
            parts.write(number, dict(arrays), {})
            name = parts.folder(number).relative_to(folder).as_posix()
    sync_folder(folder)
    return Part(name, len(next(iter(arrays.values()))))


def describe_parts(saved: Mapping[str, SavedLanes]) -> dict[str, Any]:
    """Returns what a ledger says of lanes in parts; `read_parts` reads it."""
    return {
        name: {"folder": lanes.folder.name, "parts": [asdict(part) for part in lanes.parts]}
        for name, lanes in saved.items()
    }


def read_parts(directory: Path, ledger: Mapping[str, Any]) -> dict[str, SavedLanes]:
    """Returns the lanes in parts that a ledger names; nothing of them is read.

    Raises:
      CheckpointError: That isn't what a checkpoint of this version says.
    """
    named = ledger.get(KEY, {})
    try:
        return {name: _read_lanes(directory, entry) for name, entry in named.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"no checkpoint in {directory.parent} has such parts: {named}") from error


def check_parts(saved: Iterable[SavedLanes]) -> None:
    """Proves every byte of lanes in parts.

    Raises:
      CheckpointError: A part is missing, torn, truncated or changed.
      WorkdirError: A file can't be read now.
    """
    folders = [lanes.folder / part.name for lanes in saved for part in lanes.parts]
    if folders:
        with ThreadPoolExecutor(_READERS) as pool:
            list(pool.map(read_proved, folders))


def remove_parts(directory: Path, kept: Container[str]) -> None:
    """Removes the parts of all checkpoints but these, as far as the disk lets it.

    Args:
      directory: of all parts.
      kept: names of the folders that stay.
    """
    with contextlib.suppress(OSError):
        for path in directory.iterdir() if is_held(directory) else ():
            # What has another name isn't of a sweep; the folder may be a link to a larger disk.
            if _TOKEN.fullmatch(path.name) and path.name not in kept:
                shutil.rmtree(path, ignore_errors=True)


class _Parts(Steps):
    def _reserve(self, arrays: Nested) -> None:
        """Reserves nothing: others write at the same time, and some file servers would get it all twice."""


@contextlib.contextmanager
def _staying(own: Path) -> Iterator[None]:
    """Says that a workdir went away while a folder in it was written, and leaves nothing where it was.

    Its lock is another process's, which would else say so.
    """
    folder = own.parent
    with writing(own, "write checkpoint"):
        held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with writing(own, "write checkpoint"):
            yield
    finally:
        try:
            if _is_gone(folder, held):
                _remove_made_anew(own)
                raise WorkdirError(f"{folder} was removed, moved or replaced while it was written")
        finally:
            os.close(held)


def _is_gone(folder: Path, held: int) -> bool:
    try:
        return not os.path.samestat(os.stat(folder), os.fstat(held))
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:  # that isn't known
        return False


def _remove_made_anew(own: Path) -> None:
    """Removes a folder that Orbax has made, and those above it up to the workdir if they are empty."""
    shutil.rmtree(own, ignore_errors=True)
    with contextlib.suppress(OSError):
        for path in own.parents[:5]:
            path.rmdir()


def _read_lanes(directory: Path, entry: Mapping[str, Any]) -> SavedLanes:
    parts = tuple(read_as(Part, part) for part in entry["parts"])
    if not (parts and all(_NAME.fullmatch(part.name) and part.lanes > 0 for part in parts)):
        raise ValueError
    if not _TOKEN.fullmatch(entry["folder"]):
        raise ValueError
    return SavedLanes(directory / entry["folder"], parts)


def _load_part(folder: Path, lanes: slice) -> dict[str, np.ndarray]:
    arrays, _ = load_folder(folder)
    if all(len(array) == lanes.stop - lanes.start for array in arrays.values()):
        return arrays
    # Copies, or all of the part would stay in memory.
    return {name: arrays.pop(name)[lanes].copy() for name in list(arrays)}
