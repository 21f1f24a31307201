"""Examples in memory, and the ways to take fewer of them."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Shaped

from hpjax.data.deep import Scale


@dataclass(frozen=True, eq=False)  # one is equal to itself alone: arrays have no single answer
class Split:
    """Examples of one purpose.

    Attributes:
      images: bytes from 0 to 255, mostly RGB; or other inputs, as float32 or int32. May be memory-mapped and
        read-only.
      labels: indices into the data set's classes; or labels or numbers, float32 with an axis of their own.
    """

    images: Shaped[np.ndarray, "examples ..."]
    labels: Shaped[np.ndarray, "examples *targets"]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: np.ndarray) -> "Split":
        """Returns the examples at `indices`, copied."""
        return Split(self.images[indices], self.labels[indices])


@dataclass(frozen=True)
class Source:
    """What a source of data gives, before a sweep's choice of examples.

    Attributes:
      name: the source that was really used.
      classes: names, in the order of the labels.
      train: the examples to learn from.
      test: the examples to be judged on.
      digest: of the whole content, from `content_digest`.
      notice: what the user must know about this data, or empty.
      skipped: `file: reason` of each bad image.
      validation: the examples to select on, where the source has a split for that and it is asked for.
      remarks: what was decided about this data that a user might not expect, a line each.
      left_out: how many files were no images or lay where none is taken from, by kind.
      scale: of images of more than 8 bits; None where there are none.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    test: Split
    digest: str
    notice: str = ""
    skipped: tuple[str, ...] = ()
    validation: Split | None = None
    remarks: tuple[str, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)
    scale: Scale | None = None


def subsample(split: Split, max_examples: int) -> Split:
    """Returns at most `max_examples` examples, as equally many of each class as there are.

    The choice depends on the labels alone, so every seed and every machine takes the same examples.

    Args:
      split: the examples to take from.
      max_examples: 0 takes all.
    """
    if not 0 < max_examples < len(split):
        return split
    strata = _strata(split.labels)
    rng = np.random.default_rng(len(split))
    members = [rng.permutation(np.flatnonzero(strata == c)) for c in np.unique(strata)]
    quotas = _balanced_quotas([len(m) for m in members], max_examples)
    return split.take(np.sort(np.concatenate([m[:q] for m, q in zip(members, quotas, strict=True)])))


def hold_out(split: Split, fraction: float, seed: int) -> tuple[Split, Split]:
    """Returns `split` without, and only, a share of each class's examples.

    Args:
      split: the examples to divide.
      fraction: the share held out, in (0, 1); of each class at least one and never all.
      seed: picks the examples.
    """
    held = choose_held_out(split.labels, fraction, seed)
    return split.take(np.flatnonzero(~held)), split.take(np.flatnonzero(held))


def choose_held_out(
    labels: Shaped[np.ndarray, "examples *targets"], fraction: float, seed: int
) -> np.ndarray:
    """Returns which examples are held out, as truth values: see `hold_out`."""
    rng = np.random.default_rng([seed, len(labels)])
    held, strata = np.zeros(len(labels), bool), _strata(labels)
    for label in np.unique(strata):
        members = rng.permutation(np.flatnonzero(strata == label))
        count = min(max(round(fraction * len(members)), 1), len(members) - 1)
        held[members[:count]] = True
    return held


def _strata(labels: np.ndarray) -> np.ndarray:
    """Returns what equal shares are taken of: classes; all labels or numbers together."""
    return labels if labels.ndim == 1 else np.zeros(len(labels), np.int32)


def content_digest(classes: Sequence[str], train: Split, test: Split) -> str:
    """Returns the SHA-256, in hex, of class names, shapes, pixels and labels."""
    return join_digests(classes, [_split_digest(split) for split in (train, test)])


class SplitHash:
    """The SHA-256 of a split's pixels and labels, however it is cut into chunks."""

    def __init__(self):
        self._images, self._labels = hashlib.sha256(), hashlib.sha256()

    def update(self, images: np.ndarray, labels: np.ndarray) -> None:
        """Adds the next examples."""
        self._images.update(np.ascontiguousarray(images).data)
        self._labels.update(np.ascontiguousarray(labels, "<i4").data)

    def hexdigest(self) -> str:
        """Returns the digest of all examples so far."""
        return hashlib.sha256(self._images.digest() + self._labels.digest()).hexdigest()


def join_digests(classes: Sequence[str], digests: Sequence[str]) -> str:
    """Returns the digest of a whole data set from those of its splits."""
    return hashlib.sha256(json.dumps([*classes, *digests]).encode()).hexdigest()


def _split_digest(split: Split) -> str:
    digest = SplitHash()
    digest.update(split.images, split.labels)
    return digest.hexdigest()


def _balanced_quotas(sizes: list[int], total: int) -> list[int]:
    """Returns how many to take of each class: equal shares, what small ones lack spread over the rest."""
    quotas = [0] * len(sizes)
    while (left := total - sum(quotas)) > 0:
        open_classes = [i for i, size in enumerate(sizes) if quotas[i] < size]
        for rank, i in enumerate(open_classes):
            share = left // len(open_classes) + (rank < left % len(open_classes))
            quotas[i] = min(sizes[i], quotas[i] + share)
    return quotas
