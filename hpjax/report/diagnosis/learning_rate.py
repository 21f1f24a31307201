"""Rules on step size and decay: too small, too large, at the edge of what is stable, strangled by decay."""

import math
from collections.abc import Sequence

import numpy as np

from hpjax.report.diagnosis.finding import Finding
from hpjax.report.diagnosis.noise import CLEAR
from hpjax.report.diagnosis.runs import Bucket, Run, Sweep
from hpjax.report.diagnosis.shapes import LEAST_EPOCHS, crawls, find_jumps, is_stuck, is_unstable
from hpjax.report.style import format_value

# A rate is too low if a higher one gets as far in a third of the epochs: within that, more epochs would do.
LAGS = 1 / 3
WORSE_LOSS = 0.1  # of ln K, in training loss: what a value costs that can't learn what another can
SEPARATES = 0.9  # the area under the curve with which a rate tells trials that diverged from the others
NEAR_BOUND = 10.5  # a winner within this factor, a decade, of the lowest rate that diverges
STRONG_DECAY = 0.05  # coupled, under Adam: the article's 0.01 learns, its 1.0 doesn't


def learning_rate_too_low(sweep: Sweep) -> Finding | None:
    """Names learning rates that a higher one overtakes in a third of the epochs; or a run that crawls."""
    slow = [bucket for bucket, winner in _beside_winner(sweep, "learning_rate", above=False)
            if _lags(sweep, bucket.best, winner)]  # fmt: skip
    winner = sweep.winner
    if slow and winner is not None:
        return _too_low(sweep, slow, winner)
    if winner is None or not crawls(winner, sweep.facts.classes):
        return None
    rate = sweep.value(winner, "learning_rate")
    return Finding(
        "learning_rate_too_low",
        "warning",
        f"The losses of the best trial ({_rate(rate)}) fall in a straight line and are still high: "
        f"{winner.train_loss[-1]:.3g} after {len(winner)} epochs, where guessing costs "
        f"{math.log(sweep.facts.classes):.3g}.",
        "Raise the learning rate by a factor of 10 and look again, before training longer.",
        {"learning_rate": rate, "train_loss": float(winner.train_loss[-1]), "trial": winner.trial.trial},
    )


def _too_low(sweep: Sweep, slow: Sequence[Bucket], winner: Run) -> Finding:
    worst = slow[-1].best  # the highest rate that is still too low
    assert worst is not None
    overtaken = _first_below(winner, float(worst.train_loss[-1]))
    return Finding(
        "learning_rate_too_low",
        "info",
        f"{_names(slow)} {_is(slow)} too low: after {len(worst)} epochs its training loss is "
        f"{worst.train_loss[-1]:.3g}, where {_rate(sweep.value(winner, 'learning_rate'))} is after "
        f"{overtaken}; accuracy {sweep.accuracy(worst):.3g} against {sweep.accuracy(winner):.3g}.",
        "Leave such rates out; they would need far more epochs.",
        {
            "learning_rates": _rates(sweep, slow),
            "best_learning_rate": sweep.value(winner, "learning_rate"),
            "epochs": len(worst),
            "overtaken_after": overtaken,
            "accuracies": [sweep.accuracy(bucket.best) for bucket in slow if bucket.best],
            "best_accuracy": sweep.accuracy(winner),
        },
    )


def learning_rate_too_high(sweep: Sweep) -> Finding | None:
    """Names learning rates above the winner's that diverge, jump, or learn less of the training images."""
    high = [bucket for bucket, winner in _beside_winner(sweep, "learning_rate", above=True)
            if _loses(sweep, bucket.best, winner)]  # fmt: skip
    winner = sweep.winner
    if high and winner is not None:
        return _too_high(sweep, high, winner)
    if winner is None or sweep.axis("learning_rate") or len(find_jumps(winner, sweep.images)) < 2:
        return None
    rate, jumps = sweep.value(winner, "learning_rate"), find_jumps(winner, sweep.images)
    return Finding(
        "learning_rate_too_high",
        "warning",
        f"The loss of the best trial ({_rate(rate)}) jumped {len(jumps)} times, by up to "
        f"{jumps[0]:.1f} times.",
        "Lower the learning rate by a factor of 10, or add a warm-up (optimizer.warmup_fraction).",
        {"learning_rate": rate, "jumps": len(jumps), "largest_jump": jumps[0], "trial": winner.trial.trial},
    )


