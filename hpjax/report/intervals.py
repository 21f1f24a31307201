"""How sure a measured share of images is."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hpjax.report.style import COLOURS, MOST_LABELLED

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from hpjax.report.curves import Curve

_Z = 1.959964  # of 95 %


def binomial_interval(share: float, images: int) -> tuple[float, float]:
    """Returns Wilson's 95 % interval of a share that was measured on so many images.

    It says how much another sample of images could change an accuracy, not another seed: that takes several
    seeds. Wilson (1927), "Probable inference, the law of succession, and statistical inference".
    """
    shrink = 1 + _Z**2 / images
    middle = (share + _Z**2 / (2 * images)) / shrink
    reach = _Z / shrink * math.sqrt(share * (1 - share) / images + _Z**2 / (4 * images**2))
    return max(0.0, middle - reach), min(1.0, middle + reach)


def draw_interval(axes: "Axes", place: float, share: float | None, images: int, colour: str) -> None:
    """Draws the interval of a share beside what is plotted there; nothing where it isn't known."""
    if share is None or not 0 <= share <= 1 or not images:
        return
    low, high = binomial_interval(share, images)
    reach = [[max(share - low, 0.0)], [max(high - share, 0.0)]]
    axes.errorbar([place], [share], reach, fmt="none", ecolor=colour, capsize=3, elinewidth=1.0, alpha=0.7)


def accuracy_range(values: Sequence[float], images: int) -> tuple[float, float] | None:
    """Returns the ends of an axis that shows accuracies without blowing noise up; None where any does.

    It is at least as wide as three intervals of one measurement.
    """
    if not images or not values:
        return None
    low, high = min(values), max(values)
    interval = binomial_interval(min(max((low + high) / 2, 0.0), 1.0), images)
    missing = 3 * (interval[1] - interval[0]) - (high - low)
    if missing <= 0:
        return None
    low, high = low - missing / 2, high + missing / 2
    if low < -0.02:
        low, high = -0.02, high - low - 0.02
    if high > 1.02:
        low, high = low - (high - 1.02), 1.02
    return max(low, -0.02), high


def draw_intervals(axes: "Axes", curves: Sequence["Curve"], images: int) -> None:
    """Draws how sure the last accuracy of each labelled setting is, where no other seeds show it."""
    if not images or len(curves) > MOST_LABELLED:
        return
    single = [(number, curve) for number, curve in enumerate(curves) if curve.mean and curve.seeds == 1]
    for number, curve in single:
        draw_interval(axes, curve.epochs[-1], curve.mean[-1], images, COLOURS[number % len(COLOURS)])
    if single:
        axes.plot([], [], "_", color="#444444", label=f"at the end: 95 % interval of {images:,} images")
