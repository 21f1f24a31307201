"""The rule on ranges: is the best at the edge of what was searched, and where to look next."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from hpjax.config.hyperparameters import option_of
from hpjax.errors import ConfigError
from hpjax.report.diagnosis.finding import Finding
from hpjax.report.diagnosis.noise import CLEAR
from hpjax.report.diagnosis.runs import Run, Sweep, position, value_at
from hpjax.report.style import format_value, is_log_like, spell
from hpjax.search.space import Axis

LEAST_TRIALS = 12  # of a range, for a trend to be seen
OUTER = 0.25  # of the range from a bound: where the winner and half of the top trials have to be
TOP_SHARE = 0.15
MOST_TOP = 20
NEARER = 2 / 3  # of the range, in which trials have to get better towards the bound
SURE = 0.01  # p of that; together with the other two conditions it is far rarer by chance
LEAST_VALUES = 3  # of a list: of two values one is always at the edge


def best_at_edge(sweep: Sweep) -> list[Finding]:
    """Names the bounds towards which trials still get better, each with a new range."""
    found = []
    for axis in sweep.axes:
        listed = _is_short(sweep, axis)
        side, evidence = (_edge_of_list if listed else _edge_of_range)(sweep, axis)
        if side and (space := _extend_list(sweep, axis, side) if listed else _extend_range(axis, side)):
            found.append(_describe(axis, side, evidence, space))
    return found


def _describe(axis: Axis, side: int, evidence: dict[str, Any], space: str) -> Finding:
    end = "low" if side < 0 else "high"
    best = format_value(evidence["best_value"])
    if "top_share" in evidence:
        why = (
            f"{evidence['top_share']:.0%} of the top {evidence['top_trials']} trials are in the outer quarter"
        )
    else:
        low, high = evidence["from_accuracy"], evidence["accuracy"]
        why = f"accuracy still rises towards it, from {low:.3g} to {high:.3g}"
    return Finding(
        "best_at_edge",
        "warning",
        f"The best {spell(axis.name)} ({best}) is at the {end} end of what was tried: {why}.",
        f"Search beyond it: --space={axis.name}={space}.",
        {**evidence, "side": side, "hyperparameter": axis.name, "space": space},
    )


def _is_short(sweep: Sweep, axis: Axis) -> bool:
    """Returns whether single values are compared: a list, or a range of which few were tried."""
    tried = {run.trial.hyperparameters.get(axis.name) for run in sweep.runs} - {None}
    return bool(axis.choices) or len(tried) < LEAST_TRIALS


def _edge_of_range(sweep: Sweep, axis: Axis) -> tuple[int, dict[str, Any]]:
    """Returns -1 or 1 for the bound that trials get better towards, 0 for none, and the evidence."""
    from scipy import stats

    runs = [run for run in sweep.runs if run.trial.seed_index == 0]
    pairs = [(value, sweep.score(run)) for run in runs if (value := sweep.value(run, axis.name)) is not None]
    winner = sweep.winner
    best = None if winner is None else sweep.value(winner, axis.name)
    if len(pairs) < LEAST_TRIALS or best is None:
        return 0, {}
    places = np.array([position(axis, value) for value, _ in pairs])
    scores = np.array([score for _, score in pairs])  # one that diverged is worse than all others
    side = -1 if position(axis, best) <= OUTER else 1 if position(axis, best) >= 1 - OUTER else 0
    if not side:
        return 0, {}
    depth = places if side < 0 else 1 - places
    count = min(MOST_TOP, max(4, round(TOP_SHARE * len(pairs))))
    share = float(np.mean(depth[np.argsort(-scores, kind="stable")[:count]] <= OUTER))
    near = depth <= NEARER  # beyond, trials may fail for reasons of their own
    if share < 0.5 or near.sum() < LEAST_TRIALS / 2:
        return 0, {}
    p = float(stats.spearmanr(depth[near], scores[near], alternative="less").pvalue)  # pyright: ignore
    evidence = {"best_value": best, "top_share": share, "top_trials": count, "p_value": p}
    return (side if p < SURE else 0), evidence


def _edge_of_list(sweep: Sweep, axis: Axis) -> tuple[int, dict[str, Any]]:
    """Returns the same for single values, by the best run of each: the outermost against those next to it."""
    best = [bucket.best for bucket in sweep.judged_buckets(axis)]
    runs = [run for run in best if run is not None]
    if len(runs) < LEAST_VALUES or sweep.winner is None or sweep.winner not in (runs[0], runs[-1]):
        return 0, {}
    side = -1 if sweep.winner is runs[0] else 1
    chain = _falling(sweep, runs if side < 0 else runs[::-1])
    if len(chain) < LEAST_VALUES:
        return 0, {}
    lead, near = sweep.lead(chain[0], chain[-1]), sweep.lead(chain[0], chain[LEAST_VALUES - 1])
    evidence = {
        "best_value": sweep.value(chain[0], axis.name),
        "accuracy": sweep.accuracy(chain[0]),
        "from_accuracy": sweep.accuracy(chain[-1]),
        "lead_in_errors": lead,
    }
    return (side if CLEAR < lead < math.inf and near > CLEAR / 2 else 0), evidence


def _falling(sweep: Sweep, runs: Sequence[Run]) -> list[Run]:
    """Returns the first runs, as long as each is less accurate than the one before."""
    chain = [runs[0]]
    for run in runs[1:]:
        ours, before = sweep.accuracy(run), sweep.accuracy(chain[-1])
        if ours is None or before is None or run.trial.diverged or ours >= before:
            break
        chain.append(run)
    return chain


def _extend_range(axis: Axis, side: int) -> str:
    """Returns a range moved by half its width beyond the bound, as `--space` takes it; empty: not allowed."""
    low, high = (value_at(axis, place + 0.5 * side) for place in (0, 1))
    whole = axis.whole
    low, high = (_nearest_allowed(axis, value, whole) for value in (low, high))
    if low is None or high is None or not (low < axis.low if side < 0 else high > axis.high):
        return ""
    if axis.step is not None:
        low, high = (axis.low + round((value - axis.low) / axis.step) * axis.step for value in (low, high))
    kind = ":log" if axis.log else f":{axis.step:g}" if axis.step is not None else ""
    return f"{_text(low)}:{_text(high)}{kind}"


def _nearest_allowed(axis: Axis, value: float, whole: bool) -> float | None:
    """Returns the value, or the farthest one that is allowed between it and the range's own bound."""
    bound = float(axis.low) if value < axis.low else float(axis.high)
    limits = [0.0] if value < axis.low else [bound + share * (1 - bound) for share in (0.5,) if bound < 1]
    for candidate in (value, *(limit for limit in limits if not axis.log or limit > 0)):
        rounded = int(round(candidate)) if whole else float(f"{candidate:.3g}")
        if _is_allowed(axis, rounded):
            return rounded
    return None


