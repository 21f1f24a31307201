"""Asking a trained model about images: lines, a table, and how often it is right."""

import contextlib
import csv
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hpjax.cli.options import read_trial
from hpjax.config.paths import expand_path
from hpjax.data.images import Picture
from hpjax.errors import CheckpointError, DataError, HpjaxError, WorkdirError, one_line
from hpjax.handover.exported import is_exported, load_exported
from hpjax.handover.gathering import gather
from hpjax.handover.tally import Confusion
from hpjax.store.files import allowed_mode, describe_os_error
from hpjax.store.tables import format_text
from hpjax.store.workdir import HISTORY_NAME
from hpjax.trained.classifier import Classifier
from hpjax.trained.load import BEST, load_trial

Writer = Callable[[Sequence[object]], Any]


class Classified(NamedTuple):
    """What came of it.

    Attributes:
      images: how many were classified.
      skipped: `file: reason` of each bad image.
      confusion: of those whose class is known.
      remarks: what a user might not expect, a line each.
    """

    images: int
    skipped: tuple[str, ...]
    confusion: Confusion
    remarks: tuple[str, ...]


def load_classifier(text: str, model_file: str | None = None) -> Classifier:
    """Returns the model that `--model` names: an exported one, or a trial of a sweep.

    Args:
      text: an exported model's folder, or `WORKDIR[:TRIAL]`; the best trial where none is named.
      model_file: the Python file of the user's own model, for a trial.

    Raises:
      HpjaxError: There is no such model, or it can't be loaded.
    """
    path = Path(expand_path(text))
    if is_exported(path):
        return load_exported(path)
    if os.path.exists(path / HISTORY_NAME):
        return load_trial(path, BEST, model_file).classifier
    folder, _, trial = text.rpartition(":")
    if folder and (named := read_trial(trial)) is not None:
        return load_trial(folder, named, model_file).classifier
    raise CheckpointError(
        f"there is no model in {path}: expected a folder that hpjax.export wrote, or WORKDIR[:TRIAL]"
    )


def classify(
    classifier: Classifier,
    paths: Sequence[str],
    *,
    batch_size: int,
    skip_bad: bool = False,
    table: str | None = None,
    matrix: str | None = None,
) -> Classified:
    """Classifies images; prints a line for each, or writes a table of all class probabilities.

    Args:
      classifier: the model.
      paths: image files and folders; see `gather`.
      batch_size: how many images are computed at a time.
      skip_bad: whether images that can't be read are left out; else the first one ends it.
      table: the CSV file for a row per image; None prints them.
      matrix: a CSV file for the confusion matrix.

    Raises:
      HpjaxError: An image can't be read, or a file can't be written.
    """
    pictures, remarks = gather(paths, classifier.classes)
    confusion, skipped, images = Confusion(classifier.classes), [], 0
    labels = np.array([picture.label for picture in pictures])
    with _open_table(table) as write, _progress(len(pictures)) as advance:
        if table:
            names = [format_text(name) for name in classifier.classes]
            write(["file", "true_class", "predicted_class", "probability", *names])
        batches = classifier.predict_pictures(pictures, batch_size, skipped if skip_bad else None)
        for positions, probabilities in batches:
            confusion.add(labels[positions], probabilities.argmax(axis=1))
            for position, row in zip(positions, probabilities, strict=True):
                _write_row(write, pictures[position], row, classifier.classes, bool(table))
            images += len(positions)
            advance(len(positions))
    if not images:
        raise DataError(f"no image could be read; the first: {skipped[0]}")
    if matrix:
        _write_matrix(matrix, confusion)
    return Classified(images, tuple(skipped), confusion, tuple(remarks))


def _write_row(
    write: Writer, picture: Picture, row: np.ndarray, classes: Sequence[str], in_full: bool
) -> None:
    best = int(row.argmax())
    if not in_full:
        write([f"{one_line(picture.name)}: {one_line(classes[best])} {row[best]:.4f}"])
        return
    true = format_text(classes[picture.label]) if picture.label >= 0 else ""
    found = [format_text(classes[best]), f"{row[best]:.6g}", *(f"{value:.6g}" for value in row)]
    write([format_text(picture.name), true, *found])


def _write_matrix(file: str, confusion: Confusion) -> None:
    if not confusion.total:
        raise HpjaxError("--confusion needs images whose classes are known: a folder with a folder per class")
    names = [format_text(name) for name in confusion.classes]
    with _open_table(file) as write:
        write(["true_class", *names])
        for name, row in zip(names, confusion.counts.tolist(), strict=True):
            write([name, *row])


@contextlib.contextmanager
def _open_table(file: str | None) -> Iterator[Writer]:
    """Gives `write(cells)`: a row of a CSV file that is there when all are, or a line on the terminal."""
    if not file:
        yield lambda cells: print(*cells)
        return
    path = Path(expand_path(file))
    try:
        if os.path.lexists(path) and not path.is_file():
            raise WorkdirError(f"can't write {path}: it is there and no file")
        number, name = tempfile.mkstemp(prefix=".hpjax-", dir=path.parent)
        try:
            with open(number, "w", newline="", encoding="utf-8") as stream:
                yield csv.writer(stream, lineterminator="\n").writerow
            os.chmod(name, path.stat().st_mode & 0o777 if path.exists() else allowed_mode(0o666))
            os.replace(name, path)
        finally:
            with contextlib.suppress(OSError):
                os.unlink(name)
    except OSError as error:
        raise WorkdirError(describe_os_error("write", path, error)) from error


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Callable[[int], Any]]:
    """Gives `advance(images)` of a bar on a terminal."""
    if not sys.stderr.isatty():
        yield lambda images: None
        return
    from tqdm import tqdm

    with tqdm(total=total, desc="classifying", unit="image", leave=False) as bar:
        yield bar.update
