"""The study's journal: Optuna's own file format, written the way a single, checkpointed writer can afford."""

import contextlib
import json
import os
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna.storages.journal import JournalFileBackend


def create_journal(path: Path) -> "JournalFileBackend":
    """Returns a journal's file for Optuna's storage.

    Optuna's own backend locks the file and waits for the disk at each entry, some seven times a trial. Here
    the workdir's lock keeps others out, and `sync_journal` waits for the disk once a checkpoint. Others may
    read the file at any time.
    """
    from optuna.storages.journal import JournalFileBackend

    class Journal(JournalFileBackend):
        def append_logs(self, logs: list[dict[str, Any]]) -> None:
            lines = b"".join(json.dumps(log, separators=(",", ":")).encode() + b"\n" for log in logs)
            with open(path, "ab", buffering=0) as file:
                size = os.fstat(file.fileno()).st_size
                try:
                    _write_all(file, lines)
                except OSError:
                    with contextlib.suppress(OSError):  # of a disk that became read-only: a start cuts it
                        file.truncate(size)
                    raise

    return Journal(str(path))


def _write_all(file: FileIO, data: bytes) -> None:
    """Writes all of `data`; a disk that takes a part of it says why when asked to take the rest."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def sync_journal(path: Path) -> int:
    """Makes the journal durable and returns its length in bytes.

    Raises:
      OSError: The disk refuses.
    """
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
        return os.fstat(fd).st_size
    finally:
        os.close(fd)
