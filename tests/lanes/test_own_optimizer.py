"""Optimizers of the user's own: made of a trial's numbers, checked by tracing, and told from a defect."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tuned_network
from flax import nnx

from hpjax.errors import ConfigError, UserCodeError
from hpjax.lanes.own_optimizer import check_optimizer, load_optimizer
from hpjax.train.hparams import create_hparams
from hpjax.train.optimizer import OptimizerRule
from hpjax.train.state import create_recipe, create_state
from hpjax.train.step import Batch, train_step

GOOD = """
import optax

def adamw(learning_rate, weight_decay, b1, b2, eps):
    return optax.adamw(learning_rate, b1, b2, eps, weight_decay=weight_decay)

def few(eps, **numbers):
    return optax.sgd(numbers["learning_rate"], numbers["momentum"])
"""
BAD = """
import jax, jax.numpy as jnp, numpy as np, optax
from optax import GradientTransformation as T

nothing = lambda params: ()

def no_number(temperature): ...
def none(learning_rate): ...
def branches(learning_rate):
    return optax.sgd(learning_rate) if learning_rate > 0 else optax.sgd(1.0)
def fails(learning_rate):
    return T(nothing, lambda g, s, p: 1 / 0)
def wider(learning_rate):
    return T(nothing, lambda g, s, p: (jax.tree.map(lambda x: x[None], g), s))
def leaves_out(learning_rate):
    return T(nothing, lambda g, s, p: (jax.tree.leaves(g), s))
def grows(learning_rate):
    return T(lambda p: jnp.zeros(1), lambda g, s, p: (g, jnp.concatenate([s, s])))
def restructures(learning_rate):
    return T(nothing, lambda g, s, p: (g, (1.0,)))
def calls_back(learning_rate):
    shape = jax.ShapeDtypeStruct((), "float32")
    back = lambda x: jax.pure_callback(np.sum, shape, x, vmap_method="expand_dims")
    return T(nothing, lambda g, s, p: (jax.tree.map(lambda x: x - back(x), g), s))
def over_lanes(learning_rate):
    return T(nothing, lambda g, s, p: (jax.lax.pmean(g, "lanes"), s))
calls = []
def counts(learning_rate):
    calls.append(1)
    return optax.sgd(learning_rate * len(calls))
def keyed(learning_rate):
    return optax.chain(optax.add_noise(0.01, 0.55, 0), optax.sgd(learning_rate))
numbers = np.zeros(3)
def drifts(learning_rate):
    numbers[:] += 1
    factors = jnp.asarray(numbers.copy())
    return T(nothing, lambda g, s, p: (jax.tree.map(lambda x: x * factors.sum(), g), s))
def keeps(learning_rate):
    calls.append(learning_rate)
    return optax.sgd(calls[0])
"""


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    """Returns a function that gives the rule of a function's name."""
    folder = tmp_path_factory.mktemp("own")

    def create(name, code=GOOD, **rule):
        (folder / f"{name}.py").write_text(code)
        own = f"{folder}/{name}.py:{name}"
        return OptimizerRule(own, own=load_optimizer(own), **rule)

    return create


def _train(rule, frozen=(), **numbers):
    model = tuned_network.Net(num_classes=3, rngs=nnx.Rngs(0))
    hparams = create_hparams(learning_rate=0.05, weight_decay=0.1, clip_norm=0.5, **numbers)
    state = create_state(model, create_recipe(model, rule, frozen=frozen), hparams)
    rng = np.random.default_rng(0)
    batch = Batch(jnp.asarray(rng.normal(size=(8, 2, 2, 3)), jnp.float32), jnp.arange(8) % 3)
    step = jax.jit(train_step)
    for _ in range(4):
        state, _ = step(state, hparams, batch)
    return nnx.to_pure_dict(state.params)


def _check(rule):
    model = nnx.eval_shape(lambda: tuned_network.Net(num_classes=3, rngs=nnx.Rngs(0)))
    check_optimizer(rule, nnx.state(model, nnx.Param), create_hparams())


@pytest.mark.parametrize("kind", ["plain", pytest.param("lanes' own", marks=pytest.mark.landing)])
def test_it_has_the_schedule_the_clipped_gradients_and_the_heads_rate(load, kind):
    numbers = {"head_factor": 3.0} | ({"warmup_fraction": 0.5} if kind != "plain" else {})
    static = {} if kind != "plain" else {"warmup_fraction": 0.5}
    rule = {"schedule": "cosine", "total_steps": 5, "head": "head", **static}
    own = load("adamw", **rule)
    _check(dataclasses.replace(own, head=""))
    got, want = (_train(r, ("stem",), **numbers) for r in (own, OptimizerRule("adamw", **rule)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), got, want)


def test_rules_of_one_function_are_equal_and_arguments_are_taken_by_name(load):
    rule = load("few")
    assert rule == load("few") and hash(rule) == hash(load("few")) and not rule.elementwise
    _check(rule)
    assert load_optimizer("adam") is None


SAID = {
    "no_number": "needs temperature, which there is none of: its arguments may be learning_rate, weight",
    "none": "gives NoneType: expected an optax.GradientTransformation",
    "branches": r"failed: line \d+: TracerBoolConversionError",
    "fails": r"failed: line \d+: ZeroDivisionError",
    "wider": r"its update has float32\[1, 3\] for head.bias: expected float32\[3\], as the gradient has",
    "leaves_out": "its update is another tree than the gradient: expected the same one",
    "grows": r"its state after a step has float32\[2\]: expected float32\[1\], as the state before has",
    "restructures": "its state after a step is another tree than the state before: expected the same one",
    "calls_back": r"leaves the program \(pure_callback\): lanes can't be kept apart there",
    "over_lanes": r"failed: line \d+: NameError",
    "counts": "keeps something from one call for the next",
    "keyed": "has a typed random key in its state: expected numbers alone",
    "drifts": "keeps something from one call for the next",
    "keeps": "keeps something from one call for the next",
}


@pytest.mark.parametrize("name", SAID)
def test_what_is_none_is_one_line(load, name):
    with pytest.raises(UserCodeError, match=f"optimizer.name=.*{name}.*{SAID[name]}") as raised:
        _check(load(name, BAD))
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 900


def test_a_name_that_is_no_function_is_one_line(tmp_path):
    (tmp_path / "own.py").write_text("rate = 3")
    for name, allowed in (
        ("own.py:rate", "the name of a function in"),
        ("no.py:f", "a Python file that exists"),
    ):
        with pytest.raises(ConfigError, match=f"optimizer.name=.*{allowed}"):
            load_optimizer(f"{tmp_path}/{name}")
