"""Of planted faults at least 95 % are named, each with the right numbers."""

import math

import numpy as np
import pytest
from simulated_sweeps import (
    FIXED,
    GUESS_LOSS,
    Simulator,
    draw,
    error_of,
    learn,
    log_axis,
)

from hpjax.search.flags import parse_space_flag
from hpjax.search.space import Axis, parse_space

SWEEPS = 40
SLOW = 0.25  # of the scatter: the recorded run at 1e-7 has that much
RATE, DECAY = log_axis("learning_rate", 1e-5, 1e-1), log_axis("weight_decay", 1e-6, 1.0)
DROPOUT = Axis("dropout_rate", low=0.1, high=0.6)


def _setting(**values):
    return {**FIXED, **values}


def _bounce(rng, curves, jumps=3):
    train, loss, _ = (np.array(curve) for curve in curves)
    places = rng.choice(np.arange(2, len(loss), 2), jumps, replace=False)
    loss[places] *= rng.uniform(1.6, 3.5, jumps)
    return train, loss, error_of(loss)


def _rate_too_low(rng):
    simulator, epochs = Simulator(rng), int(rng.integers(8, 30))
    for rate, pace in ((1e-7, rng.uniform(5, 30)), (1e-4, 0.2), (1e-3, 0.15)):
        simulator.add(
            _setting(learning_rate=rate),
            *learn(epochs, rng.uniform(0.7, 0.75), pace),
            calm=min(1, 0.5 / pace),
        )
    found = simulator.diagnose(Axis("learning_rate", choices=(1e-7, 1e-4, 1e-3)))
    return "learning_rate_too_low" in found and found["learning_rate_too_low"][0].evidence[
        "learning_rates"
    ] == [1e-7]


def _rate_too_low_in_a_search(rng):
    simulator = Simulator(rng, "validation")
    axis = log_axis("learning_rate", 1e-7, 1e-2)
    for _ in range(40):
        rate = draw(rng, axis)
        pace = 0.2 * max(1.0, 1e-4 / rate)  # a tenth of the rate takes ten times as long
        setting = _setting(learning_rate=rate, weight_decay=draw(rng, DECAY))
        simulator.add(setting, *learn(15, 0.7, pace), calm=min(1, 0.5 / pace))
    return "learning_rate_too_low" in simulator.diagnose(axis, DECAY, sampler="random")


def _lone_rate_too_low(rng):
    simulator = Simulator(rng)
    simulator.add(
        _setting(learning_rate=1e-6), *learn(int(rng.integers(8, 20)), 0.7, rng.uniform(2.5, 4)), calm=SLOW
    )
    return "learning_rate_too_low" in simulator.diagnose()


def _rate_too_high(rng):
    simulator, epochs = Simulator(rng), int(rng.integers(8, 30))
    simulator.add(_setting(learning_rate=1e-4), *learn(epochs, 0.75))
    high = learn(epochs, rng.uniform(0.4, 0.55))
    simulator.add(_setting(learning_rate=1e-1), *(_bounce(rng, high) if rng.random() < 0.5 else high))
    found = simulator.diagnose(Axis("learning_rate", choices=(1e-4, 1e-1)))
    return "learning_rate_too_high" in found and found["learning_rate_too_high"][0].evidence[
        "learning_rates"
    ] == [1e-1]


def _stability_limit(rng):
    simulator, bound = Simulator(rng), 10 ** rng.uniform(-3, -1.7)
    for _ in range(40):
        rate = draw(rng, RATE)
        if rate > bound:
            simulator.add(_setting(learning_rate=rate), *learn(2, 0.1), status="diverged")
        else:
            simulator.add(_setting(learning_rate=rate), *learn(10, 0.8 - 0.12 * math.log10(bound / rate)))
    found = simulator.diagnose(RATE, sampler="random")
    return "stability_limit" in found and found["stability_limit"][0].evidence["bound"] < 2 * bound


def _unstable(rng):
    simulator = Simulator(rng)
    simulator.add(_setting(), *_bounce(rng, learn(int(rng.integers(10, 30)), 0.6), int(rng.integers(2, 5))))
    return "unstable_loss" in simulator.diagnose()


