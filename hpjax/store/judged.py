"""What the winner made of the test images: `winner.json`, written once, at a sweep's end."""

import base64
import binascii
import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hpjax.errors import WorkdirError
from hpjax.store.files import check_file, read_json
from hpjax.store.typed import read_as
from hpjax.store.workdir import WINNER_NAME, atomic_write

MOST_CLASSES = 1_000_000
FORMATS = {b"\xff\xd8\xff": "jpeg", b"\x89PNG\r\n\x1a\n": "png"}  # by what a file begins with


@dataclass(frozen=True)
class Mistake:
    """A test image that was classified wrongly.

    Attributes:
      image: which of the test images, from 0.
      label: its class.
      predicted: the class that was taken for it.
      probability: that the model gave to it.
      picture: a small JPEG or PNG, as base64.
    """

    image: int
    label: int
    predicted: int
    probability: float
    picture: str

    @property
    def format(self) -> str:
        """Which of the two kinds of image the picture is; empty where it is none."""
        try:
            start = base64.b64decode(self.picture[:12], validate=True)
            base64.b64decode(self.picture, validate=True)
        except (binascii.Error, ValueError):
            return ""
        return next((name for sign, name in FORMATS.items() if start.startswith(sign)), "")


@dataclass(frozen=True)
class Judged:
    """A trial's predictions over the test images.

    Attributes:
      trial: the trial.
      classes: how many there are.
      counts: `[true class, predicted class, images]` of every pair that occurs.
      mistakes: the most confident first.
    """

    trial: int
    classes: int
    counts: list[list[int]]
    mistakes: Sequence[Mistake] = ()

    def by_class(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns the images of each class, those that were recognised, and those taken for it."""
        images, right, taken = (np.zeros(self.classes, np.int64) for _ in range(3))
        for label, predicted, count in self.counts:
            images[label] += count
            taken[predicted] += count
            right[label] += count * (label == predicted)
        return images, right, taken

    def save(self, workdir: Path) -> None:
        """Writes it into a workdir; raises WorkdirError where that can't be."""
        atomic_write(workdir / WINNER_NAME, json.dumps(dataclasses.asdict(self)) + "\n")


def load_judged(workdir: Path) -> Judged | None:
    """Returns what lies in a workdir; None where nothing does.

    Raises:
      WorkdirError: It isn't what a sweep writes.
    """
    path = workdir / WINNER_NAME
    if not check_file(path):
        return None
    content = read_json(path)
    try:
        return _parse(content)
    except (ValueError, TypeError, KeyError) as error:
        raise WorkdirError(f"{path} is damaged ({str(error)[:200]}): remove it") from error


def _parse(content: dict[str, Any]) -> Judged:
    mistakes = [read_as(Mistake, entry) for entry in content["mistakes"]]
    found = read_as(_Counts, {name: value for name, value in content.items() if name != "mistakes"})
    labels = [label for label, predicted, _ in found.counts for label in (label, predicted)]
    labels += [label for mistake in mistakes for label in (mistake.label, mistake.predicted)]
    if not 0 < found.classes <= MOST_CLASSES:
        raise ValueError(f"{found.classes} classes")
    if labels and not (min(labels) >= 0 and max(labels) < found.classes):
        raise ValueError("a class beyond those that there are")
    if any(count < 1 for _, _, count in found.counts):
        raise ValueError("a count below 1")
    if not all(0 <= mistake.probability <= 1 and mistake.format for mistake in mistakes):
        raise ValueError("a mistake without a picture or a probability")
    return Judged(found.trial, found.classes, found.counts, mistakes)


@dataclass(frozen=True)
class _Counts:
    trial: int
    classes: int
    counts: list[list[int]]
