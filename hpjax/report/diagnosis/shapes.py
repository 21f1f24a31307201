"""What the shape of one run's curves says: jumps, overfitting, underfitting, how far it is from its end."""

import math
import warnings
from dataclasses import dataclass

import numpy as np

from hpjax.report.diagnosis.noise import image_sd
from hpjax.report.diagnosis.runs import Run

LEAST_EPOCHS = 5  # fewer have no shape
# A spike stands out from both neighbours by a factor. The article's overfitting run scatters by up to 1.16,
# the one that it calls bouncing by 1.28, 3.3 and 2.1.
SPIKE = math.log(1.25)
BIG_SPIKE = math.log(2.0)  # of which one is enough
ACCURACY_DROP = 0.03  # in one epoch, and beyond the images' noise: a spike of the loss that matters
RISE = 0.10  # of the held-out loss over its lowest: of the recorded runs one rises by more than 7 %
STARTED = 0.05  # so much over the lowest, overfitting has begun
STEADY = 0.6  # Kendall's tau, negative: of two epochs the later one has the smaller loss 4 times of 5
# The second half falls as fast as this share of the first: 0.78 in the run at 1e-7, at most 0.3 elsewhere.
STRAIGHT = 0.6
HIGH = 0.5  # of ln K: half of what guessing costs is still to be learned
TOGETHER = 1.25  # held-out over training loss: beyond, the training images are learned by heart
FALLS = 0.03  # of the loss in the second half: what is called falling
FLAT = 0.05  # the training loss changes by less in its second half


@dataclass(frozen=True)
class Overfit:
    """A held-out loss that rises while the training loss falls.

    Attributes:
      best_epoch: of the lowest held-out loss.
      from_epoch: from which it stays clearly above.
      lowest: held-out loss.
      last: the median of its last three epochs.
      accuracy_change: from the best epoch to the last one.
    """

    best_epoch: int
    from_epoch: int
    lowest: float
    last: float
    accuracy_change: float


@dataclass(frozen=True)
class Fit:
    """An exponential approach that was fitted to the held-out loss.

    Attributes:
      more_epochs: until nine tenths of what is left are gained; at most twice as many as were trained.
      capped: whether it is that bound.
      gain: of the loss, in those epochs.
    """

    more_epochs: int
    capped: bool
    gain: float


def find_jumps(run: Run, images: int) -> list[float]:
    """Returns the factors by which the losses jumped up and came down again, the largest first.

    The last epoch has no epoch after it: it counts where the accuracy falls with it, as must small jumps.
    """
    if len(run) < LEAST_EPOCHS:
        return []
    held_out = _spikes(run.loss, run.accuracy, images)
    training = _spikes(run.train_loss, None, images)  # dropout and batches average out over an epoch
    found = held_out if len(held_out) >= len(training) else training
    return sorted((math.exp(size) for size in found), reverse=True)


def is_unstable(run: Run, images: int) -> bool:
    """Returns whether a run's losses jump: twice, or once by a factor of two."""
    jumps = find_jumps(run, images)
    return len(jumps) >= 2 or bool(jumps and jumps[0] >= math.exp(BIG_SPIKE))


def _spikes(losses: np.ndarray, accuracy: np.ndarray | None, images: int) -> list[float]:
    logs = np.log(np.maximum(losses, 1e-12))
    spikes = []
    for i in range(1, len(logs)):
        after = logs[i + 1] if i + 1 < len(logs) else -math.inf
        size = float(min(logs[i] - logs[i - 1], logs[i] - after))
        last_without_proof = i + 1 == len(logs) and accuracy is None
        if size < SPIKE or last_without_proof or losses[i] < 0.05:  # near zero, factors mean nothing
            continue
        if accuracy is None or size >= BIG_SPIKE or _drops(accuracy[i - 1], accuracy[i], images):
            spikes.append(size)
    return spikes


def _drops(before: float, after: float, images: int) -> bool:
    if not math.isfinite(before) or not math.isfinite(after) or not images:
        return False
    return before - after > max(ACCURACY_DROP, 3 * image_sd(before, images))


