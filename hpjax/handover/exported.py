"""Exported models, read back: files and numbers alone, no code of anybody's."""

import hashlib
import math
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np

from hpjax.data.deep import Scale
from hpjax.data.images import check_image_size
from hpjax.errors import DataError, ModelError, text_of
from hpjax.handover.about import ABOUT, FORWARD, About, name_network, read_about
from hpjax.handover.forward import load_forward
from hpjax.store.files import read_file
from hpjax.trained.classifier import Classifier, Forward


def is_exported(folder: Path) -> bool:
    """Returns whether a folder holds an exported model."""
    return os.path.isfile(folder / ABOUT)  # False also where it can't be looked at


def load_exported(folder: Path) -> Classifier:
    """Returns an exported model, with its preprocessing.

    Raises:
      ModelError: Something in the folder isn't what was exported.
      WorkdirError: A file can't be read.
    """
    about = read_about(folder)
    file = folder / FORWARD
    content = read_file(file, 1 << 36)
    if hashlib.sha256(content).hexdigest() != about.files.get(FORWARD):
        raise ModelError(f"{file} is damaged: its SHA-256 isn't the one in {ABOUT}; export the model again")
    size, scale = _read_preprocessing(about, folder / ABOUT)
    name = name_network(str(about.network.get("name", "model"))[:99])
    forward = _check_forward(_load(content, file), size, len(about.classes), file)
    return Classifier(f"{name} of {folder}", tuple(about.classes), size, scale, forward)


def _load(content: bytes, file: Path) -> Forward:
    try:
        return load_forward(content)
    except Exception as error:  # flatbuffers and jax raise nearly anything
        raise ModelError(f"{file} can't be loaded by jax {jax.__version__}: {text_of(error, 300)}") from error


def _check_forward(forward: Forward, size: int, classes: int, file: Path) -> Forward:
    """Tries a forward pass on one image."""
    try:
        logits = np.asarray(forward(np.zeros((1, size, size, 3), np.float32)))
    except Exception as error:
        raise ModelError(f"{file} doesn't go with {ABOUT}: {text_of(error, 300)}") from error
    if logits.shape != (1, classes):
        raise ModelError(f"{file} gives {list(logits.shape)} logits of an image: expected [1, {classes}]")
    return forward


def _read_preprocessing(about: About, file: Path) -> tuple[int, Scale | None]:
    size, ends = about.preprocessing.get("image_size"), about.preprocessing.get("deep_images")
    try:
        if type(size) is not int or size > 1 << 16:
            raise ValueError(f"preprocessing.image_size can't be {str(size)[:99]}")
        check_image_size(size)
        return size, None if ends is None else _read_scale(ends)
    except (ValueError, KeyError, TypeError, DataError) as error:
        raise ModelError(f"{file} isn't what hpjax.export wrote: {text_of(error, 300)}") from error


def _read_scale(ends: dict[str, Any]) -> Scale:
    low, high = float(ends["black"]), float(ends["white"])
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError("preprocessing.deep_images is no range of numbers")
    return Scale(low, high, remark="")
