"""Where nothing but seeds differs, at most one sweep in twenty raises a false alarm."""

from collections import Counter

import numpy as np
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


def _pruned(simulator, curves, trials=40):
    """Successive halving by chance: three of four end after 2 epochs, three of four of the others after 5."""
    start = len(simulator.history.trials())
    for number in range(trials):
        epochs = 10 if number % 16 == 0 else 5 if number % 4 == 0 else 2
        values = (draw(simulator.rng, RATE), draw(simulator.rng, DECAY))
        setting = {**FIXED, "learning_rate": values[0], "weight_decay": values[1]}
        status = "complete" if epochs == 10 else "pruned"
        simulator.add(setting, *(curve[:epochs] for curve in curves), status=status)
    whole = [t for t in simulator.history.trials()[start:] if t.status == "complete"]
    best = max(whole, key=lambda trial: trial.final_validation_accuracy)
    simulator.test(best.trial, 1 - curves[2][-1])
    return simulator.diagnose(RATE, DECAY, sampler="random")


KINDS = {
    "rates": lambda s, c: _grid(s, c, "learning_rate", (1e-5, 1e-4, 1e-3)),
    "decays": lambda s, c: _grid(s, c, "weight_decay", (0.0, 0.001, 0.01, 0.1, 1.0)),
    "batches": lambda s, c: _grid(s, c, "batch_size", (16, 64, 256)),
    "widths": lambda s, c: _grid(s, c, "kernel_width", (3, 5, 7, 9)),
    "seeds": lambda s, c: _grid(s, c, "weight_decay", (0.0, 0.01, 0.1), seeds=5),
    "random": lambda s, c: _random(s, c, 30),
    "long": lambda s, c: _random(s, c, 60),
    "pruned": _pruned,
}


@pytest.fixture(scope="module")
def alarms():
    """Returns, of each sweep, its kind and the names of what is false."""
    rng, found = np.random.default_rng(2718), []
    for number in range(SWEEPS):
        kind = list(KINDS)[number % len(KINDS)]
        base = list(BASES)[number // len(KINDS) % len(BASES)]
        simulator = Simulator(rng, "validation" if kind in ("random", "pruned") else "test")
        names = KINDS[kind](simulator, curves_of(recorded(*base)))
        found.append((kind, base, set(names) - BASES[base] - TRUE))
    return found


def test_few_null_sweeps_raise_an_alarm(alarms):
    false = [entry for entry in alarms if entry[-1]]
    assert len(alarms) == SWEEPS and len(false) <= 0.05 * SWEEPS, false


def test_no_kind_of_sweep_raises_most_of_the_alarms(alarms):
    counts = Counter(kind for kind, _, names in alarms if names)
    assert max(counts.values(), default=0) <= 0.15 * SWEEPS / len(KINDS), counts
