"""Sweeps that nobody ran, recorded as by a sweep: in memory, or in a workdir."""

import json
import math

import numpy as np

from hpjax.config import parse_config, to_dict
from hpjax.report.page import PageSource
from hpjax.store.history import History
from hpjax.store.ranking import Ranking
from hpjax.store.tables import finite, summarize

SPACE = {
    "learning_rate": {"low": 1e-5, "high": 1e-1, "log": True},
    "weight_decay": {"low": 1e-6, "high": 1.0, "log": True},
    "optimizer": ("adam", "sgd"),
}
LANES = 8
CLASSES = [f"class {i}" for i in range(6)]


def record_search(path, trials=24, epochs=6, seeds=1, pruned=0.5, finished=True, classes=CLASSES, **sections):
    """Returns a random search of which a share ended early, eight lanes at a time; nothing is written.

    Accuracy depends on the learning rate alone: 0.001 is best.
    """
    sweep = {"space": SPACE, "sampler": "random", "trials": trials, "seeds": seeds}
    sweep |= sections.pop("sweep", {})
    given = {"sweep": sweep, "data": {"name": "digits"}, "train": {"epochs": epochs}, **sections}
    history, rng = History(), np.random.default_rng(0)
    for first in range(0, trials * seeds, LANES):
        numbers = range(first, min(first + LANES, trials * seeds))
        _record_round(history, rng, numbers, epochs, sweep["space"], seeds, pruned)
    if not finished:
        history.apply(_start(trials * seeds, {"learning_rate": 1e-3}, seeds))
    return _finish(path, given, history, classes, finished)


def _finish(path, given, history, classes, finished):
    ranking = Ranking("validation_accuracy")
    data = {"name": "digits", "classes": list(classes), "notice": "", "class_counts": {}}
    data["images"] = {"train": 900, "validation": 100, "test": 1000}
    summary = {"finished": finished, **summarize(history.trials(), ranking), "data": data, "layouts": []}
    summary |= {"objective": "validation_accuracy", "swept": list(given["sweep"]["space"])}
    config, rows = to_dict(parse_config(given)), (history.trials(), history.epochs(), history.copies())
    return PageSource(path, config, finite(summary), *rows, history.occupancy)


def write_workdir(path, **kind):
    """Writes such a search into a folder, as an unfinished one: a finished one vouches for every byte."""
    source = record_search(path, **kind)
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(source.config), encoding="utf-8")
    (path / "summary.json").write_text(json.dumps({**source.summary, "finished": False}), encoding="utf-8")
    _write_history(path / "history.jsonl", source)
    return path


def _write_history(file, source):
    lines = []
    for trial in source.trials:
        lines.append(_start(trial.trial, trial.hyperparameters, 1))
        rows = (row for row in source.epochs if row.trial == trial.trial)
        lines += [{"kind": "epoch", **{name: getattr(row, name) for name in row.__slots__}} for row in rows]
        if trial.status != "running":
            lines.append({"kind": "finish", "trial": trial.trial, "status": trial.status, "message": ""})
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def _start(number, values, seeds):
    event = {"kind": "start", "trial": number, "hyperparameters": dict(values), "seed": number % seeds}
    event |= {"setting": number - number % seeds, "seed_index": number % seeds, "group": 0, "order_offset": 0}
    return event


def _record_round(history, rng, numbers, epochs, space, seeds, pruned):
    plans = {}
    for number in numbers:
        drawn = np.random.default_rng(number // seeds)
        rate, decay = float(10 ** drawn.uniform(-5, -1)), float(10 ** drawn.uniform(-6, 0))
        optimizer = ("adam", "sgd")[number // seeds % 2]
        values = {"learning_rate": rate, "weight_decay": decay, "optimizer": optimizer}
        history.apply(_start(number, {name: values[name] for name in values if name in space}, seeds))
        ends = int(rng.integers(1, epochs)) if epochs > 1 and rng.random() < pruned else epochs
        plans[number] = math.exp(-((math.log10(values["learning_rate"]) + 3) ** 2)), ends
    for epoch in range(1, epochs + 1):
        alive = [number for number in numbers if plans[number][1] >= epoch]
        for number in alive:
            learned = plans[number][0] * (1 - math.exp(-epoch / 3))
            accuracy, loss = 0.17 + 0.75 * learned + float(rng.normal(0, 0.01)), 1.8 - 1.4 * learned
            row = {"trial": number, "epoch": epoch, "train_loss": loss, "validation_loss": loss + 0.1}
            row |= {
                "validation_accuracy": accuracy,
                "train_accuracy": accuracy,
                "epoch_seconds": 2.0,
                "lanes": len(alive),
            }
            history.apply({"kind": "epoch", **row})
        for number in alive:
            if plans[number][1] == epoch:
                status = "complete" if epoch == epochs else "pruned"
                history.apply({"kind": "finish", "trial": number, "status": status, "message": ""})


def record_population(path, trials=12, epochs=10, every=2):
    """Returns a population of which the worse half takes over the better half's states, again and again."""
    space = {"learning_rate": SPACE["learning_rate"]}
    given = {"sweep": {"space": space, "sampler": "random", "trials": trials, "pbt": {"every_epochs": every}}}
    given |= {"data": {"name": "digits"}, "train": {"epochs": epochs}}
    history, rng = History(), np.random.default_rng(0)
    rates = [float(10 ** rng.uniform(-5, -1)) for _ in range(trials)]
    for number, rate in enumerate(rates):
        history.apply({**_start(number, {"learning_rate": rate}, 1), "seed": number})
    for epoch in range(1, epochs + 1):
        scores = [math.exp(-((math.log10(rate) + 3) ** 2)) * (1 - math.exp(-epoch / 3)) for rate in rates]
        for number, score in enumerate(scores):
            row = {"trial": number, "epoch": epoch, "train_loss": 2 - score, "validation_loss": 2 - score}
            row |= {"validation_accuracy": score, "epoch_seconds": 2.0, "lanes": trials}
            history.apply({"kind": "epoch", **row})
        order = sorted(range(trials), key=lambda number: -scores[number])
        for better, worse in zip(order[:3], order[-3:], strict=True):
            if epoch % every == 0 and epoch < epochs:
                rates[worse] = rates[better] * float(rng.choice([0.8, 1.25]))
                copy = {"trial": worse, "epoch": epoch, "source": better}
                history.apply({"kind": "copy", **copy, "hyperparameters": {"learning_rate": rates[worse]}})
    for number in range(trials):
        history.apply({"kind": "finish", "trial": number, "status": "complete", "message": ""})
    return _finish(path, given, history, CLASSES, finished=True)
