"""Draws folder trees of images: layouts, spellings, wrapping folders, kinds of files; and what is in them."""

import io
import os
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from hypothesis import strategies as st
from PIL import Image

TRAINS = ("train", "Training", "train_set", "TRAIN_IMAGES", "seg_train", "birds-train")
TESTS = ("test", "Testing", "test_set", "TEST_IMAGES", "seg_test", "birds-test")
VALIDATIONS = ("val", "Validation", "valid_set", "VAL_IMAGES", "seg_val", "birds-val")
CLASSES = ("cat", "Dog", "ü x", "a.b", "7", "n" * 60)
if sys.getfilesystemencoding() == "ascii":  # no file can have such a name there
    CLASSES = tuple(name for name in CLASSES if name.isascii())
FORMATS = {".png": "PNG", ".PNG": "PNG", ".jpg": "JPEG", ".JPEG": "JPEG", ".gif": "GIF", ".bmp": "BMP"}
FORMATS |= {
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".avif": "AVIF",
    ".jp2": "JPEG2000",
    ".ppm": "PPM",
    ".tga": "TGA",
}
SUFFIXLESS = {"": "PNG", ".": "JPEG", ".dat": "AVIF", ".1": "JPEG2000", ".old": "GIF"}
OTHERS = (".txt", ".csv", ".json", ".xml", "")
CLUTTER = (
    "@eaDir",
    "lost+found",
    "$RECYCLE.BIN",
    "System Volume Information",
    "__MACOSX",
    ".ipynb_checkpoints",
)


def encode(format: str) -> bytes:
    """Returns a small picture."""
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (10, 9, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, format)
    return buffer.getvalue()


CONTENTS = {format: encode(format) for format in {*FORMATS.values(), *SUFFIXLESS.values()}}
CONTENTS[""] = b"no image\n"


@dataclass
class Planted:
    """A tree that was drawn.

    Attributes:
      files: format by path; empty: no image; `link`: a link to the image beside it.
      images: paths of the images of each split and class.
      others: how many files of each split are none, by kind.
      names: of the split folders.
    """

    files: dict[str, str] = field(default_factory=dict)
    images: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    others: dict[str, Counter] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    def write(self, root: Path) -> None:
        """Writes the files below `root`."""
        for name, format in self.files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if format == "link":
                os.symlink("0.png", path)
            else:
                path.write_bytes(CONTENTS[format])

    def left_out(self, validation: bool) -> Counter:
        """Returns how many files of all splits that are read are no images, by kind."""
        read = [split for split in self.others if validation or split != "validation"]
        return sum((self.others[split] for split in read), Counter())


@st.composite
def planted_trees(draw, layouts=("both", "three", "validation", "train", "flat")) -> Planted:
    """A tree that is to be read, in any of the layouts."""
    tree, layout = Planted(), draw(st.sampled_from(layouts))
    spelling = draw(st.integers(0, len(TRAINS) - 2))  # the last one is a name only beside its like
    paired = draw(st.integers(0, len(TRAINS) - 1))
    splits = {
        "both": {"train": TRAINS[paired], "test": TESTS[paired]},
        "three": {"train": TRAINS[paired], "test": TESTS[paired], "validation": VALIDATIONS[paired]},
        "validation": {"train": TRAINS[paired], "test": VALIDATIONS[paired]},
        "train": {"train": TRAINS[spelling]},
        "flat": {"train": ""},
    }[layout]
    around = "".join(
        f"{name}/" for name in draw(st.lists(st.sampled_from(("images", "in side")), max_size=2))
    )
    again = layout != "flat" and draw(st.booleans())  # seg_train/seg_train
    classes = draw(st.lists(st.sampled_from(CLASSES), min_size=2, max_size=3, unique=True))
    for split, name in splits.items():
        inner = around + (f"{name}/{name}/" if again else f"{name}/" if name else "")
        tree.others[split] = Counter()
        for label in classes:
            tree.images[split, label] = set()
            _plant_class(draw, tree, split, label, f"{inner}{label}/")
        if draw(st.booleans()):
            _plant_other(tree, split, f"{inner}notes.txt")
    for clutter in draw(st.lists(st.sampled_from(CLUTTER), max_size=2, unique=True)):
        tree.files[f"{around}{clutter}/cat/1.png"] = "PNG"
    tree.names = splits
    return tree


def _plant_class(draw, tree: Planted, split: str, label: str, folder: str) -> None:
    images = tree.images[split, label]
    suffixes = [".png", ".png", *draw(st.lists(st.sampled_from((*FORMATS, *SUFFIXLESS)), max_size=3))]
    for i, suffix in enumerate(suffixes):
        inside = folder if i < 2 else folder + draw(st.sampled_from(("", "more/", "more/and more/")))
        path = f"{inside}{i}{suffix}"
        tree.files[path] = (FORMATS | SUFFIXLESS)[suffix]
        images.add(path)
    for i, suffix in enumerate(draw(st.lists(st.sampled_from(OTHERS), max_size=2))):
        _plant_other(tree, split, f"{folder}note{i}{suffix}")
    if draw(st.booleans()):
        tree.files[f"{folder}link.png"] = "link"
        images.add(f"{folder}link.png")
    if draw(st.booleans()):
        tree.files[f"{folder}.hidden.png"] = "PNG"
        tree.others[split]["hidden images"] += 1
    if draw(st.booleans()):
        tree.files |= {f"{folder}@eaDir/0.png": "PNG", f"{folder}._0.png": ""}


def _plant_other(tree: Planted, split: str, path: str) -> None:
    tree.files[path] = ""
    tree.others[split][Path(path).suffix or "without suffix"] += 1
