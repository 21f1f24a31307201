"""Accuracy against each swept hyperparameter, of each trial's last epoch or of its best one."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpjax import tasks
from hpjax.report.curves import ENDS
from hpjax.report.intervals import accuracy_range, draw_interval
from hpjax.report.style import (
    COLOURS,
    GREY,
    FigureInfo,
    create_figure,
    draw_chance,
    format_value,
    is_log_like,
    is_number,
    join_names,
    place_texts,
    save_figure,
    set_log_scale,
    spell,
    tidy_axes,
)
from hpjax.store.rows import TrialRow, Value, named_value

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_PANELS = 6
_COLUMNS = 3
_MOST_TICKS = 8
_LONG_TICK = 20
_MOST_INTERVALS = 60  # more would hide the points
STYLES: dict[str, dict[str, Any]] = {
    "early": {"marker": "x", "color": GREY, "s": 28},
    "whole": {"marker": "o", "color": COLOURS[0], "alpha": 0.7, "s": 28},
    "winner": {"marker": "o", "facecolors": "none", "edgecolors": COLOURS[1], "linewidths": 2, "s": 110},
    "lost": {"marker": "x", "color": COLOURS[1], "s": 40, "zorder": 5},
}
_MEANINGS = {
    "early": "ended early (pruned or diverged)",
    "whole": "ran to the end",
    "winner": "winner",
    "lost": "diverged in its first epoch",
}


def name_response(trials: Sequence[TrialRow], info: FigureInfo) -> str:
    """Returns what the figure's file is called."""
    column = _choose_column(trials, info)
    return f"{info.ranking.select}_accuracy.png" if _is_accuracy(column) else f"{column}.png"


def _choose_column(trials: Sequence[TrialRow], info: FigureInfo) -> str:
    """Returns the accuracy that was measured of most trials; what ranks them in a task without one."""
    metric = tasks.name_of(info.ranking.metric)
    columns = (f"{info.ranking.select}_{split}_accuracy" for split in ("test", "validation"))
    # A search reads the test split for the winner alone.
    column = max(columns, key=lambda column: sum(_accuracy(trial, column) is not None for trial in trials))
    others = metric not in ("accuracy", tasks.LOSS, "") or all(_accuracy(t, column) is None for t in trials)
    return info.ranking.column if others and metric else column


def _is_accuracy(column: str) -> bool:
    return tasks.name_of(column.partition("_")[2]) == "accuracy"


