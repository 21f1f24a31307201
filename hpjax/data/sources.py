"""Where images come from: a registry of functions from the configuration to images."""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hpjax.config import DataConfig, check_field
from hpjax.data import intel_scenes, synthetic, tfds_sets
from hpjax.data.archives import find_archive
from hpjax.data.cache import decode_source
from hpjax.data.folder import Tree, open_root, scan_layout, scan_tree
from hpjax.data.images import Size, check_image_size, image_shape, reshape_image
from hpjax.data.layout import LAYOUT, Layout, find_classes, has_splits
from hpjax.data.listing import holds_images
from hpjax.data.own import is_arrays, load_own
from hpjax.data.splits import Source, Split, content_digest, hold_out
from hpjax.errors import ConfigError, DataError
from hpjax.tasks import ANY, CLASSES

DEFAULT_DIR = "data"
DEFAULT_IMAGE_SIZE = 150
DIGITS_IMAGE_SIZE = 48  # the smallest round size that the reference network takes
SCENES_IMAGE_SIZE = 64  # of the synthetic ones: large enough for settings to differ, small enough to wait for
_WITHOUT_FOLDER = ("digits", "synthetic_scenes")
SYNTHETIC_EXAMPLES = (3_000, 600)  # training and test images where the configuration names none


def load_source(data: DataConfig, seed: int = 0, kind: str = CLASSES, given: Any = None) -> Source:
    """Returns all images of the configured source.

    Args:
      data: the configuration.
      seed: draws the test images of folders that have none.
      kind: of the targets, as in `hpjax.tasks`.
      given: arrays that were given in a call, for `data.name=arrays`.

    Raises:
      ConfigError: There is no such source, or its targets are of another kind.
      DataError: The images can't be found or read; names the file or folder.
    """
    if is_arrays(data.name):
        return load_own(data, kind, given)
    if kind not in (CLASSES, ANY):
        own = "FILE.py:FUNCTION, npz:PATH or arrays"
        raise ConfigError("data.name", data.name, f"{own} with this task.loss: its targets are classes")
    if data.image_size:
        check_image_size(min(data.image_size) if isinstance(data.image_size, tuple) else data.image_size)
    check_field("data.on_bad_image", data.on_bad_image)
    prefix, _, name = check_field("data.name", data.name).partition(":")
    if prefix == "tfds":
        return _load_tfds(data, name)
    source = SOURCES[data.name](data, seed)
    if data.dir and data.name in _WITHOUT_FOLDER:
        remark = f"data.dir={data.dir!r} isn't read: data.name={data.name} has images of its own"
        source = dataclasses.replace(source, remarks=(*source.remarks, remark))
    return source


def load_auto(data: DataConfig, seed: int) -> Source:
    """Returns what `data.dir` or `data.train` names, the Intel images in `data/`, or synthetic scenes."""
    if data.train:
        return load_folder(data, seed)
    if data.dir:
        return _load_intel(data, seed)
    place = Path(DEFAULT_DIR)
    if intel_scenes.is_prepared(place) or has_splits(place):
        return _load_intel(data, seed)
    notice = (
        f"SYNTHETIC SCENES stand in for the Intel images: none were found in {place}/. "
        "Figures say nothing about real photographs."
    )
    return dataclasses.replace(load_synthetic_scenes(data, seed), notice=notice)


def load_intel_scenes(data: DataConfig, seed: int) -> Source:
    """Returns the Intel images, prepared by `hpjax.data.prepare` or straight from their folders."""
    root = Path(data.dir or DEFAULT_DIR)
    there = find_archive(root) or (os.path.isdir(root) and holds_images(root))
    if not there and not intel_scenes.is_prepared(root):
        raise DataError(
            f"no Intel images in {root}: expected {LAYOUT}; "
            f"run `python -m hpjax.data.prepare --download --dir={root}`"
        )
    return _load_intel(data, seed)


def load_folder(data: DataConfig, seed: int) -> Source:
    """Returns the images of a tree with a folder per class, and perhaps per split."""
    if not (data.dir or data.train):
        raise ConfigError("data.dir", data.dir, f"a folder with {LAYOUT}")
    return _load_tree(data, "folder", seed)


def load_digits(data: DataConfig, seed: int) -> Source:
    """Returns scikit-learn's 1,797 handwritten digits, enlarged; always the same fifth for testing."""
    from sklearn.datasets import load_digits as load

    pictures, labels = load(return_X_y=True)
    height, width, channels = image_shape(_choose_size(data, DIGITS_IMAGE_SIZE))
    grey = np.rint(np.reshape(pictures, (-1, 8, 8)) * (255 / 16)).astype(np.uint8)
    large = np.stack([_resize(image, height, width) for image in grey])
    images = np.repeat(large[..., None], channels, axis=-1)
    train, test = hold_out(Split(images, np.asarray(labels, np.int32)), 0.2, seed=0)
    return _source("digits", tuple(str(d) for d in range(10)), train, test)


