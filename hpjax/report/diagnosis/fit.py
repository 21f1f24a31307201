"""Rules on how well and how long runs learn: overfitting, underfitting, jumps, too short, too long."""

import math

import numpy as np

from hpjax.report.diagnosis.finding import Finding
from hpjax.report.diagnosis.noise import image_sd
from hpjax.report.diagnosis.runs import Run, Sweep
from hpjax.report.diagnosis.shapes import (
    LEAST_EPOCHS,
    find_jumps,
    find_overfitting,
    fit_end,
    is_stuck,
    is_underfit,
    is_unstable,
)

WORTH_TRAINING_ON = 0.03  # of the held-out loss: a smaller gain isn't worth as many epochs again
TOO_HIGH_AT_FIRST = 1.5  # times ln K: over the first epoch even a run that learns nothing stays below


def unstable_loss(sweep: Sweep) -> Finding | None:
    """Names the best runs of every value whose loss jumps up and down."""
    found = [run for run in sweep.candidates if is_unstable(run, sweep.images)]
    if not found:
        return None
    worst = max(found, key=lambda run: find_jumps(run, sweep.images)[0])
    jumps, wins = find_jumps(worst, sweep.images), sweep.winner in found
    return Finding(
        "unstable_loss",
        "warning" if wins else "info",
        f"{_who(sweep, found)} unstable: at {sweep.label(worst)} a loss jumped {_times(len(jumps))}, by up "
        f"to {jumps[0]:.1f} times, so that the last epoch's result is partly chance.",
        "Lower the learning rate, let it fall (optimizer.schedule=cosine) or clip gradients (clip_norm=1); "
        "sweep.select=best keeps the best epoch.",
        {
            "trials": [run.trial.trial for run in found],
            "jumps": [len(find_jumps(run, sweep.images)) for run in found],
            "largest_jump": jumps[0],
            "winner": wins,
        },
    )


def overfitting(sweep: Sweep) -> Finding | None:
    """Names the best runs of every value that overfit, and from which epoch on."""
    pairs = [(run, find_overfitting(run)) for run in sweep.candidates if not is_unstable(run, sweep.images)]
    found = [(run, how) for run, how in pairs if how is not None]
    if not found:
        return None
    run, how = found[0]  # the winner, if it is among them
    wins, split = run is sweep.winner, sweep.split
    stays = how.accuracy_change > -2 * image_sd(float(np.nanmax(run.accuracy)), sweep.images)
    advice = "Stop there (train.epochs, or sweep.select=best), or regularise: data.augment, dropout, decay."
    return Finding(
        "overfitting",
        "warning" if wins else "info",
        f"{_who(sweep, [run for run, _ in found])} overfitting: at {sweep.label(run)} the {split} loss was "
        f"lowest in epoch {how.best_epoch} ({how.lowest:.3g}) and rises from epoch {how.from_epoch} on, to "
        f"{how.last:.3g}, while the training loss falls to {run.train_loss[-1]:.3g}"
        + (f" (the {split} accuracy stays)." if stays else "."),
        advice,
        {
            "trials": [run.trial.trial for run, _ in found],
            "best_epochs": [how.best_epoch for _, how in found],
            "from_epochs": [how.from_epoch for _, how in found],
            "lowest_losses": [how.lowest for _, how in found],
            "last_losses": [how.last for _, how in found],
            "accuracy_changes": [how.accuracy_change for _, how in found],
            "winner": wins,
        },
    )


def underfitting(sweep: Sweep) -> Finding | None:
    """Names the best runs of every value whose losses fall side by side and are still high."""
    classes = sweep.facts.classes
    found = [run for run in sweep.candidates if is_underfit(run, classes)]
    if not found:
        return None
    run, wins = found[0], found[0] is sweep.winner
    return Finding(
        "underfitting",
        "warning" if wins else "info",
        f"{_who(sweep, found)} underfitting: at {sweep.label(run)} the training and {sweep.split} losses "
        f"still fall side by side, to {run.train_loss[-1]:.3g} and {run.loss[-1]:.3g} of the "
        f"{math.log(classes):.3g} that guessing costs.",
        "Raise the learning rate, train longer, or take a larger network.",
        {
            "trials": [run.trial.trial for run in found],
            "train_losses": [float(run.train_loss[-1]) for run in found],
            "losses": [float(run.loss[-1]) for run in found],
            "loss_of_guessing": math.log(classes),
            "winner": wins,
        },
    )


