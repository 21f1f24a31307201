"""What happened in a sweep: an append-only history on disk, and the tables derived from it."""

import contextlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hpjax.errors import WorkdirError
from hpjax.store.files import open_file, read_file, read_json
from hpjax.store.history import History, plain, plain_number
from hpjax.store.lock import writing
from hpjax.store.marks import DamagedLog, Mark, RunningMark, read_marked
from hpjax.store.occupancy import Occupancy
from hpjax.store.ranking import Ranking
from hpjax.store.rows import MORE, STATUSES, CopyRow, EpochRow, TrialRow, Value
from hpjax.store.settings import describe_winner, summarize_settings
from hpjax.store.tables import (
    finite,
    format_copies,
    format_epochs,
    format_settings,
    format_trials,
    summarize,
)
from hpjax.store.workdir import (
    HISTORY_NAME,
    SUMMARY_NAME,
    atomic_write,
    is_finished,
)

__all__ = [
    "CopyRow",
    "EpochRow",
    "Records",
    "TrialRow",
    "load_copies",
    "load_epochs",
    "load_trials",
    "open_records",
]

_DEFAULT = Ranking("test_accuracy")


class Records:
    """A sweep's history, open for appending; use `open_records`.

    Every `add_*`, `start_*` and `finish_*` is a line appended to `history.jsonl`; tables are written from
    memory by `write_tables`. Disk errors raise `WorkdirError` and lose nothing: what couldn't be written
    is kept and tried again by the next call.
    """

    def __init__(self, path: Path, fd: int, hyperparameters: Sequence[str], history: History, content: bytes):
        self._path, self._fd, self._written = path, fd, RunningMark(content)
        self._hyperparameters, self._history = tuple(hyperparameters), history
        self._pending: list[bytes] = []

    def __enter__(self) -> "Records":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start_trial(
        self,
        trial: int,
        hyperparameters: Mapping[str, Value],
        seed: int,
        setting: int | None = None,
        seed_index: int = 0,
        group: int = 0,
        order_offset: int = 0,
        minimize: bool = False,
    ) -> None:
        """Records that a trial runs from now on, with these hyperparameters."""
        row = {"trial": trial, "hyperparameters": plain(hyperparameters), "seed": int(seed)}
        row |= {"setting": trial if setting is None else setting, "seed_index": seed_index}
        row |= {"group": group, "order_offset": order_offset, "minimize": minimize}
        self._append("start", row)

    def add_epoch(self, row: EpochRow) -> None:
        """Records a trial's epoch."""
        columns = {item.name: getattr(row, item.name) for item in fields(row)}
        if not columns[MORE]:
            del columns[MORE]
        self._append("epoch", plain(columns))

    def add_copy(self, row: CopyRow) -> None:
        """Records that a trial took over another's state, and goes on with other hyperparameters."""
        self._append("copy", asdict(row) | {"hyperparameters": plain(row.hyperparameters)})

    def set_test(
        self,
        trial: int,
        loss: float,
        accuracy: float | None = None,
        more: Mapping[str, float | None] = MappingProxyType({}),
    ) -> None:
        """Records the one evaluation on the test split of a trial that was selected on validation."""
        row = {"trial": trial, "loss": plain_number(loss), "accuracy": plain_number(accuracy)}
        self._append("test", row | ({MORE: plain(more)} if more else {}))

    def forget_test(self, trial: int) -> None:
        """Records that a trial counts as not tested: another one was selected since."""
        self._append("untest", {"trial": trial})

    def start_again(self, trial: int, group: int) -> None:
        """Records that a trial that was complete, and tested or not, goes on from now on."""
        self._append("again", {"trial": trial, "group": group})

    def finish_trial(self, trial: int, status: str, message: str = "") -> None:
        """Records how a trial ended: complete, pruned or diverged."""
        assert status in STATUSES, status
        self._append("finish", {"trial": trial, "status": status, "message": message})

    def trials(self) -> list[TrialRow]:
        """Returns every trial with its results so far, by number."""
        return self._history.trials()

    def has_begun(self, number: int) -> bool:
        """Returns whether a trial was started, be it long ago."""
        return self._history.has_begun(number)

    def trial(self, number: int) -> TrialRow:
        """Returns one trial with its results so far."""
        return self._history.trial(number)

    def epochs(self) -> list[EpochRow]:
        """Returns every epoch, by (trial, epoch)."""
        return self._history.epochs()

    def copies(self) -> list[CopyRow]:
        """Returns every copy of one trial's state to another, by (trial, epoch)."""
        return self._history.copies()

    @property
    def occupancy(self) -> Occupancy:
        """Which trial sat in which lane."""
        return self._history.occupancy

    def mark(self) -> Mark:
        """Makes the history durable and returns its mark, to be kept in a checkpoint."""
        self._flush()
        with writing(self._path / HISTORY_NAME):
            os.fsync(self._fd)
        return self._written.mark()

    def write_tables(
        self, ranking: Ranking = _DEFAULT, finished: bool = False, summary: Mapping | None = None
    ) -> None:
        """Writes `trials.csv`, `epochs.csv`, `summary.json` (`settings.csv`, `lineage.csv`), each atomically.

        Args:
          ranking: what ranks trials and settings.
          finished: the sweep ran to its end; said in the summary, where the next run looks for it.
          summary: further entries of `summary.json`.

        """
        self._flush()
        trials, copies = self.trials(), self.copies()
        atomic_write(self._path / "trials.csv", format_trials(trials, self._hyperparameters, copies))
        atomic_write(self._path / "epochs.csv", format_epochs(self.epochs(), trials, copies))
        if copies:
            atomic_write(self._path / "lineage.csv", format_copies(copies))
        entries = {"finished": finished, **summarize(trials, ranking), **(summary or {})}
        if finished:
            entries["history"] = self._written.mark()
        if any(trial.seed_index for trial in trials):
            settings = summarize_settings(trials, ranking)
            text = format_settings(settings, ranking, self._hyperparameters)
            atomic_write(self._path / "settings.csv", text)
            entries["winner"] = describe_winner(settings)
        atomic_write(self._path / SUMMARY_NAME, json.dumps(finite(entries), indent=2, allow_nan=False) + "\n")

    def close(self) -> None:
        """Writes what is pending and closes the history; a second call does nothing."""
        if self._fd < 0:
            return
        try:
            self._flush()
        finally:
            os.close(self._fd)
            self._fd = -1

    def _append(self, kind: str, row: Mapping) -> None:
        event = {"kind": kind, **row}
        self._history.apply(event)
        self._pending.append(json.dumps(event).encode() + b"\n")

    def _flush(self) -> None:
        data = b"".join(self._pending)
        if not data:
            return
        with writing(self._path / HISTORY_NAME):
            try:
                _write_all(self._fd, data)
            except OSError:
                with contextlib.suppress(OSError):  # of a disk that became read-only: the next start cuts it
                    os.ftruncate(self._fd, self._written.size)  # needs no room; the rows stay pending
                raise
        self._written.extend(data)
        self._pending.clear()


