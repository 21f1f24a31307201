"""Which number ranks a trial: that of its last epoch, or that of its best one. Whoever ranks asks here."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from hpjax.errors import WorkdirError
from hpjax.store.rows import SELECTS, TrialRow
from hpjax.tasks import is_column


@dataclass(frozen=True)
class Ranking:
    """What trials and settings are ranked by, in tables, figures, the study and the choice of weights.

    Attributes:
      metric: a column of epochs.
      select: `final`, a trial counts as its last epoch does; or `best`, as its best epoch does.
    """

    metric: str
    select: str = "final"

    @property
    def column(self) -> str:
        """The column of trials that holds the number, e.g. `final_test_accuracy`."""
        return f"{self.select}_{self.metric}"

    @property
    def other(self) -> "Ranking":
        """The number that is reported beside the one that ranks."""
        return Ranking(self.metric, "best" if self.select == "final" else "final")

    def describe(self, name: str = "") -> str:
        """Returns the number in words, e.g. `final test accuracy`; `name` replaces that of the metric."""
        return f"{self.select} {name or self.metric}".replace("_", " ")

    def value(self, trial: TrialRow) -> float | None:
        """Returns the number that ranks a trial; None where it diverged or nothing finite was measured."""
        value = getattr(trial, self.column)
        return None if trial.diverged or value is None or not math.isfinite(value) else value

    def pick(self, last: float, best: float) -> float:
        """Returns which of two scores ranks a trial: its last epoch's or its best epoch's."""
        return last if self.select == "final" else best

    def weights_score(self, epoch: int, score: float) -> float:
        """Returns what is to be a trial's highest so far exactly when an epoch's weights are to be kept.

        The weights of a trial are those that its number was measured with: for `final`, every epoch's
        replace those before.
        """
        return self.pick(float(epoch), score) if score > -math.inf else -math.inf

    def find_best(self, trials: Iterable[TrialRow]) -> TrialRow | None:
        """Returns the trial that ranks first; None if no trial has a number.

        Losses are better when small, a metric of the user's own as it says, everything else when large; the
        lower number wins a tie.
        """
        ranked = [
            (value if trial.prefers_small(self.metric) else -value, trial.trial, trial)
            for trial in trials
            if (value := self.value(trial)) is not None
        ]
        return min(ranked)[2] if ranked else None


def parse_ranking(file: Path, summary: Mapping[str, Any]) -> Ranking:
    """Returns what a summary says that trials are ranked by.

    Args:
      file: where the summary lies.
      summary: its content.

    Raises:
      WorkdirError: It says nothing that a sweep writes.
    """
    metric, select = summary.get("metric"), summary.get("select")
    known = {field.name for field in fields(TrialRow)}
    if select in SELECTS and (f"{select}_{metric}" in known or is_column(str(metric))):
        return Ranking(str(metric), str(select))
    what = f"ranks by {str(select)[:99]!r} {str(metric)[:99]!r}"
    raise WorkdirError(f"{file} is damaged (it {what}): remove it, and the same command writes it again")


def rank_setting(scores: Iterable[float], lost: bool, setting: int) -> tuple[bool, float, int] | None:
    """Returns what orders settings run with equally many seeds, the first one least; None without a score.

    A setting is ranked by the mean over its seeds, behind all others if it lost a seed: survivors alone make
    no winner. The lower number wins a tie.

    Args:
      scores: of its trials that were not lost, higher is better.
      lost: whether one of its trials diverged.
      setting: its number.
    """
    finite = [score for score in scores if math.isfinite(score)]
    return (lost, -math.fsum(finite) / len(finite), setting) if finite else None