def _too_high(sweep: Sweep, high: Sequence[Bucket], winner: Run) -> Finding:
    lowest = high[0].best
    assert lowest is not None
    jumps = find_jumps(lowest, sweep.images)
    if lowest.trial.diverged:
        what = "its loss stopped being finite"
    elif jumps:
        times = "once" if len(jumps) == 1 else f"{len(jumps)} times"
        what = f"its loss jumped {times}, by up to {jumps[0]:.1f} times"
    else:
        what = f"its training loss ends at {lowest.train_loss[-1]:.3g} instead of {winner.train_loss[-1]:.3g}"
    reached = sweep.accuracy(lowest)
    ends = "" if reached is None or lowest.trial.diverged else f", and its accuracy is {reached:.3g}"
    best = _rate(sweep.value(winner, "learning_rate"))
    return Finding(
        "learning_rate_too_high",
        "info",
        f"{_names(high)} {_is(high)} too high: {what}{ends}; {best} reaches {sweep.accuracy(winner):.3g}.",
        "Leave such rates out, or make them bearable by a warm-up, a schedule or clip_norm.",
        {
            "learning_rates": _rates(sweep, high),
            "best_learning_rate": sweep.value(winner, "learning_rate"),
            "jumps": len(jumps),
            "largest_jump": jumps[0] if jumps else 0.0,
            "accuracies": [sweep.accuracy(bucket.best) for bucket in high if bucket.best],
            "best_accuracy": sweep.accuracy(winner),
        },
    )


def stability_limit(sweep: Sweep) -> Finding | None:
    """Says that the winner's learning rate lies just below the bound above which trials diverge."""
    axis, winner = sweep.axis("learning_rate"), sweep.winner
    if axis is None or winner is None:
        return None
    lost = [sweep.value(run, axis.name) for run in sweep.runs if run.trial.diverged]
    kept = [sweep.value(run, axis.name) for run in sweep.runs if not run.trial.diverged]
    lost, kept = [v for v in lost if v is not None], [v for v in kept if v is not None]
    rate = sweep.value(winner, axis.name)
    if not lost or len(set(kept)) < 2 or rate is None or _separation(lost, kept) < SEPARATES:
        return None
    bound = _find_bound(lost, kept)
    between = len({value for value in kept if rate < value < bound})
    if not rate < bound <= NEAR_BOUND * rate or between > 0.2 * len(set(kept)):
        return None
    return Finding(
        "stability_limit",
        "warning",
        f"Trials diverge from a learning rate of {format_value(bound)} on ({len(lost)} of "
        f"{len(lost) + len(kept)}), and the best one sits just below, at {format_value(rate)}: "
        "what is stable limits it, not what is good.",
        "Make higher rates stable (optimizer.warmup_fraction=0.05, clip_norm=1, a larger batch) and search "
        "there again.",
        {"bound": bound, "best_learning_rate": rate, "diverged": len(lost), "trials": len(lost) + len(kept)},
    )


def _find_bound(lost: Sequence[float], kept: Sequence[float]) -> float:
    """Returns the lowest rate that diverged from which on nearly all do."""
    for bound in sorted(lost):
        above = sum(value >= bound for value in lost)
        if above >= SEPARATES * (above + sum(value >= bound for value in kept)):
            return bound
    return max(lost)


def _separation(lost: Sequence[float], kept: Sequence[float]) -> float:
    """Returns how likely a trial that diverged has a higher rate than one that didn't."""
    from scipy import stats

    found = stats.mannwhitneyu(lost, kept, alternative="greater")
    return float(found.statistic) / (len(lost) * len(kept))


