"""Where nothing but seeds differs, at most one sweep in twenty raises a false alarm."""

import warnings
from collections import Counter

import numpy as np
import optuna
import pytest
from simulated_sweeps import FIXED, Simulator, curves_of, draw, log_axis, recorded

from hpjax.search.space import Axis

SWEEPS = 200
# What the recorded run itself shows, whatever is swept; that a winner is within noise is the truth here.
BASES = {
    ("batch", 10): set(),
    ("batch", 256): {"still_improving"},
    ("batch", 450): {"still_improving"},
    ("wd", 0.01): {"still_improving"},
    ("lr", 1e-4): {"overfitting", "trained_too_long"},
    ("lr", 1e-7): {"underfitting", "learning_rate_too_low", "still_improving"},
}
TRUE = {"winner_within_noise"}
RATE, DECAY = log_axis("learning_rate", 1e-5, 1e-2), log_axis("weight_decay", 1e-6, 1e-2)


def _grid(simulator, curves, name, values, seeds=1):
    for setting, value in enumerate(values):
        for seed in range(seeds):
            simulator.add({**FIXED, name: value}, *curves, setting=setting * seeds, seed=seed)
    return simulator.diagnose(Axis(name, choices=values))


def _random(simulator, curves, trials):
    for _ in range(trials):
        setting = {"learning_rate": draw(simulator.rng, RATE), "weight_decay": draw(simulator.rng, DECAY)}
        simulator.add({**FIXED, **setting}, *curves)
    return simulator.diagnose(RATE, DECAY, sampler="random")


def _searched(simulator, curves, trials=30):
    """TPE finds its favourites in the noise, and successive halving ends most trials for it."""
    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3)
    seed = int(simulator.rng.integers(2**31))
    sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True)
    study = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner)
    for _ in range(trials):
        trial = study.ask()
        setting = {axis.name: trial.suggest_float(axis.name, axis.low, axis.high, log=True)
                   for axis in (RATE, DECAY)}  # fmt: skip

        def prunes(epoch, accuracy, trial=trial):
            trial.report(accuracy, epoch)
            return trial.should_prune()

        number = simulator.add({**FIXED, **setting}, *curves, prunes=prunes)
        row = simulator.history.trial(number)
        pruned = row.status == "pruned"
        state = optuna.trial.TrialState.PRUNED if pruned else optuna.trial.TrialState.COMPLETE
        study.tell(trial, None if pruned else row.final_validation_accuracy, state=state)
    best = study.best_trial.number
    simulator.test(best, 1 - simulator.errors[best])
    return simulator.diagnose(RATE, DECAY, sampler="tpe")


KINDS = {
    "rates": lambda s, c: _grid(s, c, "learning_rate", (1e-5, 1e-4, 1e-3)),
    "decays": lambda s, c: _grid(s, c, "weight_decay", (0.0, 0.001, 0.01, 0.1, 1.0)),
    "batches": lambda s, c: _grid(s, c, "batch_size", (16, 64, 256)),
    "widths": lambda s, c: _grid(s, c, "kernel_width", (3, 5, 7, 9)),
    "seeds": lambda s, c: _grid(s, c, "weight_decay", (0.0, 0.01, 0.1), seeds=5),
    "random": lambda s, c: _random(s, c, 30),
    "long": lambda s, c: _random(s, c, 60),
    "searched": _searched,
}


@pytest.fixture(scope="module")
def alarms():
    """Returns, of each sweep, its kind and the names of what is false."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    rng, found = np.random.default_rng(2718), []
    for number in range(SWEEPS):
        kind = list(KINDS)[number % len(KINDS)]
        base = list(BASES)[number // len(KINDS) % len(BASES)]
        simulator = Simulator(rng, "validation" if kind in ("random", "searched") else "test")
        names = KINDS[kind](simulator, curves_of(recorded(*base)))
        found.append((kind, base, set(names) - BASES[base] - TRUE))
    return found


def test_few_null_sweeps_raise_an_alarm(alarms):
    false = [entry for entry in alarms if entry[-1]]
    assert len(alarms) == SWEEPS and len(false) <= 0.05 * SWEEPS, false


def test_no_kind_of_sweep_raises_most_of_the_alarms(alarms):
    counts = Counter(kind for kind, _, names in alarms if names)
    assert max(counts.values(), default=0) <= 0.15 * SWEEPS / len(KINDS), counts
