"""The compiled functions of one group: one-trial code mapped over lanes, in one place."""

import collections
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32, UInt8

from hpjax.data.batches import epoch_order
from hpjax.lanes.population import Population, create_lane, insert_lane, keep_best, stack_lanes, take_lanes
from hpjax.ops.compiler import compiler_options
from hpjax.train.hparams import Hparams
from hpjax.train.metrics import Sums, add_sums
from hpjax.train.state import Recipe, TrainState, purpose_key
from hpjax.train.step import Batch, eval_step, train_step


class Examples(NamedTuple):
    """A split of the data set on a device."""

    images: UInt8[Array, "examples height width 3"]
    labels: Int32[Array, " examples"]


class Program:
    """Everything that is compiled for one group; K is read off the population's leading axis.

    Args:
      recipe: what the group's trials share.
      init: a fresh trial's state from its hyperparameters (one trial, traceable).
      augment: `f(key, images) -> images` on a shared uint8 batch.
      own_order: each lane draws its own order of the training examples instead of sharing one.
    """

    def __init__(
        self,
        recipe: Recipe,
        init: Callable[[Hparams], TrainState],
        augment: Callable[[Array, Array], Array] | None = None,
        own_order: bool = False,
    ):
        self.recipe, self.own_order, self._init, self._augment = recipe, own_order, init, augment
        self.traces = collections.Counter()
        jit = functools.partial(jax.jit, compiler_options=compiler_options())
        self.create = jit(self._create)
        self.stack = jit(stack_lanes, static_argnums=1)
        self.insert = jit(insert_lane, donate_argnums=0)
        self.take = jit(take_lanes)
        self.keep_best = jit(keep_best, donate_argnums=0)
        self.train_one = jit(self._train_one, donate_argnums=(0, 1))
        self.train_many = jit(self._train_many, donate_argnums=(0, 1))
        self.train_masked = jit(self._train_masked, donate_argnums=(0, 1))
        self.train_batch = jit(self._train_batch, donate_argnums=(0, 1))
        self.evaluate_one = jit(self._evaluate_one, donate_argnums=1, static_argnums=4)
        self.evaluate_many = jit(self._evaluate_many, static_argnums=2)

    def shapes(self, hparams: Hparams, num_lanes: int) -> Population:
        """Returns the shapes and dtypes of a population."""
        return jax.eval_shape(lambda: stack_lanes(self._create(hparams), num_lanes))

    def _create(self, hparams: Hparams) -> Population:
        return create_lane(self._init(hparams), hparams)

    def train(self, state, sums, hparams, data: Examples, order, key, start: int, stop: int, most: int = 1):
        """Takes the steps `start` … `stop - 1` of an epoch, of which calls take `most` at most.

        Where that is one there is no loop on the device; else a last single step is one of the loop's.
        """
        if most == 1:
            return self.train_one(state, sums, hparams, data, order, key, start)
        return self.train_many(state, sums, hparams, data, order, key, start, stop)

    def _train_one(self, state, sums, hparams, data: Examples, order, key, i):
        """One step of every lane on row `i` of `order`."""
        self.traces["train", sums.loss.shape[0]] += 1
        return self._step(state, sums, hparams, data, order, key, i, None)

    def _train_many(self, state, sums, hparams, data: Examples, order, key, start, stop):
        """The steps `start` … `stop - 1` in one call."""
        self.traces["train", sums.loss.shape[0]] += 1

        def body(i, carry):
            state, sums = carry
            return self._step(state, sums, hparams, data, order, key, i, None)

        return jax.lax.fori_loop(start, stop, body, (state, sums))

    def _train_masked(
        self, state, sums, hparams, data: Examples, order, key, i, mask: Float[Array, " batch"]
    ):
        """One step on a row of which only the examples with `mask` 1 are real."""
        self.traces["train_masked", sums.loss.shape[0]] += 1
        return self._step(state, sums, hparams, data, order, key, i, mask)

    def _train_batch(self, state, sums, hparams, batch: Batch, key, i):
        """One step on a batch that was brought to the device, not gathered there."""
        self.traces["train_batch" if batch.mask is None else "train_masked", sums.loss.shape[0]] += 1
        return self._map_step(state, sums, hparams, batch, None, key, i)

    def _step(self, state, sums, hparams, data, order, key, i, mask):
        rows = order[:, i] if self.own_order else order[i]
        batch = Batch(data.images[rows], data.labels[rows], mask)
        own: Any = (0, 0, None)
        axes = Batch(*own) if self.own_order else None
        return self._map_step(state, sums, hparams, batch, axes, key, i)

    def _map_step(self, state, sums, hparams, batch: Batch, axes, key, i):
        batch = self._augmented(batch, axes, jax.random.fold_in(key, i), state, hparams)
        state, step_sums = map_lanes(train_step, (0, 0, axes))(state, hparams, batch)
        return state, add_sums(sums, step_sums)

    def _augmented(self, batch: Batch, axes, key, state, hparams) -> Batch:
        if self._augment is None:
            return batch
        if axes is None:
            return batch._replace(images=self._augment(key, batch.images))
        lane_keys = jax.vmap(lambda seed, step: jax.random.fold_in(purpose_key(seed, "augment"), step))
        images = jax.vmap(self._augment)(lane_keys(hparams.seed, state.step), batch.images)
        return batch._replace(images=images)

    def _evaluate_one(self, state, sums: Sums, data: Examples, i, batch_size: int) -> Sums:
        """The sums of every lane, joined with those over the `i`th batch of `data`."""
        self.traces["evaluate", sums.loss.shape[0]] += 1
        num = data.labels.shape[0]
        rows = i * batch_size + jnp.arange(batch_size)
        mask = (rows < num).astype(jnp.float32)
        rows = jnp.minimum(rows, num - 1)
        batch = Batch(data.images[rows], data.labels[rows], mask)
        return add_sums(sums, map_lanes(eval_step, (0, None))(state, batch))

    def _evaluate_many(self, state, data: Examples, batch_size: int) -> Sums:
        num_lanes = state.step.shape[0]
        zero = Sums(*(jnp.zeros(num_lanes) for _ in Sums._fields))
        steps = -(-data.labels.shape[0] // batch_size)
        return jax.lax.fori_loop(
            0, steps, lambda i, sums: self._evaluate_one(state, sums, data, i, batch_size), zero
        )


def map_lanes(f: Callable[..., Any], in_axes: tuple) -> Callable[..., Any]:
    """Returns `jax.vmap(f, in_axes)`, but computes a single lane without a lane axis: XLA does it better."""

    def mapped(*args):
        if jax.tree.leaves(args[0])[0].shape[0] > 1:
            return jax.vmap(f, in_axes)(*args)
        only = f(*map(_only_lane, in_axes, args))
        return jax.tree.map(lambda x: x[None], only)

    return mapped


def _only_lane(axes: Any, arg: Any) -> Any:
    if isinstance(axes, tuple):
        return Batch(*map(_only_lane, axes, arg))
    return arg if axes is None else jax.tree.map(lambda x: x[0], arg)


def augment_key(seed: int, epoch: int) -> Array:
    """Returns the key that an epoch's augmentations are drawn from."""
    return jax.random.fold_in(purpose_key(seed, "augment"), epoch)


def order_key(seed: int, epoch) -> jax.Array:
    """Returns the key that an epoch's order of examples is drawn from."""
    return jax.random.fold_in(purpose_key(seed, "order"), epoch)


def lane_orders(seeds, epochs, num_examples: int, batch_size: int) -> Int32[Array, "lanes steps batch"]:
    """Returns each lane's own order of examples, from its seed and its own count of epochs."""
    return jax.vmap(lambda s, e: epoch_order(order_key(s, e), num_examples, batch_size))(seeds, epochs)


def create_population(program: Program, hparams: Hparams, num_lanes: int) -> Population:
    """Returns `num_lanes` equal, fresh lanes; idle until trials are inserted."""
    return program.stack(program.create(hparams), num_lanes)
