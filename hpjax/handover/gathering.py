"""The images that a user asks about: files, and folders that may have a folder per class."""

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from hpjax.config.paths import expand_path
from hpjax.data.images import Picture, is_image
from hpjax.data.layout import find_classes
from hpjax.data.listing import list_folders, walk_files
from hpjax.errors import DataError

UNKNOWN = -1  # the label of an image whose class nothing says


class Gathered(NamedTuple):
    """Images in the order in which they were named, those of a folder sorted.

    Attributes:
      pictures: with the indices of their classes as labels, or `UNKNOWN`.
      remarks: what a user might not expect, a line each.
    """

    pictures: list[Picture]
    remarks: list[str]


def gather(paths: Sequence[str], classes: Sequence[str]) -> Gathered:
    """Returns the images that paths name.

    A folder in which folders are called as classes says of what class the images in these are.

    Args:
      paths: image files and folders.
      classes: names, in the order of the labels.

    Raises:
      DataError: One doesn't exist, can't be read, or holds no image.
    """
    gathered = Gathered([], [])
    for text in paths:
        path = Path(expand_path(text))
        if os.path.isdir(path):
            _add_folder(path, classes, gathered)
        elif os.path.lexists(path):
            gathered.pictures.append(Picture(str(path), UNKNOWN, path))
        else:
            raise DataError(f"{path} doesn't exist: expected an image, or a folder of images")
    return gathered


def _add_folder(folder: Path, classes: Sequence[str], gathered: Gathered) -> None:
    named = {path.name: path for path in list_folders(_unwrap(folder, classes)) if path.name in classes}
    pictures = []
    for name, inside in sorted(named.items()):
        pictures += _list_pictures(inside, classes.index(name))
    is_named = _make_is_inside({os.path.realpath(path) for path in named.values()})
    others = [
        picture for picture in _list_pictures(folder, UNKNOWN) if not is_named(Path(picture.name).parent)
    ]
    if not pictures and not others:
        raise DataError(f"{folder} holds no image")
    if pictures and others:
        gathered.remarks.append(
            f"{len(others):,} images of {folder} are in no folder of a class, e.g. {others[0].name}"
        )
    gathered.pictures.extend(pictures + others)


def _unwrap(folder: Path, classes: Sequence[str]) -> Path:
    """Returns the folder with those of the classes: the one that was named, or one in it that it wraps."""
    if any(path.name in classes for path in list_folders(folder)):
        return folder
    try:
        return find_classes(folder)
    except DataError:  # of splits: it isn't clear which
        return folder


def _list_pictures(folder: Path, label: int) -> list[Picture]:
    paths = sorted(entry.path for entry in walk_files(folder) if is_image(entry.path))
    return [Picture(path, label, Path(path)) for path in paths]


def _make_is_inside(folders: set[str]) -> Callable[[Path], bool]:
    """Returns `f(path)`: whether a folder is one of these, or lies in one; asked once for each."""

    @functools.cache
    def is_inside(path: Path) -> bool:
        return os.path.realpath(path) in folders or (path.parent != path and is_inside(path.parent))

    return is_inside
