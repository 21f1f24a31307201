"""The whole states that trials ended with: what a sweep needs that is extended to more epochs."""

import contextlib
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from hpjax.errors import CheckpointError
from hpjax.store.arrays import Nested
from hpjax.store.checkpoints import TrialCheckpoints, load_trial_checkpoint
from hpjax.store.steps import list_numbers

_PREFIX = "epochs"


class KeptStates:
    """The states of all trials that were complete, by their epochs; a context manager.

    Those of other epochs stay until `forget_others`: a sweep that is killed goes on from a checkpoint in
    which a trial may wait with the epochs that it had before.

    Args:
      directory: of all of them.
      epochs: that trials are trained for now.
      keep: whether their states are to be kept then.

    Raises:
      WorkdirError: the directory can't be created.
    """

    def __init__(self, directory: Path, epochs: int, keep: bool):
        self._directory, self._epochs = directory, epochs
        self._now = TrialCheckpoints(self._folder(epochs), sys.maxsize) if keep else None

    def __enter__(self) -> "KeptStates":
        return self

    def __exit__(self, *_: object) -> None:
        if self._now is not None:
            self._now.close()

    @property
    def keeps(self) -> bool:
        """Whether states are kept."""
        return self._now is not None

    def save(self, trial: int, arrays: Nested, metadata: Mapping) -> None:
        """Writes a trial's state in the background; arguments as of `TrialCheckpoints.save`."""
        assert self._now is not None
        self._now.save(trial, arrays, metadata, 0.0)

    def load(self, trial: int, epochs: int) -> tuple[Nested, dict]:
        """Returns a trial's state after so many epochs, and its metadata.

        Raises:
          CheckpointError: It isn't there, or is damaged.
        """
        if trial not in list_states(self._directory, epochs):
            told = f"the state of trial {trial} after {epochs} epochs isn't in {self._folder(epochs)}"
            raise CheckpointError(f"{told}: restore it, or choose another workdir")
        return load_state(self._directory, epochs, trial)

    def wait(self) -> None:
        """Returns when every save is on disk; raises `WorkdirError` if one failed."""
        if self._now is not None:
            self._now.wait()

    @property
    def has_others(self) -> bool:
        """Whether there are states of other epochs."""
        return bool(self._list_others())

    def forget_others(self) -> None:
        """Removes the states of other epochs: once every trial has its new ones, in a checkpoint as well."""
        for epochs in self._list_others():
            with contextlib.suppress(OSError):
                shutil.rmtree(self._folder(epochs))

    def _list_others(self) -> list[int]:
        return [epochs for epochs in list_numbers(self._directory, _PREFIX) if epochs != self._epochs]

    def _folder(self, epochs: int) -> Path:
        return self._directory / f"{_PREFIX}_{epochs}"


def load_state(directory: Path, epochs: int, trial: int) -> tuple[Nested, dict]:
    """Returns a trial's state after so many epochs, and its metadata.

    Raises:
      CheckpointError: It isn't there, or is damaged.
    """
    return load_trial_checkpoint(directory / f"{_PREFIX}_{epochs}", trial)


def list_states(directory: Path, epochs: int) -> list[int]:
    """Returns the trials whose state after so many epochs is kept; not verified."""
    return list_numbers(directory / f"{_PREFIX}_{epochs}", "trial")
