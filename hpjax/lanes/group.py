"""From a configuration to what is compiled: the program and the task of a group of trials."""

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx

from hpjax.config.fields import Config
from hpjax.config.hyperparameters import is_used
from hpjax.config.user_files import absolute_name, is_own
from hpjax.data.batches import residency
from hpjax.data.dataset import Dataset, Split
from hpjax.errors import ConfigError
from hpjax.lanes.memory_left import total_bytes
from hpjax.lanes.own_optimizer import load_optimizer
from hpjax.lanes.program import Program
from hpjax.lanes.rules import create_augment, create_input_rule, create_loss_rule
from hpjax.lanes.task import Task
from hpjax.models.modules import check_frozen, find_head
from hpjax.models.options import dynamic_values
from hpjax.models.registry import MODEL_NAMES, create_model, describe_inputs, find_model_class
from hpjax.models.torch_weights import match_weights
from hpjax.train.evaluate import evaluate, make_restore, predict
from hpjax.train.hparams import Hparams, create_hparams
from hpjax.train.inputs import InputRule
from hpjax.train.loss import LossRule
from hpjax.train.metrics import Sums
from hpjax.train.optimizer import OptimizerRule
from hpjax.train.state import Recipe, TrainState, create_recipe, create_state, init_rngs

LEAST_BATCH = 2  # batch norm compares images with each other


def create_task(config: Config, dataset: Dataset, test_each_epoch: bool) -> Task:
    """Returns the group's task.

    Args:
      config: any trial's of the group.
      dataset: what is learned.
      test_each_epoch: whether the test split lies on the device too.

    Raises:
      ConfigError: There are too few training images for any batch.
    """
    batch_size = fit_batch_size(config.train.batch_size, len(dataset.train))
    evaluated = {} if dataset.validation is None else {"validation": dataset.validation}
    if test_each_epoch:
        evaluated["test"] = dataset.test
    return Task(
        dataset.train,
        evaluated,
        batch_size,
        config.data.remainder == "pad",
        streamed=is_streamed(config, [dataset.train, *evaluated.values()], _memory_limit()),
    )


def fit_batch_size(batch_size: int, num_examples: int) -> int:
    """Returns how many images a step takes: all of them where a batch is larger than the data.

    Raises:
      ConfigError: There are too few images for any batch.
    """
    if num_examples < LEAST_BATCH:
        allowed = f"at least {LEAST_BATCH} training images to take it from, not {num_examples}"
        raise ConfigError("train.batch_size", batch_size, allowed)
    return min(batch_size, num_examples)


def is_streamed(config: Config, splits: list[Split], limit: int) -> bool:
    """Returns whether training images stay with the host, of a device that has `limit` bytes."""
    return residency(config.data, sum(split.images.nbytes for split in splits), limit) == "stream"


def _memory_limit() -> int:
    # All memory that there is, not what is free now: the same sweep is streamed, or not, whenever it is run.
    return (jax.devices()[0].memory_stats() or {}).get("bytes_limit") or total_bytes()


def create_program(config: Config, dataset: Dataset) -> Program:
    """Returns the compiled functions of the group that `config` belongs to."""
    create = model_factory(config, dataset)
    model = nnx.eval_shape(lambda: create(init_rngs(0)))
    recipe = create_group_recipe(config, dataset, model)
    pretrained = match_weights(model, config.model.pretrained) if config.model.pretrained else nnx.State({})

    def init(hparams: Hparams) -> TrainState:
        model = create(init_rngs(hparams.seed))
        nnx.update(model, pretrained)
        return create_state(model, recipe, hparams)

    # A network of the user's may pool with XLA's own operations.
    same_bits = config.model.name in MODEL_NAMES
    return Program(recipe, init, create_augment(config, dataset), same_bits)


def create_group_recipe(config: Config, dataset: Dataset, model: nnx.Module) -> Recipe:
    """Returns what shapes the program of the group that `config` belongs to, with the model's structure.

    Raises:
      ConfigError: A module that is frozen, or the head, isn't there.
    """
    rules = create_loss_rule(config, dataset), create_input_rule(config, dataset)
    frozen = check_frozen(model, config.model.freeze)
    optimizer = optimizer_rule(config, len(dataset.train))
    if "warmup_fraction" in config.sweep.space:  # each lane has its own
        optimizer = dataclasses.replace(optimizer, warmup_fraction=0.0)
    if is_used(config, "head_factor"):
        optimizer = dataclasses.replace(optimizer, head=_find_head(config, dataset, frozen))
    return create_recipe(model, optimizer, config.train.precision, *rules, frozen)


def _find_head(config: Config, dataset: Dataset, frozen: tuple[str, ...]) -> str:
    create, name = model_factory(config, dataset), config.model.name
    head = find_head(name, lambda: create(init_rngs(0)), dataset.num_outputs)
    if head in frozen:
        allowed = f"modules without {head}, the head, which optimizer.head_factor is about"
        raise ConfigError("model.freeze", config.model.freeze, allowed)
    return head