def find_overfitting(run: Run) -> Overfit | None:
    """Returns from where on a run overfits; None where it doesn't, or that can't be said."""
    if len(run) < LEAST_EPOCHS or not np.isfinite(run.loss).all() or not np.isfinite(run.train_loss).all():
        return None
    best = int(np.argmin(run.loss))
    after = run.loss[best:]
    if len(after) < 4:
        return None
    last, lowest = float(np.median(after[-3:])), float(after[0])
    falls = run.train_loss[-1] < 0.95 * run.train_loss[best]
    if last < (1 + RISE) * lowest or not falls or not _rises(after):
        return None
    below = np.flatnonzero(after <= (1 + STARTED) * lowest)
    start = best + int(below[-1]) + 1
    if start >= len(run):  # the last epoch is as good as the best one again
        return None
    change = float(run.accuracy[-1] - run.accuracy[best])
    return Overfit(int(run.epochs[best]), int(run.epochs[start]), lowest, last, change)


def _rises(values: np.ndarray) -> bool:
    from scipy import stats

    found = stats.kendalltau(np.arange(len(values)), values, alternative="greater")
    return bool(found.statistic > 0.3 and found.pvalue < 0.05)  # pyright: ignore


def is_high(run: Run, classes: int) -> bool:
    """Returns whether the training loss has come less than half the way down from guessing."""
    return classes > 1 and len(run) > 0 and bool(run.train_loss[-1] > HIGH * math.log(classes))


def falls_steadily(values: np.ndarray) -> bool:
    """Returns whether a curve goes down from beginning to end, and in its second half as well."""
    from scipy import stats

    late = values[len(values) // 2 :]
    if len(late) < 3 or not np.isfinite(values).all():
        return False
    falls = stats.kendalltau(np.arange(len(values)), values).statistic <= -STEADY  # pyright: ignore
    return bool(falls and np.median(late[-2:]) < (1 - FALLS) * np.median(late[:2]))


def is_underfit(run: Run, classes: int) -> bool:
    """Returns whether both losses were still falling side by side, far from having been learned."""
    if len(run) < LEAST_EPOCHS or not is_high(run, classes):
        return False
    together = bool(run.loss[-1] <= TOGETHER * run.train_loss[-1])
    return together and falls_steadily(run.train_loss) and falls_steadily(run.loss)


def crawls(run: Run, classes: int) -> bool:
    """Returns whether the training loss falls along a straight line: steps too small to meet a curve."""
    if not is_underfit(run, classes):
        return False
    middle = len(run) // 2
    first = (run.train_loss[0] - run.train_loss[middle - 1]) / (middle - 1)
    second = (run.train_loss[middle] - run.train_loss[-1]) / (len(run) - middle - 1)
    return bool(second >= STRAIGHT * first > 0)


def is_stuck(run: Run, classes: int) -> bool:
    """Returns whether the training loss stands still, high up."""
    if len(run) < LEAST_EPOCHS or classes < 2 or not np.isfinite(run.train_loss).all():
        return False
    late = run.train_loss[len(run) // 2 :]
    return bool(late[-1] > 0.7 * math.log(classes) and abs(late[-1] / late[0] - 1) < FLAT)


def fit_end(run: Run) -> Fit | None:
    """Returns how many more epochs the held-out loss would go on falling; None where it doesn't clearly."""
    from scipy import optimize, stats

    if len(run) < LEAST_EPOCHS + 1 or not np.isfinite(run.loss).all():
        return None
    count = max(5, len(run) // 2)
    late = stats.linregress(run.epochs[-count:], run.loss[-count:], alternative="less")
    if not late.pvalue < 0.01 or np.median(run.loss[-2:]) > 1.05 * run.loss.min():  # pyright: ignore
        return None
    epochs, losses = run.epochs[1:].astype(float), run.loss[1:]  # the first may be the warm-up of statistics
    bound = 2 * len(run)
    start = (0.8 * losses.min(), max(losses[0] - losses.min(), 1e-3), 3 / len(run))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that covariances can't be estimated is no news: none are used
            (floor, height, rate), _ = optimize.curve_fit(
                _approach, epochs - epochs[0], losses, start, bounds=((0, 0, 1e-4), (np.inf, np.inf, 10))
            )
    except (RuntimeError, ValueError):
        return None
    more = min(bound, math.ceil(math.log(10) / rate))
    now = float(_approach(epochs[-1] - epochs[0], floor, height, rate))
    gain = now - float(_approach(epochs[-1] - epochs[0] + more, floor, height, rate))
    return Fit(more, more == bound, gain) if gain > 0 else None


def _approach(epochs: np.ndarray | float, floor: float, height: float, rate: float) -> np.ndarray:
    return floor + height * np.exp(-rate * np.asarray(epochs))
