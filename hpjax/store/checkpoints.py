"""Checkpoints of the population and of trials: asynchronous, verified, bounded in number."""

import contextlib
import logging
import math
from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from jaxtyping import PyTree

from hpjax.errors import CheckpointError, WorkdirError
from hpjax.store.arrays import Nested, copy_to_host
from hpjax.store.files import is_folder
from hpjax.store.ledger import Unreadable, read_ledger
from hpjax.store.marks import DamagedLog
from hpjax.store.parts import (
    KEY,
    SavedLanes,
    begin_parts,
    check_parts,
    describe_parts,
    read_parts,
    remove_parts,
)
from hpjax.store.steps import Steps, import_writer, list_numbers, load_folder
from hpjax.store.workdir import LANES, atomic_write

POPULATIONS_KEPT = 2  # the newest, and the one before in case it is damaged
_POPULATION, _TRIAL = ("step", 8), ("trial", 5)  # prefixes and digits of the folders' names

_log = logging.getLogger(__name__)


class Restored(NamedTuple):
    """A population's checkpoint.

    Attributes:
      step: the step it was saved under.
      arrays: nested dicts of numpy; `SavedLanes` where lanes are in parts.
      ledger: the JSON dict saved with it.
      rejected: newer steps that were damaged, newest first, each with the reason.

    """

    step: int
    arrays: Nested
    ledger: dict
    rejected: tuple[tuple[int, str], ...]


class PopulationCheckpoints(Steps):
    """The population's checkpoints, one folder per step.

    Args:
      directory: created if missing; leftovers of saves that were cut off are removed.
      keep: how many steps stay on disk; one more while a new one is written.
      witness: a file, elsewhere, that says that checkpoints were saved: else their loss would look like a
        new sweep.

    Raises:
      WorkdirError: the directory can't be created.

    """

    def __init__(self, directory: str | Path, keep: int = POPULATIONS_KEPT, witness: Path | None = None):
        assert keep >= 1
        super().__init__(directory, *_POPULATION, limit=1, max_to_keep=keep)
        self._witness = witness
        self._parts = self.directory / LANES
        self._named: dict[int, set[str]] = {}  # parts' folders that a checkpoint on disk needs
        self._writer.submit(import_writer)  # while the programs are compiled

    def begin_parts(self) -> Path:
        """Returns a new folder, into which others may write lanes that the next `save` names.

        Where there is none after all, `abandon_parts` is called.

        Raises:
          WorkdirError: it can't be made, or an earlier save failed.

        """
        self.wait()  # else what is kept no longer would be removed while parts of the next one come
        return begin_parts(self._parts)

    def abandon_parts(self) -> None:
        """Removes what was written for a checkpoint that isn't saved; nobody may write there any more."""
        with contextlib.suppress(Exception):  # told by the next save; one that is under way names its parts
            self.wait()
        self._remove_parts()

    def save(self, step: int, arrays: PyTree, ledger: Mapping, block: bool = False) -> None:
        """Copies the arrays to the host, and writes them in the background.

        Args:
          step: ranks checkpoints; higher than every other.
          arrays: a tree of arrays; jax may donate its own once this returns, numpy's are given up. A dict may
            hold lanes in parts.
          ledger: JSON values that belong to the arrays, e.g. marks of logs.
          block: returns only when the checkpoint is on disk.

        Raises:
          WorkdirError: this save (with `block`) or an earlier one failed; older checkpoints stay valid.

        """
        self.wait()
        parts = {}
        if isinstance(arrays, Mapping):
            parts = {name: lanes for name, lanes in arrays.items() if isinstance(lanes, SavedLanes)}
            arrays = {name: lanes for name, lanes in arrays.items() if name not in parts}
        ledger = {**ledger, **({KEY: describe_parts(parts)} if parts else {})}
        named = {lanes.folder.name for lanes in parts.values()}
        self._writer.submit(self._write_and_testify, step, copy_to_host(arrays), ledger, named)
        if block:
            self.wait()

    @property
    def seconds(self) -> float:
        """How long the newest save has been written in the background, so far."""
        return self._writer.seconds

    def steps(self) -> list[int]:
        """Returns the steps on disk, oldest first; not yet verified."""
        return self.numbers()

    def restore_latest(self, fits: Callable[[dict[str, Any]], None] = lambda ledger: None) -> Restored | None:
        """Returns the newest checkpoint that is whole, or None if none was ever saved.

        Damaged steps are reported by `logging.warning` and in `rejected`, and set aside.

        Args:
          fits: raises `DamagedLog` where a log doesn't go with a ledger: as bad as a damaged step.

        Raises:
          CheckpointError: every checkpoint is damaged or lost.
          Unreadable, WorkdirError: the newest that isn't damaged can't be read now; nothing is changed.

        """
        self.wait()
        rejected: list[tuple[int, str]] = []
        for step in reversed(self.numbers()):
            try:
                arrays, ledger = load_folder(self.folder(step))
                fits(ledger)
                parts = read_parts(self._parts, ledger)
                check_parts(parts.values())
            except Unreadable:
                raise
            except (CheckpointError, DamagedLog) as error:
                _log.warning("%s; going back to the checkpoint before", error)
                rejected.append((step, str(error)))
                continue
            for damaged, _ in rejected:  # else it might look whole when the logs have been cut to another
                self.set_aside(damaged)
            self._testify()
            self._remove_parts()
            return Restored(step, {**arrays, **parts}, ledger, tuple(rejected))
        if rejected or (self._witness is not None and self._witness.exists()):
            reason = rejected[0][1] if rejected else "all are missing"
            raise CheckpointError(
                f"no checkpoint in {self.directory} can be used ({reason}): "
                "restore what is damaged, or choose another workdir"
            )
        self._remove_parts()
        return None

    def _write_and_testify(self, step: int, arrays: Nested, ledger: dict, named: set[str]) -> None:
        try:
            self.write(step, arrays, ledger)
            self._named[step] = named
            self._testify()
        finally:  # where it failed, those that were written for it
            self._remove_parts()

    def _remove_parts(self) -> None:
        """Removes the parts that no checkpoint on disk needs."""
        try:
            if is_folder(self._parts):
                steps = [step for step in self.numbers() if is_folder(self.folder(step))]
                self._named = {step: self._list_named(step) for step in steps}
                remove_parts(self._parts, {name for names in self._named.values() for name in names})
        except (CheckpointError, WorkdirError) as error:  # what may be restored may need any of them
            _log.warning("lanes that no checkpoint may need any more stay in %s: %s", self._parts, error)

    def _list_named(self, step: int) -> set[str]:
        """Returns the folders of the parts that a checkpoint needs."""
        if step in self._named:
            return self._named[step]
        saved = read_parts(self._parts, read_ledger(self.folder(step)).ledger)
        return {lanes.folder.name for lanes in saved.values()}

    def _testify(self) -> None:
        if self._witness is not None and not self._witness.exists():
            atomic_write(self._witness, "checkpoints were saved: without one the sweep isn't begun anew\n")


