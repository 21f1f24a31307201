"""Checkpoints of the population and of trials: asynchronous, verified, bounded in number."""

import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from jaxtyping import PyTree

from hpjax.errors import CheckpointError, WorkdirError
from hpjax.store.arrays import (
    Nested,
    Unreadable,
    copy_to_host,
    fit_template,
    import_writer,
    load_folder,
    read_ledger,
    remove_folder,
    remove_leftovers,
    save_folder,
    set_aside,
)
from hpjax.store.background import BackgroundWriter
from hpjax.store.workdir import describe_os_error

POPULATIONS_KEPT = 2  # the newest, and the one before in case it is damaged

_log = logging.getLogger(__name__)


class Restored(NamedTuple):
    """A population's checkpoint.

    Attributes:
      step: the step it was saved under.
      arrays: in the template's structure, or nested dicts of numpy without one.
      ledger: the JSON dict saved with it.
      rejected: newer steps that were damaged, newest first, each with the reason.

    """

    step: int
    arrays: PyTree
    ledger: dict
    rejected: tuple[tuple[int, str], ...]


class PopulationCheckpoints:
    """The population's checkpoints, one folder per step; opened by the process that holds the workdir.

    Args:
      directory: created if missing; leftovers of saves that were cut off are removed.
      keep: how many steps stay on disk; one more while a new one is written.

    Raises:
      WorkdirError: the directory can't be created.

    """

    def __init__(self, directory: str | Path, keep: int = POPULATIONS_KEPT):
        assert keep >= 1
        self._directory, self._keep = Path(directory), keep
        self._writer = BackgroundWriter(1)
        _open_directory(self._directory)
        self._writer.submit(import_writer)  # while the programs are compiled

    def __enter__(self) -> "PopulationCheckpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def save(self, step: int, arrays: PyTree, ledger: Mapping, block: bool = False) -> None:
        """Copies the arrays to the host, and writes them in the background.

        Args:
          step: ranks checkpoints; later ones are removed as another history's.
          arrays: a tree of arrays; jax may donate its own once this returns, numpy's are given up.
          ledger: JSON values that belong to the arrays, e.g. offsets of logs.
          block: returns only when the checkpoint is on disk.

        Raises:
          WorkdirError: this save (with `block`) or an earlier one failed; older checkpoints stay valid.

        """
        self.wait()
        self._writer.submit(self._write, step, copy_to_host(arrays), dict(ledger))
        if block:
            self.wait()

    def wait(self) -> None:
        """Returns when every save is on disk; raises `WorkdirError` if one failed."""
        self._writer.wait()

    @property
    def seconds(self) -> float:
        """How long the newest save has been written in the background, so far."""
        return self._writer.seconds

    def steps(self) -> list[int]:
        """Returns the steps on disk, oldest first; not yet verified."""
        return _list_numbers(self._directory, "step_")

    def restore_latest(self, template: PyTree | None = None, expected: bool = False) -> Restored | None:
        """Returns the newest checkpoint that is whole, or None if there is none at all.

        Damaged steps are reported by `logging.warning` and in `rejected`, and set aside.

        Args:
          template: a tree with the shapes and dtypes expected; None returns nested dicts of numpy.
          expected: that there is none at all is damage, too.

        Raises:
          CheckpointError: every checkpoint is damaged, or a whole one doesn't fit the template.
          Unreadable, WorkdirError: the newest that isn't damaged can't be read now; nothing is changed.

        """
        self.wait()
        rejected: list[tuple[int, str]] = []
        for step in reversed(self.steps()):
            folder = self._folder(step)
            try:
                nested, ledger = load_folder(folder)
            except Unreadable:
                raise
            except CheckpointError as error:
                _log.warning("%s; going back to the one before", error)
                rejected.append((step, str(error)))
                continue
            arrays = nested if template is None else fit_template(nested, template, folder)
            for damaged, _ in rejected:  # else it might look whole when the logs have been cut to another
                set_aside(self._folder(damaged))
            return Restored(step, arrays, ledger, tuple(rejected))
        if rejected or expected:
            reason = rejected[0][1] if rejected else "all are missing"
            raise CheckpointError(
                f"no checkpoint in {self._directory} can be used ({reason}): "
                "restore one, or choose another workdir"
            )
        return None

    def close(self) -> None:
        """Waits for the last save; raises `WorkdirError` if it failed."""
        self._writer.close()

    def _folder(self, step: int) -> Path:
        return self._directory / f"step_{step:08d}"

    def _write(self, step: int, arrays: Nested, ledger: dict) -> None:
        save_folder(self._folder(step), arrays, ledger)
        steps = self.steps()
        kept = [number for number in steps if number <= step][-self._keep :]
        for number in set(steps) - set(kept):
            remove_folder(self._folder(number))


