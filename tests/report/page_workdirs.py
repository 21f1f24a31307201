"""Workdirs of sweeps that nobody ran, recorded as by a sweep."""

import math

import numpy as np

from hpjax.config import parse_config, to_dict
from hpjax.store.ranking import Ranking
from hpjax.store.records import EpochRow, open_records
from hpjax.store.workdir import open_workdir

SPACE = {
    "learning_rate": {"low": 1e-5, "high": 1e-1, "log": True},
    "weight_decay": {"low": 1e-6, "high": 1.0, "log": True},
    "optimizer": ("adam", "sgd"),
}
LANES = 8


def write_workdir(
    path, trials=24, epochs=6, space=SPACE, finished=True, classes=None, seeds=1, pruned=0.5, config=None, more=()
):
    """Records a search in a folder; every other trial ends early, every thirteenth diverges."""
    rng = np.random.default_rng(0)
    sweep = {"space": space, "sampler": "random", "trials": trials, "seeds": seeds}
    given = {"sweep": sweep, "data": {"name": "digits"}, "train": {"epochs": epochs}, **(config or {})}
    parsed = to_dict(parse_config(given))
    names = classes or [f"class {i}" for i in range(6)]
    data = {"name": "digits", "classes": names, "images": {"train": 900, "validation": 100, "test": 1000}}
    data |= {"notice": "", "class_counts": {}}
    summary = {"data": data, "objective": "validation_accuracy", "swept": list(space), "layouts": [], **dict(more)}
    with open_workdir(path, parsed), open_records(path, list(space)) as records:
        for first in range(0, trials * seeds, LANES):
            _run_round(records, rng, range(first, min(first + LANES, trials * seeds)), epochs, space, seeds, pruned)
        if not finished:
            records.start_trial(trials * seeds, {"learning_rate": 1e-3}, 0)
        records.write_tables(Ranking("validation_accuracy"), finished, summary)
    return path


def _run_round(records, rng, numbers, epochs, space, seeds, pruned):
    plans = {}
    for number in numbers:
        setting = number // seeds
        drawn = np.random.default_rng(setting)
        rate = float(10 ** drawn.uniform(-5, -1))
        values = {"learning_rate": rate, "weight_decay": float(10 ** drawn.uniform(-6, 0))}
        values |= {"optimizer": ("adam", "sgd")[setting % 2]} if "optimizer" in space else {}
        records.start_trial(number, values, number % seeds, setting * seeds, number % seeds)
        ends = int(rng.integers(1, epochs)) if rng.random() < pruned and epochs > 1 else epochs
        plans[number] = (math.exp(-((math.log10(rate) + 3) ** 2)), ends)
    for epoch in range(1, epochs + 1):
        alive = [number for number in numbers if plans[number][1] >= epoch]
        for number in alive:
            quality = plans[number][0]
            learned = 1 - math.exp(-epoch / 3)
            accuracy = 0.17 + 0.75 * quality * learned + float(rng.normal(0, 0.01))
            loss = 1.8 - 1.4 * quality * learned + float(rng.normal(0, 0.02))
            row = EpochRow(number, epoch, loss, None, None, loss + 0.1, accuracy, 2.0, len(alive), 900.0, None, accuracy)
            records.add_epoch(row)
        for number in alive:
            if plans[number][1] == epoch:
                records.finish_trial(number, "complete" if epoch == epochs else "pruned", "")