def read_newest_ledger(directory: str | Path) -> dict[str, Any] | None:
    """Returns the ledger of the newest population whose ledger is whole; None without. Changes nothing."""
    prefix, digits = _POPULATION
    try:
        for step in reversed(list_numbers(Path(directory), prefix)):
            with contextlib.suppress(CheckpointError):
                return read_ledger(Path(directory) / f"{prefix}_{step:0{digits}d}").ledger
    except WorkdirError:
        pass  # whoever goes on with it says what is wrong
    return None


class TrialCheckpoints(Steps):
    """Weights of the best trials, one folder per trial.

    Args:
      directory: created if missing; leftovers of saves that were cut off are removed.
      keep: how many trials stay on disk: the best by score, the lower number in a tie. 0 keeps none.
      mode: whether a high (`max`) or a low (`min`) score is better; NaN is the worst.

    Raises:
      WorkdirError: the directory can't be created.

    """

    def __init__(self, directory: str | Path, keep: int, mode: Literal["max", "min"] = "max"):
        assert mode in ("max", "min")
        super().__init__(directory, *_TRIAL, limit=8, preservation_policy=self)
        self._keep, self._sign = keep, -1.0 if mode == "max" else 1.0
        self._doomed: Container[int] = ()
        self._ranks = self._read_ranks()

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
            self._writer.submit(self._write_and_evict, trial, arrays, ledger, doomed)
        if block or not kept:
            self._writer.wait(0 if block else 8)
        return kept

    def forget(self, trial: int) -> None:
        """Removes a trial's weights, e.g. of a run that was killed after it had saved them."""
        if self._ranks.pop(trial, None) is not None:
            self._writer.submit(self._remove, trial)

    def trials(self) -> list[int]:
        """Returns the trials on disk, by number; not yet verified."""
        return self.numbers()

    def load(self, trial: int) -> tuple[Nested, dict]:
        """Returns a trial's arrays and metadata, as `load_trial_checkpoint` does."""
        self.wait()
        return load_trial_checkpoint(self.directory, trial)

    def _rank(self, trial: int, score: float) -> tuple[float, int]:
        return (math.inf if math.isnan(score) else self._sign * score, trial)

    def _read_ranks(self) -> dict[int, tuple[float, int]]:
        ranks = {}
        for trial in self.numbers():
            try:
                ledger = read_ledger(self.folder(trial)).ledger
                ranks[trial] = self._rank(trial, float(ledger["score"]))
            except Unreadable:
                raise
            except (CheckpointError, KeyError, TypeError, ValueError) as error:
                _log.warning("checkpoint of trial %d is damaged and won't be kept: %s", trial, error)
                ranks[trial] = (math.inf, trial)
        return ranks

    def _write_and_evict(self, trial: int, arrays: Nested, ledger: dict, doomed: dict) -> None:
        self._doomed = doomed
        try:
            self.write(trial, arrays, ledger)
        except BaseException:
            self._ranks.pop(trial, None)
            self._ranks.update(doomed)
            raise

    def _remove(self, trial: int) -> None:
        self.set_aside(trial)
        self._remove_leftovers()

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Tells Orbax, as its `PreservationPolicy`, which trials stay when one has been saved."""
        return [info.step not in self._doomed for info in checkpoints]


def load_trial_checkpoint(directory: str | Path, trial: int) -> tuple[Nested, dict]:
    """Returns a trial's arrays as nested dicts of numpy, and its metadata; changes nothing on disk.

    Raises:
      CheckpointError: it isn't there, or is torn, truncated or changed; says which trials are there.

    """
    prefix, digits = _TRIAL
    folder = Path(directory) / f"{prefix}_{trial:0{digits}d}"
    if not folder.is_dir():
        there = ", ".join(map(str, list_numbers(Path(directory), prefix))) or "none"
        kept = f"kept are {there} (checkpoint.keep sets how many)"
        raise CheckpointError(f"trial {trial} has no checkpoint in {directory}: {kept}")
    arrays, ledger = load_folder(folder)
    if not isinstance(metadata := ledger.get("metadata"), dict):
        raise CheckpointError(f"checkpoint {folder} is damaged: it says nothing about its trial")
    return arrays, metadata