def load_synthetic_scenes(data: DataConfig, seed: int) -> Source:
    """Returns drawn scenes of the six Intel classes; always the same for a size and number of examples."""
    shape = _choose_size(data, SCENES_IMAGE_SIZE)
    size = max(image_shape(shape)[:2])
    numbers = (data.max_train_examples, data.max_test_examples)
    counts = [number or default for number, default in zip(numbers, SYNTHETIC_EXAMPLES, strict=True)]
    _check_memory(sum(counts), size)
    train, test = (Split(*synthetic.draw_scenes(n, size, seed=i)) for i, n in enumerate(counts))
    if isinstance(shape, tuple):
        train, test = (
            Split(np.stack([reshape_image(image, shape) for image in split.images]), split.labels)
            for split in (train, test)
        )
    return _source("synthetic_scenes", synthetic.CLASSES, train, test)


SOURCES: dict[str, Callable[[DataConfig, int], Source]] = {
    "auto": load_auto,
    "intel_scenes": load_intel_scenes,
    "folder": load_folder,
    "digits": load_digits,
    "synthetic_scenes": load_synthetic_scenes,
}


def _load_tree(data: DataConfig, name: str, seed: int) -> Source:
    tree = _scan_named(data, seed) if data.train else _scan_dir(data, seed)
    if data.name == "auto" and tree.classes != intel_scenes.CLASSES:
        name = "folder"  # a tree of somebody's own
    size = _choose_size(data, DEFAULT_IMAGE_SIZE)
    key = [str(tree.root.resolve()), tree.files, tree.division]
    pictures = {"train": tree.train, "test": tree.test}
    if tree.validation:
        pictures["validation"] = tree.validation
    source = decode_source(name, tree.classes, pictures, size, key, data.on_bad_image)
    return dataclasses.replace(source, remarks=tree.remarks + source.remarks, left_out=tree.left_out)


def _scan_dir(data: DataConfig, seed: int) -> Tree:
    with _naming("data.dir", data.dir):
        return scan_tree(Path(data.dir or DEFAULT_DIR), seed, validation=data.validation_fraction > 0)


def _scan_named(data: DataConfig, seed: int) -> Tree:
    opened, classes = [], []
    for key, value in (("data.train", data.train), ("data.test", data.test)):
        if value:
            with _naming(key, value):
                opened.append(open_root(Path(value)))
                classes.append(find_classes(opened[-1].folder))
    if len(classes) == 2 and os.path.samefile(*classes):
        raise ConfigError("data.test", data.test, f"another folder than data.train={data.train!r}")
    with _naming("data.test" if data.test else "data.train", data.test or data.train):
        return scan_layout(Layout(classes[0], *classes), seed, opened=tuple(opened))


@contextlib.contextmanager
def _naming(key: str, value: str) -> Iterator[None]:
    """Says which field of the configuration named what isn't as expected."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{key}={value!r} is not allowed: {error}" if value else str(error)) from error


def _load_intel(data: DataConfig, seed: int) -> Source:
    root = Path(data.dir or DEFAULT_DIR)
    if not intel_scenes.is_prepared(root):
        return _load_tree(data, "intel_scenes", seed)
    records = tfds_sets.open_records(intel_scenes.create_builder(root))
    return _load_records(data, "intel_scenes", records)


def _load_tfds(data: DataConfig, name: str) -> Source:
    return _load_records(data, data.name, tfds_sets.open_records(tfds_sets.create_builder(name, data.dir)))


def _load_records(data: DataConfig, name: str, records: tfds_sets.Records) -> Source:
    size = _choose_size(data, records.image_size or DEFAULT_IMAGE_SIZE)
    pictures = {"train": records.train, "test": records.test}
    remarks, key = records.remarks, records.key
    if records.validation is not None and data.validation_fraction > 0:
        pictures["validation"] = records.validation
        key = [*key, "validation"]
        remarks += (f"{name} has a validation split: none is held out of the training images",)
    elif records.validation is not None:
        remarks += (f"{name}'s validation split isn't used: data.validation_fraction=0 selects on no images",)
    source = decode_source(name, records.classes, pictures, size, key, data.on_bad_image)
    return dataclasses.replace(source, remarks=remarks + source.remarks)


def _source(name: str, classes: tuple[str, ...], train: Split, test: Split) -> Source:
    return Source(name, classes, train, test, content_digest(classes, train, test))


def _check_memory(num_images: int, size: int) -> None:
    needed, there = 3 * num_images * size**2, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        raise DataError(
            f"{num_images:,} synthetic images of {size} pixels take {needed / 2**30:,.0f} GiB, "
            f"the machine has {there / 2**30:,.0f}: lower data.max_train_examples, "
            "data.max_test_examples or data.image_size"
        )


def _resize(grey: np.ndarray, height: int, width: int) -> np.ndarray:
    return np.asarray(Image.fromarray(grey).resize((width, height), Image.Resampling.BILINEAR))


def _choose_size(data: DataConfig, default: int) -> Size:
    """Returns what images are decoded to: squares in colours where nothing else is asked for."""
    size: Any = data.image_size or default
    if data.channels != 1 and not isinstance(size, tuple):
        return size
    height, width = size if isinstance(size, tuple) else (size, size)
    return height, width, data.channels or 3
