"""What is swept and has no effect is said; what has one never is."""

import functools
import logging
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hpjax.config import parse_config
from hpjax.config.fields import FIELDS
from hpjax.data.dataset import load_dataset
from hpjax.errors import ConfigError
from hpjax.sweep import run_sweep
from hpjax.sweep.effects import find_idle, list_read
from hpjax.sweep.preflight import check_groups
from hpjax.sweep.spec import create_space
from hpjax.train.hparams import Hparams, create_hparams
from hpjax.train.optimizer import OPTIMIZER_NAMES, OptimizerRule, make_optimizer

DATA = {"name": "synthetic_scenes", "image_size": 32, "max_train_examples": 24, "max_test_examples": 12}
NUMBERS = {
    **{"learning_rate": (0.1, 0.2), "weight_decay": (0.01, 0.1), "momentum": (0.5, 0.9), "b1": (0.5, 0.9)},
    **{"b2": (0.5, 0.9), "eps": (1e-3, 1e-1), "clip_norm": (0.1, 0.2)},
}
CHANGED = [{name: values[0]} for name, values in NUMBERS.items()]
MOMENTS = {"b1", "b2", "eps"}
UNREAD = {
    "sgd": {"momentum", *MOMENTS},
    **dict.fromkeys(("momentum", "nesterov"), MOMENTS),
    **dict.fromkeys(("adam", "adamw", "lamb"), {"momentum"}),
    "lion": {"momentum", "eps"},
    "rmsprop": {"b1"},
    "adafactor": {"momentum", *MOMENTS},
}


@functools.cache
def _load(data):
    return load_dataset(data, 0)


def _config(space, model="custom_cnn", **sections):
    merged = {"data": DATA, "model": {"name": model, "kernel_widths": (3, 3, 3)}, "train": {"batch_size": 4}}
    return parse_config({**merged, "sweep": {"space": space}, **sections})


def _find(space, model="custom_cnn", **sections):
    config = _config(space, model, **sections)
    return {i.name: i.where for i in find_idle(config, create_space(config), lambda c: _load(c.data))}


RATE = {"learning_rate": (1e-3, 1e-2)}
LAYERS = {"kernel_width": (1, 3), "padding": ("reference", "same")}
RATES = {"schedule": ("cosine", "linear"), "warmup_fraction": (0.0, 0.001)}
MODES = {"weight_decay_mode": ("coupled", "decoupled")}
EVERYWHERE: dict = {}
CASES = [
    ("custom_cnn", RATE | LAYERS | {"dropout_rate": (0.1, 0.2), "label_smoothing": (0.0, 0.1)}, {}),
    (
        "resnet18",
        RATE | LAYERS | {"dropout_rate": {"low": 0.1, "high": 0.2}},
        {"kernel_width": EVERYWHERE, "padding": EVERYWHERE, "dropout_rate": EVERYWHERE},
    ),
    ("custom_cnn", RATE | {"momentum": (0.1, 0.2), "b1": (0.1, 0.2)}, {"momentum": EVERYWHERE}),
    (
        "custom_cnn",
        {"momentum": (0.1, 0.2), "optimizer": ("adam", "sgd", "momentum")},
        {"momentum": {"optimizer": ("adam", "sgd")}},
    ),
    (
        "custom_cnn",
        {
            "optimizer": ("adam", "momentum"),
            "momentum": {"choices": (0.1, 0.2), "when": {"optimizer": "momentum"}},
            "b1": {"choices": (0.1, 0.2), "when": {"optimizer": "adam"}},
        },
        {},
    ),
    (
        "custom_cnn",
        {
            "batch_size": (4, 6),
            "optimizer": {"choices": ("adam", "momentum"), "when": {"batch_size": 4}},
            "momentum": {"choices": (0.1, 0.2), "when": {"optimizer": "momentum"}},
        },
        {},
    ),
    (
        "custom_cnn",
        {
            "batch_size": {"low": 4, "high": 9},
            "optimizer": {"choices": ("momentum", "nesterov"), "when": {"batch_size": 7}},
            "momentum": (0.1, 0.2),
        },
        {"momentum": {"batch_size": (4, 9)}},
    ),
    ("custom_cnn", RATE | MODES, {"weight_decay_mode": EVERYWHERE}),
    ("custom_cnn", RATE | {"weight_decay_on": ("all", "kernels")}, {"weight_decay_on": EVERYWHERE}),
    ("custom_cnn", {"weight_decay_on": ("all", "kernels"), "weight_decay": (0.0, 0.1)}, {}),
    (
        "custom_cnn",
        MODES | {"weight_decay": (0.0, 0.1), "optimizer": ("sgd", "adam", "lamb")},
        {"weight_decay_mode": {"optimizer": ("sgd", "lamb")}},
    ),
    ("custom_cnn", RATES | {"epochs": (1, 2)}, {"warmup_fraction": EVERYWHERE}),
    ("custom_cnn", {"warmup_fraction": (0.0, 0.5), "epochs": (1, 2)}, {}),
    ("custom_cnn", {"batch_size": (30, 60), "epochs": (1, 2)}, {"batch_size": EVERYWHERE}),
    ("custom_cnn", {"batch_size": (4, 30, 60)}, {}),
    (
        "custom_cnn",
        {"image_size": (16, 32), "precision": ("float32", "bfloat16"), "augment": ("none", "flip")},
        {},
    ),
    ("custom_cnn", {"momentum": (0.1,), "padding": ("same",)}, {}),
]


