"""How far an append-only log had come when a checkpoint was taken, and the proof that it is that log."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hpjax.errors import WorkdirError
from hpjax.store.files import WrongKind, check_file, describe_os_error, open_file


class DamagedLog(WorkdirError):
    """A log isn't what it was when the checkpoint was taken."""


class Mark(NamedTuple):
    """A log's beginning: its length in bytes and their SHA-256; as JSON, a list of the two."""

    size: int
    sha256: str


class RunningMark:
    """A log's mark, kept up to date while the log grows, without reading it again.

    Args:
      content: what the log holds already.
    """

    def __init__(self, content: bytes = b""):
        self.size, self._hash = len(content), hashlib.sha256(content)

    def extend(self, data: bytes) -> None:
        """Notes that data was appended."""
        self._hash.update(data)
        self.size += len(data)

    def mark(self) -> Mark:
        """Returns the mark of all there is."""
        return Mark(self.size, self._hash.hexdigest())


def read_marked(path: Path, mark: Sequence[Any] | None) -> bytes:
    """Returns a log's content up to a mark, after checking every byte; nothing where there is no mark.

    Args:
      path: the log; may be missing.
      mark: a `Mark`, or the list that JSON made of one.

    Raises:
      DamagedLog: the log is shorter, or another.
      WorkdirError: it can't be read now.

    """
    if not mark:
        return b""
    size, sha256 = _check_mark(path, mark)
    content = _read_beginning(path, size)
    if len(content) < size:
        raise DamagedLog(
            f"{path} is damaged: {size} bytes belong to the checkpoint, {len(content)} are there"
        )
    if hashlib.sha256(content).hexdigest() != sha256:
        raise DamagedLog(f"{path} is damaged: {size} bytes belong to the checkpoint, others are there")
    return content


def _check_mark(path: Path, mark: Any) -> Mark:
    if isinstance(mark, list | tuple) and len(mark) == 2:
        size, sha256 = mark
        if type(size) is int and size >= 0 and isinstance(sha256, str):
            return Mark(size, sha256)
    raise DamagedLog(f"{path} can't be checked: its mark is {str(mark)[:99]!r}, not a length and a hash")


def _read_beginning(path: Path, size: int) -> bytes:
    """Returns at most `size` bytes of a log; fewer where it is shorter or missing."""
    try:
        if not check_file(path):
            return b""
    except WrongKind as error:
        raise DamagedLog(f"{error} (the log is damaged)") from error
    try:
        with open(open_file(path), "rb") as file:
            # Not more than there is: Python makes room for all that is asked for.
            return file.read(min(size, os.fstat(file.fileno()).st_size))
    except OSError as error:
        raise WorkdirError(describe_os_error("read", path, error)) from error