def weight_decay_too_strong(sweep: Sweep) -> Finding | None:
    """Names weight decays above the winner's that keep the training loss high; or a winner that is stuck."""
    winner = sweep.winner
    strong = [bucket for bucket, best in _beside_winner(sweep, "weight_decay", above=True)
              if _learns_less(sweep, bucket.best, best)]  # fmt: skip
    if strong and winner is not None and (run := strong[0].best) is not None:
        best = sweep.value(winner, "weight_decay")
        return Finding(
            "weight_decay_too_strong",
            "info",
            f"{_names(strong)} {_is(strong)} too strong: the training loss ends at {run.train_loss[-1]:.3g} "
            f"instead of {winner.train_loss[-1]:.3g} at {format_value(best)}, and almost nothing is learned: "
            f"accuracy {sweep.accuracy(run):.3g} against {sweep.accuracy(winner):.3g}.",
            f"Search weight decays of at most {format_value(best)}, and 0.",
            {
                "weight_decays": _rates(sweep, strong, "weight_decay"),
                "best_weight_decay": best,
                "train_loss": float(run.train_loss[-1]),
                "best_train_loss": float(winner.train_loss[-1]),
                "accuracies": [sweep.accuracy(bucket.best) for bucket in strong if bucket.best],
                "best_accuracy": sweep.accuracy(winner),
            },
        )
    return None if winner is None else _stuck_by_decay(sweep, winner)


def _stuck_by_decay(sweep: Sweep, winner: Run) -> Finding | None:
    decay = sweep.value(winner, "weight_decay")
    coupled = sweep.facts.fixed.get("weight_decay_mode", "coupled") == "coupled"
    if not decay or decay < STRONG_DECAY or not coupled or not is_stuck(winner, sweep.facts.classes):
        return None
    return Finding(
        "weight_decay_too_strong",
        "warning",
        f"Even the best trial's training loss stands still at {winner.train_loss[-1]:.3g}, close to the "
        f"{math.log(sweep.facts.classes):.3g} of guessing, under a weight decay of {format_value(decay)}.",
        "Lower weight_decay a hundredfold, or try 0.",
        {"weight_decay": decay, "train_loss": float(winner.train_loss[-1]), "trial": winner.trial.trial},
    )


def _beside_winner(sweep: Sweep, name: str, above: bool) -> list[tuple[Bucket, Run]]:
    """Returns the values on one side of the winner's whose best run is clearly worse, and the winner."""
    axis, winner = sweep.axis(name), sweep.winner
    if axis is None or winner is None or sweep.accuracy(winner) is None:
        return []
    buckets = sweep.judged_buckets(axis)
    own = next((i for i, bucket in enumerate(buckets) if winner in bucket.runs), None)
    if own is None:
        return []
    side = buckets[own + 1 :] if above else buckets[:own]
    return [(b, winner) for b in side if b.best is not None and sweep.lead(winner, b.best) > CLEAR]


def _lags(sweep: Sweep, run: Run | None, winner: Run) -> bool:
    if run is None or len(run) < LEAST_EPOCHS or run.trial.diverged or is_unstable(run, sweep.images):
        return False
    last = float(run.train_loss[-1])
    overtaken = _first_below(winner, last)
    return last <= 1.05 * np.nanmin(run.train_loss) and 0 < overtaken <= max(1, LAGS * len(run))


def _loses(sweep: Sweep, run: Run | None, winner: Run) -> bool:
    """Returns whether a run with a higher rate diverges, jumps or fits the training images less well."""
    if run is None:
        return False
    return run.trial.diverged or is_unstable(run, sweep.images) or _learns_less(sweep, run, winner)


def _learns_less(sweep: Sweep, run: Run | None, winner: Run) -> bool:
    if run is None or run.trial.diverged or len(run) < LEAST_EPOCHS or sweep.facts.classes < 2:
        return False
    best = winner.train_loss[min(len(run), len(winner)) - 1]
    return bool(run.train_loss[-1] - best > WORSE_LOSS * math.log(sweep.facts.classes))


def _first_below(run: Run, loss: float) -> int:
    """Returns after how many epochs a run's training loss is at most so high; 0: never."""
    reached = np.flatnonzero(run.train_loss <= loss)
    return int(run.epochs[reached[0]]) if len(reached) else 0


def _rates(sweep: Sweep, buckets: Sequence[Bucket], name: str = "learning_rate") -> list[float | None]:
    return [sweep.value(bucket.best, name) for bucket in buckets if bucket.best is not None]


def _names(buckets: Sequence[Bucket]) -> str:
    text = ", ".join(bucket.label for bucket in buckets)
    return text[:1].upper() + text[1:]


def _is(buckets: Sequence[Bucket]) -> str:
    return "is" if len(buckets) == 1 else "are"


def _rate(value: float | None) -> str:
    return f"learning rate {format_value(value)}"
