"""Figures of a sweep: curves per epoch, accuracy against hyperparameters, lineage."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpjax import tasks
from hpjax.report.curves import Curve, create_curves
from hpjax.report.intervals import accuracy_range, draw_intervals
from hpjax.report.lineage import draw_lineage
from hpjax.report.response import draw_response, name_response
from hpjax.report.style import (
    COLOURS,
    GREY,
    LINES,
    MARKERS,
    MOST_LABELLED,
    FigureInfo,
    create_figure,
    create_folder,
    draw_chance,
    format_value,
    is_log_like,
    is_number,
    join_names,
    place_texts,
    save_figure,
    set_log_scale,
    sparing,
    spell,
    tidy_axes,
)
from hpjax.report.together import draw_train_and_test
from hpjax.store.rows import OBJECTIVE, CopyRow, EpochRow, TrialRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

METRICS = {
    "train_loss": ("Training loss", "nats per image", "train loss"),
    "train_accuracy": ("Training accuracy", "share of images", "train accuracy"),
    "test_loss": ("Test loss", "nats per image", "test loss"),
    "test_accuracy": ("Test accuracy", "share of images", "test accuracy"),
    "validation_loss": ("Validation loss", "nats per image", "validation loss"),
    "validation_accuracy": ("Validation accuracy", "share of images", "validation accuracy"),
    **{
        f"{split}_{name}": (f"{word} {metric.title}", metric.unit, f"{split} {metric.title}")
        for split, word in (("train", "Training"), ("test", "Test"), ("validation", "Validation"))
        for name, metric in tasks.METRICS.items()
        if name != "accuracy"
    },
    OBJECTIVE: ("Metric of your own", "as its function says", "metric"),
}
_HIGHLIGHTED = 5
_WIDE = 50  # losses spread over more than this factor get a log scale
_LONG_LABEL = 46
_WRAPPED = 126  # characters that fit the width of a figure


def draw_figures(
    epochs: Sequence[EpochRow],
    trials: Sequence[TrialRow],
    labels: Mapping[int, str],
    info: FigureInfo,
    out_dir: str | Path,
    copies: Sequence[CopyRow] = (),
) -> list[Path]:
    """Draws every figure that the records give reason for.

    Args:
      epochs: all epochs.
      trials: all trials; replicates of one setting become one line with a band.
      labels: a setting in words for each trial; see `hpjax.report.curves.label_trials`.
      info: what the figures say about the sweep.
      out_dir: created if missing.
      copies: PBT's copies.

    Returns:
      The files: `train_loss.png`, `train_accuracy.png`, `test_loss.png`, `test_accuracy.png` (and of
      validation, and of other metrics), `train_and_test.png`, and where useful `final_accuracy.png` (or
      `best_accuracy.png`, as trials are ranked; of other metrics e.g. `final_test_mae.png`) and
      `lineage.png`. One that can't be drawn or written is left out, with a line in the log.

    Raises:
      WorkdirError: the folder can't be created.

    """
    folder = create_folder(Path(out_dir))
    files = []
    for metric in METRICS:
        with sparing(f"figure {metric}.png"):
            curves = create_curves(epochs, trials, labels, info.swept, metric, info.ranking.select)
            if any(curve.mean for curve in curves):
                files.append(draw_curves(curves, metric, info, folder / f"{metric}.png"))
    with sparing("figure train_and_test.png"):
        files += draw_train_and_test(epochs, trials, labels, info, folder / "train_and_test.png")
    response = name_response(trials, info)
    with sparing(f"figure {response}"):
        files += draw_response(trials, info, folder / response)
    with sparing("figure lineage.png"):
        files += draw_lineage(trials, copies, info, folder / "lineage.png")
    return files


def draw_curves(curves: Sequence[Curve], metric: str, info: FigureInfo, path: Path) -> Path:
    """Draws one metric over epochs, a line per setting, and returns the file."""
    return save_figure(create_curves_figure(curves, metric, info), path)


def create_curves_figure(curves: Sequence[Curve], metric: str, info: FigureInfo) -> "Figure":
    """Returns a figure of one metric over epochs, a line per setting."""
    title, unit, short = _name(metric, info)
    short = f"{info.ranking.select} {short}"
    figure = create_figure(f"{title} per epoch, by {join_names(info.swept) or 'trial'}", info)
    axes = figure.add_subplot()
    tidy_axes(axes, "epoch", f"{title[:1].lower()}{title[1:]} ({unit})")
    drawn = [curve for curve in curves if curve.mean]
    if len(curves) <= MOST_LABELLED:
        _draw_labelled(axes, curves, short, info.winner)
    elif name := _find_scale(drawn, info.swept):
        _draw_on_scale(axes, drawn, name, short, info)
    else:
        _draw_best_of_many(axes, drawn, metric, short, info)
    if tasks.name_of(metric) == "accuracy":
        draw_chance(axes, info)
        draw_intervals(axes, curves, info.images_of(metric))
    _set_axes(axes, drawn, metric, info)
    _draw_lost(axes, curves, metric)
    _draw_legend(figure, axes, curves)
    return figure


def _name(metric: str, info: FigureInfo) -> tuple[str, str, str]:
    """Returns a metric's title, its unit, and its name in a label."""
    if metric == OBJECTIVE and info.own_metric:
        name = spell(info.own_metric)
        return name[:1].upper() + name[1:], "as its function says", name
    title, unit, short = METRICS[metric]
    unit = info.loss_unit if metric.endswith("loss") else unit
    return title, unit.replace("image", info.example), short


