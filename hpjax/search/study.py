"""The study: Optuna asks and is told; its journal on disk is all the state there is."""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hpjax.config.fields import Config
from hpjax.config.seeds import seed_of
from hpjax.errors import WorkdirError
from hpjax.search.journal import create_journal, sync_journal
from hpjax.search.objective import Objective
from hpjax.search.samplers import (
    UNLEARNED,
    create_distribution,
    create_fixed_sampler,
    create_pruner,
    create_sampler,
    relaying_warnings,
    suggest,
)
from hpjax.search.space import Space
from hpjax.search.trial import Trial
from hpjax.search.untried import Untried, avoid_repeats
from hpjax.store.lock import check_held
from hpjax.store.marks import Mark, RunningMark, read_marked

if TYPE_CHECKING:
    import optuna

STUDY_NAME = "hpjax"


class Study:
    """Trials to run, one after the other; use `open_study`.

    Every setting is run `sweep.seeds` times in a row: trial n is replicate n mod seeds of its setting. In a
    population every trial has a seed of its own, so that no two are ever the same; else a setting that a
    sampler or the user names again is replaced by one that no trial has had, and the study ends where there
    is none.
    """

    def __init__(self, config: Config, space: Space, study: "optuna.Study", path: Path, written: RunningMark):
        self._config, self._space, self._study = config, space, study
        self._path, self._written = path, written
        self._pruner = create_pruner(config.sweep)
        past = study.get_trials(deepcopy=False)
        self._asked = len(past)
        self._told = sum(trial.state.is_finished() for trial in past)
        self._setting = dict(past[-1].params) if past else {}
        self._planned = [dict(setting) for setting in config.sweep.enqueue]
        listed = config.sweep.sampler == "grid" or config.sweep.pbt
        self._untried = None if listed else Untried(space, (trial.params for trial in past))
        if config.sweep.sampler == "grid":
            first = [_complete(setting, space, config.seed) for setting in self._planned]
            self._planned = [setting for i, setting in enumerate(first) if setting not in first[:i]]
            self._planned += [setting for setting in space.grid() if setting not in first]
        self._running: dict[int, optuna.Trial] = {}

    @property
    def space(self) -> Space:
        """What is searched."""
        return self._space

    @property
    def budget(self) -> int:
        """How many trials there will be."""
        sweep = self._config.sweep
        settings = sweep.trials or len(self._planned)
        if sweep.sampler == "grid":
            settings = min(settings, len(self._planned))
        elif self._untried is not None:
            settings = min(settings, self._untried.count or settings)
        return settings * sweep.seeds

    @property
    def left(self) -> int:
        """How many trials of the budget haven't been asked for."""
        return max(0, self.budget - self._asked)

    @property
    def unfinished(self) -> int:
        """How many trials were asked for and haven't ended."""
        return self._asked - self._told

    def ask(self) -> Trial | None:
        """Returns the next trial; None once the budget is spent."""
        if self._asked >= self.budget:
            return None
        number, seeds = self._asked, self._config.sweep.seeds
        replicates = number % seeds > 0
        fixed = self._setting if replicates else self._plan(number // seeds)
        trial = self._ask(number, fixed, replicates)
        self._setting = dict(trial.params)
        return self._admit(trial, self._replicate(number, trial.params))

    def ask_for(self, number: int) -> Trial:
        """Returns a trial of the budget by its number, after asking for all before it."""
        while self._asked <= number:
            self.ask()
        return self._replicate(number, self._handle(number).params)

    def foresee(self, number: int) -> Trial:
        """Returns what a grid's trial will be, or was, without asking for it."""
        return self._replicate(number, self._planned[number // self._config.sweep.seeds])

    def list_settings(self) -> Iterator[tuple[dict[str, Any], range]]:
        """Yields each setting of a grid with the numbers of its trials."""
        seeds = self._config.sweep.seeds
        for first, setting in zip(range(0, self.budget, seeds), self._planned, strict=False):
            yield setting, range(first, first + seeds)

    def ask_again(self, setting: int, seed_index: int) -> Trial:
        """Returns one more trial of a setting that has been run, with another seed; beyond the budget.

        Args:
          setting: the number of the setting's first trial.
          seed_index: which replicate the new trial is, from 0.
        """
        known = self._study.get_trials(deepcopy=False)[setting].params
        trial = self._ask(self._asked, dict(known), replicates=True)
        seed = seed_of(self._config, seed_index)
        return self._admit(trial, Trial(trial.number, dict(trial.params), seed, setting, seed_index))

    def report(self, trial: Trial, epoch: int, value: float) -> bool:
        """Notes the objective after an epoch (from 1); returns whether the trial is to be pruned.

        Never one beyond the budget, which says how well a chosen setting does, nor by a value of NaN.
        """
        if value != value:
            return False
        with relaying_warnings(), _writing(self._path):
            handle = self._handle(trial.number)
            handle.report(value, epoch)
            pruned = self._pruner is not None and handle.should_prune()  # successive halving writes, too
        return pruned and trial.seed_index < self._config.sweep.seeds

    def note_copy(self, trial: Trial, epoch: int, source: int) -> None:
        """Notes in the journal that a trial goes on from another's state with other hyperparameters."""
        note = {"source": source, "hyperparameters": trial.hyperparameters}
        with _writing(self._path):
            self._handle(trial.number).set_user_attr(f"copy_after_epoch_{epoch}", note)

    def tell(self, trial: Trial, status: str, value: float | None) -> None:
        """Ends a trial.

        Args:
          trial: the trial.
          status: complete, pruned or diverged.
          value: the objective; needed when complete. A pruned or diverged trial counts as worse than every
            complete one, at the last value that was reported.
            The samplers gp and cmaes learn from complete trials alone.
        """
        from optuna.trial import TrialState

        state = TrialState.COMPLETE if status == "complete" else TrialState.PRUNED
        with _writing(self._path):
            handle = self._handle(trial.number)
            handle.set_user_attr("status", status)
            self._study.tell(handle, value if status == "complete" else None, state=state)
        del self._running[trial.number]
        self._told += 1

    def mark(self) -> Mark:
        """Makes the journal durable and returns its mark; `open_study` goes on from there.

        Raises:
          WorkdirError: The disk is full or gone.
        """
        with _writing(self._path):
            return sync_journal(self._path, self._written)

    def _plan(self, setting: int) -> dict[str, Any] | None:
        return self._planned[setting] if setting < len(self._planned) else None

    def _ask(self, number: int, fixed: dict[str, Any] | None, replicates: bool) -> "optuna.Trial":
        with relaying_warnings(), _writing(self._path):
            self._study.sampler = self._create_sampler(number, fixed, replicates)
            always = {axis.name: create_distribution(axis) for axis in self._space.axes if not axis.when}
            trial = self._study.ask(always)
            for axis in self._space.axes:
                if axis.when and axis.applies(trial.params):
                    suggest(trial, axis)
        self._asked += 1
        if self._untried is not None:
            self._untried.remove(trial.params)
        return trial

    def _create_sampler(
        self, number: int, fixed: dict[str, Any] | None, replicates: bool
    ) -> "optuna.samplers.BaseSampler":
        """Returns what answers for a trial's setting; `replicates`: it is to be that of an earlier one."""
        sweep, seed, untried = self._config.sweep, self._config.seed, self._untried
        sampler = create_sampler(sweep, seed, number)
        if fixed is not None:
            sampler = create_fixed_sampler(fixed, sampler)
        if replicates or untried is None or untried.count is None:
            return sampler
        near = sweep.sampler not in UNLEARNED
        return avoid_repeats(
            sampler, self._space, lambda wanted: untried.choose(wanted, near, (seed, number))
        )

    def _replicate(self, number: int, hyperparameters: Mapping[str, Any]) -> Trial:
        """Returns a trial of the budget: which setting and which replicate it is follows from its number."""
        seed_index = number % self._config.sweep.seeds
        config = self._config
        seed = config.seed + number if config.sweep.pbt else seed_of(config, seed_index)
        return Trial(number, dict(hyperparameters), seed, number - seed_index, seed_index)

    def _admit(self, handle: "optuna.Trial", trial: Trial) -> Trial:
        with _writing(self._path):
            handle.set_user_attr("seed", trial.seed)
        self._running[trial.number] = handle
        return trial

    def _handle(self, number: int) -> "optuna.Trial":
        if number not in self._running:
            import optuna

            frozen = self._study.get_trials(deepcopy=False)[number]
            self._study.sampler = _random(number)
            self._running[number] = optuna.Trial(self._study, frozen._trial_id)
        return self._running[number]


def open_study(
    config: Config,
    space: Space,
    objective: Objective,
    path: str | Path,
    mark: Sequence[Any] | None = None,
) -> Study:
    """Opens the journal of a study, and forgets everything after a mark.

    Args:
      config: the sweep's.
      space: what is searched.
      objective: its direction.
      path: the journal; created if missing. Optuna and its dashboard read it.
      mark: what `Study.mark` returned when the checkpoint that is continued was taken; None begins anew.

    Raises:
      WorkdirError: The journal isn't what it was at the mark, or can't be written.
    """
    path = Path(path)
    written = RunningMark(_cut(path, mark))
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)  # its warnings are no news for users
    with relaying_warnings(), _writing(path):
        study = optuna.create_study(
            storage=optuna.storages.JournalStorage(create_journal(path, written)),
            study_name=STUDY_NAME,
            direction="maximize" if objective.maximize else "minimize",
            pruner=create_pruner(config.sweep) or optuna.pruners.NopPruner(),
            load_if_exists=True,
        )
    return Study(config, space, study, path, written)


def _cut(path: Path, mark: Sequence[Any] | None) -> bytes:
    """Cuts a journal to a mark; returns what is left."""
    kept = read_marked(path, mark)
    with _writing(path):
        for lock in path.parent.glob(f"{path.name}.lock*"):  # of a process that was killed
            lock.unlink()
        if path.exists():
            os.truncate(path, len(kept))
    return kept


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Says in one line that the journal can't be written."""
    check_held(path)
    try:
        yield
    except OSError as error:
        raise WorkdirError(f"can't write {path}: {error.strerror or error}") from error


def _complete(setting: Mapping[str, Any], space: Space, seed: int) -> dict[str, Any]:
    """Returns an enqueued setting with a value, drawn at random, for each axis that it leaves open."""
    rng = np.random.default_rng((seed, *json.dumps(dict(setting), sort_keys=True).encode()))
    values: dict[str, Any] = {}
    for axis in space.axes:
        if axis.applies(values):
            drawn = axis.values[rng.integers(axis.count)]
            values[axis.name] = setting.get(axis.name, drawn)
    return values


def _random(number: int) -> "optuna.samplers.BaseSampler":
    from optuna.samplers import RandomSampler

    return RandomSampler(seed=number)
