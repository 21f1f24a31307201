"""How often a model is right, on images whose classes are known."""

from collections.abc import Sequence

import numpy as np

from hpjax.errors import one_line
from hpjax.report.intervals import binomial_interval

MOST_SHOWN = 20  # classes of a matrix that is printed


class Confusion:
    """A confusion matrix.

    Args:
      classes: names, in the order of the labels.

    Attributes:
      counts: images, by true and by predicted class.
    """

    def __init__(self, classes: Sequence[str]):
        self.classes = classes
        self.counts = np.zeros((len(classes), len(classes)), np.int64)

    def add(self, labels: np.ndarray, predicted: np.ndarray) -> None:
        """Counts images; those with a negative label, whose class isn't known, are left out."""
        known = labels >= 0
        np.add.at(self.counts, (labels[known], predicted[known]), 1)

    @property
    def total(self) -> int:
        """How many images were counted."""
        return int(self.counts.sum())

    def describe(self) -> list[str]:
        """Returns the accuracy, each class's, and the matrix where it is small; nothing without images."""
        if not self.total:
            return []
        right, images = int(np.trace(self.counts)), self.counts.sum(axis=1)
        low, high = binomial_interval(right / self.total, self.total)
        sure = f"{right:,} of {self.total:,}; 95 %: {low:.3f} to {high:.3f}"
        lines = [f"accuracy {right / self.total:.4g} ({sure})"]
        names = [one_line(name, 30) for name in self.classes]
        width = max(map(len, names))
        if len(names) > MOST_SHOWN:
            return [*lines, f"of {len(names)} classes: --csv has each image, --confusion the matrix"]
        numbers = [f"{number:,}" for number in self.counts.ravel()]
        cell = max(*map(len, numbers), len(str(len(names)))) + 2
        lines.append(f"{'true class':{width + 4}}right  predicted as")
        heads = "".join(f"{i:>{cell}}" for i in range(len(names)))
        lines.append(f"{'':{width + 10}}{heads}")
        for i, name in enumerate(names):
            share = f"{self.counts[i, i] / images[i]:.3f}" if images[i] else "    -"
            row = "".join(f"{number:>{cell},}" for number in self.counts[i])
            lines.append(f"{i:>2}  {name:{width}}{share:>6}{row}")
        return lines