@pytest.mark.parametrize(("model", "space", "expected"), CASES)
def test_what_has_no_effect_is_found_and_nothing_else(model, space, expected):
    decay = {"optimizer": {"weight_decay": 0.0}}
    found = _find(space, model, **decay)
    assert found == {n: {k: tuple(v) for k, v in w.items()} for n, w in expected.items()}


@pytest.mark.parametrize("name", OPTIMIZER_NAMES)
def test_numbers_that_an_optimizer_is_said_not_to_read_change_nothing(name):
    idle = _find(NUMBERS, optimizer={"name": name})
    assert idle.keys() == UNREAD[name]
    before, *after = _train(OptimizerRule(name), [create_hparams(), *(create_hparams(**n) for n in CHANGED)])
    for number, weights in zip(NUMBERS, after, strict=True):
        assert number not in idle or np.array_equal(weights, before), number


def _train(rule, hparams):
    """Returns the weights after three steps with each of the hyperparameters."""

    def train(hparams):
        weights = jnp.linspace(-1.0, 1.0, 6).reshape(2, 3)
        optimizer = make_optimizer(rule, hparams)
        state = optimizer.init(weights)
        for step in range(3):
            updates, state = optimizer.update(jnp.cos(weights * (step + 2.0)), state, weights)
            weights += updates
        return weights

    return np.asarray(jax.jit(jax.vmap(train))(jax.tree.map(lambda *x: np.stack(x), *hparams)))


OWN = """
import jax
from flax import nnx

class Net(nnx.Module):
    def __init__(self, *, num_classes, rngs{init}):
        {build}
        self.out = nnx.Linear(3, num_classes, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, images{call}):
        x = self.dropout(images.mean((1, 2)))
        return {result}
"""
OWN_CASES = [
    ({}, {"dropout_rate", "kernel_width", "padding"}),
    ({"call": ", *, dropout_rate=0.5"}, {"dropout_rate", "kernel_width", "padding"}),
    ({"call": ", **more"}, {"dropout_rate", "kernel_width", "padding"}),
    ({"call": ", *, dropout_rate=0.5", "result": "self.out(x * dropout_rate)"}, {"kernel_width", "padding"}),
    (
        {"call": ", *, dropout_rate=0.5", "result": "jax.jit(lambda y, r: self.out(y * r))(x, dropout_rate)"},
        {"kernel_width", "padding"},
    ),
    (
        {"call": ", *, dropout_rate=0.5", "result": "jax.jit(lambda y, r: self.out(y))(x, dropout_rate)"},
        {"dropout_rate", "kernel_width", "padding"},
    ),
    (
        {
            "call": ", *, mask=None, dropout_rate=0.5",
            "result": "self.out(x if mask is not None else x * dropout_rate)",
        },
        {"kernel_width", "padding"},
    ),
    ({"init": ", padding, kernel_widths"}, {"dropout_rate", "kernel_width", "padding"}),
    ({"init": ", **more"}, {"dropout_rate", "kernel_width", "padding"}),
    (
        {"init": ", padding", "build": "self.by = len(padding)", "result": "self.out(x) * self.by"},
        {"dropout_rate", "kernel_width"},
    ),
    (
        {"init": ", **more", "build": "self.bias = nnx.Param(jax.numpy.ones(more['kernel_widths'][0]))"},
        {"dropout_rate", "padding"},
    ),
    (  # only batches of more than two tell
        {
            "init": ", kernel_widths",
            "build": "self.most = 1 + kernel_widths[0]",
            "result": "self.out(x - x[: self.most].mean(0, keepdims=True))",
        },
        {"dropout_rate", "padding"},
    ),
    (
        {
            "init": ", padding",
            "build": "self.by, self.deterministic = len(padding), False",
            "result": "self.out(x) * (self.by if self.deterministic else 1)",
        },
        {"dropout_rate", "kernel_width"},
    ),
]


@pytest.mark.parametrize(("code", "expected"), OWN_CASES)
def test_models_of_ones_own(code, expected, tmp_path):
    places = {"init": "", "build": "", "call": "", "result": "self.out(x)", **code}
    (tmp_path / "net.py").write_text(textwrap.dedent(OWN.format(**places)))
    space = LAYERS | {"dropout_rate": (0.1, 0.2), "label_smoothing": (0.0, 0.1)}
    assert _find(space, f"{tmp_path}/net.py:Net").keys() == expected