def open_records(
    workdir: str | Path, hyperparameters: Sequence[str] = (), mark: Sequence[Any] | None = None
) -> Records:
    """Opens a workdir's history for appending and forgets everything after a mark.

    Args:
      workdir: the folder of the sweep, locked by this process.
      hyperparameters: columns of `trials.csv`, in order; learning rate and weight decay are always there.
      mark: what `Records.mark` returned when the checkpoint that is continued was taken; None begins anew.

    Raises:
      WorkdirError: the history can't be written, or isn't what it was at the mark.

    """
    path = Path(workdir)
    file = path / HISTORY_NAME
    kept = read_marked(file, mark)
    history = History.parse(file, kept)
    with writing(file):
        fd = open_file(file, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        try:
            os.ftruncate(fd, len(kept))
        except OSError:
            os.close(fd)
            raise
    return Records(path, fd, hyperparameters, history, kept)


def load_trials(workdir: str | Path, mark: Sequence[Any] | None = None) -> list[TrialRow]:
    """Returns a workdir's trials by number; works while the sweep runs.

    Args:
      workdir: the folder of the sweep.
      mark: up to which the history is read, as of `open_records`; None: up to its end.

    Raises:
      WorkdirError: there is no history, or it is damaged.

    """
    if mark is not None:
        file = Path(workdir) / HISTORY_NAME
        return History.parse(file, read_marked(file, mark)).trials()
    return load_history(workdir).trials()


def load_epochs(workdir: str | Path) -> list[EpochRow]:
    """Returns a workdir's epochs by (trial, epoch); works while the sweep runs.

    Raises:
      WorkdirError: there is no history, or it is damaged.

    """
    return load_history(workdir).epochs()


def load_copies(workdir: str | Path) -> list[CopyRow]:
    """Returns a workdir's copies of one trial's state to another (PBT), by (trial, epoch).

    Raises:
      WorkdirError: there is no history, or it is damaged.

    """
    return load_history(workdir).copies()


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def load_history(workdir: str | Path) -> History:
    """Returns all that a workdir's history says; works while the sweep runs.

    Raises:
      WorkdirError: there is no history, or it is damaged.

    """
    path = Path(workdir)
    file = path / HISTORY_NAME
    if is_finished(path):  # nothing is cut or appended any more: the summary knows every byte
        mark = read_json(path / SUMMARY_NAME).get("history")
        try:
            return History.parse(file, read_marked(file, mark))
        except DamagedLog as error:
            raise WorkdirError(f"{error}: restore it or choose another workdir") from error
    content = read_file(file, sys.maxsize)
    return History.parse(file, content[: content.rfind(b"\n") + 1])  # a line may be half written just now
