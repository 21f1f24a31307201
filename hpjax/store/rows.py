"""Rows of a sweep's tables."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from hpjax.tasks import is_column, prefers_small

OBJECTIVE = "objective"  # the column of a metric of the user's own
MORE = "more"  # the field of columns that not every task has
SELECTS = ("final", "best")
STATUSES = ("running", "complete", "pruned", "diverged")
Value = float | int | str | bool | None


def named_value(hyperparameters: Mapping[str, Value], name: str) -> Value:
    """Returns a hyperparameter as it is shown: None, where it was chosen, as text; None where it has none."""
    value = hyperparameters.get(name)
    return "None" if value is None and name in hyperparameters else value


@dataclass(frozen=True, slots=True)
class EpochRow:
    """One trial's epoch: a row of `epochs.csv`.

    Attributes:
      trial: the trial's number, from 0.
      epoch: from 1.
      train_loss: mean over the epoch's examples, in training mode.
      test_loss: mean over the test split; None where it wasn't evaluated.
      test_accuracy: share of the test split in [0, 1]; None where it wasn't evaluated.
      validation_loss: as `test_loss`, on the validation split.
      validation_accuracy: as `test_accuracy`, on the validation split.
      epoch_seconds: wall time of the epoch of the whole program, training and evaluation; compiling apart.
      lanes: trials that shared those seconds.
      images_per_second: training images of all lanes together per second; None if unknown.
      objective: value of a metric of the user's own; None without one.
      train_accuracy: share of the epoch's examples, in training mode, as the weights moved.
      more: what other metrics gave, by column, e.g. `test_mae`; each can be read as an attribute, too.

    """

    trial: int
    epoch: int
    train_loss: float
    test_loss: float | None = None
    test_accuracy: float | None = None
    validation_loss: float | None = None
    validation_accuracy: float | None = None
    epoch_seconds: float = 0.0
    lanes: int = 1
    images_per_second: float | None = None
    objective: float | None = None
    train_accuracy: float | None = None
    more: Mapping[str, float | None] = field(default_factory=dict)

    def __getattr__(self, name: str) -> float | None:
        if is_column(name):
            return self.more.get(name)
        raise AttributeError(name)


@dataclass(frozen=True, slots=True)
class CopyRow:
    """A trial took over another's state and hyperparameters (PBT): a row of `lineage.csv`.

    Attributes:
      trial: the trial that was overwritten.
      epoch: the epoch after which it happened, from 1.
      source: the trial whose state it took.
      hyperparameters: those the trial goes on with.

    """

    trial: int
    epoch: int
    source: int
    hyperparameters: Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class TrialRow:
    """One trial with its results so far: a row of `trials.csv`.

    Attributes:
      trial: its number, from 0.
      status: running, complete, pruned or diverged.
      seed: seeds its initialisation, dropout and augmentation.
      hyperparameters: by name, those it ended with.
      epochs: epochs done.
      final_train_loss: of its last epoch, as every `final_*`; None where never measured.
      best_train_loss: the best of its epochs, as every `best_*`.
      final_objective: of a metric of the user's own; None without one.
      average_epoch_seconds: mean wall time of its epochs.
      lanes: mean number of trials that shared its epochs.
      amortised_seconds: its share of the wall time: of each epoch's, divided by the trials that shared it.
      setting: replicates of one setting share this number.
      seed_index: which replicate it is, from 0.
      group: the compiled program it ran in.
      order_offset: epoch of the group's shared data order at which it was admitted.
      message: why it ended early; empty otherwise.
      initial: the hyperparameters it started with; other than `hyperparameters` only after copies (PBT).
      minimize: whether a smaller value of the user's own metric is better.
      more: what other metrics gave, by column, e.g. `final_test_mae`; each can be read as an attribute, too.

    """

    trial: int
    status: str
    seed: int
    hyperparameters: Mapping[str, Value]
    epochs: int = 0
    final_train_loss: float | None = None
    best_train_loss: float | None = None
    final_train_accuracy: float | None = None
    best_train_accuracy: float | None = None
    final_test_loss: float | None = None
    final_test_accuracy: float | None = None
    best_test_loss: float | None = None
    best_test_accuracy: float | None = None
    final_validation_loss: float | None = None
    final_validation_accuracy: float | None = None
    best_validation_loss: float | None = None
    best_validation_accuracy: float | None = None
    final_objective: float | None = None
    best_objective: float | None = None
    average_epoch_seconds: float | None = None
    lanes: float | None = None
    amortised_seconds: float | None = None
    setting: int = 0
    seed_index: int = 0
    group: int = 0
    order_offset: int = 0
    message: str = ""
    initial: Mapping[str, Value] = field(default_factory=dict)
    minimize: bool = False
    more: Mapping[str, float | None] = field(default_factory=dict)

    def __getattr__(self, name: str) -> float | None:
        select, _, column = name.partition("_")
        if select in SELECTS and is_column(column):
            return self.more.get(name)
        raise AttributeError(name)

    @property
    def diverged(self) -> bool:
        """Whether it is lost: nothing that it measured counts."""
        return self.status == "diverged"

    def prefers_small(self, metric: str) -> bool:
        """Returns whether less is better of an epoch's column: of losses, else as the user's metric says."""
        return self.minimize if metric == OBJECTIVE else prefers_small(metric)


def to_columns(row: EpochRow | TrialRow) -> dict[str, Any]:
    """Returns a row's values by column, those of other metrics at the end."""
    names = (field.name for field in fields(row) if field.name != MORE)
    return {name: getattr(row, name) for name in names} | dict(row.more)
