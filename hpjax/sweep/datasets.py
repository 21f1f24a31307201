"""Data sets of a sweep: one for all trials that see the same images, none that no trial needs any more."""

import dataclasses
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hpjax.config.fields import Config, DataConfig
from hpjax.data.copies import count_classes, count_copies
from hpjax.data.dataset import Dataset, load_dataset
from hpjax.errors import WorkdirError
from hpjax.models.registry import is_square_rgb
from hpjax.store.changes import compared
from hpjax.tasks import kind_of

# These say what is done with images, not which ones they are.
NOT_IMAGES = ("augment", "residency", "remainder", "normalize")
_KEY = r".*:(\d{1,4})(?:x(\d{1,4}))?"
_DEFAULTS = {name: getattr(DataConfig(), name) for name in NOT_IMAGES}


class Datasets:
    """Data sets in memory.

    Args:
      config: the sweep's.
      workdir: the sweep's; named where images have changed.
      fingerprints: of the data sets that the sweep began with; new ones are added.
      given: arrays that were given in a call, for `data.name=arrays`.
    """

    def __init__(self, config: Config, workdir: Path, fingerprints: dict[str, str], given: Any = None):
        self._config, self._workdir, self.fingerprints, self._given = config, workdir, fingerprints, given
        self._loaded: dict[DataConfig, Dataset] = {}

    def load(self, config: Config) -> Dataset:
        """Returns the data set of a trial's configuration; loaded once.

        Raises:
          WorkdirError: It isn't the data set that the sweep began with.
        """
        images = _images(config)
        if images not in self._loaded:
            dataset = load_dataset(images, config.seed, kind_of(config.task.loss), self._given)
            key = f"{compared('data.name', images.name)}:{_show_size(images.image_size)}"
            if self.fingerprints.setdefault(key, dataset.fingerprint) != dataset.fingerprint:
                raise WorkdirError(
                    f"{self._workdir} was begun on other images than {_describe(dataset, images)}: "
                    "restore them, or name a new --workdir"
                )
            self._loaded[images] = dataset
        return self._loaded[images]

    def check(self) -> None:
        """Checks all data sets that the sweep began with, before anything of it goes on.

        Raises:
          DataError: One can't be found or read any more.
          WorkdirError: One isn't what it was.
        """
        sizes = [
            _read_size(*found.groups()) for key in self.fingerprints if (found := re.fullmatch(_KEY, key))
        ]
        for size in sizes:
            self.load(
                dataclasses.replace(
                    self._config, data=dataclasses.replace(self._config.data, image_size=size)
                )
            )
            if len(sizes) > 1:  # those that are needed first are loaded again then
                self._loaded.clear()

    def keep_only(self, configs: Iterable[Config]) -> None:
        """Lets go of all but the data sets of these configurations."""
        needed = {_images(config) for config in configs}
        self._loaded = {images: dataset for images, dataset in self._loaded.items() if images in needed}

    def any(self) -> Dataset:
        """Returns a data set that was loaded already; their images differ in size alone."""
        return next(iter(self._loaded.values()), None) or self.load(self._config)

    def describe(self) -> dict[str, Any]:
        """Returns the entry of `summary.json`; nothing before one is loaded."""
        if not self._loaded:
            return {}
        dataset = self.any()
        splits = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
        images = {name: 0 if split is None else len(split) for name, split in splits.items()}
        counts = {
            name: count_classes(split, len(dataset.classes))
            for name, split in splits.items()
            if split is not None and dataset.classes
        }
        about = {"name": dataset.name, "notice": dataset.notice, "skipped_images": len(dataset.skipped)}
        about |= {"image_size": dataset.train.images.shape[1]} if is_square_rgb(dataset.input_shape) else {}
        about |= {"input_shape": list(dataset.input_shape)}
        about |= {"classes": list(dataset.classes), "class_counts": counts}
        decided = {"remarks": list(dataset.remarks), "left_out": dict(dataset.left_out)}
        return {"data": {**about, "images": images, **decided}}

    def count_copies(self) -> int:
        """Returns how many test images are among the others as well, to the last pixel."""
        dataset = self.any()
        others = [dataset.train] if dataset.validation is None else [dataset.train, dataset.validation]
        return count_copies(dataset.test, others)


def _describe(dataset: Dataset, images: DataConfig) -> str:
    place = f" in {images.dir}" if images.dir else ""
    return f"those of {dataset.name}{place}" + (f" ({dataset.notice})" if dataset.notice else "")


def _show_size(size: int | tuple[int, int]) -> str:
    return "x".join(map(str, size)) if isinstance(size, tuple) else str(size)


def _read_size(height: str, width: str | None) -> Any:
    return (int(height), int(width)) if width else int(height)


def _images(config: Config) -> DataConfig:
    return dataclasses.replace(config.data, **_DEFAULTS)
