"""Curves of settings: epochs of replicates brought together, before anything is drawn."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hpjax.report.style import format_value, is_number, spell
from hpjax.store.ranking import Ranking
from hpjax.store.rows import EpochRow, TrialRow, Value, named_value

ENDS = ("pruned", "diverged")


@dataclass(frozen=True)
class Curve:
    """One setting's values of one metric over epochs.

    Attributes:
      setting: its number.
      label: the setting in words.
      values: of the swept hyperparameters, by name.
      epochs: those with at least one finite value.
      mean: over the replicates that reached the epoch.
      low: smallest of them.
      high: largest of them.
      seeds: replicates.
      ended: how it ended early: pruned or diverged; empty if it didn't, or not with every replicate.
      note: how many replicates ended early, in words; empty if none did.
      last_epoch: the last one begun; beyond `epochs[-1]` where the metric stopped being finite.
      result: the mean over replicates of each one's last value, or of its best one where that ranks trials;
        lost replicates are left out unless all are. None if nothing finite was measured.

    """

    setting: int
    label: str
    values: Mapping[str, object]
    epochs: tuple[int, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    seeds: int
    ended: str
    note: str
    last_epoch: int
    result: float | None


def label_trials(trials: Sequence[TrialRow], swept: Sequence[str]) -> dict[int, str]:
    """Returns each trial's swept hyperparameters in words, e.g. `weight decay = 0.01, momentum = 0.9`.

    Where some changed on the way (PBT), by number, with what the trial started with.
    """
    if any(trial.initial and trial.initial != trial.hyperparameters for trial in trials):
        return {t.trial: f"trial {t.trial}, from {label_setting(t.initial, swept)}" for t in trials}
    return {
        trial.trial: label_setting(trial.hyperparameters, swept) or f"trial {trial.trial}" for trial in trials
    }


def label_setting(hyperparameters: Mapping[str, Value], swept: Sequence[str]) -> str:
    """Returns a setting's swept hyperparameters in words; nothing where none is swept."""
    known = [(name, named_value(hyperparameters, name)) for name in swept if name in hyperparameters]
    return ", ".join(f"{spell(name)} = {format_value(value)}" for name, value in known)


def create_curves(
    epochs: Sequence[EpochRow],
    trials: Sequence[TrialRow],
    labels: Mapping[int, str],
    swept: Sequence[str],
    metric: str,
    select: str = "final",
) -> list[Curve]:
    """Returns a curve per setting that began, ordered by the swept values (numbers as numbers).

    One that diverged in its first epoch has no values, and is there all the same.

    Args:
      epochs: all of them.
      trials: all of them.
      labels: a setting in words for each trial.
      swept: hyperparameters that vary.
      metric: a column of epochs.
      select: which of a trial's values is its result; see `hpjax.store.ranking.Ranking`.
    """
    rows: dict[int, list[EpochRow]] = defaultdict(list)
    for row in epochs:
        rows[row.trial].append(row)
    settings: dict[int, list[TrialRow]] = defaultdict(list)
    for trial in trials:
        if rows[trial.trial] or trial.status in ENDS:
            settings[trial.setting].append(trial)
    ranking = Ranking(metric, select)
    curves = [_create_curve(replicates, rows, labels, swept, ranking) for replicates in settings.values()]
    return sorted(curves, key=lambda curve: [_sort_key(curve.values.get(name)) for name in swept])


def _create_curve(
    replicates: Sequence[TrialRow],
    rows: Mapping[int, Sequence[EpochRow]],
    labels: Mapping[int, str],
    swept: Sequence[str],
    ranking: Ranking,
) -> Curve:
    by_epoch: dict[int, list[float]] = defaultdict(list)
    own = [row for trial in replicates for row in rows[trial.trial]]
    for row in own:
        value = getattr(row, ranking.metric)
        if value is not None and math.isfinite(value):
            by_epoch[row.epoch].append(value)
    finite = sorted(by_epoch)
    first = replicates[0]
    return Curve(
        setting=first.setting,
        label=labels.get(first.trial, f"trial {first.trial}"),
        values={name: first.hyperparameters.get(name) for name in swept},
        epochs=tuple(finite),
        mean=tuple(sum(by_epoch[epoch]) / len(by_epoch[epoch]) for epoch in finite),
        low=tuple(min(by_epoch[epoch]) for epoch in finite),
        high=tuple(max(by_epoch[epoch]) for epoch in finite),
        seeds=len(replicates),
        ended=_find_end(replicates),
        note=_describe_ends(replicates),
        last_epoch=max((row.epoch for row in own), default=1),
        result=_find_result(replicates, rows, ranking),
    )


def _find_result(
    replicates: Sequence[TrialRow], rows: Mapping[int, Sequence[EpochRow]], ranking: Ranking
) -> float | None:
    results = []
    for trial in [t for t in replicates if not t.diverged] or replicates:
        values = [getattr(row, ranking.metric) for row in rows[trial.trial]]
        finite = [value for value in values if value is not None and math.isfinite(value)]
        if finite:
            best = min(finite) if trial.prefers_small(ranking.metric) else max(finite)
            results.append(ranking.pick(finite[-1], best))
    return sum(results) / len(results) if results else None


def _find_end(replicates: Sequence[TrialRow]) -> str:
    if all(trial.status in ENDS for trial in replicates):
        return replicates[0].status
    return ""


def _describe_ends(replicates: Sequence[TrialRow]) -> str:
    early = [trial.status for trial in replicates if trial.status in ENDS]
    if not early or len(replicates) == 1:
        return "".join(early)
    return f"{len(early)} of {len(replicates)} {'/'.join(sorted(set(early)))}"


def _sort_key(value: object) -> tuple[int, float, str]:
    if is_number(value):
        return (0, float(value), "")  # pyright: ignore[reportArgumentType]
    return (1, 0.0, format_value(value))
