"""The study's journal: Optuna's own file format, written the way a single, checkpointed writer can afford."""

import contextlib
import json
import os
from collections.abc import Container, Sequence
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpjax.store.lock import check_held, writing
from hpjax.store.marks import Mark, RunningMark, read_marked

if TYPE_CHECKING:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend
    from optuna.trial import FrozenTrial, TrialState


def create_storage(path: Path, written: RunningMark) -> "JournalStorage":
    """Returns Optuna's storage of a study whose trials are asked for by this process alone.

    Optuna looks for trials that wait before it makes a new one, among all that there ever were: of 20,000
    trials that took longer than all else that a trial costs. A sweep lets none wait there.

    Args:
      path: the journal.
      written: what is in it, kept up to date by each entry.
    """
    from optuna.storages import JournalStorage
    from optuna.trial import TrialState

    class Storage(JournalStorage):
        def get_all_trials(
            self, study_id: int, deepcopy: bool = True, states: "Container[TrialState] | None" = None
        ) -> "list[FrozenTrial]":
            if states == (TrialState.WAITING,):
                return []
            return super().get_all_trials(study_id, deepcopy, states)

    return Storage(create_journal(path, written))


def create_journal(path: Path, written: RunningMark) -> "JournalFileBackend":
    """Returns a journal's file for Optuna's storage.

    Optuna's own backend locks the file and waits for the disk at each entry, some seven times a trial. Here
    the workdir's lock keeps others out, and `sync_journal` waits for the disk once a checkpoint. Others may
    read the file at any time.

    Args:
      path: the file.
      written: what is in it, kept up to date by each entry.
    """
    from optuna.storages.journal import JournalFileBackend

    class Journal(JournalFileBackend):
        def append_logs(self, logs: list[dict[str, Any]]) -> None:
            lines = b"".join(json.dumps(log, separators=(",", ":")).encode() + b"\n" for log in logs)
            check_held(path)  # a sampler may have thought for long since it was asked
            with open(path, "ab+", buffering=0) as file:
                _catch_up(file, written)
                try:
                    _write_all(file, lines)
                except OSError:
                    with contextlib.suppress(OSError):  # of a disk that became read-only: a start cuts it
                        file.truncate(written.size)
                    raise
            written.extend(lines)

    return Journal(str(path))


def sync_journal(path: Path, written: RunningMark) -> Mark:
    """Makes the journal durable and returns its mark.

    Raises:
      OSError: The disk refuses.
    """
    with open(path, "rb", buffering=0) as file:
        os.fsync(file.fileno())
        _catch_up(file, written)
    return written.mark()


def cut_journal(path: Path, mark: Sequence[Any] | None) -> bytes:
    """Cuts a journal to a mark; returns what is left."""
    kept = read_marked(path, mark)
    with writing(path):
        for lock in path.parent.glob(f"{path.name}.lock*"):  # of a process that was killed
            lock.unlink()
        if path.exists():
            os.truncate(path, len(kept))
    return kept


def _catch_up(file: FileIO, written: RunningMark) -> None:
    """Takes in what others appended: Optuna's dashboard does when somebody adds a note."""
    if os.fstat(file.fileno()).st_size > written.size:
        file.seek(written.size)
        written.extend(file.readall())


def _write_all(file: FileIO, data: bytes) -> None:
    """Writes all of `data`; a disk that takes a part of it says why when asked to take the rest."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]
