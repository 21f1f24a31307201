"""The training state of one trial, and the recipe that all trials of a group share."""

import dataclasses
import inspect
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Int32

from hpjax.train.average import Average, create_average
from hpjax.train.hparams import Hparams
from hpjax.train.inputs import AS_THEY_ARE, InputRule
from hpjax.train.loss import IMAGE_CLASSES, LossRule
from hpjax.train.optimizer import OptimizerRule, make_optimizer
from hpjax.train.weights import join_weights, split_weights

NEVER = -1


@dataclass(frozen=True)
class Recipe:
    """What shapes the program and is the same for every trial of a group; hashable."""

    graphdef: nnx.GraphDef
    optimizer: OptimizerRule
    precision: str = "float32"
    accepts: frozenset[str] = frozenset()  # keyword arguments that the model's __call__ takes
    loss: LossRule = IMAGE_CLASSES
    inputs: InputRule = AS_THEY_ARE
    frozen: tuple[str, ...] = ()  # modules whose weights and statistics stay what they are


# JAX fills trees with what describes an array, too.
Number = Int32[Any, "*lanes"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """One trial between two steps, or one in each lane; every leaf is an array, `recipe` is static."""

    step: Number  # steps taken
    diverged_step: Number  # the step at which the loss or gradient stopped being finite, or -1
    params: nnx.State  # nnx.Param, float32
    batch_stats: nnx.State  # everything else that training updates, float32
    rng: nnx.State  # raw keys of modules that hold streams of their own; reseeded at every step
    opt_state: Any  # optax's state, of the weights that are trained
    recipe: Recipe = dataclasses.field(metadata={"static": True})
    average: Average | None = None  # what is evaluated instead of the weights, where there is one


def create_recipe(
    model: nnx.Module,
    optimizer: OptimizerRule,
    precision: str = "float32",
    loss: LossRule = IMAGE_CLASSES,
    inputs: InputRule = AS_THEY_ARE,
    frozen: tuple[str, ...] = (),
) -> Recipe:
    """Returns the recipe of `model`: its structure, the rules of its group and the precision."""
    known = {"mask", "dropout_rate", "rngs", *getattr(type(model), "dynamic", ())}
    parameters = inspect.signature(type(model).__call__).parameters.values()
    names = frozenset(p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD))
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        names |= known
    return Recipe(nnx.graphdef(model), optimizer, precision, names & known, loss, inputs, frozen)


def create_state(model: nnx.Module, recipe: Recipe, hparams: Hparams) -> TrainState:
    """Returns the state of a trial that starts from `model`'s weights."""
    _, params, rng, batch_stats = nnx.split(model, nnx.Param, nnx.RngState, ...)
    trained, _ = split_weights(params, recipe.frozen)
    opt_state = make_optimizer(recipe.optimizer, hparams).init(trained)
    zero = jnp.zeros((), jnp.int32)
    average = None if hparams.ema_decay is None else create_average(trained, batch_stats)
    return TrainState(zero, zero + NEVER, params, batch_stats, raw_keys(rng), opt_state, recipe, average)


def evaluated_state(state: TrainState) -> TrainState:
    """Returns the state with the weights that are evaluated and handed over: the averaged ones, if any."""
    if state.average is None:
        return state
    _, kept = split_weights(state.params, state.recipe.frozen)
    params, batch_stats = join_weights(state.average.params, kept), state.average.batch_stats
    return dataclasses.replace(state, params=params, batch_stats=batch_stats, average=None)


def init_rngs(seed) -> nnx.Rngs:
    """Returns the streams that a trial's weights are drawn from; `seed` can be traced."""
    key = purpose_key(seed, "init")
    return nnx.Rngs(params=key, dropout=jax.random.fold_in(key, 1))


def purpose_key(seed, purpose: str) -> Array:
    """Returns the key for one purpose of randomness: init, order, dropout, augment or probe."""
    purposes = ("init", "order", "dropout", "augment", "probe")
    return jax.random.fold_in(jax.random.key(seed), purposes.index(purpose))


def merge_model(state: TrainState, params=None) -> nnx.Module:
    """Returns the Flax model of `state` (with `params` instead of its own, if given)."""
    params = state.params if params is None else params
    rng = _typed_keys(state.rng)
    return nnx.merge(state.recipe.graphdef, params, rng, state.batch_stats, copy=True)


def raw_keys(tree):
    """Returns a tree with its keys as plain integers, so that it can be stacked and saved."""
    is_key = lambda x: jnp.issubdtype(x.dtype, jax.dtypes.prng_key)  # noqa: E731
    return jax.tree.map(lambda x: jax.random.key_data(x) if is_key(x) else x, tree)


def _typed_keys(rng: nnx.State) -> nnx.State:
    wrap = lambda v: v.replace(jax.random.wrap_key_data(v.get_value()))  # noqa: E731
    is_variable = lambda x: isinstance(x, nnx.Variable)  # noqa: E731
    return jax.tree.map(lambda v: wrap(v) if isinstance(v, nnx.RngKey) else v, rng, is_leaf=is_variable)