def _extend_list(sweep: Sweep, axis: Axis, side: int) -> str:
    """Returns the outermost value with two more beyond it, in the steps that the list takes there."""
    tried = sorted(
        v for b in sweep.judged_buckets(axis) if b.best and (v := sweep.value(b.best, axis.name)) is not None
    )
    edge, inner = (tried[0], tried[1]) if side < 0 else (tried[-1], tried[-2])
    if tried[0] > 0 and (is_log_like(tried) or edge / inner > 2 or inner / edge > 2):
        more = [edge * (edge / inner) ** step for step in (1, 2)]
    else:
        more = [edge + (edge - inner) * step for step in (1, 2)]
    whole = axis.whole
    more = [round(value) if whole else float(f"{value:.3g}") for value in more]
    more = [value for value in dict.fromkeys(more) if value != edge and _is_allowed(axis, value)]
    edge = round(edge) if whole else edge
    return ",".join(_text(value) for value in sorted([edge, *more])) if more else ""


def _is_allowed(axis: Axis, value: Any) -> bool:
    try:
        axis.hyperparameter.check(value)
    except ConfigError:
        return False
    # What a model's class allows is known only once it is built: a width of 0 isn't proposed for one.
    return value > 0 or not option_of(axis.name) or min(axis.choices or (axis.low,)) <= 0


def _text(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.3g}"