def model_factory(config: Config, dataset: Dataset):
    """Returns `create(rngs)`, which builds the configured model with fresh weights."""
    arguments = model_arguments(config, dataset)
    return lambda rngs: create_model(rngs=rngs, **arguments)


def model_arguments(config: Config, dataset: Dataset) -> dict[str, Any]:
    """Returns what `create_model` needs besides `rngs`, as JSON values."""
    return {
        "name": absolute_name(config.model.name),
        "num_classes": dataset.num_outputs,
        **describe_inputs(dataset.input_shape),
        "kernel_widths": list(config.model.kernel_widths),
        "padding": config.model.padding,
        "options": dict(config.model.options),
    }


def example_shapes(dataset: Dataset, num: int) -> tuple[Any, Any, Any]:
    """Returns shapes and types of so many inputs, targets and masks of a batch."""
    images, labels = dataset.train.images, dataset.train.labels
    return (
        jax.ShapeDtypeStruct((num, *images.shape[1:]), images.dtype),
        jax.ShapeDtypeStruct((num, *labels.shape[1:]), labels.dtype),
        jax.ShapeDtypeStruct((num,), np.float32),
    )


def optimizer_rule(config: Config, num_examples: int) -> OptimizerRule:
    """Returns the static half of the optimizer, its schedule stretched over all of a trial's steps.

    Raises:
      ConfigError: There is no such function of the user's own, or decay is to be kept from some weights.
      UserCodeError: The user's file can't be imported.
    """
    full, rest = divmod(num_examples, fit_batch_size(config.train.batch_size, num_examples))
    steps = full + bool(rest and config.data.remainder == "pad")
    o = config.optimizer
    if o.weight_decay_on != "all" and is_own(o.name):
        allowed = f"all with optimizer.name={o.name!r}, which decays by itself"
        raise ConfigError("optimizer.weight_decay_on", o.weight_decay_on, allowed)
    total = steps * config.train.epochs
    return OptimizerRule(
        o.name,
        o.weight_decay_mode,
        o.schedule,
        o.warmup_fraction,
        total,
        o.weight_decay_on,
        own=load_optimizer(o.name),
    )


def trial_hparams(config: Config, seed: int) -> Hparams:
    """Returns the dynamic hyperparameters of a trial."""
    o, t = config.optimizer, config.train
    return create_hparams(
        learning_rate=o.learning_rate,
        weight_decay=o.weight_decay,
        momentum=o.momentum,
        b1=o.b1,
        b2=o.b2,
        eps=o.eps,
        clip_norm=o.clip_norm,
        label_smoothing=t.label_smoothing,
        dropout_rate=t.dropout_rate,
        seed=seed,
        head_factor=o.head_factor if is_used(config, "head_factor") else None,
        warmup_fraction=o.warmup_fraction if "warmup_fraction" in config.sweep.space else None,
        ema_decay=o.ema_decay if is_used(config, "ema_decay") else None,
        options=dynamic_values(find_model_class(config.model.name), config.model.options),
    )


def evaluate_weights(config: Config, dataset: Dataset, weights: dict[str, Any], seed: int) -> Sums:
    """Returns the sums over the test split of weights as `Engine.weights` gave them.

    Raises:
      CheckpointError: The weights are another model's.
    """
    state, dynamic = _restore(config, dataset, weights, seed)
    return evaluate(state, dataset.test.images, dataset.test.labels, options=dynamic)


def predict_weights(config: Config, dataset: Dataset, weights: dict[str, Any], seed: int) -> np.ndarray:
    """Returns the logits of the test split, `[examples, classes]`; arguments as of `evaluate_weights`."""
    state, dynamic = _restore(config, dataset, weights, seed)
    return predict(state, dataset.test.images, options=dynamic)


def _restore(
    config: Config, dataset: Dataset, weights: dict[str, Any], seed: int
) -> tuple[TrainState, Mapping[str, float]]:
    """Returns a trained model, and the numbers inside its program."""
    arguments = model_arguments(config, dataset)
    model_class = find_model_class(arguments["name"])
    dynamic = dynamic_values(model_class, arguments["options"])
    # What is a number inside the program shapes no model: all trials of a setting share what is compiled.
    arguments["options"] = {k: v for k, v in arguments["options"].items() if k not in dynamic}
    rules = create_loss_rule(config, dataset), create_input_rule(config, dataset)
    restore = _restore_of(model_class, config.train.precision, json.dumps(arguments), *rules)
    return restore(weights, seed), dynamic


@functools.lru_cache(maxsize=8)
def _restore_of(
    model_class: type, precision: str, arguments: str, loss: LossRule, inputs: InputRule
) -> Callable[..., TrainState]:
    del model_class  # a part of the key: a user's file may change under its name
    return make_restore(
        lambda rngs: create_model(rngs=rngs, **json.loads(arguments)), precision, loss, inputs
    )
