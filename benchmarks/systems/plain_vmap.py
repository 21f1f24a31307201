"""The usual way to train many trials at once in JAX: `jax.vmap` over a Flax model and its optax optimizer."""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from hpjax.data.batches import epoch_order
from hpjax.lanes.shuffle import order_key
from systems import plain_models
from systems.lanes import create_program, trial_hparams
from systems.system import Epoch
from systems.workload import CLASSES, Workload


def create(workload: Workload, name: str) -> "PlainVmap":
    """Returns the stacked trials; they start from the weights of hpjax's lanes."""
    del name
    return PlainVmap(workload)


class PlainVmap:
    """Stacked trials that take the same batches."""

    def __init__(self, workload: Workload):
        self.detail: dict[str, Any] = {}
        self._workload = workload
        self._images, self._labels = jax.device_put(workload.load_examples())
        dtype = jnp.dtype(workload.precision)
        model = plain_models.create_model(workload.model, workload.image_size, CLASSES, nnx.Rngs(0), dtype)
        graphdef, params, stats = nnx.split(model, nnx.Param, ...)
        trials = [_trial_state(workload, hparams, params, stats) for hparams in trial_hparams(workload)]
        self._state = jax.tree.map(lambda *xs: jnp.stack(xs), *trials)
        self._numbers = jax.tree.map(lambda *xs: jnp.asarray(xs), *workload.trials)
        self._order = jax.jit(epoch_order, static_argnums=(1, 2))
        step = make_step(graphdef, dtype)
        # All steps of an epoch in one call, but on a CPU, where they are long enough to be called one by one.
        self._one_by_one = jax.default_backend() == "cpu"
        self._step = jax.jit(step if self._one_by_one else make_loop(step), donate_argnums=(0, 1))

    def run_epoch(self, epoch: int) -> Epoch:
        """Trains all trials; the losses are on the host when this returns."""
        start = time.perf_counter()
        size = self._workload.batch_size
        order = self._order(order_key(0, epoch), len(self._labels), size)
        total = jnp.zeros(self._workload.lanes)
        for i in range(self._workload.steps if self._one_by_one else 1):
            place = i if self._one_by_one else self._workload.steps
            self._state, total = self._step(
                self._state, total, self._numbers, self._images, self._labels, order, place
            )
        losses = np.asarray(total) / self._workload.steps
        return Epoch(time.perf_counter() - start, losses.tolist())


def _trial_state(workload: Workload, hparams: Any, params: Any, stats: Any) -> tuple:
    """Returns a trial's parameters, statistics, optimizer state and dropout key."""
    ours = create_program(workload).create(hparams).state
    params = _take_values(params, ours.params)
    opt_state = create_optimizer(hparams).init(params)
    key = jax.random.key_data(jax.random.key(hparams.seed))
    return params, _take_values(stats, ours.batch_stats), opt_state, key


def create_optimizer(numbers: Any) -> optax.GradientTransformation:
    """Returns Adam with coupled weight decay, from a trial's numbers."""
    return optax.chain(optax.add_decayed_weights(numbers.weight_decay), optax.adam(numbers.learning_rate))


def _take_values(tree: Any, values: Any) -> Any:
    """Returns `tree` with the arrays that `values` has under the same paths."""
    named = {path: leaf for path, leaf in _paths(values)}
    leaves = [named[path].reshape(leaf.shape) for path, leaf in _paths(tree)]
    return jax.tree.unflatten(jax.tree.structure(tree), leaves)


def _paths(tree: Any) -> list[tuple[str, jax.Array]]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in leaves]


def make_loop(step: Callable) -> Callable:
    """Returns `step`, for all rows before the one that it is given."""

    def loop(state, total, numbers, images, labels, order, stop):
        def body(i, carry):
            return step(*carry, numbers, images, labels, order, i)

        return jax.lax.fori_loop(0, stop, body, (state, total))

    return loop


def make_step(graphdef: Any, dtype: Any, map_lanes: Callable = jax.vmap) -> Callable:
    """Returns a training step of stacked trials on one row of `order`.

    Args:
      graphdef: of the model.
      dtype: of the weights and activations inside the step.
      map_lanes: `f(train_one, in_axes)`, as `jax.vmap`.
    """

    def loss_of(params, stats, key, images, labels):
        cast = jax.tree.map(lambda x: x.astype(dtype), params)
        model = nnx.merge(graphdef, cast, stats, copy=True)
        model.train()
        logits = model(images, rngs=nnx.Rngs(dropout=key)).astype(jnp.float32)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        moved = nnx.split(model, nnx.Param, ...)[2]
        return loss, jax.tree.map(lambda new, old: new.astype(old.dtype), moved, stats)

    def train_one(state, numbers, images, labels):
        params, stats, opt_state, key_data = state
        key, use = jax.random.split(jax.random.wrap_key_data(key_data))
        gradient = jax.value_and_grad(loss_of, has_aux=True)
        (loss, stats), grads = gradient(params, stats, use, images, labels)
        return (
            _apply(create_optimizer(numbers), grads, params, opt_state),
            stats,
            jax.random.key_data(key),
            loss,
        )

    def step(state, total, numbers, images, labels, order, i):
        rows = order[i]
        batch = images[rows].astype(dtype) * jnp.asarray(1 / 255, dtype)
        new, stats, keys, losses = map_lanes(train_one, (0, 0, None, None))(
            state, numbers, batch, labels[rows]
        )
        return (new[0], stats, new[1], keys), total + losses

    return step


def _apply(optimizer: Any, grads: Any, params: Any, opt_state: Any) -> tuple:
    updates, opt_state = optimizer.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state
