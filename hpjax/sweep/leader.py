"""Which trial ranks first while a sweep runs: those in lanes by their last epoch so far."""

import math


class Leader:
    """The trial with the highest score; among equals the lowest number."""

    def __init__(self) -> None:
        self._running: dict[int, float] = {}
        self._ended: tuple[float, int] | None = None  # negative score and number: the least is best

    def update(self, trial: int, score: float) -> None:
        """Sets what ranks a running trial; under `sweep.select=final` it may fall."""
        self._running[trial] = score

    def finish(self, trial: int, score: float) -> None:
        """Sets what ranks a trial that ended; -inf for one that is lost."""
        self._running.pop(trial, None)
        if score > -math.inf:
            ended = (-score, trial)
            self._ended = min(self._ended or ended, ended)

    def best(self) -> tuple[int, float] | None:
        """Returns the trial and its score; None where none has one."""
        ranked = [(-score, trial) for trial, score in self._running.items() if score > -math.inf]
        ranked += [self._ended] if self._ended else []
        return (min(ranked)[1], -min(ranked)[0]) if ranked else None
