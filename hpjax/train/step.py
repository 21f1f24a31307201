"""One training step and one evaluation step of one trial."""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Shaped

from hpjax.train.average import Average, move_average
from hpjax.train.hparams import Hparams
from hpjax.train.inputs import prepare_inputs
from hpjax.train.loss import IMAGE_CLASSES, LossRule
from hpjax.train.metrics import Sums, cross_entropy, sum_metrics
from hpjax.train.optimizer import global_norm
from hpjax.train.scores import mean_loss, sum_scores
from hpjax.train.state import TrainState, evaluated_state, merge_model, purpose_key
from hpjax.train.update import Numbers, in_pieces, update_weights
from hpjax.train.weights import hold_statistics, join_weights, keep_frozen, split_weights

NO_OPTIONS: Mapping[str, Array] = MappingProxyType({})


class Batch(NamedTuple):
    """Inputs and targets of one step; mostly images and their classes."""

    images: Shaped[Array, "batch ..."]  # floats and tokens are taken as they are, uint8 is scaled to [0, 1]
    labels: Shaped[Array, "batch *targets"]  # classes; or labels or numbers, with an axis of their own
    mask: Float[Array, " batch"] | None = None  # 1 for a real example, 0 for padding; None: all are real


def train_step(state: TrainState, hparams: Hparams, batch: Batch) -> tuple[TrainState, Sums]:
    """Takes one optimizer step.

    A state whose loss or gradient isn't finite keeps its weights from then on, and notes the step in
    `diverged_step`; its sums are no longer meaningful.

    Returns:
      The state after the step, and the batch's sums with dropout on and BN in training mode.
    """
    gradient = jax.value_and_grad(training_loss, has_aux=True)
    trained, kept = split_weights(state.params, state.recipe.frozen)
    (loss, (sums, batch_stats)), grads = gradient(trained, state, hparams, batch)
    norm = global_norm(grads)
    healthy = (state.diverged_step < 0) & jnp.isfinite(loss) & jnp.isfinite(norm)
    rule = state.recipe.optimizer
    update = in_pieces(update_weights) if rule.elementwise else update_weights
    trained, opt_state = update(rule, Numbers(hparams, norm, healthy), grads, state.opt_state, trained)
    batch_stats = jax.tree.map(lambda new, old: jnp.where(healthy, new, old), batch_stats, state.batch_stats)
    average = _move(state, Average(trained, batch_stats), hparams, healthy)
    diverged_step = jnp.where(healthy | (state.diverged_step >= 0), state.diverged_step, state.step)
    state = dataclasses.replace(
        state,
        step=state.step + 1,
        diverged_step=diverged_step,
        params=join_weights(trained, kept),
        batch_stats=batch_stats,
        opt_state=opt_state,
        average=average,
    )
    return state, sums


def _move(state: TrainState, new: Average, hparams: Hparams, healthy: Bool[Array, ""]) -> Average | None:
    if state.average is None or hparams.ema_decay is None:
        return state.average
    moved = move_average(state.average, new, hparams.ema_decay, state.step == 0)
    return jax.tree.map(lambda new, old: jnp.where(healthy, new, old), moved, state.average)


def predict_step(
    state: TrainState, images: Array, options: Mapping[str, Array] = NO_OPTIONS
) -> Float[Array, "batch classes"]:
    """Returns what the model gives, of classes logits, with dropout off and BN's running statistics.

    Args:
      state: the trial's; where it has averaged weights, they are the model's.
      images: uint8, or floats.
      options: the trial's dynamic ones, as in `Hparams`.
    """
    state = evaluated_state(state)
    model: Any = merge_model(state, _cast(state.params, _dtype(state)))
    model.eval()
    return model(prepare_inputs(images, state.recipe.inputs, _dtype(state)), **options)


def eval_step(state: TrainState, batch: Batch, options: Mapping[str, Array] = NO_OPTIONS) -> Sums:
    """Returns the batch's sums with dropout off and BN's running statistics, without label smoothing."""
    outputs = predict_step(state, batch.images, options)
    return sum_predictions(state.recipe.loss, outputs, batch.labels, batch.mask)


def sum_predictions(
    rule: LossRule, outputs: Any, targets: Array, mask: Float[Array, " batch"] | None, smoothing: Any = 0.0
) -> Sums:
    """Returns the sums over examples that were predicted; those whose `mask` is 0 don't count."""
    if rule == IMAGE_CLASSES:
        return sum_metrics(outputs, targets, cross_entropy(outputs, targets, smoothing), mask)
    return sum_scores(rule, outputs, targets, smoothing, mask)


def training_loss(trained: nnx.State, state: TrainState, hparams: Hparams, batch: Batch):
    """Returns the mean loss of a batch in training mode; beside it its sums and the new statistics.

    Args:
      trained: the weights; those of frozen modules are the state's.
      state: the trial's.
      hparams: the trial's.
      batch: examples.
    """
    dtype, frozen = _dtype(state), state.recipe.frozen
    _, kept = split_weights(state.params, frozen)
    model = merge_model(state, _cast(join_weights(trained, kept), dtype))
    model.train()
    hold_statistics(model, frozen)
    key = jax.random.fold_in(purpose_key(hparams.seed, "dropout"), state.step)
    nnx.reseed(model, default=key, dropout=key)
    arguments = {"mask": batch.mask, "dropout_rate": hparams.dropout_rate, "rngs": nnx.Rngs(dropout=key)}
    arguments |= hparams.options
    accepted = {k: v for k, v in arguments.items() if k in state.recipe.accepts and v is not None}
    recipe = state.recipe
    outputs = model(prepare_inputs(batch.images, recipe.inputs, dtype), **accepted)
    sums = sum_predictions(recipe.loss, outputs, batch.labels, batch.mask, hparams.label_smoothing)
    _, _, _, batch_stats = nnx.split(model, nnx.Param, nnx.RngState, ...)
    batch_stats = jax.tree.map(lambda new, old: new.astype(old.dtype), batch_stats, state.batch_stats)
    return mean_loss(sums), (sums, keep_frozen(batch_stats, state.batch_stats, frozen))


def _dtype(state: TrainState):
    return jnp.dtype(state.recipe.precision)


def _cast(params: nnx.State, dtype) -> nnx.State:
    return params if dtype == jnp.float32 else jax.tree.map(lambda x: x.astype(dtype), params)
