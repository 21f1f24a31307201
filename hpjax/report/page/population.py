"""Population based training on the page: how hyperparameters moved, and whose state the best goes back to."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from hpjax.report.lineage import Segment, list_moved, trace_ancestry, trace_value, value_at
from hpjax.report.page.source import PageSource
from hpjax.report.page.table import short
from hpjax.report.style import spell
from hpjax.store.rows import CopyRow

MOST_PANELS = 4
MOST_TRIALS, MOST_COPIES = 200, 2_000  # of one figure


def create_lineage(source: PageSource) -> list[dict[str, Any]]:
    """Returns a figure per hyperparameter that copies changed; none where nothing was copied."""
    moved = list_moved(source.trials, source.copies)
    if not moved:
        return []
    ancestry = trace_ancestry(source.trials, source.copies, source.ranking)
    figures = [_create_figure(source, name, ancestry) for name in moved[:MOST_PANELS]]
    if len(moved) > MOST_PANELS:
        figures[0]["note"] += f" The first {MOST_PANELS} of {len(moved)} hyperparameters are drawn."
    return figures


def _create_figure(source: PageSource, name: str, ancestry: Sequence[tuple[int, int, int]]) -> dict[str, Any]:
    by_trial: dict[int, list[CopyRow]] = defaultdict(list)
    for row in source.copies:
        by_trial[row.trial].append(row)
    tracks = {trial.trial: trace_value(trial, by_trial[trial.trial], name) for trial in source.trials}
    shown = list({trial: None for trial, _, _ in ancestry} | dict.fromkeys(tracks))[:MOST_TRIALS]
    copies = [row for row in source.copies if row.trial in set(shown)][:MOST_COPIES]
    title = f"Lineage: {spell(name)} per epoch"
    note = "A dot: a trial took over the state of a better one there, and went on with the value at the dot."
    if len(shown) < len(tracks) or len(copies) < len(source.copies):
        note += (
            f" {len(shown):,} of {len(tracks):,} trials and {len(copies):,} of {len(source.copies):,} copies."
        )
    values = [value for track in tracks.values() for _, _, value in track]
    return {
        **{"id": f"lineage-{name}", "kind": "lineage", "title": title, "name": spell(name), "note": note},
        "alt": _describe(title, spell(name), source, ancestry, tracks),
        "log": min(values) > 0 and max(values) > 20 * min(values),
        "tracks": [
            [trial, start, end, short(value)] for trial in shown for start, end, value in tracks[trial]
        ],
        "copies": [_describe_copy(row, tracks) for row in copies],
        "ancestry": _follow(ancestry, tracks),
    }


def _describe(
    title: str, name: str, source: PageSource, ancestry: Sequence, tracks: dict[int, list[Segment]]
) -> str:
    copies = f"{len(source.copies):,} times"
    text = f"{title} of {len(tracks):,} trials, which took over others' states {copies}."
    if not ancestry:
        return text
    line = " from ".join(f"trial {trial}" for trial, _, _ in ancestry)
    (_, _, first), (_, _, last) = tracks[ancestry[-1][0]][0], tracks[ancestry[0][0]][-1]
    return f"{text} The best is {line}; its {name} went from {first:.4g} to {last:.4g}."


def _describe_copy(row: CopyRow, tracks: dict[int, list[Segment]]) -> list[Any]:
    """Returns trial, epoch, source, and the values of the source and of the trial after the copy."""
    before, after = value_at(tracks[row.source], row.epoch), value_at(tracks[row.trial], row.epoch + 1)
    return [row.trial, row.epoch, row.source, short(before), short(after)]


def _follow(ancestry: Sequence[tuple[int, int, int]], tracks: dict[int, list[Segment]]) -> list[list[Any]]:
    """Returns the points of the line of the best trial's ancestors."""
    return [
        point
        for trial, start, end in reversed(ancestry)
        for first, last, value in tracks[trial]
        if first < end and last > start
        for point in ([max(first, start), short(value)], [min(last, end), short(value)])
    ]
