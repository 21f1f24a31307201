"""Which trial comes next, so that few programs live at once: trials wait here for their group's turn.

A sampler that learns is asked only a few trials ahead of its results (`most_unfinished`): those in lanes and
those that wait for their group. Once so many are on their way, the group in lanes is run to its end and the
next one has its turn.
"""

from collections.abc import Callable
from typing import Protocol

from hpjax.config.fields import Config
from hpjax.search.samplers import UNLEARNED
from hpjax.search.trial import Trial

LOOKAHEAD = 64  # trials that may wait while a group's next one is looked for
LEAST_UNFINISHED = 4  # settings, however short the search
LEARNED_ROUNDS = 8  # in which a sampler that learns has its results, at least


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


class Asks(Protocol):
    """Where trials come from."""

    def ask(self) -> Trial | None:
        """Returns the next trial; None once the budget is spent."""
        ...

    @property
    def unfinished(self) -> int:
        """How many trials were asked for and haven't ended."""
        ...


class GroupQueue:
    """Trials that were asked for and haven't been admitted, in order.

    Args:
      key: the group that a trial belongs to.
      waiting: trials as `to_list` gave them.
      most: trials that may be on their way, see `most_unfinished`.
    """

    def __init__(self, key: Callable[[Trial], str], waiting: list[dict] | tuple = (), most: int = 0):
        self._key, self._most = key, most
        self._waiting: list[tuple[str, Trial]] = []
        for entry in waiting:
            self.add(Trial(**entry))

    def to_list(self) -> list[dict]:
        """Returns the waiting trials as JSON values."""
        return [vars(trial) for _, trial in self._waiting]

    def next_group(self, study: Asks) -> str | None:
        """Returns the group in which most trials wait (among equals, the longest waiting one), or None."""
        if not self._waiting:
            trial = study.ask()
            if trial is None:
                return None
            self.add(trial)
        keys = [key for key, _ in self._waiting]
        return max(dict.fromkeys(keys), key=keys.count)

    def add(self, trial: Trial) -> str:
        """Lets a trial wait; returns its group."""
        key = self._key(trial)
        self._waiting.append((key, trial))
        return key

    def look_ahead(self, study: Asks, most: int) -> None:
        """Asks for trials until `most` wait or the budget is spent."""
        while len(self._waiting) < most and (trial := study.ask()) is not None:
            self.add(trial)

    def peek(self, group: str) -> list[Trial]:
        """Returns the group's waiting trials."""
        return [trial for key, trial in self._waiting if key == group]

    def take(self, group: str, study: Asks) -> Trial | None:
        """Returns the group's next trial and removes it; None if none is found within the lookahead.

        None isn't final: when results have come in, there may be one.
        """
        for i, (key, _) in enumerate(self._waiting):
            if key == group:
                return self._waiting.pop(i)[1]
        while self._may_ask(study) and (trial := study.ask()) is not None:
            if self.add(trial) == group:
                return self._waiting.pop()[1]
        return None

    def _may_ask(self, study: Asks) -> bool:
        return len(self._waiting) < LOOKAHEAD and not 0 < self._most <= study.unfinished
