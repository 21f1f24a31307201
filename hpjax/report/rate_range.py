"""What a range test of learning rates says: which of them train."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hpjax.report.response import STYLES
from hpjax.report.style import (
    COLOURS,
    GREY,
    FigureInfo,
    create_figure,
    format_value,
    place_texts,
    save_figure,
    set_log_scale,
    tidy_axes,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SHARE = 0.5  # of the best rate's fall of the loss, which a rate that is worth a trial reaches too
_LEAST_FALL = 0.02  # of the first loss; less is taken for noise


@dataclass(frozen=True)
class RateTrial:
    """One learning rate of a range test.

    Attributes:
      rate: the learning rate.
      losses: mean training loss of each part of the test, in order.
      diverged: whether its loss or weights stopped being numbers.
    """

    rate: float
    losses: tuple[float, ...]
    diverged: bool = False

    @property
    def end(self) -> float:
        """The loss of the last part; infinite of a rate that diverged."""
        finite = self.losses and math.isfinite(self.losses[-1]) and not self.diverged
        return self.losses[-1] if finite else math.inf


@dataclass(frozen=True)
class RateRange:
    """The learning rates that are worth a search.

    Attributes:
      low: the lowest of them; where the best is alone, the next lower one that was tested.
      high: the highest; where the best is alone, the next higher one.
      best: the one whose loss is lowest at the end of the test.
      best_loss: that loss.
      first_loss: the loss before much was learned: of the lowest rate, in the first part of the test.
      diverges: the lowest rate above `high` that diverged; None where none did.
      alone: whether no other rate gets half as far.
      at_lowest: whether lower rates than those tested may be worth a search too.
      at_highest: the same of higher ones.
    """

    low: float
    high: float
    best: float
    best_loss: float
    first_loss: float
    diverges: float | None
    alone: bool
    at_lowest: bool
    at_highest: bool


def find_rate_range(tested: Sequence[RateTrial]) -> RateRange | None:
    """Returns the rates around the best one whose loss falls by at least half as much as the best one's.

    After Smith (2017), "Cyclical learning rates for training neural networks", whose test raises the rate
    while one network trains; here each rate has a network of its own, so that none is judged by what lower
    rates have learned before.

    Args:
      tested: by rate, ascending.

    Returns:
      None where no rate lets the loss fall.
    """
    best = min(range(len(tested)), key=lambda place: tested[place].end)
    first = next((rate.losses[0] for rate in tested if math.isfinite(rate.end)), math.inf)
    fall = first - tested[best].end
    if not math.isfinite(fall) or fall < _LEAST_FALL * abs(first):
        return None

    def trains(place: int) -> bool:
        return first - tested[place].end >= _SHARE * fall

    low = high = best
    while low > 0 and trains(low - 1):
        low -= 1
    while high + 1 < len(tested) and trains(high + 1):
        high += 1
    alone = int(low == high)  # then the peak lies between the neighbours
    return RateRange(
        low=tested[max(low - alone, 0)].rate,
        high=tested[min(high + alone, len(tested) - 1)].rate,
        best=tested[best].rate,
        best_loss=tested[best].end,
        first_loss=first,
        diverges=next((rate.rate for rate in tested[high + 1 :] if rate.diverged), None),
        alone=bool(alone),
        at_lowest=low == 0,
        at_highest=high + 1 == len(tested),
    )


def describe_rate_range(found: RateRange | None, steps: int) -> list[str]:
    """Returns in words what a range test found.

    Args:
      found: of `find_rate_range`.
      steps: how many each rate trained for.
    """
    if found is None:
        return [f"no learning rate lets the loss fall in {steps} steps: raise --steps, or look at the data"]
    fall = f"from {found.first_loss:.3g} to {found.best_loss:.3g}"
    best = f"{format_value(found.best)} is best: it takes the loss {fall} in {steps} steps"
    lines = [best + (f"; {format_value(found.diverges)} and above diverge" if found.diverges else "")]
    ends = f"{format_value(found.low)} to {format_value(found.high)}"
    halfway = "no other gets half as far" if found.alone else f"{ends} get at least half as far"
    lines.append(f"{halfway}: search {f'from {ends}' if found.alone else 'among them'}")
    if found.at_lowest:
        lines.append("the lowest rate still trains: test lower ones, too (--low)")
    if found.at_highest:
        lines.append("the highest rate still trains: test higher ones, too (--high)")
    return lines


def draw_rate_range(
    tested: Sequence[RateTrial], found: RateRange | None, steps: int, info: FigureInfo, path: Path
) -> Path:
    """Draws the loss against the learning rate, after each part of the test.

    Args:
      tested: by rate, ascending.
      found: what is marked.
      steps: how many each rate trained for.
      info: what the figure says of data and network.
      path: of the PNG.
    """
    figure = create_figure(f"Training loss after {steps} steps against the learning rate", info, height=5.5)
    axes = figure.subplots()
    tidy_axes(axes, "learning rate", "training loss")
    _draw_parts(axes, tested, steps)
    _limit_losses(axes, tested, found)
    diverged = [rate.rate for rate in tested if rate.diverged]
    if diverged:  # at the edge, whose height is no loss
        style = {"transform": axes.get_xaxis_transform(), "clip_on": False, "color": COLOURS[1]}
        axes.plot(diverged, [1.0] * len(diverged), "x", label="diverged", **style)
    if found is not None:
        words = f"{format_value(found.low)} to {format_value(found.high)}"
        axes.axvspan(found.low, found.high, color=COLOURS[2], alpha=0.15, linewidth=0, label=words)
        label = f"best: {format_value(found.best)}"
        axes.scatter([found.best], [found.best_loss], label=label, zorder=5, **STYLES["winner"])
    set_log_scale(axes.xaxis, [rate.rate for rate in tested])
    place_texts(figure, head=0.2)
    place = {"loc": "lower left", "bbox_to_anchor": (0, 1.02), "borderaxespad": 0.2}
    axes.legend(**place, ncols=5, frameon=False, fontsize=8)
    return save_figure(figure, path)


def _draw_parts(axes: "Axes", tested: Sequence[RateTrial], steps: int) -> None:
    """Draws a line for each part of the test, the last one strongly."""
    parts = max(len(rate.losses) for rate in tested)
    for part in range(parts):
        there = [r for r in tested if len(r.losses) > part and math.isfinite(r.losses[part])]
        rates, losses = [rate.rate for rate in there], [rate.losses[part] for rate in there]
        label = f"after {round(steps * (part + 1) / parts)} steps"
        if part == parts - 1:
            axes.plot(rates, losses, color=COLOURS[0], marker="o", markersize=4, label=label)
        else:
            axes.plot(rates, losses, color=GREY, linewidth=0.8, label=label if part == 0 else None)


def _limit_losses(axes: "Axes", tested: Sequence[RateTrial], found: RateRange | None) -> None:
    """Keeps the losses of rates that are far too high from flattening all others."""
    if found is None:
        return
    reach = found.first_loss - found.best_loss
    ends = [loss for rate in tested for loss in rate.losses if math.isfinite(loss)]
    axes.set_ylim(
        min(ends) - 0.08 * reach, min(max(ends) + 0.08 * reach, found.first_loss + max(reach, 0.2) * 0.8)
    )
