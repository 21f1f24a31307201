"""How hyperparameters act together: trials across all of them, and the two that matter most on a map."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from hpjax.report.page.axes import DrawnAxis
from hpjax.report.page.source import PageSource
from hpjax.report.page.table import short
from hpjax.report.style import format_value, spell

MOST_AXES = 8  # of parallel coordinates
MOST_LINES = 400
LEAST = 20  # trials, for a map of two ranges
CELLS = 28  # of a range, on a map
MOST_ON_MAP = 1_000  # trials
NEAR = 1.5  # widths of the smoothing: whoever is further away is no neighbour
BANDS = 7  # of colour
CAP = 0.95  # quantile of losses where a map's colours end


def create_parallel(source: PageSource, axes: Sequence[DrawnAxis]) -> list[dict[str, Any]]:
    """Returns the figure of parallel coordinates; none for a single hyperparameter."""
    if len(axes) < 2 or len(source.ranked) < 3:
        return []
    drawn, title = axes[:MOST_AXES], "Every trial across all hyperparameters"
    notes = [f"The first {MOST_AXES} of {len(axes)} hyperparameters."] if len(axes) > MOST_AXES else []
    if len(source.ranked) > MOST_LINES:
        notes.append(
            f"{MOST_LINES} of {len(source.ranked):,} trials are drawn: the best and some of every rank."
        )
    names = ", ".join(spell(axis.name) for axis in drawn)
    alt = f"{title}: a line for each of {len(source.ranked):,} trials through {names} and "
    alt += f"{source.ranked_by}, coloured by its rank."
    figure = {"id": "parallel", "kind": "parallel", "title": title, "alt": alt, "note": " ".join(notes)}
    return [{**figure, "axes": [axis.describe() for axis in drawn], "most": MOST_LINES}]


def create_maps(source: PageSource, axes: Sequence[DrawnAxis]) -> list[dict[str, Any]]:
    """Returns the map of the two hyperparameters that matter most, and its trials by rank.

    Args:
      source: the sweep.
      axes: what varied, the most important first.
    """
    if len(axes) < 2:
        return []
    x, y = axes[:2]
    ends = [
        t for t in source.ranked if t.status == "complete" and t.trial in x.values and t.trial in y.values
    ]
    least = 4 if x.listed and y.listed else LEAST
    if len(ends) < least or min(len({a.values[t.trial] for t in ends}) for a in (x, y)) < 2:
        return []
    pair = f"{spell(x.name)} and {spell(y.name)}"
    best = min(ends, key=lambda t: source.order(t))
    where = " and ".join(f"{spell(a.name)} {format_value(a.values[best.trial])}" for a in (x, y))
    sides = {"x": x.describe(), "y": y.describe()}
    by_rank = {
        **{"id": "rank", "kind": "rank", "title": f"Rank over {pair}", **sides},
        "note": "Every trial, also those that ended early. By rank, few bad trials don't take all colours.",
        "alt": f"Trials over {pair}, coloured by rank. The best has {where}.",
    }
    return [_create_map(source, x, y, ends, where) | sides, by_rank]


def _create_map(
    source: PageSource, x: DrawnAxis, y: DrawnAxis, ends: Sequence[Any], where: str
) -> dict[str, Any]:
    if len(ends) > MOST_ON_MAP:
        ends = [ends[int(i)] for i in np.linspace(0, len(ends) - 1, MOST_ON_MAP).round()]
    trials = [trial.trial for trial in ends]
    scores = np.array([source.ranking.value(trial) for trial in ends], float)
    if source.ranking.metric.endswith("loss"):
        scores = np.minimum(scores, np.quantile(scores, CAP))
    found = _smooth(x, y, trials, scores)
    low, high = float(np.nanmin(found)), float(np.nanmax(found))
    pair = f"{spell(x.name)} and {spell(y.name)}"
    note = f"Means over {'trials' if x.listed and y.listed else 'neighbouring trials'} that ran to the end, "
    note += "whatever else differs between them; blank where none is near."
    alt = f"Mean {source.ranked_by} over {pair}: from {low:.4g} to {high:.4g}. The best trial has {where}."
    return {
        **{"id": "contour", "kind": "contour", "note": note, "alt": alt},
        "title": f"{source.ranked_by[:1].upper()}{source.ranked_by[1:]} over {pair}",
        "levels": [short(level) for level in np.linspace(low, high, BANDS + 1)],
        "cells": [[None if np.isnan(z) else float(f"{z:.4g}") for z in row] for row in found],
        "edges": [_edges(x), _edges(y)],
    }


def _smooth(x: DrawnAxis, y: DrawnAxis, trials: Sequence[int], scores: np.ndarray) -> np.ndarray:
    """Returns the mean score of each cell's neighbours, [y cells, x cells]; NaN where there are none."""
    width = 0.25 * len(trials) ** (-1 / 6)  # of two dimensions, by Scott's rule on a spread of a quarter
    across, along = (_distances(axis, trials, width) for axis in (x, y))
    squares = along[:, None, :] + across[None, :, :]
    weights = np.where(squares <= NEAR**2, np.exp(-squares / 2), 0.0)
    total = weights.sum(axis=-1)
    return np.where(total > 0, weights @ scores / np.where(total > 0, total, 1), np.nan)


def _distances(axis: DrawnAxis, trials: Sequence[int], width: float) -> np.ndarray:
    """Returns each cell's squared distance from each trial, in widths; listed values have no neighbours."""
    places = axis.place(trials)
    if axis.listed:
        return np.where(np.arange(len(axis.distinct))[:, None] == places, 0.0, np.inf)
    return (((np.arange(CELLS) + 0.5)[:, None] / CELLS - places) / width) ** 2


def _edges(axis: DrawnAxis) -> list[Any]:
    """Returns where cells begin and end, as values; nothing for listed ones."""
    if axis.listed:
        return []
    low, high = float(axis.distinct[0]), float(axis.distinct[-1])
    spaced = np.geomspace(low, high, CELLS + 1) if axis.log else np.linspace(low, high, CELLS + 1)
    return [short(value) for value in spaced]
