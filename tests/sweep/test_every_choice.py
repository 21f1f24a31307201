"""Every documented choice of every field runs, in tiny sweeps from end to end.

The choices come from the fields' own metadata; a field without any has a value beside its default. Each
sweep takes one choice of each field that is still to be run, as far as they go together; what a choice needs
besides comes with it.
"""

import csv
import importlib.util
import json
import math

import numpy as np
import pytest
from PIL import Image

from hpjax.config import parse_config
from hpjax.config.fields import FIELDS
from hpjax.errors import ConfigError
from hpjax.search.pbt import check_population
from hpjax.search.samplers import UNLEARNED
from hpjax.search.space import parse_space
from hpjax.sweep import run_sweep

MODEL = """
import math

from flax import nnx

class Linear(nnx.Module):
    def __init__(self, *, num_classes, input_shape, bias=True, rngs):
        self.linear = nnx.Linear(math.prod(input_shape), num_classes, use_bias=bias, rngs=rngs)

    def __call__(self, images):
        return self.linear(images.reshape(images.shape[0], -1))
"""
METRIC = """
def accuracy_less_loss(epoch):
    return epoch["validation_accuracy"] - epoch["train_loss"]
"""
DATA = """
import numpy as np

def arrays():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(32, 2, 2, 3)), rng.integers(0, 2, 32)
    y[[0, 20]] = 0
    y[[1, 21]] = 1
    return {"train": (x[:20], y[:20]), "test": (x[20:], y[20:])}

def numbers():
    return {split: (x, x.mean((1, 2))) for split, (x, y) in arrays().items()}

def signs():
    return {split: (x, y > 0) for split, (x, y) in numbers().items()}
"""
ALLOWED = """
def not_the_middle(setting):
    return abs(setting.get("learning_rate", 1.0) - 5e-4) > 1e-5
"""
LOSS = """
def absolute(outputs, targets):
    return abs(outputs - targets).mean(-1)
"""
OPTIMIZER = """
import optax

def signed(learning_rate, b1):
    return optax.sign_sgd(learning_rate)
"""
# What stands for a form, as `FILE.py:NAME`, in a field.
OWN = {
    "model.name=FILE.py:CLASS": "own.py:Linear",
    "data.name=FILE.py:FUNCTION": "own.py:arrays",
    "data.name=npz:PATH": "npz:arrays.npz",
    "task.loss=FILE.py:FUNCTION": "own.py:absolute",
    "optimizer.name=FILE.py:FUNCTION": "own.py:signed",
    "sweep.constraints=FILE.py:FUNCTION": "own.py:not_the_middle",
    "sweep.metric=SPLIT_METRIC": "validation_balanced_accuracy",
    "sweep.metric=FILE.py:FUNCTION": "own.py:accuracy_less_loss",
}
OTHER = {
    "seed": 3,
    "model.kernel_widths": (3, 2, 3),
    "model.options": {"bias": False},
    "model.freeze": "linear.kernel",
    "model.pretrained": "weights.safetensors",
    "data.dir": "tree",
    "data.train": "tree/train",
    "data.test": "tree/test",
    "data.image_size": 32,
    "data.channels": 3,
    "data.validation_fraction": 0.25,
    "data.max_train_examples": 18,
    "data.max_test_examples": 10,
    "optimizer.learning_rate": 2e-4,
    "optimizer.weight_decay": 0.1,
    "optimizer.head_factor": 2.0,
    "optimizer.momentum": 0.5,
    "optimizer.b1": 0.8,
    "optimizer.b2": 0.9,
    "optimizer.eps": 1e-6,
    "optimizer.clip_norm": 1.0,
    "optimizer.ema_decay": 0.9,
    "optimizer.warmup_fraction": 0.5,
    "train.epochs": 3,
    "train.batch_size": 4,
    "train.label_smoothing": 0.1,
    "train.dropout_rate": 0.1,
    "sweep.space": {"learning_rate": {"low": 1e-4, "high": 1e-3, "log": True}},
    "sweep.warm_start": "study.journal",
    "sweep.trials": 3,
    "sweep.seeds": 2,
    "sweep.seed_values": (5, 3),
    "sweep.final_seeds": 1,
    "sweep.pruner_options": {"n_startup_trials": 1},
    "sweep.pbt": {"every_epochs": 1, "fraction": 0.5, "perturb": 1.5},
    "sweep.enqueue": ({"learning_rate": 2e-4},),
    "lanes.count": 3,
    "lanes.devices": 1,
    "checkpoint.every_epochs": 0,
    "checkpoint.every_minutes": 1e-9,
    "checkpoint.keep": 1,
}
ANOTHER = "another"
WITHOUT = {
    "model.name=resnet34": "compiles for minutes; it is resnet18 with more of the same blocks",
    "model.pretrained=another": "needs weights; tests/models/test_torch_weights.py loads some",
    "sweep.warm_start=another": "needs another study; tests/search/test_warm_start.py has some",
    "data.name=arrays": "they are given in Python; tests/sweep/test_own_data.py gives some",
    "data.name=tfds:NAME": "sets have to be prepared; tests/data/test_tfds_sets.py prepares and reads some",
}
NEEDED = {"sweep.sampler=gp": "torch", "trackers=wandb": "wandb", "trackers=mlflow": "mlflow"}
BASE = {
    "model.name": OWN["model.name=FILE.py:CLASS"],  # compiles within a second
    "model.kernel_widths": (3, 3, 3),
    "data.name": "synthetic_scenes",
    "data.image_size": 30,
    "data.max_train_examples": 20,
    "data.max_test_examples": 12,
    "train.batch_size": 8,
    "train.epochs": 2,
    "sweep.space": {"learning_rate": {"low": 1e-4, "high": 1e-3, "step": 1e-4}},
    "lanes.count": 2,
    "lanes.strategy": "fused",
    "lanes.data_order": "shared",
    "trackers": (),
}
ARRAYS = {
    "data.image_size": 0,
    "data.dir": "",
    "data.train": "",
    "data.test": "",
    "model.name": BASE["model.name"],
}
# What a choice needs beside it.
COMPANIONS = {
    "data.name=auto": {"data.dir": ""},
    "data.name=intel_scenes": {"data.dir": "tree"},
    "data.name=folder": {"data.dir": "tree"},
    "data.name=npz:PATH": ARRAYS,
    "data.name=FILE.py:FUNCTION": ARRAYS,
    "task.loss=binary": {**ARRAYS, "data.name": "own.py:signs"},
    "task.loss=mse": {**ARRAYS, "data.name": "own.py:numbers"},
    "task.loss=huber": {**ARRAYS, "data.name": "own.py:numbers"},
    "task.loss=FILE.py:FUNCTION": {**ARRAYS, "data.name": "own.py:numbers"},
    "task.metrics=mae": {**ARRAYS, "data.name": "own.py:numbers", "task.loss": "mse"},
    "task.metrics=r2": {**ARRAYS, "data.name": "own.py:numbers", "task.loss": "huber"},
    "sweep.metric=SPLIT_METRIC": {"data.validation_fraction": 0.25, "task.metrics": ("balanced_accuracy",)},
    "model.padding=reference": {"model.name": "custom_cnn"},
    "model.padding=same": {"model.name": "custom_cnn"},
    "train.precision=bfloat16": {"model.name": "custom_cnn"},
    # It compiles for long: not once more for evaluating what a validation split selects, nor to be measured.
    "model.name=resnet18": {
        "data.validation_fraction": 0.0,
        "sweep.sampler": "grid",
        "sweep.trials": 2,
        "sweep.pruner": "none",
        "train.epochs": 1,
    },
    "optimizer.name=FILE.py:FUNCTION": {"optimizer.weight_decay_on": "all"},
    "model.options=another": {"model.name": BASE["model.name"]},
    "model.freeze=another": {"model.name": BASE["model.name"], "model.options": {}},  # a bias is left
    "lanes.strategy=auto": {"model.name": BASE["model.name"]},
    "lanes.tune=True": {"model.name": "custom_cnn"},
    "model.kernel_widths=another": {"model.name": "custom_cnn"},
    "data.dir=another": {"data.name": "folder"},
    "data.train=another": {"data.name": "folder", "data.dir": ""},
    "data.test=another": {"data.name": "folder", "data.dir": "", "data.train": "tree/train"},
    "sweep.space=another": {"sweep.sampler": "random", "sweep.trials": 3},
    "sweep.pruner_options=another": {"sweep.pruner": "median"},
    "sweep.pbt=another": {"sweep.sampler": "random", "sweep.trials": 3, "sweep.pruner": "none"},
    "sweep.pruner=threshold": {"sweep.pruner_options": {"lower": 0.0}},
    "sweep.metric=validation_loss": {"data.validation_fraction": 0.25},
    "sweep.metric=validation_accuracy": {"data.validation_fraction": 0.25},
    "sweep.metric=FILE.py:FUNCTION": {"data.validation_fraction": 0.25, "task.metrics": ("accuracy",)},
    # A sampler that learns draws its first settings at random.
    **{f"sweep.sampler={name}": {"sweep.trials": 12 if name not in UNLEARNED else 2}
       for name in FIELDS["sweep.sampler"].rule.choices},
}  # fmt: skip


