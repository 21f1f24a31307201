"""Whether a trial that was trained again gave what was recorded of it."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hpjax.store.rows import CopyRow, EpochRow
from hpjax.tasks import LOSS, METRICS, NUMBERS, metric_of

COLUMNS = tuple(f"{split}_{what}" for split in ("train", "validation", "test") for what in (LOSS, *METRICS))
# What sums in another order may change, relative to a loss: over the first epoch, and over the following
# ones, as an optimizer turns such roundings into steps.
FIRST_TOLERANCE, TOLERANCE = 1e-5, 2e-3
ACCURACY_TOLERANCE = 0.02  # share of the images, or two of them: those that a rounding takes over a boundary


class Difference(NamedTuple):
    """A number that was recorded, and what it was the second time."""

    trial: int
    epoch: int
    column: str
    recorded: float
    replayed: float

    @property
    def equal(self) -> bool:
        """Whether these are the same bits."""
        return self.recorded == self.replayed or (math.isnan(self.recorded) and math.isnan(self.replayed))

    @property
    def size(self) -> float:
        """How far apart they are: of losses, relative; of accuracies, as a share of the images."""
        if self.equal:
            return 0.0
        distance = abs(self.recorded - self.replayed)
        if _is_share(self.column):
            return distance
        return distance / max(abs(self.recorded), 1e-12) if math.isfinite(distance) else math.inf

    def within(self, images: Mapping[str, int]) -> bool:
        """Returns whether float rounding explains it; `images` are the numbers of images, by split."""
        if _is_share(self.column):
            count = images.get(self.column.partition("_")[0], 0)
            return self.size <= max(ACCURACY_TOLERANCE, 2.001 / count if count else 0.0)
        return self.size <= (FIRST_TOLERANCE if self.epoch == 1 else TOLERANCE)


def _is_share(column: str) -> bool:
    metric = metric_of(column)
    return metric is not None and NUMBERS not in metric.kinds


@dataclass(frozen=True)
class Agreement:
    """What comparing gave.

    Attributes:
      differences: of every number that was recorded, equal ones included.
      images: numbers of images, by split.
      same_bits: whether the same layout on the same machine promises equal bits.
    """

    differences: tuple[Difference, ...]
    images: Mapping[str, int]
    same_bits: bool

    @property
    def equal(self) -> bool:
        """Whether all is equal to the bit."""
        return all(difference.equal for difference in self.differences)

    @property
    def agrees(self) -> bool:
        """Whether it is what was promised."""
        return self.equal or (not self.same_bits and not self.beyond)

    @property
    def beyond(self) -> list[Difference]:
        """What float rounding doesn't explain."""
        return [difference for difference in self.differences if not difference.within(self.images)]

    def describe(self) -> str:
        """Returns the verdict, in a line."""
        numbers = f"{len(self.differences)} numbers"
        if self.equal:
            return f"agrees to the bit: {numbers} are equal"
        worst = max(self.beyond or self.differences, key=lambda difference: difference.size)
        found = (
            f"{worst.column} of trial {worst.trial} in epoch {worst.epoch} was {worst.recorded!r} and is now "
            f"{worst.replayed!r}"
        )
        if self.agrees:
            return f"agrees within float rounding (another layout or machine): at most, {found}"
        if not self.beyond:
            return f"differs, by no more than rounding, where the same bits were promised: {found}"
        where = "" if self.same_bits else "; not in the layout or on the machine that is recorded"
        return f"differs in {len(self.beyond)} of {numbers}: {found}{where}"


def compare(
    recorded: Iterable[EpochRow], replayed: Mapping[tuple[int, int], Mapping[str, float]]
) -> list[Difference]:
    """Returns the differences of all numbers that were recorded of the epochs that were trained again.

    Args:
      recorded: rows of any trials and epochs.
      replayed: columns by trial and epoch.
    """
    found = []
    for row in recorded:
        columns = replayed.get((row.trial, row.epoch), {})
        for column in COLUMNS:
            if (value := getattr(row, column)) is not None and column in columns:
                found.append(Difference(row.trial, row.epoch, column, value, columns[column]))
    return found


def list_ancestors(trial: int, epochs: int, copies: Sequence[CopyRow]) -> dict[int, int]:
    """Returns how many epochs of which trials are to be trained for a trial's: its own and its ancestors'."""
    needed: dict[int, int] = {}
    waiting = [(trial, epochs)]
    while waiting:
        number, until = waiting.pop()
        if needed.get(number, 0) >= until:
            continue
        needed[number] = until
        waiting += [
            (copy.source, copy.epoch) for copy in copies if copy.trial == number and copy.epoch < until
        ]
    return needed
