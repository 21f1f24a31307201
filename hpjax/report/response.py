"""Final accuracy against each swept hyperparameter."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hpjax.report.curves import ENDS
from hpjax.report.style import (
    COLOURS,
    GREY,
    FigureInfo,
    create_figure,
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
from hpjax.store.rows import TrialRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_PANELS = 6
_COLUMNS = 3


def draw_response(trials: Sequence[TrialRow], info: FigureInfo, path: Path) -> list[Path]:
    """Draws a point per trial, a panel per hyperparameter; nothing where fewer than 3 values were tried."""
    counts = {split: sum(_accuracy(t, split) is not None for t in trials) for split in ("test", "validation")}
    split = max(counts, key=counts.__getitem__)  # a search reads the test split for the winner alone
    measured = [trial for trial in trials if _accuracy(trial, split) is not None]
    names = [name for name in info.swept if len(_distinct(measured, name)) > 1][:_MOST_PANELS]
    if not any(len(_distinct(measured, name)) > 2 for name in names):
        return []
    columns = min(_COLUMNS, len(names))
    rows = -(-len(names) // columns)
    title = f"Final {split} accuracy against {join_names(names)}"
    figure = create_figure(title, info, width=max(8.0, 3.6 * columns), height=1.0 + 3.6 * rows)
    grid = list(figure.subplots(rows, columns, squeeze=False, sharey=True).flat)
    for axes, name in zip(grid, names, strict=False):
        _draw_panel(axes, measured, name, split, joined=len(names) == 1)
    for axes in grid[len(names) :]:
        axes.remove()
    for axes in grid[: len(names) : columns]:
        axes.set_ylabel(f"final {split} accuracy (share of images)")
    if any(trial.status in ENDS for trial in measured):
        place_texts(figure, head=0.2)
        _draw_legend(grid[0])
    return [save_figure(figure, path)]


def _draw_panel(axes: "Axes", trials: Sequence[TrialRow], name: str, split: str, joined: bool) -> None:
    trials = [trial for trial in trials if trial.hyperparameters.get(name) is not None]
    values = _distinct(trials, name)
    numeric = all(is_number(value) for value in values)
    places = {value: value if numeric else place for place, value in enumerate(values)}
    tidy_axes(axes, spell(name), "")
    for ended in (True, False):
        points = [
            (places[trial.hyperparameters[name]], _accuracy(trial, split))
            for trial in trials
            if (trial.status in ENDS) == ended
        ]
        if points:
            style = (
                {"marker": "x", "color": GREY}
                if ended
                else {"marker": "o", "color": COLOURS[0], "alpha": 0.7}
            )
            axes.scatter(*zip(*points, strict=True), s=28, **style)
    if joined and numeric:
        _draw_mean(axes, trials, name, split)
    if not numeric:
        axes.set_xticks(range(len(values)), [format_value(value) for value in values])
    elif min(values) >= 0 and is_log_like(values):
        set_log_scale(axes.xaxis, values)
        axes.set_xlabel(f"{spell(name)}, log scale")


def _draw_legend(axes: "Axes") -> None:
    axes.scatter([], [], marker="o", color=COLOURS[0], alpha=0.7, label="ran to the end")
    axes.scatter([], [], marker="x", color=GREY, label="ended early (pruned, diverged or failed)")
    style = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.2}
    legend = axes.legend(**style, ncols=2, frameon=False, fontsize=8)
    legend.set_in_layout(False)  # it may reach over the next panel instead of pushing it away


def _draw_mean(axes: "Axes", trials: Sequence[TrialRow], name: str, split: str) -> None:
    groups = defaultdict(list)
    for trial in trials:
        if trial.status in ("complete", "running"):
            groups[trial.hyperparameters[name]].append(_accuracy(trial, split))
    means = [(value, sum(groups[value]) / len(groups[value])) for value in sorted(groups)]
    if means:
        axes.plot(*zip(*means, strict=True), color=COLOURS[0], linewidth=1.2, zorder=1)


def _distinct(trials: Sequence[TrialRow], name: str) -> list:
    values = {trial.hyperparameters.get(name) for trial in trials} - {None}
    return sorted(
        values, key=lambda value: (not is_number(value), value if is_number(value) else 0, str(value))
    )


def _accuracy(trial: TrialRow, split: str) -> float | None:
    value = getattr(trial, f"final_{split}_accuracy")
    return value if is_number(value) else None