def _draw_labelled(axes: "Axes", curves: Sequence[Curve], short: str, winner: int | None) -> None:
    equal = len({curve.seeds for curve in curves}) == 1  # else each says of how many it is the mean
    for number, curve in enumerate(curves):
        style = {
            "color": COLOURS[number % len(COLOURS)],
            "marker": MARKERS[number % len(MARKERS)],
            "linestyle": LINES[number % len(LINES)],
        }
        wins = curve.setting == winner
        style |= {"linewidth": 3.0, "zorder": 3} if wins else {}
        _draw_curve(axes, curve, _describe(curve, short, wins, equal), **style)


def _draw_on_scale(axes: "Axes", curves: Sequence[Curve], name: str, short: str, info: FigureInfo) -> None:
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm, Normalize

    values = [float(curve.values[name]) for curve in curves]  # pyright: ignore[reportArgumentType]
    logarithmic = min(values) > 0 and (name in info.logs or is_log_like(values))
    norm = (LogNorm if logarithmic else Normalize)(min(values), max(values))
    scale = ScalarMappable(norm, _cut_colours(colormaps["viridis"]))
    for curve, value in zip(curves, values, strict=True):
        style = {"color": scale.cmap(norm(value)), "marker": "", "linestyle": "-"}
        wins = curve.setting == info.winner
        style |= {"linewidth": 3.2, "zorder": 3, "marker": "o"} if wins else {}
        _draw_curve(axes, curve, _describe(curve, short, wins) if wins else None, **style)
    bar = axes.figure.colorbar(scale, ax=axes, label=spell(name), pad=0.02)
    if logarithmic:
        set_log_scale(bar.ax.yaxis, values)


def _cut_colours(colours: "Colormap") -> "Colormap":
    from matplotlib.colors import ListedColormap

    return ListedColormap([colours(i / 255) for i in range(230)])  # the last ones can't be seen on white


def _draw_best_of_many(
    axes: "Axes", curves: Sequence[Curve], metric: str, short: str, info: FigureInfo
) -> None:
    less = info.minimize if metric == OBJECTIVE else tasks.prefers_small(metric)
    best = _rank(curves, less)
    best = sorted(best, key=lambda curve: curve.setting != info.winner)[:_HIGHLIGHTED]
    shown = {curve.setting for curve in best}
    _draw_grey(axes, [curve for curve in curves if curve.setting not in shown])
    _draw_labelled(axes, best, short, info.winner)
    axes.plot([], [], color=GREY, label=f"the other {len(curves) - len(best):,}")


def _draw_grey(axes: "Axes", curves: Sequence[Curve]) -> None:
    """Draws curves that stay in the background, all at once: of a search there may be many thousands."""
    from matplotlib.collections import LineCollection

    lines = [list(zip(curve.epochs, curve.mean, strict=True)) for curve in curves]
    axes.add_collection(LineCollection(lines, colors=GREY, alpha=0.6, linewidths=1.1))
    points = [curve for curve in curves if len(curve.epochs) == 1]  # no line
    first = [curve.epochs[0] for curve in points], [curve.mean[0] for curve in points]
    axes.plot(*first, marker=".", linestyle="", color=GREY, alpha=0.6)
    for curve in curves:
        if curve.seeds > 1:
            axes.fill_between(curve.epochs, curve.low, curve.high, color=GREY, alpha=0.15, linewidth=0)
    for pruned in (True, False):
        ends = [c for c in curves if c.ended and c.epochs and (c.ended == "pruned") == pruned]
        last = [curve.epochs[-1] for curve in ends], [curve.mean[-1] for curve in ends]
        axes.plot(*last, **_end_style(pruned), linestyle="", color=GREY, alpha=0.6)
    axes.autoscale_view()


def _end_style(pruned: bool) -> dict[str, Any]:
    return {"marker": "|" if pruned else "x", "markersize": 11, "markeredgewidth": 2.2, "zorder": 5}