def _list_choices():
    """Returns every documented choice as (key, name), and the value that stands for it."""
    found = {}
    for key, field in FIELDS.items():
        names = list(field.rule.choices) or ([False, True] if field.type is bool else [])
        if not names:
            found[key, ANOTHER] = OTHER[key]
        for name in names:
            found[key, str(name)] = (name,) if isinstance(field.default, tuple) else name
        for form in field.rule.forms:
            found[key, form.name] = OWN.get(f"{key}={form.name}")
    return found


def _why_not(key, name):
    """Returns why a choice can't be run here; None where it can."""
    choice = f"{key}={name}"
    package = NEEDED.get(choice)
    if package and importlib.util.find_spec(package) is None:
        return f"{package} isn't installed"
    return WITHOUT.get(choice)


CHOICES = _list_choices()
SKIPPED = {choice: reason for choice in CHOICES if (reason := _why_not(*choice))}


def _nest(changes):
    nested: dict = {}
    for key, value in changes.items():
        section, _, name = key.rpartition(".")
        (nested.setdefault(section, {}) if section else nested)[name] = value
    return nested


def _add(changes, choice):
    """Returns the changes with one more choice and what it needs; None where they don't go together."""
    key, name = choice
    more = {key: CHOICES[choice], **COMPANIONS.get(f"{key}={name}", {})}
    if any(changes.get(other, value) != value for other, value in more.items()):
        return None
    more = {**changes, **more}
    try:
        config = parse_config(_nest({**BASE, **more}))
        check_population(config, parse_space(config.sweep.space), config.sweep.trials or 10)
    except ConfigError:
        return None
    return more


