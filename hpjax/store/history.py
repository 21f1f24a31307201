"""The events of a sweep, replayed into its trials and epochs."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hpjax.errors import WorkdirError
from hpjax.store.files import parse_json
from hpjax.store.occupancy import Occupancy
from hpjax.store.rows import STATUSES, CopyRow, EpochRow, TrialRow, Value
from hpjax.store.typed import check_as
from hpjax.tasks import prefers_small


def plain_number(value: object) -> object:
    """Returns a scalar as a plain Python value; a float32 of 0.1 becomes 0.1, not 0.10000000149."""
    if getattr(value, "dtype", None) == np.float32:
        return float(str(np.float32(value)))  # pyright: ignore[reportArgumentType]
    if hasattr(value, "item"):
        return value.item()  # pyright: ignore[reportAttributeAccessIssue]
    return value


def plain(row: Mapping[str, object]) -> dict[str, object]:
    """Returns a row with plain Python values, fit for JSON."""
    return {name: plain_number(value) for name, value in row.items()}


@dataclass(slots=True)
class _Trial:
    seed: int
    hyperparameters: dict[str, Value]
    setting: int
    seed_index: int
    group: int
    order_offset: int
    initial: dict[str, Value]
    minimize: bool = False
    status: str = "running"
    message: str = ""
    epochs: dict[int, EpochRow] = field(default_factory=dict)
    copies: list[CopyRow] = field(default_factory=list)
    test: "_Test | None" = None


@dataclass(slots=True)
class _Start:
    trial: int
    hyperparameters: dict[str, Value]
    seed: int
    setting: int
    seed_index: int
    group: int
    order_offset: int
    minimize: bool = False


@dataclass(slots=True)
class _Again:
    trial: int
    group: int


@dataclass(slots=True)
class _Untest:
    trial: int


@dataclass(slots=True)
class _Test:
    trial: int
    loss: float
    accuracy: float | None = None
    more: dict[str, float | None] = field(default_factory=dict)


@dataclass(slots=True)
class _Finish:
    trial: int
    status: str
    message: str


_EVENTS = {
    **{"start": _Start, "epoch": EpochRow, "copy": CopyRow, "finish": _Finish, "again": _Again},
    **{"test": _Test, "untest": _Untest},
}


class History:
    """Trials and epochs in memory, built event by event.

    Attributes:
      occupancy: which trial sat in which lane.
    """

    def __init__(self) -> None:
        self._trials: dict[int, _Trial] = {}
        self.occupancy = Occupancy()

    @classmethod
    def parse(cls, path: Path, content: bytes) -> "History":
        """Returns the history of a file's whole lines.

        Raises:
          WorkdirError: a line isn't an event; names file and line.

        """
        history = cls()
        for number, line in enumerate(content.splitlines(), 1):
            try:
                history.apply(_check_event(parse_json(line)))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                message = f"{path} is damaged in line {number}: restore it or choose another workdir"
                raise WorkdirError(message) from error
        return history

    def apply(self, event: Mapping) -> None:
        """Adds one event, of a kind in `_EVENTS`."""
        row = dict(event)
        kind = row.pop("kind")
        if kind == "start":
            number = row.pop("trial")
            self._trials[number] = _Trial(**row, initial=row["hyperparameters"])
            self.occupancy.apply(event)
            return
        trial = self._trials[row["trial"]]
        if kind == "epoch":
            trial.epochs[row["epoch"]] = EpochRow(**row)
        elif kind == "copy":
            trial.copies.append(CopyRow(**row))
            trial.hyperparameters = {**trial.hyperparameters, **row["hyperparameters"]}
        elif kind == "test":
            trial.test = _Test(**row)
        elif kind == "untest":
            trial.test = None
        elif kind == "again":
            trial.status, trial.message, trial.test = "running", "", None
        elif kind == "finish":
            trial.status, trial.message = row["status"], row["message"]
        else:
            raise AssertionError(kind)
        self.occupancy.apply(event)

    def trials(self) -> list[TrialRow]:
        """Returns every trial with its results so far, by number."""
        return [self.trial(number) for number in sorted(self._trials)]

    def has_begun(self, number: int) -> bool:
        """Returns whether a trial was started."""
        return number in self._trials

    def trial(self, number: int) -> TrialRow:
        """Returns one trial with its results so far."""
        return _create_trial_row(number, self._trials[number])

    def epochs(self) -> list[EpochRow]:
        """Returns every epoch, by (trial, epoch)."""
        trials = (self._trials[number] for number in sorted(self._trials))
        return [trial.epochs[epoch] for trial in trials for epoch in sorted(trial.epochs)]

    def copies(self) -> list[CopyRow]:
        """Returns every copy, by (trial, epoch)."""
        return [row for number in sorted(self._trials) for row in self._trials[number].copies]


def _check_event(event: Any) -> Mapping[str, Any]:
    """Returns an event whose fields have their types; raises one of what `History.parse` catches."""
    fields = dict(event)
    check_as(_EVENTS[fields.pop("kind")], fields)
    if event["kind"] == "finish" and event["status"] not in STATUSES:
        raise ValueError("status")
    return event


def _create_trial_row(number: int, trial: _Trial) -> TrialRow:
    rows = [trial.epochs[epoch] for epoch in sorted(trial.epochs)]
    last = rows[-1] if rows else None
    read = trial.test  # once, of the winner; else each epoch
    test = (read.loss, read.accuracy) if read else (last and last.test_loss, last and last.test_accuracy)
    return TrialRow(
        trial=number,
        status=trial.status,
        seed=trial.seed,
        hyperparameters=trial.hyperparameters,
        epochs=len(rows),
        final_train_loss=last and last.train_loss,
        best_train_loss=_best(min, (row.train_loss for row in rows)),
        final_train_accuracy=last and last.train_accuracy,
        best_train_accuracy=_best(max, (row.train_accuracy for row in rows)),
        final_test_loss=test[0],
        final_test_accuracy=test[1],
        best_test_loss=_best(min, [*(row.test_loss for row in rows), test[0]]),
        best_test_accuracy=_best(max, [*(row.test_accuracy for row in rows), test[1]]),
        final_validation_loss=last and last.validation_loss,
        final_validation_accuracy=last and last.validation_accuracy,
        best_validation_loss=_best(min, (row.validation_loss for row in rows)),
        best_validation_accuracy=_best(max, (row.validation_accuracy for row in rows)),
        final_objective=last and last.objective,
        best_objective=_best(min if trial.minimize else max, (row.objective for row in rows)),
        average_epoch_seconds=sum(row.epoch_seconds for row in rows) / len(rows) if rows else None,
        lanes=sum(row.lanes for row in rows) / len(rows) if rows else None,
        amortised_seconds=sum(row.epoch_seconds / max(row.lanes, 1) for row in rows) if rows else None,
        setting=trial.setting,
        seed_index=trial.seed_index,
        group=trial.group,
        order_offset=trial.order_offset,
        message=trial.message,
        initial=trial.initial,
        minimize=trial.minimize,
        more=_create_more(rows, read),
    )


def _create_more(rows: Sequence[EpochRow], test: _Test | None) -> dict[str, float | None]:
    """Returns the last and the best value of each further metric, by column."""
    found: dict[str, float | None] = {}
    measured = [row.more for row in rows]
    if test is not None and test.more:
        measured = [*measured, {**(measured[-1] if measured else {}), **test.more}]
    for column in dict.fromkeys(name for more in measured for name in more):
        found[f"final_{column}"] = measured[-1].get(column)
        choose = min if prefers_small(column) else max
        found[f"best_{column}"] = _best(choose, (more.get(column) for more in measured))
    return found


def _best(choose: Callable, values: Iterable[float | None]) -> float | None:
    numbers = [value for value in values if value is not None]
    measured = [value for value in numbers if value == value]
    return choose(measured) if measured else (numbers[0] if numbers else None)
