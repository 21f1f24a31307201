"""The compiled functions of one group: one-trial code mapped over lanes, in one place.

The skeleton: `train_step` trains one trial for one step. `_step` maps it over the lanes of a population.
`_train_one` takes that step on row `i` of an epoch's order of examples, `_train_many` loops over rows on the
device, and `Program` compiles both: for the lanes of one device, or for all devices of a mesh in one call.
"""

import collections
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hpjax.lanes.mesh import LANES, STATIC, Mesh
from hpjax.lanes.population import (
    Population,
    Stacked,
    create_lane,
    insert_lane,
    keep_best,
    stack_lanes,
    take_lanes,
)
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
      mesh: what it is compiled for; None: a device, whichever its arguments are on.
    """

    def __init__(
        self,
        recipe: Recipe,
        init: Callable[[Hparams], TrainState],
        augment: Callable[[Array, Array], Array] | None = None,
        same_bits: bool = True,
        mesh: Mesh | None = None,
    ):
        self.recipe, self._init, self._augment = recipe, init, augment
        self._same_bits, self._mesh = same_bits, mesh
        self._on: dict[tuple, Program] = {}
        self.traces = collections.Counter()  # of (function, lanes, whether batches are the lanes' own)
        jit = functools.partial(jax.jit, compiler_options=compiler_options(same_bits))
        split = self._split
        # Donated buffers are updated in place: a population is never there twice.
        self.train_one = jit(split(self._train_one, _rows_axes), donate_argnums=(0, 1))
        self.train_many = jit(split(self._train_many, _rows_axes), donate_argnums=(0, 1))
        self.train_batch = jit(split(self._train_batch, self._batch_axes), donate_argnums=(0, 1))
        evaluate_one = split(self._evaluate_one, (0, 0, None, None, STATIC, 0))
        self.evaluate_one = jit(evaluate_one, donate_argnums=1, static_argnums=4)
        self.evaluate_many = jit(split(self._evaluate_many, (0, None, STATIC, 0)), static_argnums=2)
        self.create = jax.jit(self._create, compiler_options=quick_options())
        self.stack = jit(split(stack_lanes, (None, STATIC)), static_argnums=1)
        insert = insert_lane if mesh is None else _insert_on_its_device
        self.insert = jit(split(insert, (0, None, None)), donate_argnums=0)
        self.take = jit(take_lanes)  # of one device's lanes
        self.keep_best = jit(split(keep_best, (0, 0)), donate_argnums=0)

    def on(self, mesh: Mesh) -> "Program":
        """Returns the same functions for the lanes of a mesh; always the same ones for one."""
        if mesh.size == 1:
            return self
        if mesh.devices not in self._on:
            self._on[mesh.devices] = Program(self.recipe, self._init, self._augment, self._same_bits, mesh)
        return self._on[mesh.devices]

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

    def _split(self, f: Callable[..., Any], in_axes: tuple | Callable[..., tuple]) -> Callable[..., Any]:
        """Returns `f` for all devices; `in_axes` as of `Mesh.map`, or a function of the arguments."""
        mesh = self._mesh
        if mesh is None:
            return f
        return lambda *args: mesh.map(f, in_axes(*args) if callable(in_axes) else in_axes)(*args)

    def _batch_axes(self, *args: Any) -> tuple:
        own = self._is_own(args[3])
        return (0, 0, 0, OWN if own else None, 0 if own else None, None)

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
        only = f(*map(_only_lane, in_axes, args))
        return jax.tree.map(lambda x: x[None], only)

    return mapped


def _only_lane(axis: Any, arg: Any) -> Any:
    if isinstance(axis, Batch):
        return Batch(*map(_only_lane, axis, arg))
    return arg if axis is None else jax.tree.map(lambda x: x[0], arg)


def _rows_axes(*args: Any) -> tuple:
    """Returns the axes of what takes state, sums, hparams, data, order, key, and numbers."""
    own = 0 if args[4].ndim == 3 else None
    return (0, 0, 0, None, own, own)


def _insert_on_its_device(lanes: Stacked, lane: Array, trial: Stacked) -> Stacked:
    """`insert_lane` on each device of a mesh; `lane` counts over all of them."""
    here = jax.tree.leaves(lanes)[0].shape[0]
    own = lane - jax.lax.axis_index(LANES) * here
    # Beyond the last lane nothing is set; a negative one would count from the end.
    return insert_lane(lanes, jnp.where(own >= 0, own, here), trial)


def create_population(program: Program, mesh: Mesh, hparams: Hparams, num_lanes: int) -> Population:
    """Returns `num_lanes` equal, fresh lanes of each device; idle until trials are inserted."""
    trial = jax.device_put(program.create(hparams), mesh.everywhere)
    return jax.device_put(program.on(mesh).stack(trial, num_lanes), mesh.lanes)
