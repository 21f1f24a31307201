"""Image-classification sets of tensorflow-datasets, read without TensorFlow."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpjax.config.paths import expand_path
from hpjax.data.images import Picture
from hpjax.data.stamps import stamp_files
from hpjax.errors import DataError

FILE_FORMAT = "array_record"  # it can be read without TensorFlow
_TEST_SHARE = 5  # a set without a test split gives every fifth training example to it


@dataclass(frozen=True)
class Records:
    """The encoded images of a prepared set.

    Attributes:
      classes: names, in the order of the labels.
      train: pictures to learn from; may be gone through again.
      test: pictures to be judged on.
      image_size: the side that all images share, where they do and the reference network takes it; else 0.
      key: changes with the content.
      validation: pictures to select on, where the set has a split for that beside one for testing.
      remarks: what was decided that a user might not expect, a line each.
    """

    classes: tuple[str, ...]
    train: "RecordPictures"
    test: "RecordPictures"
    image_size: int
    key: list
    validation: "RecordPictures | None" = None
    remarks: tuple[str, ...] = ()


class RecordPictures:
    """The pictures of a split, read from disk as they are asked for."""

    def __init__(
        self, source: Sequence, indices: range | np.ndarray, image_key: str, label_key: str, name: str
    ):
        self._source, self._indices, self._name = source, indices, name
        self._image_key, self._label_key = image_key, label_key

    def __len__(self) -> int:
        return len(self._indices)

    def __iter__(self) -> Iterator[Picture]:
        for index in self._indices:
            example = self._source[int(index)]
            name = f"example {index} of {self._name}"
            yield Picture(name, int(example[self._label_key]), bytes(example[self._image_key]))


def import_tfds():
    """Returns the module `tensorflow_datasets`.

    Raises:
      DataError: It isn't installed.
    """
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise DataError(
            f"tensorflow-datasets can't be imported ({error}): pip install tensorflow-datasets"
        ) from error
    return tfds


def create_builder(name: str, data_dir: str = ""):
    """Returns the builder of a set by its TFDS name; downloads nothing.

    Raises:
      DataError: There is no such set.
    """
    tfds = import_tfds()
    folder = expand_path(data_dir) or None
    try:
        return tfds.builder(name, data_dir=folder, try_gcs=False, file_format=FILE_FORMAT)
    except tfds.core.DatasetNotFoundError as error:
        raise DataError(
            f"tfds:{name} is not known: expected a name of the tensorflow-datasets catalog"
        ) from error
    except ImportError as error:
        raise DataError(f"tfds:{name} can't be loaded: {_first_line(error)}") from error
    except Exception as error:  # each builder checks its own name, configuration and version
        raise DataError(f"tfds:{name} can't be opened: {_first_line(error)}") from error


def open_records(builder) -> Records:
    """Returns the pictures of a prepared set.

    Raises:
      DataError: It isn't prepared, not in a readable format, or no image-classification set.
    """
    _check_prepared(builder)
    image_key, label_key = _feature_keys(builder)
    splits, remarks = _read_splits(builder, image_key, label_key)
    if not all(map(len, splits)):
        raise DataError(f"{builder.name} in {builder.data_path} has an empty split: expected images in it")
    label = builder.info.features[label_key]
    key = [str(builder.data_path), _stamps(Path(builder.data_path))]
    image_size = _image_size(builder.info.features[image_key].shape)
    validation = splits[2] if len(splits) > 2 else None
    return Records(tuple(label.names), splits[0], splits[1], image_size, key, validation, remarks)


def prepare(builder, download_config=None) -> None:
    """Downloads and prepares a set, with progress bars.

    Args:
      builder: of the set.
      download_config: of tensorflow-datasets; None: its default.

    Raises:
      DataError: That failed; says why.
    """
    try:
        builder.download_and_prepare(download_config=download_config)
    except Exception as error:  # network, disk, missing packages: each builder fails in its own way
        raise DataError(
            f"{builder.name} could not be prepared in {builder.data_path}: {_last_line(error)}"
        ) from error


def _check_prepared(builder) -> None:
    if not builder.is_prepared():
        raise DataError(
            f"{builder.name} is not prepared in {builder.data_path}: "
            f"run `python -m hpjax.data.prepare --name=tfds:{builder.name} --download`"
        )
    file_format = builder.info.file_format.value
    if file_format == "tfrecord":
        raise DataError(
            f"{builder.name} in {builder.data_path} is stored as {file_format}, which only TensorFlow reads: "
            f"prepare it with file_format={FILE_FORMAT}"
        )


def _feature_keys(builder) -> tuple[str, str]:
    tfds = import_tfds()
    features = builder.info.features
    entries = dict(features.items()) if hasattr(features, "items") else {}
    images = [key for key, feature in entries.items() if isinstance(feature, tfds.features.Image)]
    labels = [key for key, feature in entries.items() if isinstance(feature, tfds.features.ClassLabel)]
    for preferred, keys in (("image", images), ("label", labels)):
        if preferred in keys:
            keys[:] = [preferred]
    if len(images) != 1 or len(labels) != 1 or len(builder.info.features[labels[0]].names) < 2:
        raise DataError(f"{builder.name} has {', '.join(entries)}: expected one image and one class label")
    return images[0], labels[0]


def _read_splits(builder, image_key: str, label_key: str) -> tuple[list[RecordPictures], tuple[str, ...]]:
    """Returns the pictures to learn from, to test on and perhaps to select on, and what to say of them."""
    names = set(builder.info.splits)
    if "train" not in names:
        raise DataError(
            f"{builder.name} has the splits {', '.join(sorted(names))}: expected train (and test)"
        )
    pictures = lambda s, i, n: RecordPictures(s, i, image_key, label_key, f"{builder.name}/{n}")  # noqa: E731
    used = [name for name in ("train", "test", "validation") if name in names]
    sources = [_open_split(builder, name, image_key) for name in used]
    if len(used) == 1:
        in_test = np.arange(len(sources[0])) % _TEST_SHARE == 0
        remark = f"{builder.name} has no test split: every fifth training example is tested on instead"
        return [pictures(sources[0], np.flatnonzero(i), "train") for i in (~in_test, in_test)], (remark,)
    whole = [pictures(source, range(len(source)), name) for source, name in zip(sources, used, strict=True)]
    remark = f"{builder.name} has no test split: its validation split is tested on instead"
    return whole, (remark,) if used[1] == "validation" else ()


def _open_split(builder, name: str, image_key: str):
    tfds = import_tfds()
    try:
        return builder.as_data_source(name, decoders={image_key: tfds.decode.SkipDecoding()})
    except Exception as error:  # missing readers and torn records surface in many ways
        raise DataError(
            f"{builder.name} in {builder.data_path} can't be read: {_first_line(error)}"
        ) from error


def _image_size(shape: tuple) -> int:
    height, width = shape[:2]
    return height if height and height == width and height >= 48 else 0


def _stamps(folder: Path) -> list[str]:
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return [*(file.name for file in files), stamp_files(files)]


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _last_line(error: Exception) -> str:
    """Returns the cause: builders put the offending example, pages of it, before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
