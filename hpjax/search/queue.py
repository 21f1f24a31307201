"""Which trial comes next, so that few programs are compiled: trials wait here for their group's turn.

A grid is known before it begins: its trials are grouped up front, and each group is entered once. Of a
sampler's trials only those are known that it was asked for, and one that learns is asked only a few trials
ahead of its results (`most_unfinished`): those in lanes and those that wait for their group. Once so many are
on their way, the group in lanes is run to its end and the next one has its turn.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from hpjax.config.fields import Config
from hpjax.config.hyperparameters import apply_hyperparameters, static_key
from hpjax.search.samplers import UNLEARNED
from hpjax.search.space import Space
from hpjax.search.study import Study
from hpjax.search.trial import Trial

LOOKAHEAD = 64  # trials that may wait while a group's next one is looked for; as many for each worker
LEAST_UNFINISHED = 4  # settings, however short the search
LEARNED_ROUNDS = 8  # in which a sampler that learns has its results, at least

GroupKey = Callable[[Mapping[str, Any]], str]


def most_unfinished(config: Config) -> int:
    """Returns how many trials may be asked for and not have ended, those in lanes included; 0: any number.

    Where the sampler learns, an eighth of the search, but 4 settings at least and as many trials as
    `lanes.count` asks for: 32 trials in 32 lanes would be a random search.
    """
    sweep = config.sweep
    if sweep.sampler in UNLEARNED:
        return 0
    settings = max(LEAST_UNFINISHED, sweep.trials // LEARNED_ROUNDS)
    return max(settings * sweep.seeds, config.lanes.count)


def may_be_side_by_side(config: Config) -> bool:
    """Returns whether groups may run at once: what is asked for doesn't depend on what came before."""
    sweep = config.sweep
    return sweep.sampler in UNLEARNED and sweep.pruner == "none" and not sweep.pbt


def make_group_key(config: Config, space: Space) -> GroupKey:
    """Returns `f(hyperparameters)`, the group that they belong to.

    A configuration is built once for each combination of static hyperparameters: of 10,000 settings all
    others are looked up.
    """
    known: dict[tuple, str] = {}
    dynamic = space.dynamic

    def group_key(hyperparameters: Mapping[str, Any]) -> str:
        static = tuple(item for item in hyperparameters.items() if item[0] not in dynamic)
        if static not in known:
            known[static] = static_key(apply_hyperparameters(config, dict(static)), dynamic)
        return known[static]

    return group_key


class Queue(Protocol):
    """Trials that haven't been admitted, by group."""

    def next_group(self) -> str | None:
        """Returns the group whose turn it is; None when no trial is left."""

    def groups(self) -> list[str]:
        """Returns the groups in which trials wait."""
        ...

    def look_ahead(self, most: int) -> None:
        """Lets up to so many trials wait, where they are the same whenever they are asked for."""

    def first(self, group: str) -> Trial:
        """Returns the group's next trial, without taking it."""
        ...

    def count(self, group: str) -> int:
        """Returns how many trials the group may still have."""
        ...

    def count_waiting(self, group: str) -> int:
        """Returns how many of its trials wait."""
        ...

    def take(self, group: str) -> Trial | None:
        """Returns the group's next trial and removes it; None if there is none (yet)."""

    def add(self, trial: Trial) -> None:
        """Lets a trial wait that was asked for beyond the budget."""

    def to_list(self) -> list[dict]:
        """Returns, as JSON values, the waiting trials that `create_queue` needs to go on."""
        ...


def create_queue(
    config: Config, study: Study, waiting: Iterable[dict] = (), taken: Iterable[int] = ()
) -> Queue:
    """Returns the queue of a sweep's trials.

    Args:
      config: the sweep's.
      study: where its trials come from.
      waiting: what `Queue.to_list` returned when the checkpoint that is continued was taken.
      taken: numbers of the trials that were admitted before.
    """
    key = make_group_key(config, study.space)
    if config.sweep.sampler == "grid":
        return GridQueue(key, study, waiting, taken)
    return SamplerQueue(key, study, waiting, most_unfinished(config))


