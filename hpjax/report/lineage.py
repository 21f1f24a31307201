"""Population based training: who copied whom, and how hyperparameters moved."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hpjax.report.style import (
    COLOURS,
    GREY,
    FigureInfo,
    create_figure,
    is_number,
    join_names,
    save_figure,
    set_log_scale,
    spell,
    tidy_axes,
)
from hpjax.store.ranking import Ranking
from hpjax.store.rows import CopyRow, TrialRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Segment = tuple[int, int, float]  # from epoch, to epoch, value


def draw_lineage(
    trials: Sequence[TrialRow], copies: Sequence[CopyRow], info: FigureInfo, path: Path
) -> list[Path]:
    """Draws each copied hyperparameter over epochs, a line per trial; nothing where nothing was copied."""
    names = list_moved(trials, copies)
    if not names:
        return []
    title = f"Population based training: {join_names(names)} per epoch"
    figure = create_figure(title, info, height=1.3 + 3.2 * len(names))
    ancestry = trace_ancestry(trials, copies, info.ranking)
    panels = list(figure.subplots(len(names), squeeze=False, sharex=True).flat)
    for axes, name in zip(panels, names, strict=True):
        _draw_panel(axes, trials, copies, name, ancestry)
    panels[-1].set_xlabel("epoch")
    style = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.2}
    panels[0].legend(**style, ncols=3, frameon=False, fontsize=8)
    return [save_figure(figure, path)]


def list_moved(trials: Sequence[TrialRow], copies: Sequence[CopyRow]) -> list[str]:
    """Returns the numeric hyperparameters that copies changed and every trial has."""
    names = {name for row in copies for name, value in row.hyperparameters.items() if is_number(value)}
    return [name for name in sorted(names) if all(is_number(trial.initial.get(name)) for trial in trials)]


def trace_ancestry(
    trials: Sequence[TrialRow], copies: Sequence[CopyRow], ranking: Ranking
) -> list[tuple[int, int, int]]:
    """Returns the best trial's ancestors as (trial, from epoch, to epoch), from last to first."""
    best = ranking.find_best(trials)
    if best is None:
        return []
    steps, trial, until = [], best.trial, best.epochs
    for row in sorted(copies, key=lambda row: row.epoch, reverse=True):
        if row.trial == trial and row.epoch < until:
            steps.append((trial, row.epoch, until))
            trial, until = row.source, row.epoch
    return [*steps, (trial, 0, until)]


def _draw_panel(
    axes: "Axes",
    trials: Sequence[TrialRow],
    copies: Sequence[CopyRow],
    name: str,
    ancestry: Sequence[tuple[int, int, int]],
) -> None:
    from matplotlib.ticker import MaxNLocator

    tracks = {trial.trial: trace_value(trial, copies, name) for trial in trials}
    tidy_axes(axes, "", spell(name))
    for track in tracks.values():
        for start, end, value in track:
            axes.plot((start, end), (value, value), color=GREY, linewidth=1.0, alpha=0.7, zorder=2)
    for row in copies:
        ends = (value_at(tracks[row.source], row.epoch), value_at(tracks[row.trial], row.epoch + 1))
        axes.plot((row.epoch, row.epoch), ends, color=COLOURS[5], linewidth=0.9, linestyle=":", zorder=1)
        axes.plot(row.epoch, ends[1], "o", color=COLOURS[5], markersize=4, zorder=3)
    _draw_ancestry(axes, tracks, ancestry)
    axes.plot([], [], color=GREY, label="a trial")
    axes.plot(
        [], [], "o:", color=COLOURS[5], markersize=4, label="copied a better trial and changed the value"
    )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    values = [value for track in tracks.values() for _, _, value in track]
    if min(values) > 0 and max(values) > 20 * min(values):
        set_log_scale(axes.yaxis, values)
        axes.set_ylabel(f"{spell(name)}, log scale")


def _draw_ancestry(
    axes: "Axes", tracks: dict[int, list[Segment]], ancestry: Sequence[tuple[int, int, int]]
) -> None:
    points = []
    for trial, start, end in reversed(ancestry):
        for first, last, value in tracks[trial]:
            if first < end and last > start:
                points += [(max(first, start), value), (min(last, end), value)]
    if points:
        label = f"ancestry of the best (trial {ancestry[0][0]})"
        axes.plot(*zip(*points, strict=True), color=COLOURS[1], linewidth=2.2, zorder=4, label=label)


def trace_value(trial: TrialRow, copies: Sequence[CopyRow], name: str) -> list[Segment]:
    """Returns which values a trial's hyperparameter had, and over which epochs."""
    changes = defaultdict(lambda: trial.initial[name], {0: trial.initial[name]})
    for row in copies:
        if row.trial == trial.trial:
            changes[row.epoch] = row.hyperparameters.get(name, trial.initial[name])
    starts = sorted(changes)
    ends = [*starts[1:], max(trial.epochs, starts[-1])]
    return [(start, end, float(changes[start])) for start, end in zip(starts, ends, strict=True)]  # pyright: ignore[reportArgumentType]


def value_at(track: Sequence[Segment], epoch: int) -> float:
    """Returns the value with which an epoch was trained."""
    return next((value for start, end, value in track if start < epoch <= end), track[-1][2])
