"""The compiled functions of one group: one-trial code mapped over lanes, in one place.

The skeleton: `train_step` trains one trial for one step. `_step` maps it over the lanes of a population.
`_train_one` takes that step on row `i` of an epoch's order of examples, `_train_many` loops over rows on the
device, and `Program` compiles both.
"""

import collections
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hpjax.lanes.population import Population, create_lane, insert_lane, keep_best, stack_lanes, take_lanes
from hpjax.lanes.residents import Examples
from hpjax.ops.compiler import compiler_options, quick_options
from hpjax.train.hparams import Hparams
from hpjax.train.metrics import Sums, add_sums
from hpjax.train.scores import zero_scores
from hpjax.train.state import Recipe, TrainState
from hpjax.train.step import Batch, eval_step, train_step

OWN: Any = Batch(0, 0, None)  # type: ignore[arg-type]  # axes of a batch that each lane has of its own


class Program:
    """Everything that is compiled for one group; K is read off the population's leading axis.

    A batch is shared by all lanes, or has a lane axis of its own: each is a program of its own, compiled when
    it is first needed.

    Args:
      recipe: what the group's trials share.
      init: a fresh trial's state from its hyperparameters (one trial, traceable).
      augment: `f(key, images) -> images` on one trial's uint8 batch.
      same_bits: as of `compiler_options`.
    """

    def __init__(
        self,
        recipe: Recipe,
        init: Callable[[Hparams], TrainState],
        augment: Callable[[Array, Array], Array] | None = None,
        same_bits: bool = True,
    ):
        self.recipe, self._init, self._augment = recipe, init, augment
        self.traces = collections.Counter()  # of (function, lanes, whether batches are the lanes' own)
        jit = functools.partial(jax.jit, compiler_options=compiler_options(same_bits))
        # Donated buffers are updated in place: a population is never there twice.
        self.train_one = jit(self._train_one, donate_argnums=(0, 1))
        self.train_many = jit(self._train_many, donate_argnums=(0, 1))
        self.train_batch = jit(self._train_batch, donate_argnums=(0, 1))
        self.evaluate_one = jit(self._evaluate_one, donate_argnums=1, static_argnums=4)
        self.evaluate_many = jit(self._evaluate_many, static_argnums=2)
        self.create = jax.jit(self._create, compiler_options=quick_options())
        self.stack = jit(stack_lanes, static_argnums=1)
        self.insert = jit(insert_lane, donate_argnums=0)
        self.take = jit(take_lanes)
        self.keep_best = jit(keep_best, donate_argnums=0)

    def zero_sums(self, num_lanes: int) -> Sums:
        """Returns each lane's sums over no examples."""
        return zero_scores(self.recipe.loss, (num_lanes,))

    def train(self, state, sums, hparams, data: Examples, order, key, start: int, stop: int, most: int = 1):
        """Takes the steps `start` … `stop - 1` of an epoch, of which calls take `most` at most.

        Where that is one there is no loop on the device; else a last single step is one of the loop's.
        """
        if most == 1:
            return self.train_one(state, sums, hparams, data, order, key, start)
        return self.train_many(state, sums, hparams, data, order, key, start, stop)

    def _step(self, state: TrainState, sums: Sums, hparams: Hparams, batch: Batch, key, i):
        """One step of every lane, on a batch that they share or on each lane's own."""
        batch = self._augmented(batch, key, i)
        axes = OWN if self._is_own(batch) else None
        state, step_sums = map_lanes(train_step, in_axes=(0, 0, axes))(state, hparams, batch)
        return state, add_sums(sums, step_sums)

    def _train_one(
        self, state, sums, hparams, data: Examples, order, key, i, mask: Float[Array, " batch"] | None = None
    ):
        """One step on row `i` of `order`; of a row with `mask` only the examples where it is 1 are real."""
        self._note("train" if mask is None else "train_masked", sums, order.ndim == 3)
        rows = order[:, i] if order.ndim == 3 else order[i]
        return self._step(state, sums, hparams, Batch(data.images[rows], data.labels[rows], mask), key, i)

    def _train_many(self, state, sums, hparams, data: Examples, order, key, start, stop):
        """The steps `start` … `stop - 1` in one call."""
        self._note("train", sums, order.ndim == 3)

        def body(i, carry):
            state, sums = carry
            rows = order[:, i] if order.ndim == 3 else order[i]
            return self._step(state, sums, hparams, Batch(data.images[rows], data.labels[rows]), key, i)

        return jax.lax.fori_loop(start, stop, body, (state, sums))

    def _train_batch(self, state, sums, hparams, batch: Batch, key, i):
        """One step on a batch that was brought to the device, not gathered there."""
        self._note("train" if batch.mask is None else "train_masked", sums, self._is_own(batch))
        return self._step(state, sums, hparams, batch, key, i)

    def _evaluate_one(self, state, sums: Sums, data: Examples, i, batch_size: int, options) -> Sums:
        """The sums of every lane, joined with those over the `i`th batch of `data`."""
        self._note("evaluate", sums, False)
        num = data.labels.shape[0]
        rows = i * batch_size + jnp.arange(batch_size)
        mask = (rows < num).astype(jnp.float32)
        rows = jnp.minimum(rows, num - 1)
        batch = Batch(data.images[rows], data.labels[rows], mask)
        return add_sums(sums, map_lanes(eval_step, in_axes=(0, None, 0))(state, batch, options))

    def _evaluate_many(self, state, data: Examples, batch_size: int, options) -> Sums:
        steps = -(-data.labels.shape[0] // batch_size)
        zero = self.zero_sums(state.step.shape[0])
        return jax.lax.fori_loop(
            0, steps, lambda i, sums: self._evaluate_one(state, sums, data, i, batch_size, options), zero
        )

    def _is_own(self, batch: Batch) -> bool:
        return batch.labels.ndim - self.recipe.loss.targets == 2

    def _augmented(self, batch: Batch, key, i) -> Batch:
        if self._augment is None:
            return batch
        draw = lambda key, images: self._augment(jax.random.fold_in(key, i), images)  # noqa: E731  # type: ignore[misc]
        images = (jax.vmap(draw) if self._is_own(batch) else draw)(key, batch.images)
        return batch._replace(images=images)

    def _create(self, hparams: Hparams) -> Population:
        return create_lane(self._init(hparams), hparams)

    def _note(self, name: str, sums: Sums, own: bool) -> None:
        self.traces[name, sums.loss.shape[0], own] += 1

    def shapes(self, hparams: Hparams, num_lanes: int) -> Population:
        """Returns the shapes and dtypes of a population."""
        return jax.eval_shape(lambda: stack_lanes(self._create(hparams), num_lanes))


def map_lanes(f: Callable[..., Any], in_axes: tuple) -> Callable[..., Any]:
    """Returns `jax.vmap(f, in_axes)`, but computes a single lane without a lane axis: XLA does it better."""

    def mapped(*args):
        if jax.tree.leaves(args[0])[0].shape[0] > 1:
            return jax.vmap(f, in_axes)(*args)
        assert OWN not in in_axes, "a single lane's batch needs no lane axis"
        only = f(*map(_only_lane, in_axes, args))
        return jax.tree.map(lambda x: x[None], only)

    return mapped


def _only_lane(axis: int | None, arg: Any) -> Any:
    return arg if axis is None else jax.tree.map(lambda x: x[0], arg)


def create_population(program: Program, hparams: Hparams, num_lanes: int) -> Population:
    """Returns `num_lanes` equal, fresh lanes; idle until trials are inserted."""
    return program.stack(program.create(hparams), num_lanes)
