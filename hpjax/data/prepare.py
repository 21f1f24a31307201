"""Prepares the Intel images, or a set of tensorflow-datasets: `python -m hpjax.data.prepare --dir=data`."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from hpjax.config.paths import expand_path
from hpjax.data import intel_scenes, tfds_sets
from hpjax.data.folder import Tree, scan_tree
from hpjax.data.images import MIN_IMAGE_SIZE, decode_chunks, measure_scale
from hpjax.data.layout import LAYOUT, has_splits
from hpjax.errors import DataError, HpjaxError

_FLAGS = flags.FlagValues()  # of this command alone: importing it defines no flag elsewhere
flags.DEFINE_string("dir", "data", "folder that holds seg_train/ and seg_test/", flag_values=_FLAGS)
flags.DEFINE_string("data_dir", "", "where the prepared set goes; empty: into --dir", flag_values=_FLAGS)
flags.DEFINE_string("name", intel_scenes.NAME, "intel_scenes or tfds:NAME", flag_values=_FLAGS)
flags.DEFINE_bool("download", False, "fetch the images first", flag_values=_FLAGS)
flags.DEFINE_bool("help", False, "print this and exit", short_name="h", flag_values=_FLAGS)


def prepare_intel_scenes(tree_dir: Path, data_dir: Path) -> Path:
    """Checks every image of a tree and writes them as array_record files.

    Args:
      tree_dir: holds `seg_train/<class>/*` and `seg_test/<class>/*`, also nested once more.
      data_dir: where the prepared set goes.

    Returns:
      The folder of the prepared set.

    Raises:
      DataError: The tree is missing or incomplete, or an image can't be decoded; names it.
    """
    tfds = tfds_sets.import_tfds()
    builder = intel_scenes.create_builder(data_dir)
    if intel_scenes.is_prepared(data_dir):
        print(f"{builder.data_path} exists already and is kept; remove it to prepare the images anew")
        return Path(builder.data_path)
    tree = scan_tree(tree_dir)
    expected = intel_scenes.CLASSES
    if tree.classes != expected:
        raise DataError(
            f"{tree_dir} holds the classes {', '.join(tree.classes)}: expected {', '.join(expected)}"
        )
    _check_images(tree)
    config = tfds.download.DownloadConfig(manual_dir=str(tree_dir))
    tfds_sets.prepare(builder, config)
    return Path(builder.data_path)


def download_intel_scenes() -> Path:
    """Returns the folder into which kagglehub put the images.

    Raises:
      DataError: kagglehub isn't installed or failed; says what to download by hand.
    """
    try:
        import kagglehub  # pyright: ignore[reportMissingImports]  (optional)
    except ImportError:
        raise DataError(f"--download needs kagglehub (pip install kagglehub). {_BY_HAND}") from None
    try:
        return Path(kagglehub.dataset_download(intel_scenes.KAGGLE))
    except Exception as error:  # network, credentials, terms of use: kagglehub raises many kinds
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise DataError(
            f"kagglehub could not download {intel_scenes.KAGGLE} ({reason}). {_BY_HAND}"
        ) from error


def prepare_tfds(name: str, data_dir: str, download: bool) -> Path:
    """Prepares a set of tensorflow-datasets in a format that is read without TensorFlow.

    Args:
      name: its name in the catalog.
      data_dir: where it goes; empty: the default of tensorflow-datasets.
      download: whether its files may be fetched.

    Returns:
      The folder of the prepared set.

    Raises:
      DataError: It is unknown, not to be downloaded, or its preparation failed.
    """
    builder = tfds_sets.create_builder(name, data_dir)
    if not builder.is_prepared():
        if not download:
            raise DataError(f"tfds:{name} is not in {builder.data_path}: give --download to fetch it")
        tfds_sets.prepare(builder)
    return Path(builder.data_path)


def run(argv: Sequence[str]) -> int:
    """Runs the command; returns its exit code."""
    try:
        options = _parse(argv)
        if options.help:
            print(f"{__doc__}\n{_FLAGS.main_module_help() or _FLAGS.get_help()}")
            return 0
        print(f"prepared: {_prepare(options)}")
    except HpjaxError as error:
        print(f"hpjax: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


_BY_HAND = (
    f"By hand: download {intel_scenes.KAGGLE} from https://www.kaggle.com/datasets/{intel_scenes.KAGGLE}, "
    "unpack it so that DIR/seg_train/ and DIR/seg_test/ exist, and run this with --dir=DIR"
)


def _parse(argv: Sequence[str]) -> flags.FlagValues:
    _FLAGS.unparse_flags()
    for flag in _FLAGS.get_flags_for_module(__name__):
        flag.unparse()
    try:
        rest = _FLAGS(list(argv))[1:]
    except (flags.Error, OSError, ValueError) as error:  # of a --flagfile; --nodownload=VALUE
        raise DataError(" ".join(str(error).removeprefix("ERROR:: ").split())) from None
    if rest:
        raise DataError(f"argument {rest[0]!r} is not understood: expected flags only, see --help")
    return _FLAGS


def _prepare(options: flags.FlagValues) -> Path:
    prefix, _, name = options.name.partition(":")
    if prefix == "tfds" and name:
        return prepare_tfds(name, expand_path(options.data_dir), options.download)
    if options.name != intel_scenes.NAME:
        raise DataError(f"--name={options.name} is not known: expected {intel_scenes.NAME} or tfds:NAME")
    tree_dir = Path(expand_path(options.dir))
    data_dir = Path(expand_path(options.data_dir)) if options.data_dir else tree_dir
    if options.download and not has_splits(tree_dir):
        tree_dir = download_intel_scenes()
    elif not os.path.isdir(tree_dir):
        raise DataError(f"{tree_dir} does not exist: expected a folder with {LAYOUT}. {_BY_HAND}")
    return prepare_intel_scenes(tree_dir, data_dir)


def _check_images(tree: Tree) -> None:
    """Decodes every image once, so that no bad one is written."""
    from tqdm import tqdm

    pictures = tree.train + tree.test
    with tqdm(total=len(pictures), desc="checking images", unit="image") as bar:
        scale = measure_scale(pictures)
        for images, _ in decode_chunks(pictures, MIN_IMAGE_SIZE, scale=scale):
            bar.update(len(images))


if __name__ == "__main__":
    sys.exit(run(sys.argv))