def _draw_curve(axes: "Axes", curve: Curve, label: str | None, **style) -> None:
    style = {"linewidth": 1.8, "markersize": 5, "markevery": max(1, len(curve.epochs) // 12), **style}
    axes.plot(curve.epochs, curve.mean, label=label, **style)
    if curve.seeds > 1:
        axes.fill_between(curve.epochs, curve.low, curve.high, color=style["color"], alpha=0.15, linewidth=0)
    if curve.ended and curve.epochs:
        end = _end_style(curve.ended == "pruned")
        axes.plot(curve.epochs[-1], curve.mean[-1], color=style["color"], alpha=style.get("alpha"), **end)


def _set_axes(axes: "Axes", curves: Sequence[Curve], metric: str, info: FigureInfo) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    last = max(curve.last_epoch for curve in curves)
    margin = max(0.3, 0.02 * last)
    axes.set_xlim(1 - margin, last + margin)
    values = [value for curve in curves for value in (*curve.low, *curve.high)]
    if wide := accuracy_range([*values, *info.chance], info.images_of(metric)):
        axes.set_ylim(*wide)
    if metric.endswith("loss") and 0 < min(values) < max(values) / _WIDE:
        set_log_scale(axes.yaxis, values)
        axes.set_ylabel(f"{axes.get_ylabel()[:-1]}, log scale)")


def _draw_lost(axes: "Axes", curves: Sequence[Curve], metric: str) -> None:
    """Marks settings of which nothing finite is known at the edge of the axes, where bad values lie."""
    edge = 1.0 if tasks.prefers_small(metric) else 0.0
    style = {"marker": "x", "markersize": 9, "markeredgewidth": 2.2, "clip_on": False, "zorder": 6}
    lost = [number for number, curve in enumerate(curves) if not curve.mean]
    for place, number in enumerate(lost):
        color = COLOURS[number % len(COLOURS)] if len(curves) <= MOST_LABELLED else "#444444"
        x = 0.02 + 0.96 * place / max(40, len(lost))
        axes.plot(x, edge, color=color, transform=axes.transAxes, **style)
    if lost and len(curves) > MOST_LABELLED:
        label = f"{len(lost)} with nothing finite (at the edge)"
        axes.plot([], [], "x", color="#444444", markersize=8, markeredgewidth=2, label=label)


def _draw_legend(figure: "Figure", axes: "Axes", curves: Sequence[Curve]) -> None:
    ends = {curve.ended for curve in curves}
    if "pruned" in ends:
        axes.plot(
            [], [], "|", color="#444444", markersize=10, markeredgewidth=2, label="stopped early (pruned)"
        )
    if "diverged" in ends:
        axes.plot([], [], "x", color="#444444", markersize=8, markeredgewidth=2, label="diverged")
    seeds = {curve.seeds for curve in curves}
    if max(seeds) > 1:
        label = f"lowest to highest of {max(seeds) if len(seeds) == 1 else 'a setting’s'} seeds"
        axes.fill_between([], [], color="#444444", alpha=0.15, label=label)
    handles, labels = axes.get_legend_handles_labels()
    if not handles:
        return
    style = {"loc": "upper left", "frameon": False, "fontsize": 9, "borderaxespad": 0}
    longest = max(map(len, labels))
    if len(figure.axes) == 1 and longest <= _LONG_LABEL:
        axes.legend(bbox_to_anchor=(1.13 if axes.texts else 1.01, 1), **style)  # beside the word "guessing"
        return
    _draw_legend_below(figure, axes, [textwrap.fill(label, _WRAPPED) for label in labels], style)


def _draw_legend_below(figure: "Figure", axes: "Axes", labels: Sequence[str], style: dict) -> None:
    longest = max(map(len, labels))
    columns = 1 if longest > _LONG_LABEL else 2 if longest > _LONG_LABEL / 2 else 3
    lines = sum(label.count("\n") + 1 for label in labels)
    foot = 0.15 + (0.15 * lines + 0.07 * len(labels)) / columns
    figure.set_figheight(figure.get_figheight() + foot)
    start = place_texts(figure, foot=foot)
    top = start + (foot - 0.05) / figure.get_figheight()
    handles = axes.get_legend_handles_labels()[0]
    place = {"bbox_to_anchor": (0.02, top), "bbox_transform": figure.transFigure}
    legend = axes.legend(handles, labels, ncols=columns, **place, **style)
    legend.set_in_layout(False)  # the axes keep their width; there is room for it


def _describe(curve: Curve, short: str, wins: bool, equal_seeds: bool = True) -> str:
    note = (f", {curve.note}" if curve.note else "") + (", winner" if wins else "")
    if curve.result is None:
        return f"{curve.label} (nothing finite{note})"
    if curve.ended == "diverged":  # never ranked: the number is what it came to
        short = f"last {short.partition(' ')[2]}"
    name = f"mean {short}" if curve.seeds > 1 else short
    over = f" over {curve.seeds} seeds" if curve.seeds > 1 and not equal_seeds else ""
    return f"{curve.label} ({name} {_round(curve.result)}{over}{note})"


def _round(value: float) -> str:
    return f"{value:.3f}" if 0.001 <= abs(value) < 1000 else format_value(value)


def _find_scale(curves: Sequence[Curve], swept: Sequence[str]) -> str:
    """Returns the only swept hyperparameter if lines can be coloured by its value, else nothing."""
    if len(swept) == 1 and all(is_number(curve.values[swept[0]]) for curve in curves):
        return swept[0] if len({curve.values[swept[0]] for curve in curves}) > 1 else ""
    return ""


def _rank(curves: Sequence[Curve], less_is_better: bool) -> list[Curve]:
    sign = 1 if less_is_better else -1
    # A curve cut off early is no rival of those that ran to the end.
    return sorted(
        (curve for curve in curves if curve.result is not None),
        key=lambda curve: (bool(curve.ended), sign * (curve.result or 0.0)),
    )
