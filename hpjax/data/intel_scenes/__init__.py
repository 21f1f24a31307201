"""The Intel images ("natural scenes", six classes) as a tensorflow-datasets set."""

import os
from pathlib import Path

from hpjax.errors import DataError

NAME = "intel_scenes"
VERSION = "1.0.0"
CLASSES = ("buildings", "forest", "glacier", "mountain", "sea", "street")
KAGGLE = "puneet6060/intel-image-classification"


def is_prepared(data_dir: Path) -> bool:
    """Returns whether `data_dir` holds the prepared set."""
    return os.path.isfile(Path(data_dir) / NAME / VERSION / "dataset_info.json")


def create_builder(data_dir: Path):
    """Returns the builder that prepares and reads the set in `data_dir`.

    Raises:
      DataError: tensorflow-datasets isn't installed.
    """
    try:
        from hpjax.data.intel_scenes.builder import IntelScenes
    except ImportError as error:
        raise DataError(f"prepared Intel images need tensorflow-datasets ({error})") from error
    return IntelScenes(data_dir=str(data_dir), file_format="array_record")