class TrialCheckpoints:
    """Weights of the best trials, one folder per trial; opened by the process that holds the workdir.

    Args:
      directory: created if missing; leftovers of saves that were cut off are removed.
      keep: how many trials stay on disk: the best by score, the lower number in a tie. 0 keeps none.
      mode: whether a high (`max`) or a low (`min`) score is better; NaN is the worst.

    Raises:
      WorkdirError: the directory can't be created.

    """

    def __init__(self, directory: str | Path, keep: int, mode: Literal["max", "min"] = "max"):
        assert mode in ("max", "min")
        self._directory, self._keep, self._sign = Path(directory), keep, -1.0 if mode == "max" else 1.0
        self._writer = BackgroundWriter(8)
        _open_directory(self._directory)
        self._ranks = self._read_ranks()

    def __enter__(self) -> "TrialCheckpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def would_keep(self, trial: int, score: float) -> bool:
        """Returns whether a trial with this score would be among the best, so that it's worth fetching."""
        others = [rank for number, rank in self._ranks.items() if number != trial]
        return sum(rank < self._rank(trial, score) for rank in others) < self._keep

    def save(self, trial: int, arrays: PyTree, metadata: Mapping, score: float, block: bool = False) -> bool:
        """Writes a trial's weights in the background, if it is among the best.

        Args:
          trial: its number; an earlier checkpoint of it is replaced.
          arrays: a tree of arrays; jax may donate its own once this returns, numpy's are given up.
          metadata: JSON values that `load` returns.
          score: ranks the trial.
          block: returns only when the checkpoint is on disk.

        Returns:
          Whether the trial is kept.

        Raises:
          WorkdirError: this save (with `block`) or an earlier one failed; what was saved stays valid.

        """
        kept = self.would_keep(trial, score)
        if kept:
            ledger = {"score": score, "metadata": dict(metadata)}
            arrays = copy_to_host(arrays)
            self._ranks[trial] = self._rank(trial, score)
            worst = sorted(self._ranks, key=self._ranks.__getitem__)[self._keep :]
            doomed = {number: self._ranks.pop(number) for number in worst}
            self._writer.submit(self._write, trial, arrays, ledger, doomed)
        if block or not kept:
            self._writer.wait(0 if block else 8)
        return kept

    def forget(self, trial: int) -> None:
        """Removes a trial's weights, e.g. of a run that was killed after it had saved them."""
        if self._ranks.pop(trial, None) is not None:
            self._writer.submit(remove_folder, _trial_folder(self._directory, trial))

    def wait(self) -> None:
        """Returns when every save is on disk; raises `WorkdirError` if one failed."""
        self._writer.wait()

    def trials(self) -> list[int]:
        """Returns the trials on disk, by number; not yet verified."""
        return _list_numbers(self._directory, "trial_")

    def load(self, trial: int) -> tuple[Nested, dict]:
        """Returns a trial's arrays and metadata, as `load_trial_checkpoint` does."""
        self.wait()
        return load_trial_checkpoint(self._directory, trial)

    def close(self) -> None:
        """Waits for the last save; raises `WorkdirError` if one failed."""
        self._writer.close()

    def _rank(self, trial: int, score: float) -> tuple[float, int]:
        return (math.inf if math.isnan(score) else self._sign * score, trial)

    def _read_ranks(self) -> dict[int, tuple[float, int]]:
        ranks = {}
        for trial in self.trials():
            try:
                ledger = read_ledger(_trial_folder(self._directory, trial))
                ranks[trial] = self._rank(trial, float(ledger["score"]))
            except (CheckpointError, KeyError, TypeError, ValueError) as error:
                _log.warning("checkpoint of trial %d is damaged and won't be kept: %s", trial, error)
                ranks[trial] = (math.inf, trial)
        return ranks

    def _write(self, trial: int, arrays: Nested, ledger: dict, doomed: dict) -> None:
        try:
            save_folder(_trial_folder(self._directory, trial), arrays, ledger)
        except BaseException:
            self._ranks.pop(trial, None)
            self._ranks.update(doomed)
            raise
        for number in doomed:
            remove_folder(_trial_folder(self._directory, number))


def load_trial_checkpoint(directory: str | Path, trial: int) -> tuple[Nested, dict]:
    """Returns a trial's arrays as nested dicts of numpy, and its metadata; changes nothing on disk.

    Raises:
      CheckpointError: it isn't there, or is torn, truncated or changed; says which trials are there.

    """
    folder = _trial_folder(Path(directory), trial)
    if not folder.is_dir():
        there = ", ".join(map(str, _list_numbers(Path(directory), "trial_"))) or "none"
        kept = f"kept are {there} (checkpoint.keep sets how many)"
        raise CheckpointError(f"trial {trial} has no checkpoint in {directory}: {kept}")
    arrays, ledger = load_folder(folder)
    return arrays, ledger["metadata"]


def _trial_folder(directory: Path, trial: int) -> Path:
    return directory / f"trial_{trial:05d}"


def _open_directory(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WorkdirError(describe_os_error("create", directory, error)) from error
    remove_leftovers(directory)


def _list_numbers(directory: Path, prefix: str) -> list[int]:
    try:
        names = os.listdir(directory) if directory.exists() else []
    except OSError as error:  # what can't be seen now isn't gone
        raise WorkdirError(describe_os_error("read", directory, error)) from error
    numbers = (name.removeprefix(prefix) for name in names if name.startswith(prefix))
    return sorted(int(number) for number in numbers if number.isdecimal())
