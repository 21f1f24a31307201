"""Training against the split that trials are judged on: what is learned by heart shows as a gap."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hpjax.report.curves import Curve, create_curves
from hpjax.report.intervals import draw_intervals
from hpjax.report.style import (
    COLOURS,
    FigureInfo,
    create_figure,
    draw_chance,
    join_names,
    place_texts,
    save_figure,
    tidy_axes,
)
from hpjax.store.rows import EpochRow, TrialRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_UNITS = {"loss": "nats per image", "accuracy": "share of images"}
_WRAPPED = 130  # characters that fit the width of the figure
_MOST = len(COLOURS)  # settings that are drawn; a colour each


def draw_train_and_test(
    epochs: Sequence[EpochRow],
    trials: Sequence[TrialRow],
    labels: Mapping[int, str],
    info: FigureInfo,
    path: Path,
) -> list[Path]:
    """Draws loss and accuracy of both splits per epoch; nothing where training accuracy isn't known."""
    split = "validation" if any(row.validation_loss is not None for row in epochs) else "test"
    curves = {
        (kind, of): create_curves(epochs, trials, labels, info.swept, f"{of}_{kind}", info.ranking.select)
        for kind in _UNITS
        for of in ("train", split)
    }
    if not all(any(curve.mean for curve in drawn) for drawn in curves.values()):
        return []
    shown = _choose(curves["accuracy", split], info.winner)
    every = len(curves["accuracy", split])
    title = f"Training (dashed) and {split} (solid) per epoch, by {join_names(info.swept) or 'trial'}"
    title += f": the best {len(shown)} of {every}" if len(shown) < every else ""
    figure = create_figure(title, info, width=11.0, height=4.6)
    for axes, kind in zip(figure.subplots(1, 2), _UNITS, strict=True):
        tidy_axes(axes, "epoch", f"{kind} ({_UNITS[kind]})")
        _draw(axes, curves[kind, split], shown, "-")
        _draw(axes, curves[kind, "train"], shown, "--")
        if kind == "accuracy":
            draw_chance(axes, info)
            by_setting = {curve.setting: curve for curve in curves[kind, split]}
            drawn = [by_setting[setting] for setting in shown]
            draw_intervals(axes, drawn, info.images_of(f"{split}_accuracy"))
    named = (entry for axes in figure.axes for entry in zip(*axes.get_legend_handles_labels(), strict=True))
    entries = {label: handle for handle, label in named}  # those of both axes, once
    lines = sum(1 + text.count("\n") for text in entries)
    foot = 0.15 + 0.2 * lines
    figure.set_figheight(figure.get_figheight() + foot)
    top = place_texts(figure, foot=foot) + foot / figure.get_figheight()
    place = {"bbox_to_anchor": (0.02, top), "bbox_transform": figure.transFigure, "loc": "upper left"}
    legend = figure.axes[0].legend(
        [*entries.values()], [*entries], **place, frameon=False, fontsize=9, borderaxespad=0
    )
    legend.set_in_layout(False)
    return [save_figure(figure, path)]


def _choose(curves: Sequence[Curve], winner: int | None) -> list[int]:
    """Returns the settings that are drawn: all, or of many the winner and those with the best results."""
    ranked = sorted(curves, key=lambda curve: (curve.setting != winner, -(curve.result or 0.0)))
    chosen = {curve.setting for curve in ranked[:_MOST]}
    return [curve.setting for curve in curves if curve.setting in chosen]


def _draw(axes: "Axes", curves: Sequence[Curve], shown: Sequence[int], line: str) -> None:
    from matplotlib.ticker import MaxNLocator

    by_setting = {curve.setting: curve for curve in curves}
    for number, setting in enumerate(shown):
        curve = by_setting.get(setting)
        if curve is not None and curve.mean:
            style = {"color": COLOURS[number], "linestyle": line, "marker": "o", "markersize": 3}
            label = textwrap.fill(curve.label, _WRAPPED) if line == "-" else None
            axes.plot(curve.epochs, curve.mean, label=label, linewidth=1.6, **style)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
