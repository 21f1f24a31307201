"""Where images come from: a registry of functions from the configuration to images."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from hpjax.config import DataConfig, check_field
from hpjax.data import intel_scenes, synthetic, tfds_sets
from hpjax.data.cache import decode_source
from hpjax.data.folder import LAYOUT, find_split_folders, scan_tree
from hpjax.data.images import check_image_size
from hpjax.data.splits import Source, Split, content_digest, hold_out
from hpjax.errors import ConfigError, DataError

DEFAULT_DIR = "data"
DEFAULT_IMAGE_SIZE = 150
DIGITS_IMAGE_SIZE = 48  # the smallest round size that the reference network takes
SCENES_IMAGE_SIZE = 64  # of the synthetic ones: large enough for settings to differ, small enough to wait for
SYNTHETIC_EXAMPLES = (3_000, 600)  # training and test images where the configuration names none


def load_source(data: DataConfig) -> Source:
    """Returns all images of the configured source.

    Raises:
      ConfigError: There is no such source.
      DataError: The images can't be found or read; names the file or folder.
    """
    if data.image_size:
        check_image_size(data.image_size)
    check_field("data.on_bad_image", data.on_bad_image)
    prefix, _, name = check_field("data.name", data.name).partition(":")
    return _load_tfds(data, name) if prefix == "tfds" else SOURCES[data.name](data)


def load_auto(data: DataConfig) -> Source:
    """Returns the Intel images from `data.dir` or `data/`, else synthetic scenes with a notice."""
    places = [Path(place) for place in dict.fromkeys((data.dir, DEFAULT_DIR)) if place]
    for place in places:
        if intel_scenes.is_prepared(place) or find_split_folders(place):
            return _load_intel(data, place)
    searched = " and ".join(f"{place}/" for place in places)
    notice = (
        f"SYNTHETIC SCENES stand in for the Intel images: none were found in {searched}. "
        "Figures say nothing about real photographs."
    )
    return dataclasses.replace(load_synthetic_scenes(data), notice=notice)


def load_intel_scenes(data: DataConfig) -> Source:
    """Returns the Intel images, prepared by `hpjax.data.prepare` or straight from their folders."""
    root = Path(data.dir or DEFAULT_DIR)
    if not intel_scenes.is_prepared(root) and not find_split_folders(root):
        raise DataError(
            f"no Intel images in {root}: expected {LAYOUT}; "
            f"run `python -m hpjax.data.prepare --download --dir={root}`"
        )
    return _load_intel(data, root)


def load_folder(data: DataConfig) -> Source:
    """Returns the images of a tree with a folder per split and class."""
    if not data.dir:
        raise ConfigError("data.dir", data.dir, f"a folder with {LAYOUT}")
    return _load_tree(data, "folder", Path(data.dir))


def load_digits(data: DataConfig) -> Source:
    """Returns scikit-learn's 1,797 handwritten digits, enlarged; always the same fifth for testing."""
    from sklearn.datasets import load_digits as load

    pictures, labels = load(return_X_y=True)
    size = data.image_size or DIGITS_IMAGE_SIZE
    grey = np.rint(np.reshape(pictures, (-1, 8, 8)) * (255 / 16)).astype(np.uint8)
    large = np.stack([_resize(image, size) for image in grey])
    images = np.repeat(large[..., None], 3, axis=-1)
    train, test = hold_out(Split(images, np.asarray(labels, np.int32)), 0.2, seed=0)
    return _source("digits", tuple(str(d) for d in range(10)), train, test)


def load_synthetic_scenes(data: DataConfig) -> Source:
    """Returns drawn scenes of the six Intel classes; always the same for a size and number of examples."""
    size = data.image_size or SCENES_IMAGE_SIZE
    numbers = (data.max_train_examples, data.max_test_examples)
    counts = [number or default for number, default in zip(numbers, SYNTHETIC_EXAMPLES, strict=True)]
    _check_memory(sum(counts), size)
    train, test = (Split(*synthetic.draw_scenes(n, size, seed=i)) for i, n in enumerate(counts))
    return _source("synthetic_scenes", synthetic.CLASSES, train, test)


SOURCES: dict[str, Callable[[DataConfig], Source]] = {
    "auto": load_auto,
    "intel_scenes": load_intel_scenes,
    "folder": load_folder,
    "digits": load_digits,
    "synthetic_scenes": load_synthetic_scenes,
}


def _load_tree(data: DataConfig, name: str, root: Path) -> Source:
    tree = scan_tree(root)
    size = data.image_size or DEFAULT_IMAGE_SIZE
    key = [str(root.resolve()), tree.files]
    pictures = {"train": tree.train, "test": tree.test}
    return decode_source(name, tree.classes, pictures, size, key, data.on_bad_image)


def _load_intel(data: DataConfig, root: Path) -> Source:
    if not intel_scenes.is_prepared(root):
        return _load_tree(data, "intel_scenes", root)
    records = tfds_sets.open_records(intel_scenes.create_builder(root))
    return _load_records(data, "intel_scenes", records)


def _load_tfds(data: DataConfig, name: str) -> Source:
    return _load_records(data, data.name, tfds_sets.open_records(tfds_sets.create_builder(name, data.dir)))


def _load_records(data: DataConfig, name: str, records: tfds_sets.Records) -> Source:
    size = data.image_size or records.image_size or DEFAULT_IMAGE_SIZE
    pictures = {"train": records.train, "test": records.test}
    return decode_source(name, records.classes, pictures, size, records.key, data.on_bad_image)


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


def _resize(grey: np.ndarray, size: int) -> np.ndarray:
    return np.asarray(Image.fromarray(grey).resize((size, size), Image.Resampling.BILINEAR))
