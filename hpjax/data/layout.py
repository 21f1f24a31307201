"""How a tree of images is laid out: folders of splits with their classes in them, or classes alone."""

import itertools
import logging
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from hpjax.data.listing import has_images, holds_images, list_entries, list_folders
from hpjax.data.names import TEST, TRAIN, VALIDATION, split_role
from hpjax.errors import DataError

log = logging.getLogger("hpjax")

LAYOUT = "train/<class>/* and test/<class>/*, or train/<class>/* or <class>/* alone"
CURE = "data.train and data.test name folders outright"
_MOST_WRAPPERS = 3  # folders that hold but one folder, around the one with the splits or classes


class Layout(NamedTuple):
    """Where the classes of each split lie.

    Attributes:
      root: the folder whose parts these are, wrapping folders taken off.
      train: holds a folder per class to learn.
      test: the same of images to be judged on; None: there is none.
      validation: the same of images to select on; None: there is none.
      unused: folders beside these that no image is taken from.
      around: the folders that these lie in.
      stands_in: whether `test` is by its name a validation folder, and there is none of test images.
    """

    root: Path
    train: Path
    test: Path | None = None
    validation: Path | None = None
    unused: tuple[Path, ...] = ()
    around: tuple[Path, ...] = ()
    stands_in: bool = False


def has_splits(root: Path) -> bool:
    """Returns whether a folder has, by their names, folders of training and of test or validation images."""
    try:
        roles = _group_by_role(list_folders(root))
    except DataError:
        return False
    return TRAIN in roles and len(roles) > 1


def find_layout(root: Path) -> Layout:
    """Returns where the splits and classes of a folder lie.

    Raises:
      DataError: A folder can't be read, or it isn't clear which of several is meant; says what to do.
    """
    around: list[Path] = []
    beside: list[Path] = []
    while (layout := _find_splits(root, list_folders(root))) is None:
        holding = [folder for folder in list_folders(root) if holds_images(folder)]
        wraps = len(holding) == 1 and _is_wrapper(holding[0]) and not has_images(root)
        if not wraps or len(around) == _MOST_WRAPPERS:
            layout = Layout(root, root)
            _warn_of_splits(holding)
            break
        around.append(root)
        beside += [folder for folder in list_folders(root) if folder != holding[0]]
        root = holding[0]
    return layout._replace(around=(*around, *layout.around), unused=(*beside, *layout.unused))


def _warn_of_splits(classes: list[Path]) -> None:
    """Says where classes look like splits whose names aren't known: years of photographs do, too."""
    inner = [tuple(folder.name for folder in list_folders(of)) for of in classes]
    if len(classes) > 1 and len(inner[0]) > 1 and len(set(inner)) == 1 and not any(map(has_images, classes)):
        told = "%s are taken for classes, each with images in %s: if they are splits, %s"
        log.warning(told, _names(classes), ", ".join(inner[0][:3]) + "/ …", CURE)


def find_classes(folder: Path) -> Path:
    """Returns the folder that has the classes of a split: `folder`, or one that it merely wraps.

    Raises:
      DataError: A folder can't be read, or holds splits instead of classes.
    """
    folder = _unwrap(folder).folder
    if has_splits(folder):
        raise DataError(
            f"{folder} holds {_names(list_folders(folder))}: expected a folder of images per class "
            "(data.dir takes a folder of splits)"
        )
    return folder


def _find_splits(root: Path, folders: list[Path]) -> Layout | None:
    """Returns the layout by the names of a root's folders; None where these are no names of splits."""
    roles = _group_by_role(folders)
    named = list(itertools.chain.from_iterable(roles.values()))
    others = [folder for folder in folders if folder not in named]
    paired = TRAIN in roles and len(roles) > 1
    if not paired and _are_classes(named, others):
        return None
    if not roles:
        return None
    if TRAIN not in roles:
        raise DataError(f"{root} holds {_names(named)} but no training images: expected {LAYOUT}; {CURE}")
    for role, members in roles.items():
        if len(members) > 1:
            raise DataError(f"{root} holds {_names(members)}, which all say {role}: {CURE}")
    train = roles[TRAIN][0]
    if not paired:
        if beside := [folder for folder in others if holds_images(folder)]:
            raise DataError(f"{root} holds {_names([train, *beside])}, but no test folder by name: {CURE}")
        if has_splits(train):
            return find_layout(train)
    ends = [role for role in (TEST, VALIDATION) if role in roles]  # the first of them is tested on
    layout = _unwrap_all(root, [train, *(roles[role][0] for role in ends)], others)
    return layout._replace(stands_in=ends[:1] == [VALIDATION])


def _unwrap_all(root: Path, splits: list[Path], others: list[Path]) -> Layout:
    inner = [_unwrap(folder) for folder in splits]
    train, *ends = (each.folder for each in inner)
    test, validation = [*ends, None, None][:2]
    unused = [*others, *itertools.chain.from_iterable(each.unused for each in inner)]
    around = [root, *itertools.chain.from_iterable(each.around for each in inner)]
    return Layout(root, train, test, validation, tuple(unused), tuple(around))


def _group_by_role(folders: list[Path]) -> dict[str, list[Path]]:
    """Returns the folders of each role; further words in names, as in `birds_train`, have to agree."""
    found: dict[tuple[str, ...], dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for folder in folders:
        role, others = split_role(folder.name)
        if role:
            found[others][role].append(folder)
    roles: dict[str, list[Path]] = defaultdict(list)
    for others, members in found.items():
        if not others or (TRAIN in members and len(members) > 1):
            for role, several in members.items():
                roles[role].extend(several)
    return dict(roles)


def _are_classes(named: list[Path], others: list[Path]) -> bool:
    """Returns whether names of splits are those of classes: a `train` full of images beside a `bus`."""
    return not any(list_folders(folder) for folder in named) and any(map(holds_images, others))


class _Inner(NamedTuple):
    folder: Path
    unused: list[Path]
    around: list[Path]


def _unwrap(folder: Path) -> _Inner:
    """Returns the innermost of folders that merely wrap another one, and what lies unused beside those."""
    unused: list[Path] = []
    around: list[Path] = []
    for _ in range(_MOST_WRAPPERS):
        folders = list_folders(folder)
        same = folder / folder.name  # archives often repeat the name: seg_train/seg_train
        inner = folders[0] if len(folders) == 1 else same if same in folders else None
        if inner is None or has_images(folder) or not _is_wrapper(inner):
            break
        unused += [other for other in folders if other != inner]
        around.append(folder)
        folder = inner
    return _Inner(folder, unused, around)


def _is_wrapper(folder: Path) -> bool:
    return bool(list_folders(folder)) and not has_images(folder)


def _names(folders: list[Path], most: int = 8) -> str:
    names = [f"{folder.name}/" for folder in folders[:most]]
    return ", ".join([*names, f"{len(folders) - most} more"] if len(folders) > most else names)


def describe_content(folder: Path) -> str:
    """Returns the first names in a folder, in words."""
    return ", ".join([entry.name for entry in list_entries(folder)][:8]) or "nothing"
