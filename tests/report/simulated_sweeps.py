"""Sweeps without training: curves with the noise of seeds and of test sets, recorded as by a sweep."""

import json
import math
from pathlib import Path

import numpy as np

from hpjax.report.diagnosis import SweepFacts, diagnose
from hpjax.search.space import Axis
from hpjax.store.history import History
from hpjax.store.ranking import Ranking

CLASSES = 6
GUESS_LOSS = math.log(CLASSES)
TEST_IMAGES, VALIDATION_IMAGES = 3000, 1404
FIXED = {"learning_rate": 1e-4, "weight_decay": 0.0, "batch_size": 32, "weight_decay_mode": "coupled"}
RECORDED = json.loads(
    (Path(__file__).parents[2] / "benchmarks/results/recorded.json").read_text(encoding="utf-8")
)
# Relative: of losses and the error rate between seeds, and from epoch to epoch. Two recorded runs of one
# setting end at errors of 0.21 and 0.23; around their trend the recorded training losses scatter by 1 %, the
# held-out losses and errors by 2 to 4 %.
SEED_NOISE, TRAIN_NOISE, EPOCH_NOISE = 0.04, 0.01, 0.025


class Simulator:
    """Records trials whose curves are given; adds noise.

    Args:
      rng: of the noise.
      split: which images select: test or validation.
      noisy: False records curves as they are.
    """

    def __init__(self, rng, split="test", noisy=True):
        self.rng, self.split, self.noisy, self.history = rng, split, noisy, History()
        self._count = 0
        self.errors = {}  # of the last epoch by trial, on infinitely many images
        self._images = TEST_IMAGES if split == "test" else VALIDATION_IMAGES

    def add(self, hyperparameters, train, loss, error, status="complete", seconds=10.0, setting=None, seed=0,
            calm=1.0, prunes=None):  # fmt: skip
        """Records one trial; returns its number. `error` is one minus the accuracy, by epoch.

        `calm` is a factor on the scatter between epochs; `prunes` says after each epoch, by its accuracy,
        whether the trial ends.
        """
        number, self._count = self._count, self._count + 1
        start = {"trial": number, "seed": seed, "hyperparameters": {**hyperparameters}, "seed_index": seed}
        start |= {"setting": number if setting is None else setting, "group": 0, "order_offset": 0}
        self.history.apply({"kind": "start", **start})
        train = self._disturb(np.asarray(train, float), calm * TRAIN_NOISE)
        loss = self._disturb(np.asarray(loss, float), calm * EPOCH_NOISE)
        if self.noisy:
            error = np.asarray(error, float)
            share = 1 - (error / (1 - 1 / CLASSES)) ** 4  # guessing stays guessing, whatever the seed
            error = error + share * (self._disturb(error, calm * EPOCH_NOISE) - error)
            self.errors[number] = float(error[-1]) if len(error) else 1.0
            error = self.rng.binomial(self._images, np.clip(error, 0, 1)) / self._images
        for epoch, values in enumerate(zip(train, loss, error, strict=True), 1):
            row = {"trial": number, "epoch": epoch, "train_loss": values[0], "epoch_seconds": seconds}
            row |= {f"{self.split}_loss": values[1], f"{self.split}_accuracy": 1 - values[2]}
            self.history.apply({"kind": "epoch", **row})
            if prunes and prunes(epoch, 1 - values[2]):
                status = "pruned"
                break
        self.history.apply({"kind": "finish", "trial": number, "status": status, "message": ""})
        return number

    def _disturb(self, values, scatter):
        if not self.noisy:
            return values
        return values * np.exp(self.rng.normal(0, SEED_NOISE) + self.rng.normal(0, scatter, len(values)))

    def test(self, trial, accuracy):
        """Records the read of the test set."""
        share = self.rng.binomial(TEST_IMAGES, accuracy) / TEST_IMAGES
        self.history.apply({"kind": "test", "trial": trial, "loss": 1.0, "accuracy": share})

    def facts(self, *axes, **changed):
        """Returns what is known besides the rows."""
        values = {
            "ranking": Ranking(f"{self.split}_accuracy"),
            "axes": axes,
            "fixed": FIXED,
            "classes": CLASSES,
            "images": {"train": 14039, "test": TEST_IMAGES, "validation": VALIDATION_IMAGES},
        }
        return SweepFacts(**{**values, **changed})

    def diagnose(self, *axes, **changed):
        """Returns the findings by name; several of one name are joined in a list."""
        found = diagnose(self.history.trials(), self.history.epochs(), self.facts(*axes, **changed))
        names = {finding.name for finding in found}
        return {name: [f for f in found if f.name == name] for name in names}


def recorded(experiment, value):
    """Returns one recorded run."""
    runs = (run for run in RECORDED["runs"] if run["experiment"] == experiment)
    return next(run for run in runs if value in run["setting"].values())


def curves_of(run):
    """Returns a recorded run's training loss, test loss and error by epoch."""
    train, loss, accuracy = (
        np.array([epoch[name] for epoch in run["epochs"]])
        for name in ("train_loss", "test_loss", "test_accuracy")
    )
    return train, loss, 1 - accuracy


def learn(epochs, quality=0.7, pace=0.25, start=GUESS_LOSS, floor=None):
    """Returns training loss, held-out loss and error of a run that learns.

    Args:
      epochs: how many.
      quality: what it comes to: 0 stays at guessing, 1 learns everything.
      pace: epochs, as a share of all, in which the distance to its end shrinks to a third.
      start: loss before the first epoch.
      floor: of the loss; from the quality if not given.
    """
    floor = GUESS_LOSS * (1 - quality) if floor is None else floor
    times = np.arange(1, epochs + 1) / (pace * epochs)
    train = floor + (start - floor) * np.exp(-times)
    return train, 1.05 * train, error_of(1.05 * train)


def error_of(loss):
    """Returns the error that goes with a loss, about as in the recorded runs."""
    return (1 - 1 / CLASSES) * np.clip(np.asarray(loss) / GUESS_LOSS, 0, 1)


def log_axis(name, low, high):
    """Returns a range, even in the logarithm."""
    return Axis(name, low=low, high=high, log=True)


def draw(rng, axis):
    """Returns a random value of a range."""
    place = rng.random()
    if axis.log:
        return float(axis.low * (axis.high / axis.low) ** place)
    return float(axis.low + place * (axis.high - axis.low))
