"""From a configuration to what is compiled: the program and the task of a group of trials."""

from typing import Any

import jax
from flax import nnx

from hpjax.config.fields import Config
from hpjax.config.user_files import absolute_name
from hpjax.data.augment import make_augment
from hpjax.data.batches import residency
from hpjax.data.dataset import Dataset, Split
from hpjax.errors import ConfigError
from hpjax.lanes.engine import Engine, Layout
from hpjax.lanes.memory_left import total_bytes
from hpjax.lanes.program import Program
from hpjax.lanes.task import Task
from hpjax.models.registry import create_model
from hpjax.models.torch_weights import from_torch, load_state_dict
from hpjax.train.hparams import Hparams, create_hparams
from hpjax.train.metrics import Sums
from hpjax.train.optimizer import OptimizerRule
from hpjax.train.state import TrainState, create_recipe, create_state, init_rngs


def create_task(config: Config, dataset: Dataset, test_each_epoch: bool) -> Task:
    """Returns the group's task.

    Args:
      config: any trial's of the group.
      dataset: what is learned.
      test_each_epoch: whether the test split lies on the device too.

    Raises:
      ConfigError: The batch is larger than the training split.
    """
    check_batch_size(config.train.batch_size, dataset)
    evaluated = {} if dataset.validation is None else {"validation": dataset.validation}
    if test_each_epoch:
        evaluated["test"] = dataset.test
    return Task(
        dataset.train,
        evaluated,
        config.train.batch_size,
        config.data.remainder == "pad",
        streamed=_is_streamed(config, [dataset.train, *evaluated.values()]),
    )


def check_batch_size(batch_size: int, dataset: Dataset) -> None:
    """Raises ConfigError where a batch is larger than the training split."""
    if batch_size > (num := len(dataset.train)):
        allowed = f"at most the {num} training images of {dataset.name}"
        raise ConfigError("train.batch_size", batch_size, allowed)


def _is_streamed(config: Config, splits: list[Split]) -> bool:
    num_bytes = sum(split.images.nbytes for split in splits)
    # All memory that there is, not what is free now: the same sweep is streamed, or not, whenever it is run.
    limit = (jax.devices()[0].memory_stats() or {}).get("bytes_limit") or total_bytes()
    return residency(config.data, num_bytes, limit) == "stream"


def create_program(config: Config, dataset: Dataset) -> Program:
    """Returns the compiled functions of the group that `config` belongs to."""
    create = model_factory(config, dataset)
    model = nnx.eval_shape(lambda: create(init_rngs(0)))
    recipe = create_recipe(model, optimizer_rule(config, len(dataset.train)), config.train.precision)
    loaded = _loaded_weights(config, create)

    def init(hparams: Hparams) -> TrainState:
        state = create_state(create(init_rngs(hparams.seed)), recipe, hparams)
        return _overlay(state, loaded)

    name = config.data.augment
    augment = None if name == "none" else make_augment(name)
    return Program(recipe, init, augment)


def model_factory(config: Config, dataset: Dataset):
    """Returns `create(rngs)`, which builds the configured model with fresh weights."""
    arguments = model_arguments(config, dataset)
    return lambda rngs: create_model(rngs=rngs, **arguments)


def model_arguments(config: Config, dataset: Dataset) -> dict[str, Any]:
    """Returns what `create_model` needs besides `rngs`, as JSON values."""
    return {
        "name": absolute_name(config.model.name),
        "num_classes": len(dataset.classes),
        "image_size": dataset.train.images.shape[1],
        "kernel_widths": list(config.model.kernel_widths),
        "padding": config.model.padding,
    }


def optimizer_rule(config: Config, num_examples: int) -> OptimizerRule:
    """Returns the static half of the optimizer, its schedule stretched over all of a trial's steps."""
    full, rest = divmod(num_examples, config.train.batch_size)
    steps = full + bool(rest and config.data.remainder == "pad")
    o = config.optimizer
    return OptimizerRule(
        o.name, o.weight_decay_mode, o.schedule, o.warmup_fraction, steps * config.train.epochs
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
    )


def _loaded_weights(config: Config, create) -> dict[str, jax.Array]:
    """Returns the leaves that `model.pretrained` determines: those on which two seeds agree after loading."""
    if not config.model.pretrained:
        return {}
    state_dict = load_state_dict(config.model.pretrained)
    leaves = [_named_leaves(from_torch(create(init_rngs(seed)), state_dict)) for seed in (0, 1)]
    return {name: a for name, a in leaves[0].items() if bool((a == leaves[1][name]).all())}


def _named_leaves(model: nnx.Module) -> dict[str, jax.Array]:
    _, params, _, batch_stats = nnx.split(model, nnx.Param, nnx.RngState, ...)
    return {**_flat(params), **_flat(batch_stats)}


def _flat(tree) -> dict[str, jax.Array]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def _overlay(state: TrainState, loaded: dict[str, jax.Array]) -> TrainState:
    if not loaded:
        return state
    replace = lambda path, leaf: loaded.get(jax.tree_util.keystr(path), leaf)  # noqa: E731
    params = jax.tree_util.tree_map_with_path(replace, state.params)
    batch_stats = jax.tree_util.tree_map_with_path(replace, state.batch_stats)
    return TrainState(
        state.step, state.diverged_step, params, batch_stats, state.rng, state.opt_state, state.recipe
    )


def evaluate_weights(config: Config, dataset: Dataset, weights: dict[str, Any], seed: int) -> Sums:
    """Returns the sums over the test split of weights as `Engine.weights` gave them."""
    task = create_task(config, dataset, test_each_epoch=True)
    hparams = trial_hparams(config, seed)
    engine = Engine(create_program(config, dataset), task, hparams, 1, Layout(1))
    engine.load_weights(0, weights)
    return jax.tree.map(lambda x: x[0], engine.evaluate("test"))
