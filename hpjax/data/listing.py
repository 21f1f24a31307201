"""What lies in folders, links followed, without the clutter that systems and file managers leave."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from hpjax.data.images import has_image_suffix, is_image
from hpjax.data.names import is_clutter, is_hidden
from hpjax.errors import DataError

_MOST_LOOKED_AT = 5_000  # files and folders, to find out whether images are among them
_MOST_OPENED = 200  # of these, where the name says nothing


def list_entries(folder: Path, left_out: Counter[str] | None = None) -> list[os.DirEntry]:
    """Returns what a folder holds, sorted by name, without clutter and what is hidden.

    Args:
      folder: where to look.
      left_out: where hidden images are counted.

    Raises:
      DataError: The folder can't be read; names it and says why.
    """
    try:
        with os.scandir(folder) as entries:
            everything = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"folder {folder} can't be read: {error.strerror}") from error
    if left_out is not None:
        left_out["hidden images"] += sum(map(_is_hidden_image, everything))
    return [entry for entry in everything if not is_clutter(entry.name)]


def list_folders(folder: Path) -> list[Path]:
    """Returns the folders in a folder, sorted by name."""
    return [Path(entry.path) for entry in list_entries(folder) if is_folder(entry)]


def is_folder(entry: os.DirEntry) -> bool:
    """Returns whether an entry is a folder, or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def walk_files(
    folder: Path, left_out: Counter[str] | None = None, most: int | None = None
) -> Iterator[os.DirEntry]:
    """Yields every file in a folder and in those below it, each folder once however it is linked.

    Args:
      folder: where to begin.
      left_out: where hidden images are counted.
      most: files and folders after which it ends; None: never.
    """
    seen, waiting = set(), [folder]
    looked_at = 0
    while waiting and (most is None or looked_at < most):
        here = waiting.pop()
        if (identity := _identify(here)) in seen:
            continue
        seen.add(identity)
        folders = []
        for entry in list_entries(here, left_out):
            looked_at += 1
            if is_folder(entry):
                folders.append(Path(entry.path))
            else:
                yield entry
        waiting.extend(reversed(folders))


def has_images(folder: Path) -> bool:
    """Returns whether an image lies in a folder itself, not in one below it."""
    return any(is_image(entry.path) for entry in list_entries(folder) if not is_folder(entry))


def holds_images(folder: Path) -> bool:
    """Returns whether an image lies in a folder or below it, as far as that is to be seen in no time.

    Somebody may have named the root of a whole disk.
    """
    for number, entry in enumerate(walk_files(folder, most=_MOST_LOOKED_AT)):
        if has_image_suffix(entry.name) or (number < _MOST_OPENED and is_image(entry.path)):
            return True
    return False


def _is_hidden_image(entry: os.DirEntry) -> bool:
    # A name that begins with "._" is macOS's note on a file, not one.
    hidden = is_hidden(entry.name) and not entry.name.startswith("._")
    return hidden and has_image_suffix(entry.name)


def _identify(folder: Path) -> tuple[int, int]:
    try:
        status = os.stat(folder)
    except OSError as error:
        raise DataError(f"folder {folder} can't be read: {error.strerror}") from error
    return status.st_dev, status.st_ino