def test_what_has_an_effect_outside_a_program_counts():
    def program(hparams, x):
        jax.debug.print("{}", hparams.b1)
        return x * hparams.momentum, jnp.where(True, hparams.b2, hparams.eps)

    jaxpr = jax.make_jaxpr(program)(create_hparams(), jnp.ones(2)).jaxpr
    assert list_read(jaxpr) == {"b1", "b2", "momentum", "eps"} < set(Hparams._fields)


def test_it_is_said_once_and_at_the_end(net, tmp_path, caplog):
    space = {"learning_rate": (1e-3, 1e-2), "momentum": (0.1, 0.9)}
    given = {
        "data": DATA | {"image_size": 16, "max_train_examples": 12},
        "model": {"name": net},
        "train": {"batch_size": 6, "epochs": 1},
        "sweep": {"space": space},
        "lanes": {"count": 1, "strategy": "sequential"},
        "trackers": (),
    }
    with caplog.at_level(logging.WARNING, "hpjax"):
        result = run_sweep(parse_config(given), tmp_path / "sweep")
    said = [record.getMessage() for record in caplog.records if "no effect" in record.getMessage()]
    assert said == ["sweep.space.momentum has no effect: optimizer adam doesn't read it"]
    assert result.summary["without_effect"] == {"momentum": "optimizer adam doesn't read it"}
    assert "momentum has no effect" in result.standings[-1]


@pytest.mark.parametrize("space", [{"momentum": (0.1, 0.2)}, MODES, {"momentum": (0.1, 0.2), "b1": (0.5,)}])
def test_a_sweep_of_nothing_is_refused(space):
    config = _config(space)
    with pytest.raises(ConfigError, match="a hyperparameter that has an effect; optimizer adam") as caught:
        check_groups(config, lambda c: _load(c.data))
    assert caught.value.key == f"sweep.space.{min(space, key=lambda n: n == 'b1')}"


def test_spaces_that_would_take_long_are_passed_over():
    optimizers = tuple(FIELDS["optimizer.name"].rule.choices)
    space = {"optimizer": optimizers, "batch_size": tuple(range(2, 9)), "momentum": (0.1, 0.2)}
    space["b1"] = {"choices": (0.1, 0.2), "when": {"optimizer": optimizers, "batch_size": (2, 3)}}
    assert "b1" not in _find(space) and "momentum" in _find(space)


def test_where_decay_enters_matters_where_there_is_any():
    assert not _find(RATE | MODES, optimizer={"weight_decay": 0.1})


OPTIONAL = """
from flax import nnx


class Net(nnx.Module):
    dynamic = ("scale", "idle")

    def __init__(self, *, num_classes, width, use_dropout: bool = False, unread: int = 0, rngs):
        self.inner, self.out = nnx.Linear(3, width, rngs=rngs), nnx.Linear(width, num_classes, rngs=rngs)
        self.use_dropout = use_dropout

    def __call__(self, images, *, scale, idle=0.0, dropout_rate=0.5, rngs=None):
        x = self.inner(images.mean((1, 2))) * scale
        return self.out(x * (1 - dropout_rate) if self.use_dropout else x)
"""


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"label_smoothing": (0.0, 0.1), "model.use_dropout": (False, True)}, {}),
        (
            {"dropout_rate": (0.1, 0.5), "model.use_dropout": (False, True)},
            {"dropout_rate": {"model.use_dropout": (False,)}},
        ),
        ({"dropout_rate": (0.1, 0.5)}, {"dropout_rate": EVERYWHERE}),
        ({"model.unread": (1, 2)}, {"model.unread": EVERYWHERE}),
        ({"model.idle": {"low": 0.0, "high": 1.0}}, {"model.idle": EVERYWHERE}),
    ],
)
def test_options_decide_what_a_network_reads(tmp_path, more, expected):
    """Two of them have no default: only what is searched says what a network is."""
    (tmp_path / "optional.py").write_text(OPTIONAL)
    space = {"model.width": (2, 3), "model.scale": {"low": -1.0, "high": 1.0}}
    assert _find(space | more, f"{tmp_path}/optional.py:Net") == expected


def test_a_kernel_width_that_an_option_replaces_counts_where_it_does_not():
    options = {"name": "custom_cnn", "options": {"kernel1": 3, "kernel2": 3, "kernel3": 3}}
    space = {"kernel_width": (3, 5), "model.kernel1": (None, 5)}
    merged = {"data": DATA, "model": options, "train": {"batch_size": 4}, "sweep": {"space": space}}
    config = parse_config(merged)
    idle = find_idle(config, create_space(config), lambda c: _load(c.data))
    found = {each.name: each.where for each in idle}
    assert found == {"kernel_width": {"model.kernel1": (5,)}, "model.kernel1": {"kernel_width": (5,)}}