class GridQueue:
    """All trials of a grid, grouped up front; groups have their turn in the order of their first trials.

    Trials are numbered in the grid's order whatever group has its turn: the study is asked for all up to the
    one that is taken, not before.

    Args:
      key: the group that hyperparameters belong to.
      study: the grid.
      waiting: trials beyond the grid, as `to_list` gave them.
      taken: numbers of trials that don't wait any more.
    """

    def __init__(self, key: GroupKey, study: Study, waiting: Iterable[dict] = (), taken: Iterable[int] = ()):
        self._key, self._study = key, study
        self._left: dict[str, deque[int]] = {}
        self._added: dict[int, Trial] = {}
        gone = set(taken)
        for setting, numbers in study.list_settings():
            left = [number for number in numbers if number not in gone]
            if left:
                self._left.setdefault(key(setting), deque()).extend(left)
        for entry in waiting:
            self.add(Trial(**entry))

    def to_list(self) -> list[dict]:
        """Returns those beyond the grid: the others follow from what was taken."""
        return [vars(trial) for trial in self._added.values()]

    def next_group(self) -> str | None:
        """Returns the first group with trials left."""
        return next(iter(self.groups()), None)

    def groups(self) -> list[str]:
        """Returns the groups with trials left, in the order of their turns."""
        return [group for group, numbers in self._left.items() if numbers]

    def look_ahead(self, most: int) -> None:
        """Does nothing: all of a grid is known."""

    def first(self, group: str) -> Trial:
        """Returns the group's next trial, without asking for it."""
        number = self._left[group][0]
        return self._added.get(number) or self._study.foresee(number)

    def count(self, group: str) -> int:
        """Returns how many trials of the group are left."""
        return self.count_waiting(group)

    def count_waiting(self, group: str) -> int:
        """Returns how many trials of the group are left."""
        return len(self._left.get(group, ()))

    def take(self, group: str) -> Trial | None:
        """Returns the group's next trial and removes it; None when the group is at its end."""
        numbers = self._left.get(group)
        if not numbers:
            return None
        number = numbers.popleft()
        return self._added.pop(number, None) or self._study.ask_for(number)

    def add(self, trial: Trial) -> None:
        """Lets a trial beyond the grid wait."""
        self._added[trial.number] = trial
        self._left.setdefault(self._key(trial.hyperparameters), deque()).append(trial.number)


class SamplerQueue:
    """Trials that a sampler was asked for and that haven't been admitted, in order.

    Args:
      key: the group that hyperparameters belong to.
      study: who is asked.
      waiting: trials as `to_list` gave them.
      most: trials that may be on their way, see `most_unfinished`.
    """

    def __init__(self, key: GroupKey, study: Study, waiting: Iterable[dict] = (), most: int = 0):
        self._key, self._study, self._most = key, study, most
        self._waiting: list[tuple[str, Trial]] = []
        self._lookahead = LOOKAHEAD
        for entry in waiting:
            self.add(Trial(**entry))

    def to_list(self) -> list[dict]:
        """Returns the waiting trials as JSON values."""
        return [vars(trial) for _, trial in self._waiting]

    def next_group(self) -> str | None:
        """Returns the group in which most trials wait (among equals, the longest waiting one), or None."""
        if not self._waiting and (trial := self._study.ask()) is not None:
            self.add(trial)
        keys = [key for key, _ in self._waiting]
        return max(dict.fromkeys(keys), key=keys.count, default=None)

    def groups(self) -> list[str]:
        """Returns the groups in which trials wait, the longest waiting one first."""
        return list(dict.fromkeys(key for key, _ in self._waiting))

    def look_ahead(self, most: int) -> None:
        """Asks for up to so many trials, which may wait from now on, so that their groups are known."""
        self._lookahead = max(most, LOOKAHEAD)
        while self._may_ask() and (trial := self._study.ask()) is not None:
            self.add(trial)

    def add(self, trial: Trial) -> None:
        """Lets a trial wait."""
        self._waiting.append((self._key(trial.hyperparameters), trial))

    def first(self, group: str) -> Trial:
        """Returns the first of the group's waiting trials."""
        return next(trial for key, trial in self._waiting if key == group)

    def count(self, group: str) -> int:
        """Returns how many trials the group has if all that are still to be asked for belong to it."""
        return self.count_waiting(group) + self._study.left

    def count_waiting(self, group: str) -> int:
        """Returns how many trials of the group were asked for and wait."""
        return sum(key == group for key, _ in self._waiting)

    def take(self, group: str) -> Trial | None:
        """Returns the group's next trial and removes it; None if none is found within the lookahead.

        None isn't final: when results have come in, there may be one.
        """
        for i, (key, _) in enumerate(self._waiting):
            if key == group:
                return self._waiting.pop(i)[1]
        while self._may_ask() and (trial := self._study.ask()) is not None:
            self.add(trial)
            if self._waiting[-1][0] == group:
                return self._waiting.pop()[1]
        return None

    def _may_ask(self) -> bool:
        return len(self._waiting) < self._lookahead and not 0 < self._most <= self._study.unfinished
