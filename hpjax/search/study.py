"""The study: Optuna asks and is told; its journal on disk is all the state there is."""

import contextlib
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpjax.config.fields import Config
from hpjax.errors import WorkdirError
from hpjax.search.journal import create_journal, sync_journal
from hpjax.search.objective import Objective
from hpjax.search.samplers import create_fixed_sampler, create_pruner, create_sampler
from hpjax.search.space import Axis, Space
from hpjax.search.trial import Trial
from hpjax.store.lock import check_held
from hpjax.store.marks import Mark, RunningMark, read_marked

if TYPE_CHECKING:
    import optuna

STUDY_NAME = "hpjax"


class Study:
    """Trials to run, one after the other; use `open_study`.

    Every setting is run `sweep.seeds` times in a row: trial n is replicate n mod seeds of its setting. In a
    population every trial has a seed of its own, so that no two are ever the same.
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
        if config.sweep.sampler == "grid":
            self._planned += [s for s in space.grid() if s not in self._planned]
        self._running: dict[int, optuna.Trial] = {}

    @property
    def budget(self) -> int:
        """How many trials there will be."""
        sweep = self._config.sweep
        settings = sweep.trials or len(self._planned)
        if sweep.sampler == "grid":
            settings = min(settings, len(self._planned))
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
        seed_index = number % seeds
        trial = self._ask(number, fixed=self._setting if seed_index else self._plan(number // seeds))
        self._setting = dict(trial.params)
        seed = self._config.seed + (number if self._config.sweep.pbt else seed_index)
        return self._admit(trial, seed, number - seed_index, seed_index)

    def ask_again(self, setting: int, seed_index: int) -> Trial:
        """Returns one more trial of a setting that has been run, with another seed; beyond the budget.

        Args:
          setting: the number of the setting's first trial.
          seed_index: which replicate the new trial is, from 0.
        """
        known = self._study.get_trials(deepcopy=False)[setting].params
        trial = self._ask(self._asked, fixed=dict(known))
        return self._admit(trial, self._config.seed + seed_index, setting, seed_index)

    def report(self, trial: Trial, epoch: int, value: float) -> bool:
        """Notes the objective after an epoch (from 1); returns whether the trial should be pruned."""
        with _writing(self._path):
            handle = self._handle(trial)
            handle.report(value, epoch)
            return self._pruner is not None and handle.should_prune()  # successive halving writes, too

    def note_copy(self, trial: Trial, epoch: int, source: int) -> None:
        """Notes in the journal that a trial goes on from another's state with other hyperparameters."""
        note = {"source": source, "hyperparameters": trial.hyperparameters}
        with _writing(self._path):
            self._handle(trial).set_user_attr(f"copy_after_epoch_{epoch}", note)

    def tell(self, trial: Trial, status: str, value: float | None) -> None:
        """Ends a trial.

        Args:
          trial: the trial.
          status: complete, pruned, diverged or failed.
          value: the objective; needed when complete. A pruned or diverged trial counts as worse than every
            complete one, at the last value that was reported; a failed one is not learned from.
            The samplers gp and cmaes learn from complete trials alone.
        """
        from optuna.trial import TrialState

        states = {"complete": TrialState.COMPLETE, "failed": TrialState.FAIL}
        state = states.get(status, TrialState.PRUNED)
        with _writing(self._path):
            handle = self._handle(trial)
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

    def _ask(self, number: int, fixed: dict[str, Any] | None) -> "optuna.Trial":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a part of Optuna is experimental is no news for users
            sampler = create_sampler(self._config.sweep, self._config.seed, number)
        self._study.sampler = sampler if fixed is None else create_fixed_sampler(fixed, sampler)
        always = {axis.name: _distribution(axis) for axis in self._space.axes if not axis.when}
        with _writing(self._path):
            trial = self._study.ask(always)
            for axis in self._space.axes:
                if axis.when and axis.applies(trial.params):
                    _suggest(trial, axis)
        self._asked += 1
        return trial

    def _admit(self, trial: "optuna.Trial", seed: int, setting: int, seed_index: int) -> Trial:
        with _writing(self._path):
            trial.set_user_attr("seed", seed)
        self._running[trial.number] = trial
        return Trial(trial.number, dict(trial.params), seed, setting, seed_index)

    def _handle(self, trial: Trial) -> "optuna.Trial":
        if trial.number not in self._running:
            import optuna

            frozen = self._study.get_trials(deepcopy=False)[trial.number]
            self._study.sampler = _random(trial.number)
            self._running[trial.number] = optuna.Trial(self._study, frozen._trial_id)
        return self._running[trial.number]


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
    with _writing(path):
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


def _random(number: int) -> "optuna.samplers.BaseSampler":
    from optuna.samplers import RandomSampler

    return RandomSampler(seed=number)


def _distribution(axis: Axis) -> "optuna.distributions.BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if axis.choices:
        return CategoricalDistribution(axis.choices)
    if isinstance(axis.low, int):
        return IntDistribution(axis.low, int(axis.high), log=axis.log, step=int(axis.step or 1))
    return FloatDistribution(axis.low, axis.high, log=axis.log, step=axis.step)


def _suggest(trial: "optuna.Trial", axis: Axis) -> None:
    if axis.choices:
        trial.suggest_categorical(axis.name, axis.choices)
    elif isinstance(axis.low, int):
        trial.suggest_int(axis.name, axis.low, int(axis.high), log=axis.log, step=int(axis.step or 1))
    else:
        trial.suggest_float(axis.name, axis.low, axis.high, log=axis.log, step=axis.step)