def still_improving(sweep: Sweep) -> Finding | None:
    """Says that the winner's held-out loss was still falling, and for how many epochs it would go on."""
    winner = sweep.winner
    if winner is None or winner.trial.status != "complete" or is_unstable(winner, sweep.images):
        return None
    fit = fit_end(winner)
    if fit is None or fit.gain < WORTH_TRAINING_ON * winner.loss[-1]:
        return None
    more = f"{'at least ' if fit.capped else 'about '}{fit.more_epochs}"
    return Finding(
        "still_improving",
        "info",
        f"The best trial was still improving when it ended: its {sweep.split} loss ({winner.loss[-1]:.3g}) "
        f"would fall by {fit.gain:.2g} in {more} more epochs, by a curve fitted to it.",
        f"Train longer: --config.train.epochs={len(winner) + fit.more_epochs}.",
        {
            "trial": winner.trial.trial,
            "epochs": len(winner),
            "more_epochs": fit.more_epochs,
            "at_least": fit.capped,
            "expected_gain": fit.gain,
        },
    )


def trained_too_long(sweep: Sweep) -> Finding | None:
    """Says that the second half, or more, of the winner's epochs gained nothing."""
    winner = sweep.winner
    if winner is None or winner.trial.status != "complete" or is_unstable(winner, sweep.images):
        return None
    if is_stuck(winner, sweep.facts.classes):  # it never gained anything
        return None
    enough = _enough(winner, sweep.images)
    if enough is None or enough > len(winner) / 2 or len(winner) - enough < 3:
        return None
    reached, ended = (float(winner.accuracy[i]) for i in (enough - 1, -1))
    return Finding(
        "trained_too_long",
        "info",
        f"Epochs {enough + 1} to {len(winner)} of the best trial gained nothing beyond noise: "
        f"{sweep.split} accuracy {reached:.3g} after epoch {enough}, {ended:.3g} at the end.",
        f"--config.train.epochs={enough} would do; spend the time on more settings or seeds.",
        {
            "trial": winner.trial.trial,
            "enough_epochs": enough,
            "epochs": len(winner),
            "accuracy_then": reached,
            "final_accuracy": ended,
        },
    )


def _enough(run: Run, images: int) -> int | None:
    """Returns after how many epochs accuracy and held-out loss are what they are at the end.

    Medians are compared, of an epoch with its neighbours and of the last quarter: single epochs scatter.
    """
    if len(run) <= LEAST_EPOCHS or not images or not np.isfinite(run.accuracy + run.loss).all():
        return None
    last = max(3, len(run) // 4)
    accuracy, loss = float(np.median(run.accuracy[-last:])), float(np.median(run.loss[-last:]))
    for i in range(len(run)):
        near = slice(max(0, i - 1), i + 2)
        as_accurate = np.median(run.accuracy[near]) >= accuracy - image_sd(accuracy, images)
        if as_accurate and np.median(run.loss[near]) <= (1 + WORTH_TRAINING_ON) * loss:
            return i + 1
    return None


def initial_loss(sweep: Sweep) -> Finding | None:
    """Says that the first epoch costs far more than guessing would, in most trials."""
    classes = sweep.facts.classes
    first = [float(run.train_loss[0]) for run in sweep.runs if len(run) and np.isfinite(run.train_loss[0])]
    if classes < 2 or not first:
        return None
    guess = math.log(classes)
    high = sum(loss > TOO_HIGH_AT_FIRST * guess for loss in first)
    if high <= len(first) / 2 or float(np.median(first)) < TOO_HIGH_AT_FIRST * guess:
        return None
    return Finding(
        "initial_loss",
        "warning",
        f"In the first epoch the training loss is {np.median(first):.3g} in the middle of {len(first)} "
        f"trials, far above the {guess:.3g} of guessing among {classes} classes.",
        "Look at the scale of the network's last layer and of the images; if only high learning rates do it, "
        "add a warm-up (optimizer.warmup_fraction).",
        {"first_loss": float(np.median(first)), "loss_of_guessing": guess, "trials": high, "of": len(first)},
    )


def _who(sweep: Sweep, found: list[Run]) -> str:
    wins = sweep.winner in found
    if len(sweep.candidates) == 1 or (wins and len(found) == 1):
        return "The best trial is"
    if len(found) == 1:
        return "One value's best trial is"
    return f"{len(found)} values' best trials{', the winner among them,' if wins else ''} are"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
