"""What the loop over epochs and the sweep around it tell each other: plain values, no calls back."""

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from hpjax.search.trial import Trial
from hpjax.store.rows import CopyRow, EpochRow


@dataclass
class Slot:
    """A busy lane."""

    trial: Trial
    epoch: int = 0  # epochs done
    value: float = math.nan  # the objective after the last epoch
    best: float = -math.inf  # highest score so far
    score: float = -math.inf  # what ranks the trial: of its last epoch, or the highest


@dataclass(frozen=True)
class Status:
    """Where a group stands between two epochs.

    Attributes:
      epoch: the group's epochs done.
      busy: trials in lanes.
      least: epochs done of the trial in lanes that is furthest behind.
      most: of the one that is furthest on.
      epochs: of a trial that runs to its end.
      images_per_second: training images of all lanes together.
    """

    epoch: int
    busy: int
    least: int
    most: int
    epochs: int
    images_per_second: float


def combine(statuses: Sequence[Status], newest: Status) -> Status:
    """Returns where groups that run side by side stand, `newest` among them: the one that ended an epoch."""
    statuses = [status for status in statuses if status.busy] or [newest]
    speed = sum(status.images_per_second for status in statuses)
    least, most = min(status.least for status in statuses), max(status.most for status in statuses)
    epochs, busy = max(status.epochs for status in statuses), sum(status.busy for status in statuses)
    return Status(newest.epoch, busy, least, most, epochs, speed)


class Order(enum.Enum):
    """What is to be done between two epochs."""

    GO_ON = "go on"
    SAVE = "save"
    STOP = "save, then stop"


class Events(Protocol):
    """What the loop tells the sweep around it; arguments and answers are plain values.

    So they can be handed to another process. Weights and lanes are fetched only when they are wanted.
    """

    def next_trial(self) -> Trial | None:
        """Returns the group's next trial, or None when there is none (yet)."""

    def take_up(self, trial: Trial) -> tuple[Slot, dict[str, np.ndarray]] | None:
        """Returns where a trial stood that goes on, and its lane's arrays; None for one that begins."""

    def start(self, trial: Trial, epoch_offset: int) -> None:
        """A trial was admitted at the group's epoch `epoch_offset`."""

    def record(self, trial: Trial, row: EpochRow, value: float, score: float) -> bool:
        """An epoch ended; returns whether the trial is to be pruned."""
        ...

    def wants_state(self) -> bool:
        """Returns whether everything that a complete trial would go on from is to be handed over."""
        ...

    def keep_state(self, slot: Slot, arrays: dict[str, np.ndarray]) -> None:
        """Here is what a trial that is complete now would go on from."""

    def wants_weights(self, trial: Trial, score: float) -> bool:
        """Returns whether the weights of a trial that ends with this score are to be handed over."""
        ...

    def finish(self, slot: Slot, status: str, message: str, weights: dict | None) -> None:
        """A trial ended."""

    def copy(self, trial: Trial, row: CopyRow) -> None:
        """A trial, with its new hyperparameters, goes on from another's state."""