def draw_response(trials: Sequence[TrialRow], info: FigureInfo, path: Path) -> list[Path]:
    """Draws a point per trial, a panel per hyperparameter; nothing where fewer than 3 values were tried."""
    column = _choose_column(trials, info)
    measured = [trial for trial in trials if _accuracy(trial, column) is not None]
    shown = [trial for trial in trials if _accuracy(trial, column) is not None or trial.status in ENDS]
    varied = [name for name in info.swept if len(_distinct(shown, name)) > 1]
    names = varied[:_MOST_PANELS]
    if not measured or not any(len(_distinct(shown, name)) > 2 for name in names):
        return []
    across = min(_COLUMNS, len(names))
    rows = -(-len(names) // across)
    against = join_names(names) if names == varied else f"the first {len(names)} of {join_names(varied)}"
    what = column.replace("_", " ")
    title = f"{what.capitalize()} against {against}"
    figure = create_figure(title, info, width=max(8.0, 3.6 * across), height=1.0 + 3.6 * rows)
    grid = list(figure.subplots(rows, across, squeeze=False, sharey=True).flat)
    for axes, name in zip(grid, names, strict=False):
        _draw_panel(axes, shown, name, column, info, joined=len(names) == 1)
    for place, axes in enumerate(grid[: len(names)] if _is_accuracy(column) else [], 1):
        draw_chance(axes, info, word=place % across == 0 or place == len(names))
    shares = [share for trial in measured if (share := _accuracy(trial, column)) is not None]
    if wide := accuracy_range([*shares, *info.chance], info.images_of(column)):
        grid[0].set_ylim(*wide)
    for axes in grid[len(names) :]:
        axes.remove()
    for axes in grid[: len(names) : across]:
        axes.set_ylabel(f"{what} ({_name_unit(column, info)})")
    if any(trial.status in ENDS for trial in shown) or info.winner is not None:
        place_texts(figure, head=0.2)
        _draw_legend(grid[0], shown, column, info)
    return [save_figure(figure, path)]


def _name_unit(column: str, info: FigureInfo) -> str:
    metric = tasks.metric_of(column.partition("_")[2])
    return (metric.unit if metric else info.loss_unit).replace("image", info.example)


def _draw_panel(
    axes: "Axes", trials: Sequence[TrialRow], name: str, column: str, info: FigureInfo, joined: bool
) -> None:
    trials = [trial for trial in trials if _value(trial, name) is not None]
    values = _distinct(trials, name)
    numeric = all(is_number(value) for value in values)
    places = {value: value if numeric else place for place, value in enumerate(values)}
    tidy_axes(axes, spell(name), "")
    for kind, style in STYLES.items():
        points = [
            (places[_value(trial, name)], _accuracy(trial, column))
            for trial in trials
            if kind in _kinds(trial, column, info)
        ]
        if points and kind == "lost":  # at the edge, whose height is no accuracy
            edge = {"transform": axes.get_xaxis_transform(), "clip_on": False, "markersize": 6, "zorder": 5}
            axes.plot([place for place, _ in points], [0.0] * len(points), "x", color=style["color"], **edge)
        elif points:
            axes.scatter(*zip(*points, strict=True), **style)
    shares = [(places[_value(trial, name)], _accuracy(trial, column)) for trial in trials]
    if len(shares) <= _MOST_INTERVALS:
        for place, share in shares:
            draw_interval(axes, place, share, info.images_of(column), GREY)
    if joined and numeric and name in info.choices:
        _draw_mean(axes, trials, name, column)
    _set_ticks(axes, name, values, numeric, info)


def _kinds(trial: TrialRow, column: str, info: FigureInfo) -> tuple[str, ...]:
    if _accuracy(trial, column) is None:
        return ("lost",)
    kind = "early" if trial.status in ENDS else "whole"
    return (kind, "winner") if trial.setting == info.winner else (kind,)


def _set_ticks(axes: "Axes", name: str, values: Sequence, numeric: bool, info: FigureInfo) -> None:
    chosen = name in info.choices
    texts = [_shorten(format_value(value)) for value in values]
    if not numeric:
        axes.set_xticks(range(len(values)), texts)
    elif (min(values) > 0 and name in info.logs) or (min(values) >= 0 and is_log_like(values)):
        set_log_scale(axes.xaxis, values)
        axes.set_xlabel(f"{spell(name)}, log scale")
    if numeric and chosen and len(values) <= _MOST_TICKS:
        axes.set_xticks(values, texts)
        axes.set_xticks([], minor=True)
    room = axes.bbox.width / (0.085 * axes.figure.dpi)  # characters
    if (not numeric or chosen) and sum(map(len, texts)) + 2 * len(texts) > room:
        axes.tick_params(axis="x", labelrotation=30)
        for label in axes.get_xticklabels():
            label.set_horizontalalignment("right")


def _shorten(text: str) -> str:
    return text if len(text) <= _LONG_TICK else f"{text[: _LONG_TICK - 1]}…"


def _draw_legend(axes: "Axes", trials: Sequence[TrialRow], column: str, info: FigureInfo) -> None:
    there = {kind for trial in trials for kind in _kinds(trial, column, info)}
    for kind, style in STYLES.items():
        if kind in there:
            axes.scatter([], [], label=_MEANINGS[kind], **style)
    style = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.2}
    legend = axes.legend(**style, ncols=4, frameon=False, fontsize=8)
    legend.set_in_layout(False)  # it may reach over the next panel instead of pushing it away


def _draw_mean(axes: "Axes", trials: Sequence[TrialRow], name: str, column: str) -> None:
    groups = defaultdict(list)
    for trial in trials:
        if trial.status in ("complete", "running") and _accuracy(trial, column) is not None:
            groups[_value(trial, name)].append(_accuracy(trial, column))
    means = [(value, sum(groups[value]) / len(groups[value])) for value in sorted(groups)]
    if means:
        axes.plot(*zip(*means, strict=True), color=COLOURS[0], linewidth=1.2, zorder=1)


def _distinct(trials: Sequence[TrialRow], name: str) -> list:
    values = {_value(trial, name) for trial in trials} - {None}
    return sorted(
        values, key=lambda value: (not is_number(value), value if is_number(value) else 0, str(value))
    )


def _value(trial: TrialRow, name: str) -> Value:
    return named_value(trial.hyperparameters, name)


def _accuracy(trial: TrialRow, column: str) -> float | None:
    value = getattr(trial, column)
    return value if is_number(value) else None
