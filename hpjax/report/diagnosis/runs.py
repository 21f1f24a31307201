"""A sweep's rows as the rules read them: curves, the winner, and the best run of every value."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from hpjax.report.curves import label_setting
from hpjax.report.diagnosis import noise
from hpjax.report.diagnosis.facts import SweepFacts
from hpjax.report.style import format_value, is_number, spell
from hpjax.search.space import Axis
from hpjax.store.rows import EpochRow, TrialRow
from hpjax.store.settings import SettingRow, summarize_settings

BUCKETS = 4  # equal parts of a range: its values are told apart no finer
LEAST_IN_BUCKET = 3  # of a search, whose other hyperparameters differ as well: the best of fewer says little


@dataclass(frozen=True, eq=False)
class Run:
    """One trial's curves; NaN where nothing finite was measured.

    Attributes:
      trial: its row.
      epochs: their numbers, from 1.
      train_loss: of each epoch.
      loss: on the images that were held out or, without, on the test images.
      accuracy: on the same.
      scores: what ranks it, by epoch, so that higher is better.
      seconds: its share of each epoch's wall time.
      lanes: how many trials shared each epoch.
    """

    trial: TrialRow
    epochs: np.ndarray
    train_loss: np.ndarray
    loss: np.ndarray
    accuracy: np.ndarray
    scores: np.ndarray
    seconds: np.ndarray
    lanes: np.ndarray

    def __len__(self) -> int:
        return len(self.epochs)


@dataclass(frozen=True, eq=False)
class Bucket:
    """Runs with the same value of one hyperparameter, or with values in the same part of its range.

    Attributes:
      label: in words, e.g. `learning rate = 1e-4`.
      runs: in it.
      best: the one that ranks first; one that diverged only where all did. None without runs.
    """

    label: str
    runs: Sequence[Run]
    best: Run | None


class Sweep:
    """All runs of a sweep.

    Args:
      trials: all rows.
      epochs: all rows.
      facts: what else is known.
    """

    def __init__(self, trials: Sequence[TrialRow], epochs: Sequence[EpochRow], facts: SweepFacts):
        self.facts, self.trials = facts, list(trials)
        self.split = "validation" if any(row.validation_loss is not None for row in epochs) else "test"
        self.images = facts.images.get(self.split, 0)
        rows: dict[int, list[EpochRow]] = defaultdict(list)
        for row in epochs:
            rows[row.trial].append(row)
        self.runs = [self._create_run(trial, rows[trial.trial]) for trial in self.trials]
        self._run_of = {run.trial.trial: run for run in self.runs}

    def _create_run(self, trial: TrialRow, rows: Sequence[EpochRow]) -> Run:
        metric = self.facts.ranking.metric
        sign = -1.0 if trial.prefers_small(metric) else 1.0
        return Run(
            trial,
            np.array([row.epoch for row in rows], int),
            _column(rows, "train_loss"),
            _column(rows, f"{self.split}_loss"),
            _column(rows, f"{self.split}_accuracy"),
            sign * _column(rows, metric),
            np.array([row.epoch_seconds / max(1, row.lanes) for row in rows], float),
            np.array([row.lanes for row in rows], int),
        )

    @cached_property
    def settings(self) -> list[SettingRow]:
        """Every setting, compared with the winner."""
        return summarize_settings(self.trials, self.facts.ranking)

    @cached_property
    def winner(self) -> Run | None:
        """The best run of the setting that wins; None if none was measured."""
        setting = next((row for row in self.settings if row.winner), None)
        return self.best(self.runs_of(setting)) if setting else None

    def runs_of(self, setting: SettingRow) -> list[Run]:
        """Returns the runs of a setting, by number."""
        return [self._run_of[number] for number in setting.trials]

    @cached_property
    def varied(self) -> tuple[Axis, ...]:
        """The hyperparameters of which at least two values were tried."""
        if self.facts.population:  # its values change on the way: an epoch belongs to none of them
            return ()
        return tuple(axis for axis in self.facts.axes if len(self._values(axis)) > 1)

    @cached_property
    def axes(self) -> tuple[Axis, ...]:
        """Of these, those whose values have a place on a line."""
        return tuple(axis for axis in self.varied if all(map(is_number, self._values(axis))))

    def axis(self, name: str) -> Axis | None:
        """Returns a hyperparameter's axis; None where it wasn't varied."""
        return next((axis for axis in self.axes if axis.name == name), None)

    def _values(self, axis: Axis) -> set:
        return {run.trial.hyperparameters.get(axis.name) for run in self.runs} - {None}

    def score(self, run: Run) -> float:
        """Returns what ranks a run, higher is better; -inf for one that is lost."""
        value = self.facts.ranking.value(run.trial)
        if value is None:
            return -math.inf
        return -value if run.trial.prefers_small(self.facts.ranking.metric) else value

    def best(self, runs: Sequence[Run]) -> Run | None:
        """Returns the run that ranks first; the longest one where all are lost."""
        return max(runs, key=lambda run: (self.score(run), len(run)), default=None)

    def value(self, run: Run, name: str) -> float | None:
        """Returns a hyperparameter of a run as a number; None where it has none."""
        value = run.trial.hyperparameters.get(name, self.facts.fixed.get(name))
        return float(value) if is_number(value) else None  # pyright: ignore[reportArgumentType]

    def accuracy(self, run: Run, epochs: int | None = None) -> float | None:
        """Returns a run's accuracy at the epoch that ranks it: its last one, or its best one.

        Args:
          run: the run.
          epochs: only so many of its first epochs count; None: all.
        """
        finite = run.accuracy[:epochs][np.isfinite(run.accuracy[:epochs])]
        if not len(finite):
            return None
        return float(finite[-1] if self.facts.ranking.select == "final" else finite.max())

    def noise(self, run: Run, epochs: int | None = None) -> float:
        """Returns what chance may change of a run's accuracy: images, seeds, its last epochs' scatter."""
        accuracy = self.accuracy(run, epochs)
        if accuracy is None:
            return math.inf
        late = run.accuracy[:epochs][-8:]  # the first epochs of ten are steep: no scatter
        return self._noise_of(accuracy, noise.jitter(late))

    def _noise_of(self, accuracy: float, jitter: float = 0.0) -> float:
        seed = self.seed_sd if self.seed_sd is not None else noise.assumed_seed_sd(accuracy)
        return math.hypot(noise.image_sd(accuracy, self.images), max(seed, jitter))

    @cached_property
    def seed_sd(self) -> float | None:
        """The standard deviation of the accuracy within settings; None where too few were replicated."""
        groups: dict[int, list[float]] = defaultdict(list)
        for run in self.runs:
            if run.trial.status == "complete" and (found := self.accuracy(run)) is not None:
                groups[run.trial.setting].append(found)
        return noise.pooled_sd(list(groups.values()))

    def lead(self, better: Run, worse: Run) -> float:
        """Returns by how many standard deviations of chance one run is more accurate than another.

        After as many epochs: one may have been pruned. One that diverged has lost to every other. Whose
        accuracy bounces may lose by its best epoch: that it bounces is no excuse.
        """
        if worse.trial.diverged and not better.trial.diverged:
            return math.inf
        epochs = min(len(better), len(worse))
        ours, theirs = self.accuracy(better, epochs), self.accuracy(worse, epochs)
        if ours is None or theirs is None or not self.images:
            return 0.0
        noise_of_ours, top = self.noise(better, epochs), float(np.nanmax(worse.accuracy[:epochs]))
        by_rank = (ours - theirs) / math.hypot(noise_of_ours, self.noise(worse, epochs))
        return max(by_rank, (ours - top) / math.hypot(noise_of_ours, self._noise_of(top)))

    def buckets(self, axis: Axis) -> list[Bucket]:
        """Returns the runs by value of one hyperparameter, from low to high; empty ones are left out."""
        groups: dict[Any, list[Run]] = defaultdict(list)
        for run in self.runs:
            if (value := run.trial.hyperparameters.get(axis.name)) is not None:
                groups[value if _is_listed(axis) else _part(axis, value)].append(run)  # pyright: ignore
        return [self._create_bucket(axis, key, groups[key]) for key in sorted(groups, key=_order)]

    def judged_buckets(self, axis: Axis) -> list[Bucket]:
        """Returns those whose best run speaks for the value: other hyperparameters had their chance."""
        enough = 1 if len(self.varied) == 1 or self.facts.sampler == "grid" else LEAST_IN_BUCKET
        return [bucket for bucket in self.buckets(axis) if len(bucket.runs) >= enough]

    def _create_bucket(self, axis: Axis, key: Any, runs: Sequence[Run]) -> Bucket:
        if _is_listed(axis):
            return Bucket(f"{spell(axis.name)} = {format_value(key)}", runs, self.best(runs))
        low, high = (value_at(axis, (key + side) / BUCKETS) for side in (0, 1))
        span = f"{format_value(float(f'{low:.2g}'))} to {format_value(float(f'{high:.2g}'))}"
        return Bucket(f"{spell(axis.name)} {span}", runs, self.best(runs))

    @cached_property
    def candidates(self) -> list[Run]:
        """The winner and the best run of every value, once each; none that was cut short."""
        best = [self.winner]
        best += [bucket.best for axis in self.varied for bucket in self.judged_buckets(axis)]
        whole = [run for run in best if run is not None and run.trial.status not in ("pruned", "diverged")]
        return list({run.trial.trial: run for run in whole}.values())

    def label(self, run: Run) -> str:
        """Returns a run's setting in words."""
        return label_setting(run.trial.hyperparameters, self.facts.names) or f"trial {run.trial.trial}"


def position(axis: Axis, value: float) -> float:
    """Returns where a value lies in its range, 0 to 1, on the scale of the axis."""
    low, high = float(axis.low), float(axis.high)
    if axis.log:
        return math.log(value / low) / math.log(high / low)
    return (value - low) / (high - low)


def value_at(axis: Axis, place: float) -> float:
    """Returns the value at a position of a range, also of one beyond its ends."""
    low, high = float(axis.low), float(axis.high)
    return low * (high / low) ** place if axis.log else low + place * (high - low)


def _is_listed(axis: Axis) -> bool:
    return bool(axis.choices) or (axis.is_finite and axis.count <= 2 * BUCKETS)


def _order(value: Any) -> tuple[bool, float, str]:
    """Sorts numbers before what is none."""
    return not is_number(value), float(value) if is_number(value) else 0.0, str(value)


def _part(axis: Axis, value: float) -> int:
    return min(BUCKETS - 1, max(0, int(position(axis, value) * BUCKETS)))


def _column(rows: Sequence[EpochRow], name: str) -> np.ndarray:
    values = [getattr(row, name, None) for row in rows]
    found = np.array([math.nan if value is None else value for value in values], float)
    return np.where(np.isfinite(found), found, math.nan)
