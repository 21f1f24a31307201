"""The study: Optuna asks and is told; its journal on disk is all the state there is."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hpjax.config.fields import Config
from hpjax.config.seeds import seed_of
from hpjax.search.journal import sync_journal
from hpjax.search.reopening import reopen_trials
from hpjax.search.replicates import Replicates, Stage
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
from hpjax.search.untried import Untried, choose_settings
from hpjax.store.lock import writing
from hpjax.store.marks import Mark, RunningMark

if TYPE_CHECKING:
    import optuna

KNOWN = "trials_of_another_study"  # of the study's first trials, so many


class Study:
    """Trials to run, one after the other; use `open_study`.

    Every setting is run `sweep.seeds` times, see `Replicates`. In a population every trial has a seed of its
    own, so that no two are ever the same; else a setting that a sampler or the user names again is replaced
    by one that no trial has had, and the study ends where there is none.

    Attributes:
      stages: what the sweep had, and has now.
    """

    def __init__(
        self,
        config: Config,
        space: Space,
        study: "optuna.Study",
        path: Path,
        written: RunningMark,
        stages: Sequence[Stage],
    ):
        self._config, self._space, self._study = config, space, study
        self._path, self._written = path, written
        self._pruner = create_pruner(config.sweep)
        everything = study.get_trials(deepcopy=False)
        self._known = everything[: study.user_attrs.get(KNOWN, 0)]
        past = everything[len(self._known) :]
        self._asked = len(past)
        now = Stage(len(past), config.sweep.seeds, config.train.epochs)
        before = stages[-1] if stages else None
        same = before is not None and (before.seeds, before.epochs) == (now.seeds, now.epochs)
        self.stages = [*stages] if same else [*stages, now]
        self._replicates = Replicates(self.stages)
        self._told = sum(trial.state.is_finished() for trial in past)
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
        number = self._asked
        place = self._replicates[number]
        fixed = self._params(place.first) if place.seed_index else self._plan(place.setting)
        trial = self._ask(place.setting, fixed, place.seed_index > 0)
        return self._admit(trial, self._replicate(number, trial.params))

    def ask_for(self, number: int) -> Trial:
        """Returns a trial of the budget by its number, after asking for all before it."""
        while self._asked <= number:
            self.ask()
        return self._replicate(number, self._handle(number).params)

    def foresee(self, number: int) -> Trial:
        """Returns what a grid's trial will be, or was, without asking for it."""
        return self._replicate(number, self._planned[self._replicates[number].setting])

    def list_settings(self) -> Iterator[tuple[dict[str, Any], list[int]]]:
        """Yields each setting of a grid with the numbers of its trials."""
        for number in range(self.budget // self._config.sweep.seeds):
            yield self._planned[number], self._replicates.numbers(number)

    def ask_again(self, setting: int, seed_index: int) -> Trial:
        """Returns one more trial of a setting that has been run, with another seed; beyond the budget.

        Args:
          setting: the number of the setting's first trial.
          seed_index: which replicate the new trial is, from 0.
        """
        number, seed = self._asked, seed_of(self._config, seed_index)
        trial = self._ask(number, self._params(setting), replicates=True)
        return self._admit(trial, Trial(number, dict(trial.params), seed, setting, seed_index))

    def report(self, trial: Trial, epoch: int, value: float) -> bool:
        """Notes the objective after an epoch (from 1); returns whether the trial is to be pruned.

        Never one beyond the budget, which says how well a chosen setting does, nor by a value of NaN.
        """
        if value != value:
            return False
        with relaying_warnings(), writing(self._path):
            handle = self._handle(trial.number)
            handle.report(value, epoch)
            pruned = self._pruner is not None and handle.should_prune()  # successive halving writes, too
        return pruned and trial.seed_index < self._config.sweep.seeds

    def note_copy(self, trial: Trial, epoch: int, source: int) -> None:
        """Notes in the journal that a trial goes on from another's state with other hyperparameters."""
        note = {"source": source, "hyperparameters": trial.hyperparameters}
        with writing(self._path):
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
        with writing(self._path):
            handle = self._handle(trial.number)
            handle.set_user_attr("status", status)
            self._study.tell(handle, value if status == "complete" else None, state=state)
        del self._running[trial.number]
        self._told += 1

    def recall(self, number: int) -> Trial:
        """Returns a trial that was asked for."""
        return self._replicate(number, self._params(number))

    def reopen(self, numbers: Collection[int]) -> None:
        """Has trials that were complete go on."""
        with relaying_warnings(), writing(self._path):
            self._study = reopen_trials(self._study, {len(self._known) + number for number in numbers})
        self._running.clear()
        self._told -= len(numbers)

    def mark(self) -> Mark:
        """Makes the journal durable and returns its mark; `open_study` goes on from there.

        Raises:
          WorkdirError: The disk is full or gone.
        """
        with writing(self._path):
            return sync_journal(self._path, self._written)

    def _plan(self, setting: int) -> dict[str, Any] | None:
        return self._planned[setting] if setting < len(self._planned) else None

    def _params(self, number: int) -> dict[str, Any]:
        return dict(self._get(number).params)

    def _get(self, number: int) -> "optuna.trial.FrozenTrial":
        """Returns a trial as Optuna has it, which counts those of another study as well."""
        storage, number = self._study._storage, len(self._known) + number
        # By its number: a list of all trials takes time that grows with them.
        return storage.get_trial(
            storage.get_trial_id_from_study_id_trial_number(self._study._study_id, number)
        )

    def _ask(self, setting: int, fixed: dict[str, Any] | None, replicates: bool) -> "optuna.Trial":
        """Asks Optuna for one more trial; what is drawn for it depends on which setting it is, counted."""
        with relaying_warnings(), writing(self._path):
            self._study.sampler = self._create_sampler(setting, fixed, replicates)
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
        self, setting: int, fixed: dict[str, Any] | None, replicates: bool
    ) -> "optuna.samplers.BaseSampler":
        """Returns what answers for a trial's setting; `replicates`: it is to be that of an earlier one."""
        sweep, seed, untried = self._config.sweep, self._config.seed, self._untried

        def create(attempt: int) -> "optuna.samplers.BaseSampler":
            # Further on than what is known: that of the same seed may have been drawn in the same way.
            told = self._study.get_trials(deepcopy=False) if self._known else ()
            sampler = create_sampler(sweep, seed, len(self._known) + setting, attempt, self._known, told)
            return sampler if fixed is None else create_fixed_sampler(fixed, sampler)

        def choose(wanted: Mapping[str, Any]) -> Mapping[str, Any]:
            assert untried is not None
            return untried.choose(wanted, sweep.sampler not in UNLEARNED, (seed, setting), fixed or {})

        listed = untried is not None and untried.count is not None
        if replicates or sweep.sampler == "grid" or not (listed or self._space.constraint):
            return create(0)
        return choose_settings(create, self._space, choose if listed else None)

    def _replicate(self, number: int, hyperparameters: Mapping[str, Any]) -> Trial:
        """Returns a trial of the budget: which setting and which replicate it is follows from its number."""
        _, first, seed_index = self._replicates[number]
        config = self._config
        seed = config.seed + number if config.sweep.pbt else seed_of(config, seed_index)
        return Trial(number, dict(hyperparameters), seed, first, seed_index)

    def _admit(self, handle: "optuna.Trial", trial: Trial) -> Trial:
        with writing(self._path):
            handle.set_user_attr("seed", trial.seed)
        self._running[trial.number] = handle
        return trial

    def _handle(self, number: int) -> "optuna.Trial":
        if number not in self._running:
            import optuna

            self._study.sampler = _random(number)
            self._running[number] = optuna.Trial(self._study, self._get(number)._trial_id)
        return self._running[number]


def _complete(setting: Mapping[str, Any], space: Space, seed: int) -> dict[str, Any]:
    """Returns an enqueued setting with a value, drawn at random, for each axis that it leaves open."""
    rng = np.random.default_rng((seed, *json.dumps(dict(setting), sort_keys=True).encode()))
    found = space.find(setting, rng)
    if found is None:
        raise space.refuse_all()
    return found


def _random(number: int) -> "optuna.samplers.BaseSampler":
    from optuna.samplers import RandomSampler

    return RandomSampler(seed=number)
