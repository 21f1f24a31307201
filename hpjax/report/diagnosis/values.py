"""Rules on values of the space: where trials fail, and what the batch size costs and gives."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from hpjax.report.diagnosis.finding import Finding
from hpjax.report.diagnosis.noise import CLEAR, image_sd
from hpjax.report.diagnosis.runs import Bucket, Run, Sweep
from hpjax.report.progress import format_seconds

FAILED_SHARE = 0.2  # of all trials: below, a search has just looked around
MOST_FAILED = 0.5  # above, most of the time was lost
BLAMED = 0.01  # p of a value's failures against those of all other values
BLAMED_OF = 12  # trials; with fewer, a value is blamed where all of its trials failed and few others
LEAST_FAILED = 2
LEAST_EPOCHS = 5  # without which no better than guessing doesn't mean that nothing would be learned
FALLS = 0.01  # of the training loss, in the second half of the epochs


def failed_trials(sweep: Sweep) -> Finding | None:
    """Counts trials that diverged or learned nothing, and says which values they share."""
    began = [run for run in sweep.runs if len(run) or run.trial.diverged]
    failed = [run for run in began if run.trial.diverged or learned_nothing(sweep, run)]
    share = len(failed) / len(began) if began else 0.0
    if not failed or (len(failed) < min(LEAST_FAILED, len(began)) or share < FAILED_SHARE):
        return None
    blamed = [entry for axis in sweep.varied if (entry := _blame(sweep.buckets(axis), failed))]
    lost = sum(run.trial.diverged for run in failed)
    where = "".join(f"; {e['failed']} of {e['trials']} with {e['label']}" for e in blamed)
    too_early = not lost and max(len(run) for run in failed) < LEAST_EPOCHS
    level = "info" if share < MOST_FAILED else "severe" if share == 1 and not too_early else "warning"
    epochs = max(len(run) for run in failed)
    after = f" after {epochs} epoch{'s' * (epochs != 1)}" if too_early else ""
    return Finding(
        "failed_trials",
        level,
        f"{len(failed)} of {len(began)} trials came to nothing ({lost} diverged, {len(failed) - lost} no "
        f"better than guessing{after}){where}.",
        _advise(failed, bool(blamed), too_early, math.log(max(2, sweep.facts.classes))),
        {
            "failed": len(failed),
            "diverged": lost,
            "trials": len(began),
            "by_value": blamed,
            "epochs": epochs,
        },
    )


def _advise(failed: Sequence[Run], blamed: bool, too_early: bool, guess: float) -> str:
    """Returns what to do about trials that came to nothing; `guess` is the loss of guessing."""
    if too_early:  # steps too small and steps too large look the same
        return "So few epochs say little: train longer (train.epochs) before changing anything else."
    if blamed:
        return "Take these values out of the space."
    falling = [run for run in failed if not run.trial.diverged and _falls(run)]
    if len(falling) > len(failed) / 2:
        return "Their training losses still fall: raise the learning rate, or train longer."
    high = [run for run in failed if run.trial.diverged or run.train_loss[-1] > guess]
    if len(high) > len(failed) / 2:
        return "Lower the learning rate, or look at the data."
    return "Try learning rates a factor of 10 lower and higher, and look at the data."


def _falls(run: Run) -> bool:
    late = run.train_loss[len(run) // 2 :]
    return len(late) > 1 and bool(late[-1] < (1 - FALLS) * late[0])


def learned_nothing(sweep: Sweep, run: Run) -> bool:
    """Returns whether no epoch of a run is beyond noise better than guessing."""
    guess = sweep.facts.guess(sweep.split)
    finite = run.accuracy[np.isfinite(run.accuracy)]
    # A trial that was pruned at its beginning may still have learned.
    if guess is None or not len(finite) or not sweep.images or run.trial.status == "pruned":
        return False
    return bool(finite.max() < guess + CLEAR * image_sd(guess, sweep.images))


def _blame(buckets: Sequence[Bucket], failed: Sequence[Run]) -> dict[str, Any] | None:
    """Returns the value with the largest share of failures, where chance can't explain how many it has."""
    from scipy import stats

    lost = {run.trial.trial for run in failed}
    counts = [(sum(run.trial.trial in lost for run in bucket.runs), len(bucket.runs)) for bucket in buckets]
    if len(buckets) < 2:
        return None
    worst = max(range(len(buckets)), key=lambda i: (counts[i][0] / counts[i][1], counts[i][1]))
    bad, total = counts[worst]
    others = sum(count[0] for count in counts) - bad, sum(count[1] for count in counts) - total
    table = [[bad, total - bad], [others[0], others[1] - others[0]]]
    p = float(stats.fisher_exact(table, alternative="greater").pvalue)  # pyright: ignore
    few = total + others[1] < BLAMED_OF and bad == total and others[0] <= 0.25 * others[1]
    if not (p < BLAMED or few):
        return None
    return {
        "label": buckets[worst].label,
        "failed": bad,
        "trials": total,
        "others_failed": others[0],
        "p_value": p,
    }


