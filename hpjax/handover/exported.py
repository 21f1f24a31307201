"""Exported models, read back: files and numbers alone, no code of anybody's."""

import hashlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from hpjax.data.deep import Scale
from hpjax.errors import ModelError, text_of
from hpjax.handover.about import ABOUT, FORWARD, About, find_shape, name_network, read_about, takes_images
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
    if not takes_images(about):
        raise ModelError(
            f"{folder} holds a model of arrays that are no images, or of another task than classes: its "
            f"README.md says how {FORWARD} is called"
        )
    if not about.classes:
        raise ModelError(f"{folder / ABOUT} isn't what hpjax.export wrote: it has no classes")
    shape, scale = _read_preprocessing(about, folder / ABOUT)
    name = name_network(str(about.network.get("name", "model"))[:99])
    forward = _check_forward(_load(content, file), shape, len(about.classes), file)
    return Classifier(f"{name} of {folder}", tuple(about.classes), shape, scale, forward)


def _load(content: bytes, file: Path) -> Forward:
    try:
        return load_forward(content)
    except Exception as error:  # flatbuffers and jax raise nearly anything
        raise ModelError(f"{file} can't be loaded by jax {jax.__version__}: {text_of(error, 300)}") from error


def _check_forward(forward: Forward, shape: tuple[int, int, int], classes: int, file: Path) -> Forward:
    """Tries a forward pass on one image."""
    try:
        jax.eval_shape(forward, jax.ShapeDtypeStruct((1, *shape), np.float32))  # before it takes any memory
        logits = np.asarray(forward(np.zeros((1, *shape), np.float32)))
    except Exception as error:
        raise ModelError(f"{file} doesn't go with {ABOUT}: {text_of(error, 300)}") from error
    if logits.shape != (1, classes):
        raise ModelError(f"{file} gives {list(logits.shape)} logits of an image: expected [1, {classes}]")
    return forward


def _read_preprocessing(about: About, file: Path) -> tuple[tuple[int, int, int], Scale | None]:
    ends = about.preprocessing.get("deep_images")
    try:
        return _read_shape(about.preprocessing), None if ends is None else _read_scale(ends)
    except ValueError as error:
        raise ModelError(f"{file} isn't what hpjax.export wrote: {text_of(error, 300)}") from error


def _read_shape(known: Mapping[str, Any]) -> tuple[int, int, int]:
    """Returns height, width and channels of an image."""
    shape = find_shape(known)
    if len(shape) != 3 or not all(type(length) is int and 1 <= length <= 1 << 16 for length in shape):
        raise ValueError(f"height, width and channels in preprocessing can't be {str(shape)[:99]}")
    return shape


def _read_scale(ends: Any) -> Scale:
    given: Any = [ends.get(name) for name in ("black", "white")] if isinstance(ends, dict) else []
    numbers = [value for value in given if type(value) in (int, float) and abs(value) <= sys.float_info.max]
    if len(numbers) != 2 or not numbers[0] < numbers[1]:
        raise ValueError("preprocessing.deep_images is no range of numbers")
    return Scale(float(numbers[0]), float(numbers[1]), remark="")
