"""The data set of a sweep: what its source gives, cut down and divided as configured."""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hpjax.config.fields import DataConfig
from hpjax.data.deep import Scale
from hpjax.data.sources import load_source
from hpjax.data.splits import Source, Split, hold_out, subsample
from hpjax.errors import DataError
from hpjax.tasks import CLASSES

__all__ = ["Dataset", "Split", "load_dataset"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Dataset:
    """Everything that a sweep learns from and is judged on.

    Attributes:
      name: the source that was really used, e.g. `synthetic_scenes`.
      classes: names, in the order of the labels.
      train: the examples to learn from.
      validation: examples to select on, the source's own or held out of the training examples; None without
        a validation fraction.
      test: the examples to be judged on.
      fingerprint: SHA-256, in hex, of the content and of how it was divided.
      notice: what the user must know about this data, or empty.
      skipped: `file: reason` of each bad image.
      remarks: what was decided about this data that a user might not expect, a line each.
      left_out: how many files were no images or lay where none is taken from, by kind.
      scale: of images of more than 8 bits; None where there are none.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    validation: Split | None
    test: Split
    fingerprint: str
    notice: str = ""
    skipped: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)
    scale: Scale | None = None

    @property
    def num_outputs(self) -> int:
        """How many classes, labels or numbers a model answers with."""
        return len(self.classes) or self.train.labels.shape[1]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input, `(height, width, channels)` of an image."""
        return tuple(map(int, self.train.images.shape[1:]))


def load_dataset(data: DataConfig, seed: int, kind: str = CLASSES, given: Any = None) -> Dataset:
    """Returns the configured data set.

    Args:
      data: the configuration.
      seed: picks which images are held out, for validation and where a source has no test images.
      kind: of the targets, as in `hpjax.tasks`.
      given: arrays that were given in a call, for `data.name=arrays`.

    Raises:
      ConfigError: The source or a value of it is unknown.
      DataError: The images can't be found or read; names the file or folder.
    """
    source = load_source(data, seed, kind, given)
    train = subsample(source.train, data.max_train_examples)
    test = subsample(source.test, data.max_test_examples)
    train, validation = _divide(train, data.validation_fraction, seed, source)
    _report(source)
    return Dataset(
        name=source.name,
        classes=source.classes,
        train=train,
        validation=validation,
        test=test,
        fingerprint=_fingerprint(source.digest, data, seed),
        notice=source.notice,
        skipped=source.skipped,
        remarks=source.remarks,
        left_out=source.left_out,
        scale=source.scale,
    )


def _divide(train: Split, fraction: float, seed: int, source: Source) -> tuple[Split, Split | None]:
    if fraction <= 0 or source.validation is not None:
        return train, source.validation
    if not source.classes and len(train) < 2:
        raise DataError(f"data.validation_fraction={fraction} needs at least 2 training examples")
    counts = {name: int((train.labels == i).sum()) for i, name in enumerate(source.classes)}
    if lonely := [name for name, count in counts.items() if count < 2]:
        raise DataError(
            f"data.validation_fraction={fraction} needs at least 2 training images of each class: "
            f"{lonely[0]!r} of {source.name} has {counts[lonely[0]]}"
        )
    return hold_out(train, fraction, seed)


def _fingerprint(digest: str, data: DataConfig, seed: int) -> str:
    parts = [digest, data.max_train_examples, data.max_test_examples, data.validation_fraction]
    if data.validation_fraction > 0:
        parts.append(seed)
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _report(source: Source) -> None:
    if source.notice:
        _log.warning("%s", source.notice)
    for remark in source.remarks:
        _log.info("%s", remark)
    if source.left_out:
        counts = ", ".join(f"{kind} ({count:,})" for kind, count in sorted(source.left_out.items()))
        _log.info("left out of the data: %s", counts)
    if source.skipped:
        _log.warning("%d bad images skipped, the first: %s", len(source.skipped), source.skipped[0])