def _overfitting(rng):
    simulator, epochs = Simulator(rng), int(rng.integers(10, 40))
    start = int(rng.integers(2, epochs // 2))
    train, loss, error = learn(epochs, 0.95, 0.15)
    lowest = np.maximum.accumulate(np.arange(epochs) - start)
    loss = loss[start] * np.where(
        np.arange(epochs) < start, loss / loss[start], 1 + 0.06 * np.clip(lowest, 0, None)
    )
    simulator.add(_setting(weight_decay=0.0), train, loss, error)
    simulator.add(_setting(weight_decay=0.1), *learn(epochs, 0.8))
    found = simulator.diagnose(Axis("weight_decay", choices=(0.0, 0.1)))
    if "overfitting" not in found or found["overfitting"][0].evidence["trials"] != [0]:
        return False
    return abs(found["overfitting"][0].evidence["best_epochs"][0] - (start + 1)) <= 2


def _underfitting(rng):
    simulator = Simulator(rng)
    simulator.add(_setting(), *learn(int(rng.integers(8, 25)), 0.9, rng.uniform(2.0, 4.0)), calm=SLOW)
    return "underfitting" in simulator.diagnose()


def _still_improving(rng):
    simulator, epochs, pace = Simulator(rng), int(rng.integers(10, 40)), rng.uniform(0.45, 0.8)
    simulator.add(_setting(), *learn(epochs, 0.7, pace))
    found = simulator.diagnose()
    if "still_improving" not in found:
        return False
    asked = found["still_improving"][0].evidence["more_epochs"]
    return asked > 0.3 * epochs  # what is left shrinks to a tenth in 2.3 paces


def _trained_too_long(rng):
    simulator = Simulator(rng)
    simulator.add(_setting(), *learn(int(rng.integers(20, 60)), 0.7, 0.03))
    found = simulator.diagnose()
    return "trained_too_long" in found


def _decay_too_strong(rng):
    simulator = Simulator(rng)
    for decay, quality in ((0.0, 0.7), (0.01, 0.72), (1.0, rng.uniform(0.05, 0.35))):
        simulator.add(_setting(weight_decay=decay), *learn(10, quality))
    found = simulator.diagnose(Axis("weight_decay", choices=(0.0, 0.01, 1.0)))
    return "weight_decay_too_strong" in found and found["weight_decay_too_strong"][0].evidence[
        "weight_decays"
    ] == [1.0]


def _decay_too_strong_in_a_search(rng):
    simulator = Simulator(rng, "validation")
    for _ in range(40):
        rate, decay = draw(rng, RATE), draw(rng, DECAY)
        quality = 0.75 - 0.05 * math.log10(rate / 1e-3) ** 2 - 0.3 * max(0, math.log10(decay / 0.01))
        simulator.add(_setting(learning_rate=rate, weight_decay=decay), *learn(10, max(0.05, quality)))
    return "weight_decay_too_strong" in simulator.diagnose(RATE, DECAY, sampler="random")


def _names_the_edge(found, axis, side):
    if "best_at_edge" not in found:
        return False
    evidence = found["best_at_edge"][0].evidence
    name, spec = parse_space_flag(f"{axis.name}={evidence['space']}")
    (new,) = parse_space({name: spec}).axes
    reached = (min(new.choices), max(new.choices)) if new.choices else (new.low, new.high)
    known = (min(axis.choices), max(axis.choices)) if axis.choices else (axis.low, axis.high)
    beyond = reached[0] < known[0] if side < 0 else reached[1] > known[1]
    return name == axis.name and evidence["side"] == side and beyond


def _edge(rng, axis, side, trials):
    simulator = Simulator(rng, "validation")
    peak = -0.1 if side < 0 else 1.1
    for _ in range(trials):
        value, decay = draw(rng, axis), draw(rng, DECAY)
        place = math.log(value / axis.low) / math.log(axis.high / axis.low) if axis.log else (
            (value - axis.low) / (axis.high - axis.low)
        )  # fmt: skip
        quality = 0.8 - 0.4 * (place - peak) ** 2 + 0.01 * rng.normal()
        simulator.add(_setting(**{axis.name: value, "weight_decay": decay}), *learn(10, quality))
    return _names_the_edge(simulator.diagnose(axis, DECAY, sampler="random"), axis, side)


def _edge_of_a_list(rng):
    simulator, values = Simulator(rng), (3, 5, 7, 9)
    for width in values:
        simulator.add(_setting(kernel_width=width), *learn(10, 0.5 + 0.03 * width))
    axis = Axis("kernel_width", choices=values)
    return _names_the_edge(simulator.diagnose(axis), axis, 1)


def _failed(rng):
    simulator = Simulator(rng)
    for _ in range(40):
        rate = draw(rng, RATE)
        simulator.add(_setting(learning_rate=rate), *learn(8, 0.0 if rate > 1e-2 else 0.7))
    found = simulator.diagnose(RATE, sampler="random")
    if "failed_trials" not in found:
        return found == {} or sum(t.hyperparameters["learning_rate"] > 1e-2 for t in
                                  simulator.history.trials()) < 8  # fmt: skip
    by_value = found["failed_trials"][0].evidence["by_value"]
    return any(entry["label"] == "learning rate 0.01 to 0.1" for entry in by_value)


def _batch_size(rng):
    simulator = Simulator(rng)
    for size, pace in ((8, 0.2), (64, 0.3), (512, 0.7)):
        simulator.add(_setting(batch_size=size), *learn(10, 0.75, pace), seconds=100 / size**0.3)
    found = simulator.diagnose(Axis("batch_size", choices=(8, 64, 512)))
    return "batch_size" in found and found["batch_size"][0].evidence["batch_sizes"] == [8, 64, 512]


def _within_noise_of_images(rng):
    simulator = Simulator(rng)
    for decay in (0.0, 0.01, 0.1, 1.0):
        train, loss, error = learn(10, 0.7)
        number = simulator.add(_setting(weight_decay=decay), train, loss, error)
        assert number >= 0
    return "winner_within_noise" in simulator.diagnose(Axis("weight_decay", choices=(0.0, 0.01, 0.1, 1.0)))


def _within_noise_of_seeds(rng):
    simulator = Simulator(rng)
    for setting in range(3):  # of two, by definition, one pair in twenty differs with 95 % confidence
        for seed in range(5):
            curves = learn(10, 0.7)
            simulator.add(_setting(weight_decay=float(setting)), *curves, setting=5 * setting, seed=seed)
    found = simulator.diagnose(Axis("weight_decay", choices=(0.0, 1.0, 2.0)))
    return "winner_within_noise" in found


def _lucky_search(rng):
    simulator = Simulator(rng, "validation")
    for number in range(20):
        quality = 0.9 if number == 7 else rng.uniform(0.4, 0.6)
        simulator.add(_setting(learning_rate=draw(rng, RATE)), *learn(10, quality))
    return "lucky_search" in simulator.diagnose(RATE, sampler="random")


def _unfair_pruning(rng):
    simulator = Simulator(rng, "validation")
    for number in range(24):
        slow = number % 6 == 0
        curves = learn(12, 0.8 if slow else 0.6, 0.6 if slow else 0.1)
        cut = 12 if slow else 3
        setting = _setting(learning_rate=draw(rng, RATE))
        simulator.add(setting, *(c[:cut] for c in curves), status="complete" if slow else "pruned")
    return "unfair_pruning" in simulator.diagnose(RATE, sampler="random")


def _not_confirmed(rng):
    simulator = Simulator(rng, "validation")
    for rate in (1e-4, 1e-3):
        simulator.add(_setting(learning_rate=rate), *learn(10, 0.8))
    best = max(simulator.history.trials(), key=lambda t: t.final_validation_accuracy)
    simulator.test(best.trial, best.final_validation_accuracy - 0.08)
    return "selection_not_confirmed" in simulator.diagnose(Axis("learning_rate", choices=(1e-4, 1e-3)))


def _initial_loss(rng):
    simulator = Simulator(rng)
    for rate in (1e-4, 1e-3):
        train, loss, error = learn(10, 0.7)
        train[0] = rng.uniform(2, 10) * GUESS_LOSS
        simulator.add(_setting(learning_rate=rate), train, loss, error)
    return "initial_loss" in simulator.diagnose(Axis("learning_rate", choices=(1e-4, 1e-3)))


FAULTS = {
    "a rate too low": _rate_too_low,
    "a rate too low in a search": _rate_too_low_in_a_search,
    "the only rate too low": _lone_rate_too_low,
    "a rate too high": _rate_too_high,
    "rates limited by stability": _stability_limit,
    "a loss that bounces": _unstable,
    "overfitting": _overfitting,
    "underfitting": _underfitting,
    "too few epochs": _still_improving,
    "too many epochs": _trained_too_long,
    "a decay too strong": _decay_too_strong,
    "a decay too strong in a search": _decay_too_strong_in_a_search,
    "the low end of a logarithmic range": lambda rng: _edge(rng, RATE, -1, 40),
    "the high end of a linear range": lambda rng: _edge(rng, DROPOUT, 1, 40),
    "the high end of a list": _edge_of_a_list,
    "values at which trials fail": _failed,
    "batches too large": _batch_size,
    "equals on few images": _within_noise_of_images,
    "equals with seeds": _within_noise_of_seeds,
    "one lucky trial": _lucky_search,
    "pruned late starters": _unfair_pruning,
    "a test set that disagrees": _not_confirmed,
    "a first epoch that costs too much": _initial_loss,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_are_named(fault):
    rng = np.random.default_rng(list(fault.encode()))
    named = sum(FAULTS[fault](rng) for _ in range(SWEEPS))
    assert named >= 0.95 * SWEEPS, f"{named} of {SWEEPS}"
