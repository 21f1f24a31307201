"""Which trials' weights stay on disk: the best ones, and those of the setting that wins."""

import math
import sys
from collections.abc import Mapping
from pathlib import Path

from jaxtyping import PyTree

from hpjax.store.arrays import Nested
from hpjax.store.checkpoints import TrialCheckpoints
from hpjax.store.ranking import rank_setting


class KeptWeights:
    """The weights of the `keep` best trials and of all trials of the winning setting; a context manager.

    Which setting wins isn't known before its last seed has ended. So the weights of a setting stay, besides
    those of the best trials, as long as one of its seeds is still to end, and then as long as no other
    setting ranks before it. Trials end in the order of their numbers but for those in lanes together, so
    that is a matter of a few settings.

    Args:
      directory: of the weights; created if missing.
      keep: how many of the best trials' weights stay.
      seeds: with how many each setting is run.
      winner: whether those of the winning setting stay, too.

    Raises:
      WorkdirError: the directory can't be created.
    """

    def __init__(self, directory: str | Path, keep: int, seeds: int, winner: bool = True):
        self._checkpoints = TrialCheckpoints(directory, sys.maxsize)
        self._keep, self._seeds, self._winner = keep, seeds, winner
        self._there: dict[int, float] = {}  # scores of the trials whose weights are on disk
        self._open: dict[int, dict[int, float]] = {}  # scores by setting, of settings that haven't ended
        self._leader: tuple[tuple[bool, float, int], list[int]] | None = None  # its rank and its trials

    def __enter__(self) -> "KeptWeights":
        return self

    def __exit__(self, *_: object) -> None:
        self._checkpoints.close()

    def recall(self, trial: int, setting: int, score: float) -> None:
        """Takes note of a trial that ended before the sweep was interrupted; arguments as of `finish`."""
        if trial in self._checkpoints.trials():
            self._there[trial] = score
        self._settle(trial, setting, score)

    def wants(self, trial: int, setting: int, score: float) -> bool:
        """Returns whether the weights of a trial that ends now would stay."""
        if score == -math.inf:
            return False
        better = sum((-s, n) < (-score, trial) for n, s in self._there.items())
        return better < self._keep or (self._winner and self._may_win(trial, setting, score))

    def finish(
        self, trial: int, setting: int, score: float, weights: PyTree | None, metadata: Mapping
    ) -> None:
        """Ends a trial; its weights are written in the background if they stay, and others' removed.

        Args:
          trial: its number.
          setting: its setting's.
          score: what ranks it, higher is better; -inf for one that is lost.
          weights: a tree of arrays, given up; None where they weren't wanted.
          metadata: JSON values that `load` returns.

        Raises:
          WorkdirError: an earlier save failed.
        """
        self._there.pop(trial, None)
        if weights is not None and self.wants(trial, setting, score):
            self._checkpoints.save(trial, weights, metadata, score)
            self._there[trial] = score
        else:
            self._checkpoints.forget(trial)  # of a run that was killed after it had saved them
        self._settle(trial, setting, score)
        best = sorted(self._there, key=lambda n: (-self._there[n], n))[: self._keep]
        self._forget(set(self._there) - {*best, *self._pinned()})

    def clear(self) -> None:
        """Removes all that is there."""
        self._forget(self._checkpoints.trials())
        self.wait()

    def trials(self) -> list[int]:
        """Returns the trials on disk, by number, once all are written; not yet verified."""
        self.wait()
        return self._checkpoints.trials()

    def load(self, trial: int) -> tuple[Nested, dict]:
        """Returns a trial's arrays and metadata, as `load_trial_checkpoint` does."""
        return self._checkpoints.load(trial)

    def wait(self) -> None:
        """Returns when every save is on disk; raises `WorkdirError` if one failed."""
        self._checkpoints.wait()

    def _may_win(self, trial: int, setting: int, score: float) -> bool:
        if self._leader and self._leader[0][-1] == setting:  # a further seed of the winner
            return True
        scores = {**self._open.get(setting, {}), trial: score}
        return len(scores) < self._seeds or self._leads(scores, setting) is not None

    def _leads(self, scores: Mapping[int, float], setting: int) -> tuple[bool, float, int] | None:
        rank = rank_setting(scores.values(), -math.inf in scores.values(), setting)
        return rank if rank and (self._leader is None or rank < self._leader[0]) else None

    def _settle(self, trial: int, setting: int, score: float) -> None:
        if self._leader and self._leader[0][-1] == setting:
            self._leader[1].append(trial)
            return
        scores = self._open.setdefault(setting, {})
        scores[trial] = score
        if len(scores) == self._seeds:
            del self._open[setting]
            if rank := self._leads(scores, setting):
                self._leader = rank, list(scores)

    def _pinned(self) -> set[int]:
        if not self._winner:
            return set()
        still_open = {trial for scores in self._open.values() for trial in scores}
        return still_open | set(self._leader[1] if self._leader else ())

    def _forget(self, trials) -> None:
        for trial in sorted(trials):
            self._checkpoints.forget(trial)
            self._there.pop(trial, None)


def most_kept(keep: int, seeds: int, final_seeds: int, lanes: int, winner: bool = True) -> int:
    """Returns how many trials' weights `KeptWeights` has on disk at most, between two saves.

    Args:
      keep: as of `KeptWeights`.
      seeds: as of `KeptWeights`.
      final_seeds: with how many more the winner is run.
      lanes: trials that train side by side; their settings may all be open.
      winner: as of `KeptWeights`.
    """
    if not winner or seeds + final_seeds == 1:
        return max(keep, int(winner))  # the winner is the best trial
    still_open = lanes + seeds if seeds > 1 else 0
    return keep + seeds + final_seeds + still_open