def _cover():
    """Returns sweeps, each a list of choices and all changes, that together have every choice."""
    left, sweeps = [choice for choice in CHOICES if choice not in SKIPPED], []
    while left:
        changes, taken = {}, []
        for choice in left:
            if choice[0] not in changes and (more := _add(changes, choice)) is not None:
                changes, taken = more, [*taken, choice]
        if not taken:
            break
        left = [choice for choice in left if choice not in taken]
        sweeps.append((taken, changes))
    return sweeps


SWEEPS = _cover()


def test_every_documented_choice_is_run_or_skipped_with_a_reason():
    run = [choice for taken, _ in SWEEPS for choice in taken]
    assert len(run) == len(set(run)) and {*run} | {*SKIPPED} == {*CHOICES}
    assert {f"{key}={name}" for key, name in CHOICES} >= {*WITHOUT, *NEEDED, *COMPANIONS}


@pytest.fixture(autouse=True)
def surroundings(tmp_path, monkeypatch):
    """A folder with a model, a metric and images; nobody is logged in anywhere."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("HOME", str(tmp_path))  # W&B's logs lie in a cache there
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "own.py").write_text(MODEL + METRIC + DATA + LOSS + OPTIMIZER + ALLOWED)
    rng = np.random.default_rng(0)
    classes = {"y_train": np.arange(20) % 2, "y_test": np.arange(12) % 2}
    np.savez(tmp_path / "arrays.npz", x_train=rng.random((20, 4)), x_test=rng.random((12, 4)), **classes)
    for split, count in (("train", 10), ("test", 6)):
        for label in ("cat", "dog"):
            folder = tmp_path / "tree" / split / label
            folder.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(folder / f"{i}.png")


@pytest.mark.landing
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("taken", "changes"), SWEEPS, ids=["=".join(taken[0]) for taken, _ in SWEEPS])
def test_choices_run(taken, changes, tmp_path):
    config = parse_config(_nest({**BASE, **changes}))
    result = run_sweep(config, tmp_path / "sweep")
    _check_tables(config, result)
    plain = json.loads((tmp_path / "sweep" / "config.json").read_text())
    for key, name in taken:
        section, _, field = key.rpartition(".")
        value = (plain[section] if section else plain)[field]
        assert json.loads(json.dumps(CHOICES[key, name])) == value


def _check_tables(config, result):
    assert result.summary["finished"] and result.best is not None
    ends = {"complete"} if config.sweep.pruner == "none" else {"complete", "pruned"}
    assert {trial.status for trial in result.trials} <= ends
    sweep = config.sweep
    settings = min(sweep.trials or 10, 10)  # of ten settings none is tried twice
    assert len(result.trials) == settings * sweep.seeds + sweep.final_seeds
    with open(result.workdir / "epochs.csv", encoding="utf-8") as file:
        assert all(math.isfinite(float(row["train_loss"])) for row in csv.DictReader(file))
