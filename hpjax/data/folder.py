"""Trees of image files, a folder per split and in it a folder per class."""

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hpjax.data.images import SUFFIXES, Picture
from hpjax.errors import DataError

SPLIT_FOLDERS = (("seg_train", "seg_test"), ("train", "test"))
LAYOUT = "train/<class>/* and test/<class>/* (or seg_train and seg_test)"
_log = logging.getLogger(__name__)
_CLUTTER = frozenset({"thumbs.db", "desktop.ini", "__macosx"})


@dataclass(frozen=True)
class Tree:
    """The image files of a tree.

    Attributes:
      root: the folder that was asked for.
      classes: names, sorted.
      train: pictures to learn from, by class and name.
      test: pictures to be judged on, by class and name.
      files: `path relative to root, bytes, modification time in ns` of every picture.
    """

    root: Path
    classes: tuple[str, ...]
    train: tuple[Picture, ...]
    test: tuple[Picture, ...]
    files: tuple[tuple[str, int, int], ...]


def find_split_folders(root: Path) -> tuple[Path, Path] | None:
    """Returns the folders of the training and the test classes, or None where `root` has no such two."""
    for names in SPLIT_FOLDERS:
        train, test = (_unnest(root / name) for name in names)
        if os.path.isdir(train) and os.path.isdir(test):
            return train, test
    return None


def scan_tree(root: Path) -> Tree:
    """Lists the images of a tree without opening them.

    Args:
      root: holds `train/<class>/*` and `test/<class>/*`, or `seg_train` and `seg_test`, each of which may be
        nested once more, as in `seg_train/seg_train/<class>/*`.

    Raises:
      DataError: A folder or class is missing, empty or unreadable; names it and what was expected.
    """
    folders = _split_folders(root)
    found = [_scan_split(folder) for folder in folders]
    _check_classes(found, folders)
    classes = tuple(sorted(found[0]))
    files, splits = [], []
    for split in found:
        entries = [(label, entry) for label, name in enumerate(classes) for entry in split[name]]
        splits.append(tuple(Picture(entry.path, label, Path(entry.path)) for label, entry in entries))
        files.extend(_stamp(root, entry) for _, entry in entries)
    return Tree(root, classes, splits[0], splits[1], tuple(files))


def _unnest(folder: Path) -> Path:
    inner = folder / folder.name
    return inner if os.path.isdir(inner) else folder


def _split_folders(root: Path) -> tuple[Path, Path]:
    if not os.path.isdir(root):
        state = "is no folder" if os.path.exists(root) else "does not exist"
        raise DataError(f"{root} {state}: expected a folder with {LAYOUT}")
    entries = _entries(root)
    found = find_split_folders(root)
    if found is None:
        names = ", ".join([entry.name for entry in entries][:8]) or "nothing"
        raise DataError(f"folder {root} holds {names}: expected {LAYOUT}")
    return found


def _scan_split(folder: Path) -> dict[str, list[os.DirEntry]]:
    classes = {entry.name: _scan_class(Path(entry.path)) for entry in _entries(folder) if _is_folder(entry)}
    if not classes:
        raise DataError(f"folder {folder} holds no class: expected one folder of images per class")
    return classes


def _scan_class(folder: Path) -> list[os.DirEntry]:
    entries = _entries(folder)
    images = [e for e in entries if Path(e.name).suffix.lower() in SUFFIXES and not _is_folder(e)]
    others = len(entries) - len(images)
    if not images:
        ignored = f" (its {others} other files are ignored)" if others else ""
        raise DataError(f"class folder {folder} holds no image{ignored}: expected files such as .jpg or .png")
    if others:
        _log.info("%s: %d files that are no images are ignored", folder, others)
    return images


def _entries(folder: Path) -> list[os.DirEntry]:
    """Returns what a folder holds, sorted by name, without the clutter that file managers leave."""
    try:
        with os.scandir(folder) as entries:
            return sorted(filter(_counts, entries), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"folder {folder} can't be read: {error.strerror}") from error


def _is_folder(entry: os.DirEntry) -> bool:
    return os.path.isdir(entry.path)  # entry.is_dir() raises on a link to itself


def _counts(entry: os.DirEntry) -> bool:
    return not entry.name.startswith(".") and entry.name.lower() not in _CLUTTER


def _check_classes(found: list[dict], folders: tuple[Path, Path]) -> None:
    for name, folder, other in _missing(found, folders):
        raise DataError(
            f"class {name!r} of {other} is missing from {folder}: expected the same classes in both"
        )
    if len(found[0]) < 2:
        raise DataError(
            f"folder {folders[0]} holds the single class {next(iter(found[0]))!r}: expected at least 2"
        )


def _missing(found: list[dict], folders: tuple[Path, Path]) -> Iterator[tuple[str, Path, Path]]:
    for here, there in ((0, 1), (1, 0)):
        for name in sorted(set(found[there]) - set(found[here])):
            yield name, folders[here], folders[there]


def _stamp(root: Path, entry: os.DirEntry) -> tuple[str, int, int]:
    try:
        status = entry.stat()
    except OSError:  # a dangling link, say: decoding it will name it
        return os.path.relpath(entry.path, root), -1, -1
    return os.path.relpath(entry.path, root), status.st_size, status.st_mtime_ns
