"""Trees of image files: which of them are learned, and which are judged on."""

import dataclasses
import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hpjax.data.archives import find_archive, unpack
from hpjax.data.images import Picture, is_image
from hpjax.data.layout import CURE, LAYOUT, Layout, describe_content, find_layout
from hpjax.data.listing import is_folder, list_entries, walk_files
from hpjax.data.names import file_kind
from hpjax.data.splits import choose_held_out
from hpjax.errors import DataError

_MOST_NAMES = 8  # in a line
TEST_SHARE = 0.2  # of each class, where no folder has test images


@dataclass(frozen=True)
class Opened:
    """A folder of images that a user named, or what was unpacked of an archive.

    Attributes:
      folder: where it lies.
      remarks: what a user should know of it, a line each.
      left_out: how many entries of an archive were left in it, by kind.
    """

    folder: Path
    remarks: tuple[str, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Tree:
    """The image files of a tree.

    Attributes:
      root: the folder with all of them, or with those to learn from.
      classes: names, sorted.
      train: pictures to learn from, by class and name.
      test: pictures to be judged on, by class and name.
      files: path of every picture, relative to root.
      validation: pictures to select on, by class and name; empty where none are asked for or there.
      division: how test pictures were drawn from one folder: share and seed; empty where they weren't.
      remarks: what was decided that a user might not expect, a line each.
      left_out: how many files aren't among the pictures, by kind.
    """

    root: Path
    classes: tuple[str, ...]
    train: tuple[Picture, ...]
    test: tuple[Picture, ...]
    files: tuple[str, ...]
    validation: tuple[Picture, ...] = ()
    division: tuple[float | int, ...] = ()
    remarks: tuple[str, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)


def open_root(path: Path) -> Opened:
    """Returns a folder of images, unpacked where `path` is an archive or a folder with nothing but one.

    Raises:
      DataError: There is no such folder or archive, or it can't be read; says what was expected.
    """
    if (archive := find_archive(path)) is not None:
        unpacked = unpack(archive)
        return Opened(unpacked.folder, (f"{archive} is unpacked in {unpacked.folder}",), unpacked.left_out)
    if not os.path.isdir(path):
        state = "is no folder, zip or tar file" if os.path.exists(path) else "does not exist"
        unset = re.findall(r"\$\{?(\w+)", str(path))  # what is set was replaced already
        hint = f" (the variable {unset[0]} isn't set)" if unset else ""
        raise DataError(f"{path} {state}{hint}: expected a folder with {LAYOUT}")
    list_entries(path)
    return Opened(path)


def scan_tree(root: Path, seed: int = 0, validation: bool = False) -> Tree:
    """Lists the images of a tree; only files whose name says nothing are opened.

    Args:
      root: a folder, or an archive of one, that holds `train/<class>/*` and `test/<class>/*` under whichever
        of their usual names, or `train/<class>/*` alone, or `<class>/*`; all of it, and each of these, may
        lie in a folder of its own.
      seed: draws the test images where no folder has them.
      validation: whether images to select on are wanted, where a folder has them.

    Raises:
      DataError: A folder or class is missing, empty or unreadable; names it and what was expected.
    """
    opened = open_root(root)
    return scan_layout(find_layout(opened.folder), seed, validation, (opened,))


def scan_layout(
    layout: Layout, seed: int = 0, validation: bool = False, opened: tuple[Opened, ...] = ()
) -> Tree:
    """Lists the images of folders whose meaning is known.

    Args:
      layout: of the folders.
      seed: see `scan_tree`.
      validation: see `scan_tree`.
      opened: what the folders were found in; its remarks and counts are the tree's, too.

    Raises:
      DataError: See `scan_tree`.
    """
    left_out: Counter[str] = Counter()
    remarks = [remark for each in opened for remark in each.remarks]
    for each in opened:
        left_out.update(each.left_out)
    wanted = {"train": layout.train, "test": layout.test}
    if validation:
        wanted["validation"] = layout.validation
    folders = {split: folder for split, folder in wanted.items() if folder is not None}
    for folder in layout.around:
        _count_files(folder, left_out)
    found = {split: _scan_split(folder, layout, left_out) for split, folder in folders.items()}
    _check_classes(found, folders)
    classes = tuple(sorted(found["train"]))
    pictures = {split: _list_pictures(found[split], classes) for split in found}
    entries = [entry for split in found.values() for name in classes for entry in split[name]]
    tree = Tree(
        root=layout.root,
        classes=classes,
        train=pictures["train"],
        test=pictures.get("test", ()),
        validation=pictures.get("validation", ()),
        files=tuple(os.path.relpath(entry.path, layout.root) for entry in entries),
        remarks=(*remarks, *_describe(layout, validation)),
        left_out=+left_out,
    )
    return tree if layout.test else _divide(tree, layout.train, seed)


def _scan_split(folder: Path, layout: Layout, left_out: Counter[str]) -> dict[str, list[os.DirEntry]]:
    _count_files(folder, left_out)
    classes = {}
    for entry in filter(is_folder, list_entries(folder)):
        others: Counter[str] = Counter()
        images = _list_images(Path(entry.path), others)
        left_out.update(others)
        if images:
            classes[entry.name] = images
        elif folder == layout.root:  # beside classes lie folders of notes and tables
            left_out["folders without images"] += 1
        else:
            ignored = f" (its {sum(others.values())} other files are ignored)" if any(others.values()) else ""
            raise DataError(
                f"class folder {entry.path} holds no image{ignored}: expected files such as .jpg or .png"
            )
    if not classes:
        content = describe_content(folder)
        if folder == layout.root:
            raise DataError(f"folder {folder} holds {content}: expected {LAYOUT}; {CURE}")
        raise DataError(
            f"folder {folder} holds no class but {content}: expected a folder of images per class"
        )
    return classes


def _list_images(folder: Path, left_out: Counter[str]) -> list[os.DirEntry]:
    images = []
    for entry in walk_files(folder, left_out):
        if is_image(entry.path):
            images.append(entry)
        else:
            left_out[file_kind(entry.name)] += 1
    return images


def _count_files(folder: Path, left_out: Counter[str]) -> None:
    """Counts the files beside folders of splits or classes."""
    for entry in list_entries(folder, left_out):
        if not is_folder(entry):
            left_out["images outside a class" if is_image(entry.path) else file_kind(entry.name)] += 1


def _list_pictures(found: Mapping[str, list[os.DirEntry]], classes: tuple[str, ...]) -> tuple[Picture, ...]:
    entries = [(label, entry) for label, name in enumerate(classes) for entry in found[name]]
    return tuple(Picture(entry.path, label, Path(entry.path)) for label, entry in entries)


def _check_classes(found: Mapping[str, dict], folders: Mapping[str, Path]) -> None:
    for split in folders:
        for here, there in ((split, "train"), ("train", split)):
            for name in sorted(set(found[there]) - set(found[here])):
                raise DataError(
                    f"class {name!r} of {folders[there]} is missing from {folders[here]}: "
                    "expected the same classes in both"
                )
    if len(found["train"]) < 2:
        raise DataError(
            f"folder {folders['train']} holds the single class {next(iter(found['train']))!r}: "
            "expected at least 2"
        )


def _describe(layout: Layout, validation: bool) -> list[str]:
    remarks = []
    if layout.stands_in:
        remarks.append(f"{layout.test} is tested on: there are no other test images")
    if layout.validation:
        used = "is the validation split: none is held out of the training images"
        unused = "isn't used: data.validation_fraction=0 selects on no images"
        remarks.append(f"{layout.validation} {used if validation else unused}")
    if layout.unused:
        names = ", ".join(map(str, layout.unused[:_MOST_NAMES]))
        more = len(layout.unused) - _MOST_NAMES
        remarks.append(f"not used: {names}{f' and {more} more' if more > 0 else ''}")
    return remarks


def _divide(tree: Tree, folder: Path, seed: int) -> Tree:
    """Holds a share of each class out as the test split."""
    labels = np.array([picture.label for picture in tree.train], np.int32)
    for name, count in zip(tree.classes, np.bincount(labels), strict=True):
        if count < 2:
            raise DataError(
                f"class {name!r} of {folder} has {count} image: expected at least 2, as {TEST_SHARE:.0%} of "
                "each class are held out to test on"
            )
    held = choose_held_out(labels, TEST_SHARE, seed)
    train, test = (
        tuple(p for p, out in zip(tree.train, held, strict=True) if out == side) for side in (False, True)
    )
    remark = (
        f"{folder} has no test images of its own: {TEST_SHARE:.0%} of each class are held out for testing, "
        f"drawn with seed={seed}: {len(test):,} of {len(labels):,}"
    )
    return dataclasses.replace(
        tree, train=train, test=test, division=(TEST_SHARE, seed), remarks=(*tree.remarks, remark)
    )
