"""The stacked state of K lanes, and what is done to single lanes of it."""

import dataclasses
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int32

from hpjax.errors import CheckpointError
from hpjax.train.hparams import Hparams
from hpjax.train.state import TrainState, evaluated_state

_OWN = (".state.rng", ".hparams", ".best")  # what a lane keeps that goes on from another's state


class Best(NamedTuple):
    """The weights of the epoch that scored highest."""

    score: Float[Array, ""]  # higher is better; -inf before the first epoch
    params: nnx.State
    batch_stats: nnx.State


class Population(NamedTuple):
    """K lanes; every leaf has a leading axis of length K."""

    state: TrainState
    hparams: Hparams
    best: Best


Stacked = TypeVar("Stacked", Population, Hparams)  # with a leading axis of lanes


def create_lane(state: TrainState, hparams: Hparams) -> Population:
    """Returns a lane (a population without the lane axis) for a trial that starts at `state`."""
    copy = lambda tree: jax.tree.map(jnp.array, tree)  # noqa: E731
    best = Best(jnp.asarray(-jnp.inf, jnp.float32), copy(state.params), copy(state.batch_stats))
    return Population(state, hparams, best)


def insert_lane(lanes: Stacked, lane: Int32[Array, ""], trial: Stacked) -> Stacked:
    """Returns the lanes with `trial` (no lane axis) in place of `lane`."""
    return jax.tree.map(lambda all_, one: all_.at[lane].set(one), lanes, trial)


def take_lanes(population: Population, lanes: Int32[Array, " new"]) -> Population:
    """Returns the population whose lane i is lane `lanes[i]` of the given one."""
    return jax.tree.map(lambda x: x[lanes], population)


def keep_best(population: Population, scores: Float[Array, " lanes"]) -> Population:
    """Returns the population whose best weights are the present ones wherever the score is a new high."""
    best = population.best
    better = scores > best.score

    def choose(new, old):
        return jnp.where(better.reshape(better.shape + (1,) * (new.ndim - 1)), new, old)

    state = evaluated_state(population.state)
    params = jax.tree.map(choose, state.params, best.params)
    batch_stats = jax.tree.map(choose, state.batch_stats, best.batch_stats)
    return population._replace(best=Best(choose(scores, best.score), params, batch_stats))


def continue_as(copied: Population, own: Population) -> Population:
    """Returns lanes that go on from the copied weights, their average and optimizer state, else as their own.

    Seeds, dropout and augmentation (by the hyperparameters) and the best weights so far stay what they were.
    """
    state = dataclasses.replace(copied.state, rng=own.state.rng)
    return Population(state, own.hparams, own.best)


def continue_arrays_as(copied: dict[str, np.ndarray], own: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns what `continue_as` does, of lanes as `lane_arrays` gives them."""
    return {name: (own if name.startswith(_OWN) else copied)[name] for name in own}


def stack_lanes(trial: Population, num_lanes: int) -> Population:
    """Returns a population of `num_lanes` equal lanes."""
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (num_lanes, *x.shape)) + jnp.zeros((), x.dtype), trial)


def concatenate(populations: list[Population]) -> Population:
    """Returns one population with the lanes of all."""
    return jax.tree.map(lambda *xs: jnp.concatenate(xs), *populations)


def to_arrays(population: Population) -> dict[str, np.ndarray]:
    """Returns host copies of all leaves under their tree paths; the inverse of `from_arrays`."""
    return {name: np.array(leaf) for name, leaf in _named_leaves(population).items()}


def lane_arrays(population: Population, lane: int) -> dict[str, np.ndarray]:
    """Returns host copies of a lane's leaves, without the lane axis, under their tree paths."""
    return {name: np.array(leaf[lane]) for name, leaf in _named_leaves(population).items()}


def check_arrays(template: Population, arrays: dict[str, np.ndarray]) -> None:
    """Checks that saved lanes are those of a population like `template`, whatever their number.

    Raises:
      CheckpointError: A leaf is missing, unknown, or of another shape or dtype.
    """
    leaves = _named_leaves(template)
    if set(leaves) != set(arrays):
        raise CheckpointError(
            f"the saved lanes don't fit the model: {sorted(set(leaves) ^ set(arrays))[:3]} …"
        )
    for name, leaf in leaves.items():
        if arrays[name].shape[1:] != leaf.shape[1:] or arrays[name].dtype != leaf.dtype:
            raise CheckpointError(f"saved {name} is {arrays[name].shape}, the model wants {leaf.shape}")


def from_arrays(template: Population, arrays: dict[str, np.ndarray], sharding: Any) -> Population:
    """Returns a population like `template`, placed so, with arrays that `check_arrays` let pass."""
    placed = jax.device_put([arrays[name] for name in _named_leaves(template)], sharding)
    # A copy: on a CPU the device's buffer may be numpy's own, which a step would overwrite.
    return jax.tree.unflatten(jax.tree.structure(template), [jnp.array(leaf, copy=True) for leaf in placed])


def _named_leaves(population: Population) -> dict[str, Any]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(population)
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def lane_weights(population: Population, lane: int) -> dict[str, Any]:
    """Returns a lane's best weights: {"params", "batch_stats"} as nested dicts of host arrays."""
    best = jax.tree.map(lambda x: np.array(x[lane]), population.best)
    return {"params": nnx.to_pure_dict(best.params), "batch_stats": nnx.to_pure_dict(best.batch_stats)}


def count_bytes(tree: Any) -> int:
    """Returns the bytes of all arrays (or shapes) of a tree."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