def batch_size(sweep: Sweep) -> Finding | None:
    """Compares batch sizes after as many epochs and after as many seconds; only where little else differs."""
    axis = sweep.axis("batch_size")
    if axis is None or (len(sweep.varied) > 1 and sweep.facts.sampler != "grid") or not sweep.images:
        return None
    best = [bucket.best for bucket in sweep.judged_buckets(axis)]
    runs = [run for run in best if run is not None and run.trial.status == "complete"]
    if len(runs) < 2 or any(not np.isfinite(run.accuracy).all() or not len(run) for run in runs):
        return None
    by_epoch = [float(run.accuracy.mean()) for run in runs]  # over all epochs: their scatter averages out
    top = max(range(len(runs)), key=lambda i: by_epoch[i])
    bottom = min(range(len(runs)), key=lambda i: by_epoch[i])
    noise = math.hypot(sweep.noise(runs[top]), sweep.noise(runs[bottom]))
    ends = [run.accuracy[-1] for run in (runs[top], runs[bottom])]
    if by_epoch[top] - by_epoch[bottom] < CLEAR * noise or ends[0] - ends[1] < noise:
        return None
    return _compare_batches(sweep, runs, runs[top], runs[bottom])


def _compare_batches(sweep: Sweep, runs: Sequence[Run], top: Run, bottom: Run) -> Finding:
    sizes = [int(sweep.value(run, "batch_size") or 0) for run in runs]
    seconds = [float(run.seconds.mean()) for run in runs]
    large, small = (int(sweep.value(run, "batch_size") or 0) for run in (bottom, top))
    epochs = min(len(top), len(bottom))
    sentence = (
        f"After {epochs} epochs a batch size of {small} is more accurate than {large}: "
        f"{top.accuracy[epochs - 1]:.3g} against {bottom.accuracy[epochs - 1]:.3g}"
    )
    evidence: dict[str, Any] = {
        "batch_sizes": sizes,
        "accuracies": [float(run.accuracy[-1]) for run in runs],
        "mean_accuracies": [float(run.accuracy.mean()) for run in runs],
        "epoch_seconds": seconds,
    }
    advice = f"Take {small} where epochs are limited"
    if min(seconds) > 0:
        budget = min(float(run.seconds.sum()) for run in runs)
        in_time = [_accuracy_after(run, budget) for run in runs]
        first = max(range(len(runs)), key=lambda i: in_time[i])
        cost = seconds[runs.index(top)] / seconds[runs.index(bottom)]
        sentence += (
            f", at {cost:.2g} times the time per epoch; after equally long ({format_seconds(budget)}) "
            f"{sizes[first]} is ahead ({in_time[first]:.3g})"
        )
        evidence |= {"seconds": budget, "accuracies_in_time": in_time, "best_in_time": sizes[first]}
        advice += f", {sizes[first]} where time is" if sizes[first] != small else ", by epochs and by time"
    return Finding("batch_size", "info", f"{sentence}.", f"{advice}.", evidence)


def _accuracy_after(run: Run, seconds: float) -> float:
    """Returns a run's accuracy after so many seconds, between its epochs along a straight line."""
    ends = np.cumsum(run.seconds)
    return float(np.interp(seconds, np.concatenate([[0.0], ends]), np.concatenate([[0.0], run.accuracy])))
