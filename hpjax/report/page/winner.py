"""What the winner makes of the test images: each class, what is taken for which, and surest mistakes."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from hpjax.errors import one_line
from hpjax.report.intervals import binomial_interval
from hpjax.report.page.source import PageSource
from hpjax.store.judged import Judged

MOST_IN_MATRIX = 20  # classes; of more, the pairs that are confused most often are listed
MOST_CLASSES = 40
MOST_PAIRS = 10
_LONGEST = 60  # characters of a class's name


@dataclass(frozen=True)
class ClassRow:
    """A class of the test images.

    Attributes:
      number: which one it is, from 0.
      name: in words.
      images: how many there are.
      share: that were recognised; None without images.
      low: where the 95 % interval of that share begins.
      high: where it ends.
      taken: how many images were taken for it.
      cells: how many of its images were taken for each class, with their share; empty without a matrix.
    """

    number: int
    name: str
    images: int
    share: float | None
    low: float
    high: float
    taken: int
    cells: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class WinnerSection:
    """The section of the page.

    Attributes:
      trial: whose predictions these are.
      summary: in a sentence.
      rows: a class each; of very many those that are recognised worst.
      matrix: whether the rows have cells.
      pairs: what is confused most often, a line each.
      mistakes: pictures with what they show and what they were taken for.
    """

    trial: int
    summary: str
    rows: tuple[ClassRow, ...]
    matrix: bool
    pairs: tuple[str, ...]
    mistakes: tuple[dict[str, Any], ...]


def describe_winner(source: PageSource) -> WinnerSection | None:
    """Returns the section; None where it isn't known what the winner made of the test images."""
    judged = source.judged
    names = [one_line(str(name), _LONGEST) for name in source.summary.get("data", {}).get("classes", ())]
    if judged is None or judged.classes != len(names) or not judged.counts:
        return None
    rows, matrix = _list_rows(judged, names), len(names) <= MOST_IN_MATRIX
    shown = rows if matrix else sorted(rows, key=_recognised)[:MOST_CLASSES]
    mistakes = [
        {
            "picture": f"data:image/{mistake.format};base64,{mistake.picture}",
            "label": names[mistake.label],
            "predicted": names[mistake.predicted],
            "probability": f"{mistake.probability:.1%}",
            "image": mistake.image,
        }
        for mistake in judged.mistakes
    ]
    summary = _summarize(rows, names)
    return WinnerSection(
        judged.trial, summary, tuple(shown), matrix, _list_pairs(judged, names), tuple(mistakes)
    )


def _list_rows(judged: Judged, names: list[str]) -> list[ClassRow]:
    images, right, taken = judged.by_class()
    matrix = np.zeros((judged.classes, judged.classes), np.int64) if len(names) <= MOST_IN_MATRIX else None
    if matrix is not None:
        for label, predicted, count in judged.counts:
            matrix[label, predicted] += count
    rows = []
    for i, name in enumerate(names):
        total = int(images[i])
        share = float(right[i]) / total if total else None
        low, high = binomial_interval(share, total) if share is not None else (0.0, 1.0)
        cells = () if matrix is None else tuple((int(n), float(n) / max(total, 1)) for n in matrix[i])
        rows.append(ClassRow(i, name, total, share, low, high, int(taken[i]), cells))
    return rows


def _recognised(row: ClassRow) -> tuple[float, int]:
    return (1.0 if row.share is None else row.share), row.number


def _summarize(rows: list[ClassRow], names: list[str]) -> str:
    known = [row for row in rows if row.share is not None]
    worst, best = min(known, key=_recognised), max(known, key=_recognised)
    images = sum(row.images for row in known)
    right = sum(round((row.share or 0.0) * row.images) for row in known)
    text = f"{right:,} of {images:,} test images are recognised ({right / images:.1%}). "
    text += f"Worst class: {worst.name} ({worst.share:.1%}); best: {best.name} ({best.share:.1%})."
    if len(names) > MOST_CLASSES:
        text += f" The {MOST_CLASSES} worst of {len(names):,} classes are listed."
    return text


def _list_pairs(judged: Judged, names: list[str]) -> tuple[str, ...]:
    wrong = sorted((-count, label, taken) for label, taken, count in judged.counts if label != taken)
    return tuple(
        f"{names[label]} taken for {names[taken]}: {-count:,} image{'s' * (count != -1)}"
        for count, label, taken in wrong[:MOST_PAIRS]
    )
