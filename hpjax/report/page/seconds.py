"""How long epochs took, by setting: of the whole program, and a trial's own share of it."""

import math
from typing import NamedTuple

from hpjax.report.page.source import PageSource

MOST = 12  # settings; every trial's seconds stand in the table of trials


class Seconds(NamedTuple):
    """A setting's seconds per epoch.

    Attributes:
      label: the setting in words.
      epoch: of the whole program, in which lanes share an epoch.
      share: divided by the lanes that shared it.
      wins: whether it is the winner.
    """

    label: str
    epoch: float
    share: float
    wins: bool


def list_seconds(source: PageSource) -> tuple[list[Seconds], int]:
    """Returns the best settings' seconds per epoch, and how many settings there are."""
    trials = {trial.trial: trial for trial in source.trials}
    found = []
    for row in source.settings:
        timed = [t for number in row.trials if (t := trials[number]).epochs and t.average_epoch_seconds]
        if not timed:
            continue
        epochs = sum(trial.epochs for trial in timed)
        whole = sum((trial.average_epoch_seconds or 0.0) * trial.epochs for trial in timed) / epochs
        share = sum(trial.amortised_seconds or 0.0 for trial in timed) / epochs
        rank = (not row.winner, source.scores.get(row.setting, math.inf), row.setting)
        found.append((rank, Seconds(source.labels[row.trials[0]], whole, share, row.winner)))
    return [entry for _, entry in sorted(found, key=lambda pair: pair[0])][:MOST], len(found)
