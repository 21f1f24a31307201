"""When each trial sat in which lane, by the seconds that training took."""

import itertools
from typing import Any

from hpjax.report.page.source import PageSource
from hpjax.report.page.table import short

MOST_BARS = 3_000


def create_timeline(source: PageSource) -> dict[str, Any] | None:
    """Returns a bar for each trial: its lane, from and to which second; None where none was trained.

    Time is that of epochs, training and evaluation: groups that follow each other do so without the seconds
    that compiling took.
    """
    status = {trial.trial: trial.status for trial in source.trials}
    stays = [stay for stay in source.occupancy.stays if stay.epochs and stay.trial in status]
    if not stays:
        return None
    bars: dict[str, list[Any]] = {"trial": [], "lane": [], "left": [], "right": [], "status": []}
    for stay in stays[:MOST_BARS]:
        bars["trial"].append(stay.trial)
        bars["lane"].append(stay.lane)
        bars["left"].append(short(stay.begin))
        bars["right"].append(short(stay.end))
        bars["status"].append(status[stay.trial])
    return {
        "bars": bars,
        "lanes": 1 + max(bars["lane"]),
        "seconds": short(source.occupancy.seconds),
        "of": len(stays),
    }


def are_side_by_side(source: PageSource) -> bool:
    """Returns whether groups were trained at the same time."""
    spans: dict[int, list[float]] = {}
    for stay in source.occupancy.stays:
        begin, end = spans.setdefault(stay.group, [stay.begin, stay.end])
        spans[stay.group] = [min(begin, stay.begin), max(end, stay.end)]
    return any(later[0] < earlier[1] for earlier, later in itertools.pairwise(sorted(spans.values())))
