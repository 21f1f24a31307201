"""Reading a trained model: logits of images, and sums over a split.

One forward pass is compiled for each model structure, batch shape and dtype, whatever the weights. On the
device lie the weights and two batches: no optimizer state, no data set.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, traverse_util
from jaxtyping import Float, Shaped

from hpjax.errors import CheckpointError
from hpjax.ops.compiler import compiler_options
from hpjax.train.inputs import AS_THEY_ARE, InputRule
from hpjax.train.loss import IMAGE_CLASSES, LossRule
from hpjax.train.metrics import Sums, add_sums
from hpjax.train.optimizer import OptimizerRule
from hpjax.train.scores import zero_scores
from hpjax.train.state import NEVER, Recipe, TrainState, create_recipe, init_rngs, raw_keys
from hpjax.train.step import predict_step, sum_predictions

BATCH_SIZE = 250
Images = Shaped[np.ndarray, "examples ..."]  # uint8 is scaled; floats and tokens are taken as they are


def predict(
    state: TrainState,
    images: Images,
    batch_size: int = BATCH_SIZE,
    options: Mapping[str, float] = MappingProxyType({}),
) -> Float[np.ndarray, "examples *outputs"]:
    """Returns the logits of images, with dropout off and BN's running statistics.

    Args:
      state: of one trained model; see `create_inference_state` and `make_restore`.
      images: on the host; uint8 is scaled to [0, 1].
      batch_size: how many lie on the device at a time.
      options: the trial's dynamic ones.
    """
    numbers = _scalars(options)
    logits = [np.asarray(_forward()(state, batch, numbers)) for batch in _batches(images, batch_size)]
    return np.concatenate(logits)[: len(images)]


def evaluate(
    state: TrainState,
    images: Images,
    labels: Shaped[np.ndarray, "examples *targets"],
    batch_size: int = BATCH_SIZE,
    options: Mapping[str, float] = MappingProxyType({}),
) -> Sums:
    """Returns the sums over a split; the arguments are those of `predict`, and the true classes."""
    rule, numbers = state.recipe.loss, _scalars(options)
    sums = zero_scores(rule)
    masks = _batches(np.ones(len(labels), np.float32), batch_size, padding=0)
    batches = zip(_batches(images, batch_size), _batches(labels, batch_size), masks, strict=True)
    for images_, labels_, mask in batches:
        before, sums = sums, _add_predictions(rule, sums, _forward()(state, images_, numbers), labels_, mask)
        jax.block_until_ready(before)  # else the host runs ahead, and the whole split lies on the device
    return sums


def create_inference_state(model: nnx.Module, precision: str = "float32") -> TrainState:
    """Returns a trained model as a state without an optimizer's."""
    _, params, rng, batch_stats = nnx.split(model, nnx.Param, nnx.RngState, ...)
    return _create_state(create_recipe(model, OptimizerRule(), precision), params, raw_keys(rng), batch_stats)


def make_restore(
    create: Callable[[nnx.Rngs], nnx.Module],
    precision: str = "float32",
    loss: LossRule = IMAGE_CLASSES,
    inputs: InputRule = AS_THEY_ARE,
) -> Callable[[dict[str, Any], int], TrainState]:
    """Returns `restore(weights, seed)`: a trained model as a state without an optimizer's.

    `weights` are nested dicts of arrays, `{"params", "batch_stats"}`; `seed` is that which the model started
    from: its own random streams, if it has any, depend on it. All states have one structure, so that they
    share what is compiled, even where two models of `create` don't compare equal.

    Raises (`restore` does):
      CheckpointError: The weights are another model's; names each array that is missing, extra or misshapen.
    """
    model = nnx.eval_shape(lambda: create(init_rngs(0)))
    recipe = create_recipe(model, OptimizerRule(), precision, loss, inputs)
    _, params, rng, batch_stats = nnx.split(model, nnx.Param, nnx.RngState, ...)
    streams = jax.jit(lambda seed: raw_keys(nnx.state(create(init_rngs(seed)), nnx.RngState)))

    def restore(weights: dict[str, Any], seed: int) -> TrainState:
        _check(weights, {"params": params, "batch_stats": batch_stats})
        filled = (_fill(params, weights["params"]), _fill(batch_stats, weights.get("batch_stats", {})))
        keys = streams(np.uint32(seed)) if jax.tree.leaves(rng) else rng
        return _create_state(recipe, filled[0], keys, filled[1])

    return restore


def _scalars(options: Mapping[str, float]) -> dict[str, np.float32]:
    return {name: np.float32(value) for name, value in options.items()}


@functools.cache
def _forward() -> Callable[[TrainState, Any, dict[str, np.float32]], jax.Array]:
    return jax.jit(predict_step, compiler_options=compiler_options())


@functools.partial(jax.jit, static_argnums=0)
def _add_predictions(rule: LossRule, sums: Sums, outputs: Any, targets: jax.Array, mask: jax.Array) -> Sums:
    return add_sums(sums, sum_predictions(rule, outputs, targets, mask))


def _batches(values: np.ndarray, batch_size: int, padding: float | None = None) -> Iterator[np.ndarray]:
    """Yields batches of one size; the last is filled up with `padding`, or with the last example."""
    size = min(batch_size, len(values))
    for start in range(0, len(values), size):
        batch = np.asarray(values[start : start + size])
        missing = size - len(batch)
        filling = batch[-1:] if padding is None else np.full_like(batch[-1:], padding)
        yield np.concatenate([batch, np.repeat(filling, missing, 0)]) if missing else batch


def _create_state(recipe: Recipe, params: nnx.State, rng: nnx.State, batch_stats: nnx.State) -> TrainState:
    zero = jnp.zeros((), jnp.int32)
    return jax.device_put(TrainState(zero, zero + NEVER, params, batch_stats, rng, (), recipe))


def _check(weights: dict[str, Any], expected: dict[str, nnx.State]) -> None:
    arrays: dict[tuple, Any] = traverse_util.flatten_dict(weights)
    given = {_name(path): array.shape for path, array in arrays.items()}
    wanted = {
        _name((part, *path)): variable.shape
        for part, state in expected.items()
        for path, variable in nnx.to_flat_state(state)
    }
    problems = [f"{name} is missing" for name in wanted.keys() - given.keys()]
    problems += [f"{name} is not in the model" for name in given.keys() - wanted.keys()]
    problems += [
        f"{name} is {given[name]} instead of {shape}"
        for name, shape in wanted.items()
        if given.get(name, shape) != shape
    ]
    if problems:
        raise CheckpointError(f"the weights don't fit the model: {'; '.join(sorted(problems))}")


def _fill(shapes: nnx.State, arrays: dict[str, Any]) -> nnx.State:
    state = nnx.from_flat_state(nnx.to_flat_state(shapes))  # a copy, as the next call changes its argument
    nnx.replace_by_pure_dict(state, arrays)
    return state


def _name(path: tuple) -> str:
    return "/".join(map(str, path))
