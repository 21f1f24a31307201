"""How trials are spread, and how early it could be told which are good."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from hpjax.report.curves import ENDS
from hpjax.report.page.source import PageSource
from hpjax.report.page.table import short
from hpjax.store.rows import TrialRow

LEAST_SPREAD = 10  # trials, for their distribution
LEAST_JUDGED = 12  # trials that ran to the end, for what an early epoch says of them
MOST_JUDGED = 2_000
MOST_POINTS = 200  # of a distribution
MOST_EPOCHS = 60
BEST_SHARE = 0.1


def create_spread(source: PageSource) -> list[dict[str, Any]]:
    """Returns the figure of the scores' empirical distribution; none of few trials."""
    kinds = {
        "ran to the end": [t for t in source.ranked if t.status == "complete"],
        "ended early": [t for t in source.ranked if t.status in ENDS],
    }
    if len(source.ranked) < LEAST_SPREAD or len({source.ranking.value(t) for t in source.ranked}) < 3:
        return []
    lines = [
        {
            "label": label,
            "count": len(trials),
            **_distribute(source, trials),
        }
        for label, trials in kinds.items()
        if len(trials) >= 3
    ]
    values = np.array([source.ranking.value(t) for t in source.ranked])
    title, quarters = (
        "How scores are distributed",
        [f"{q:.4g}" for q in np.quantile(values, (0.25, 0.5, 0.75))],
    )
    alt = f"{title}: the share of trials with a {source.ranked_by} up to each value. A quarter of "
    alt += (
        f"{len(values):,} trials has up to {quarters[0]}, half {quarters[1]}, three quarters {quarters[2]}."
    )
    lost = sum(trial.diverged for trial in source.trials)
    note = f"{lost:,} diverged trial{'s' * (lost != 1)} without a score left out." if lost else ""
    log = bool(values.min() > 0 and values.max() > 50 * values.min())
    figure = {"id": "spread", "kind": "spread", "title": title, "alt": alt, "note": note, "log": log}
    return [{**figure, "lines": lines}] if lines else []


def _distribute(source: PageSource, trials: Sequence[TrialRow]) -> dict[str, Any]:
    ordered = sorted(source.ranking.value(trial) or 0.0 for trial in trials)
    kept = np.unique(np.linspace(0, len(ordered) - 1, min(len(ordered), MOST_POINTS)).round().astype(int))
    return {"x": [short(ordered[i]) for i in kept], "y": [short((i + 1) / len(ordered)) for i in kept]}


def create_foresight(source: PageSource) -> list[dict[str, Any]]:
    """Returns the figure of how well each epoch's value tells the final one; none of few trials."""
    judged, curves = _list_judged(source)
    if len(judged) < LEAST_JUDGED or curves.shape[1] < 3:
        return []
    finals = np.array([source.order(trial) for trial in judged])
    if source.trials and not source.less_is_better:
        curves = -curves
    pruned = Counter(trial.epochs for trial in source.trials if trial.status == "pruned")
    last = curves.shape[1] - 1
    epochs = [e for e in _spread_epochs(last, pruned) if np.isfinite(curves[:, e - 1]).all()]
    rows = [
        {"epoch": e, "agreement": short(_correlate(curves[:, e - 1], finals)),
         "kept": short(_share_kept(curves[:, e - 1], finals)), "pruned": pruned.get(e, 0)}
        for e in epochs
    ]  # fmt: skip
    if not rows:
        return []
    title = "How early it can be told which trials are good"
    clear = next((row["epoch"] for row in rows if (row["agreement"] or 0) >= 0.9), None)
    alt = f"{title}: rank correlation of each epoch's value with the final one, of {len(judged):,} trials. "
    alt += f"At epoch {rows[0]['epoch']}: {rows[0]['agreement']:.2g}; "
    alt += f"0.9 is reached at epoch {clear}." if clear else "0.9 is never reached."
    note = f"Of {len(judged):,} trials that ran to the end; of those that were pruned nobody knows. "
    note += "Bars: how many were pruned after an epoch." if pruned else ""
    figure = {"id": "foresight", "kind": "foresight", "title": title, "alt": alt, "note": note.strip()}
    return [{**figure, "rows": rows, "share": BEST_SHARE}]


def _list_judged(source: PageSource) -> tuple[list[TrialRow], np.ndarray]:
    """Returns trials that ran to the end, with as many epochs as most, and their values, [trials, epochs]."""
    ends = [trial for trial in source.ranked if trial.status == "complete"]
    if not ends:
        return [], np.zeros((0, 0))
    epochs = Counter(trial.epochs for trial in ends).most_common(1)[0][0]
    ends = [trial for trial in ends if trial.epochs == epochs]
    if len(ends) > MOST_JUDGED:
        ends = [ends[int(i)] for i in np.linspace(0, len(ends) - 1, MOST_JUDGED).round()]
    wanted, found = {trial.trial for trial in ends}, defaultdict(dict)
    for row in source.epochs:
        if row.trial in wanted:
            found[row.trial][row.epoch] = getattr(row, source.ranking.metric)
    table = [[found[t.trial].get(epoch) for epoch in range(1, epochs + 1)] for t in ends]
    return ends, np.array(table, float).reshape(len(ends), epochs)


def _spread_epochs(last: int, pruned: Counter) -> list[int]:
    if last <= MOST_EPOCHS:
        return list(range(1, last + 1))
    spread = np.linspace(1, last, MOST_EPOCHS).round().astype(int)
    common = [epoch for epoch, _ in pruned.most_common(MOST_EPOCHS) if epoch <= last]
    return sorted({*map(int, spread), *common})


def _correlate(values: np.ndarray, finals: np.ndarray) -> float | None:
    """Returns Spearman's rank correlation; None where all are equal."""
    from scipy.stats import rankdata  # takes a second, and only a page needs it

    a, b = rankdata(values), rankdata(finals)
    if a.std() == 0 or b.std() == 0:
        return None
    return float(np.corrcoef(a, b)[0, 1])


def _share_kept(values: np.ndarray, finals: np.ndarray) -> float:
    """Returns how many of the trials that end best are in the better half; less is better of both."""
    best = np.argsort(finals, kind="stable")[: max(3, round(BEST_SHARE * len(finals)))]
    return float(np.mean(values[best] <= np.median(values)))
