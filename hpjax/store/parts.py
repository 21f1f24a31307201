"""Lanes that were written by whoever trains them: parts of a population's checkpoint, which names them.

A checkpoint of lanes on many machines would not fit into one of them. Each writes its own lanes into the
workdir then, where it sees it; the checkpoint has the names, and appears only when all parts are on disk.
"""

import re
import secrets
import shutil
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hpjax.errors import CheckpointError
from hpjax.store.ledger import check_files, read_ledger
from hpjax.store.lock import is_held, writing
from hpjax.store.steps import Steps, load_folder
from hpjax.store.typed import read_as
from hpjax.store.workdir import sync_folder

FOLDER = "lanes"  # of all parts, beside the checkpoints that name them
KEY = "parts"  # of a ledger
_PREFIX = "part"
_NAME = re.compile(rf"([0-9a-f]{{16}})/[0-9a-f]{{16}}/{_PREFIX}_[0-9]+")
_READERS = 8  # threads that prove parts: a file server gives several more than one


@dataclass(frozen=True)
class Part:
    """Some lanes in a folder of their own.

    Attributes:
      name: of the folder, from that of all parts on; no other part ever has it.
      lanes: how many.
    """

    name: str
    lanes: int

    @property
    def folder(self) -> str:
        """The folder of all parts that were written for the same checkpoint."""
        return self.name.partition("/")[0]


@dataclass(frozen=True)
class SavedLanes:
    """A group's lanes, in parts.

    Attributes:
      directory: of all parts.
      parts: in the order of the lanes.
    """

    directory: Path
    parts: tuple[Part, ...]

    @property
    def folders(self) -> list[Path]:
        """The folders that the parts lie in, of all the checkpoints that they were written for."""
        return [self.directory / name for name in sorted({part.folder for part in self.parts})]

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
            here = slice(max(first - begin, 0), max(last - begin, 0))
            begin += part.lanes
            if here.start < min(here.stop, part.lanes):
                arrays, _ = load_folder(self.directory / part.name)
                # Copies: one whole part at a time is in memory.
                found.append({name: array[here].copy() for name, array in arrays.items()})
        return {name: np.concatenate([arrays[name] for arrays in found]) for name in found[0]}


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
    with writing(own, "write checkpoint"):
        own.mkdir()
    with Steps(own, _PREFIX, digits=1, limit=1) as steps:
        steps.write(number, dict(arrays), {})
        name = steps.folder(number).relative_to(folder.parent).as_posix()
    sync_folder(folder)
    return Part(name, len(next(iter(arrays.values()))))


def describe_parts(saved: Mapping[str, SavedLanes]) -> dict[str, list[dict[str, Any]]]:
    """Returns what a ledger says of lanes in parts; `read_parts` reads it."""
    return {name: [asdict(part) for part in lanes.parts] for name, lanes in saved.items()}


def read_parts(directory: Path, ledger: Mapping[str, Any]) -> dict[str, SavedLanes]:
    """Returns the lanes in parts that a ledger names; nothing of them is read.

    Raises:
      CheckpointError: That isn't what a checkpoint of this version says.
    """
    try:
        return {
            name: SavedLanes(directory, tuple(_read_part(part) for part in parts))
            for name, parts in ledger.get(KEY, {}).items()
        }
    except (ValueError, TypeError, AttributeError) as error:
        named = ledger.get(KEY)
        raise CheckpointError(f"no checkpoint in {directory.parent} has such parts: {named}") from error


def check_parts(saved: Iterable[SavedLanes]) -> None:
    """Proves every byte of lanes in parts.

    Raises:
      CheckpointError: A part is missing, torn, truncated or changed.
      WorkdirError: A file can't be read now.
    """
    folders = [lanes.directory / part.name for lanes in saved for part in lanes.parts]
    if folders:
        with ThreadPoolExecutor(_READERS) as pool:
            list(pool.map(_check_part, folders))


def remove_parts(directory: Path, kept: Iterable[str]) -> None:
    """Removes the parts of all checkpoints but these, as far as the disk lets it.

    Args:
      directory: of all parts.
      kept: what `Part.folder` says of those that stay.
    """
    if is_held(directory) and directory.is_dir() and not directory.is_symlink():
        for path in directory.iterdir():
            if path.name not in kept and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)


def _read_part(values: Any) -> Part:
    part = read_as(Part, values)
    if not _NAME.fullmatch(part.name) or part.lanes < 1:
        raise ValueError
    return part


def _check_part(folder: Path) -> None:
    if not folder.is_dir():
        raise CheckpointError(f"there is no checkpoint {folder}")
    check_files(folder, read_ledger(folder).files)
