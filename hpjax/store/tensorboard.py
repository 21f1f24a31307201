"""TensorBoard's event files."""

import functools
import importlib
import os
import struct
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hpjax.store.files import check_file

_HEADER_BYTES = 12  # length (8) and its checksum (4); 4 more follow the data


class TensorBoard:
    """Writes one event file per trial, `trial_00012/events.out.tfevents.0.hpjax`.

    tensorboardX supplies the formats; its own writer isn't used because it holds a thread and an open file
    per trial, and blocks for ever once its disk is full. A file that is there is continued: an unfinished
    last event is cut off, and TensorBoard is told to forget the steps that come again.

    Args:
      directory: created when the first event is written.

    """

    def __init__(self, directory: str | Path):
        self._directory = Path(directory)
        self._steps: dict[int, int] = {}

    @functools.cached_property
    def _summary(self) -> Any:
        return _load("tensorboardX.summary")

    def log_epoch(self, trial: int, epoch: int, scalars: Mapping[str, float]) -> None:
        """Adds one epoch's numbers, at the epoch's step."""
        events = self._start_file(trial, epoch)
        summaries = (self._summary.scalar(tag, value) for tag, value in scalars.items())
        events += [_event(step=epoch, summary=item) for item in summaries]
        _append(self._file(trial), events)
        self._steps[trial] = epoch

    def log_hparams(self, trial: int, hyperparameters: Mapping, metrics: Mapping[str, float]) -> None:
        """Adds what TensorBoard's HParams page shows: hyperparameters, and metrics tagged `hparam/…`."""
        # A trial that diverges before its first epoch ends has no file yet; one that is there goes on.
        events = [] if trial in self._steps else self._open_file(trial)
        step = self._steps.pop(trial, 0)
        tagged = {f"hparam/{name}": value for name, value in metrics.items()}
        summaries = self._summary.hparams(dict(hyperparameters), tagged)
        events += [_event(summary=item) for item in summaries]
        events += [
            _event(step=step, summary=self._summary.scalar(tag, value)) for tag, value in tagged.items()
        ]
        _append(self._file(trial), events)

    def log_text(self, title: str, text: str) -> None:
        """Puts a text on the whole sweep in the place of the one before, in a run of its own."""
        file = self._directory / "sweep" / "events.out.tfevents.0.hpjax"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        summary = self._summary.text(title, text)
        _append(file, [_event(file_version="brain.Event:2"), _event(summary=summary)])

    def close(self) -> None:
        """Does nothing: no file stays open."""

    def _file(self, trial: int) -> Path:
        return self._directory / f"trial_{trial:05d}" / "events.out.tfevents.0.hpjax"

    def _start_file(self, trial: int, epoch: int) -> list[Any]:
        if trial in self._steps:
            return []
        if events := self._open_file(trial):
            return events
        begin = _load("tensorboardX.proto.event_pb2").SessionLog
        return [_event(step=epoch, session_log=begin(status=begin.START))]

    def _open_file(self, trial: int) -> list[Any]:
        """Makes the file ready to be appended to; returns what a new one begins with."""
        file = self._file(trial)
        file.parent.mkdir(parents=True, exist_ok=True)
        return [] if _cut_torn_end(file) else [_event(file_version="brain.Event:2")]


@functools.cache
def _load(name: str) -> Any:
    """Returns a module of tensorboardX's, imported when it is first needed.

    tensorboardX imports PyTorch where that is installed, for types that aren't used here: seconds, and
    hundreds of megabytes in a process that trains with JAX. For as long as that takes it isn't there.
    """
    hidden = "torch" not in sys.modules and "tensorboardX" not in sys.modules
    if hidden:
        sys.modules["torch"] = None  # type: ignore[assignment]  # importing it raises ImportError
    try:
        return importlib.import_module(name)
    finally:
        if hidden:
            del sys.modules["torch"]


def _event(**fields: Any) -> Any:
    return _load("tensorboardX.proto.event_pb2").Event(wall_time=time.time(), **fields)


def _append(file: Path, events: Iterable[Any]) -> None:
    data = b"".join(_frame(event.SerializeToString()) for event in events)
    with open(file, "ab", buffering=0) as stream:
        size = os.fstat(stream.fileno()).st_size
        try:
            if stream.write(data) != len(data):
                raise OSError(f"{file} was written in part")
        except OSError:
            stream.truncate(size)
            raise


def _frame(data: bytes) -> bytes:
    masked_crc32c = _load("tensorboardX.record_writer").masked_crc32c
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", masked_crc32c(length)) + data + struct.pack("<I", masked_crc32c(data))


def _cut_torn_end(file: Path) -> bool:
    """Returns whether the file holds whole events, after cutting off one that a kill left half written."""
    if not check_file(file):
        return False
    with open(file, "r+b") as stream:
        size, end = os.fstat(stream.fileno()).st_size, 0
        while len(header := stream.read(_HEADER_BYTES)) == _HEADER_BYTES:
            after = end + _HEADER_BYTES + struct.unpack("<Q", header[:8])[0] + 4
            if after > size:
                break
            end = stream.seek(after)
        stream.truncate(end)
    return end > 0
