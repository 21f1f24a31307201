"""Hyperparameters that are swept and have no effect, found by tracing what the sweep's programs read.

It errs on one side: what can't be shown to have no effect has one.
"""

import dataclasses
import functools
import inspect
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.extend.core import Jaxpr, Var

from hpjax.config.fields import Config
from hpjax.config.hyperparameters import HYPERPARAMETERS, apply_hyperparameters, option_of
from hpjax.config.user_files import is_own
from hpjax.data.dataset import Dataset
from hpjax.errors import UserCodeError
from hpjax.lanes.group import (
    create_group_recipe,
    example_shapes,
    fit_batch_size,
    model_arguments,
    optimizer_rule,
    trial_hparams,
)
from hpjax.lanes.own_optimizer import load_optimizer
from hpjax.models.registry import MODEL_NAMES, create_model, find_model_class
from hpjax.search.axis import Axis
from hpjax.search.space import Space
from hpjax.train.hparams import Hparams, create_hparams, name_numbers
from hpjax.train.optimizer import OptimizerRule, make_optimizer
from hpjax.train.state import create_state, init_rngs
from hpjax.train.step import Batch, predict_step, training_loss
from hpjax.train.update import Numbers, update_weights

Load = Callable[[Config], Dataset]
MOST_TRIED = 24  # settings of the others for one hyperparameter; with more, nothing is said of it


class Idle(NamedTuple):
    """A hyperparameter that is swept and has no effect.

    Attributes:
      name: the hyperparameter's.
      where: the values of others with which it has none, by name; empty: with all.
      why: in a few words.
    """

    name: str
    where: Mapping[str, tuple]
    why: str

    def __str__(self) -> str:
        others = " and ".join(f"{name}={'|'.join(map(str, v))}" for name, v in self.where.items())
        return f"{self.name} has no effect{others and f' with {others}'}: {self.why}"


def find_idle(config: Config, space: Space, load: Load) -> list[Idle]:
    """Returns the axes of a space, of more values than one, that have no effect anywhere or in a part of it.

    Args:
      config: the sweep's.
      space: what is searched.
      load: returns the data set of a trial's configuration.

    Raises:
      HpjaxError: A setting doesn't go with the data, or a model of the user's own fails.
    """
    swept = {axis.name for axis in space.axes}
    found = (_look_at(axis, config, space, load, swept) for axis in space.axes)
    return [idle for idle in found if idle is not None]


class _Question(NamedTuple):
    """How it is found out whether a hyperparameter has an effect."""

    others: tuple[str, ...]  # the hyperparameters that decide it
    # Of its name, trials that differ in it, what loads their data, and all hyperparameters that are swept.
    has_effect: Callable[[str, list[Config], Load, set[str]], bool]
    why: Callable[[Config], str]


def _look_at(axis: Axis, config: Config, space: Space, load: Load, swept: set[str]) -> Idle | None:
    question = _QUESTIONS.get(axis.name)
    if option_of(axis.name):
        question = _LOSS_NUMBER if axis.dynamic else _NETWORK
    values = axis.choices or (axis.low, axis.high)
    if question is None or len(values) < 2:
        return None
    options = [other for other in space.axes if option_of(other.name)] if "model" in question.others else []
    if any(not other.choices and not other.dynamic for other in options):
        return None  # what a network of a value between the ends reads can't be shown
    deciding = _find_deciding(space, axis, (*question.others, *(other.name for other in options)))
    if math.prod(a.count for a in deciding) > MOST_TRIED:
        return None
    settings = [s for s in Space(deciding).grid() if axis.applies(s)]
    idle, others = [], []
    for setting in settings:
        allowed = [{**setting, axis.name: value} for value in values]
        if space.constraint:
            allowed = [tried for tried in allowed if space.find(tried) is not None]
        if len(allowed) < 2:
            continue
        trials = [apply_hyperparameters(config, tried) for tried in allowed]
        (others if _has_effect(question, axis.name, trials, load, swept) else idle).append(setting)
    if not idle:
        return None
    where = _tell_apart(idle, others)
    why = question.why(apply_hyperparameters(config, idle[0]))
    return None if where is None else Idle(axis.name, where, why)


def _has_effect(question: _Question, name: str, trials: list[Config], load: Load, swept: set[str]) -> bool:
    try:
        return question.has_effect(name, trials, load, swept)
    except UserCodeError:
        if not any(is_own(trial.optimizer.name) for trial in trials):
            raise
        return True  # what it does to weights that aren't its network's can't be shown


def _find_deciding(space: Space, axis: Axis, names: Sequence[str]) -> tuple[Axis, ...]:
    """Returns choices of the hyperparameters that decide about an axis, and of those that these depend on."""
    axes = {a.name: a for a in space.axes}
    wanted, waiting = {axis.name}, [*(name for name in names if name in axes), *axis.when]
    while waiting:
        if (name := waiting.pop()) not in wanted:
            wanted.add(name)
            waiting += axes[name].when
    conditions = [a.when for a in space.axes if a.name in wanted]
    return tuple(_list_values(a, conditions) for a in space.axes if a.name in wanted - {axis.name})


def _list_values(axis: Axis, conditions: Sequence[Mapping[str, tuple]]) -> Axis:
    """Returns an axis of all choices; of a range, of its ends and what conditions ask for."""
    if axis.choices:
        return axis
    asked = [value for when in conditions for value in when.get(axis.name, ())]
    ends = [axis.low, axis.high, *(value for value in asked if axis.low <= value <= axis.high)]
    return dataclasses.replace(axis, choices=tuple(dict.fromkeys(ends)))


def _tell_apart(idle: list[dict], others: list[dict]) -> dict[str, tuple] | None:
    """Returns values of a hyperparameter that all idle settings have and no other one; None: of none."""
    if not others:
        return {}
    for name in dict.fromkeys(itertools.chain.from_iterable(idle)):
        values = dict.fromkeys(setting.get(name) for setting in idle)
        if None not in values and not any(setting.get(name) in values for setting in others):
            return {name: tuple(values)}
    return None


# What a program does with a number: it is read, or dead.


def _optimizer_reads(name: str, trials: list[Config], load: Load, swept: set[str]) -> bool:
    optimizer = trials[0].optimizer.name
    update, arguments = _make_update(OptimizerRule(optimizer, own=load_optimizer(optimizer)))
    return name in list_read(jax.make_jaxpr(update)(*arguments).jaxpr)


def _loss_reads(name: str, trials: list[Config], load: Load, swept: set[str]) -> bool:
    """Whether the loss depends on a number, and so its gradients."""
    config = trials[0]
    dataset = load(config)
    arguments = model_arguments(config, dataset)
    create = lambda: create_model(rngs=init_rngs(0), **arguments)  # noqa: E731
    recipe = create_group_recipe(config, dataset, nnx.eval_shape(create))
    hparams = trial_hparams(config, 0)
    state = jax.eval_shape(lambda: create_state(create(), recipe, hparams))
    num = fit_batch_size(config.train.batch_size, len(dataset.train))
    images, labels, mask = example_shapes(dataset, num)

    def loss(hparams: Hparams, state: Any, images: Any, labels: Any, mask: Any) -> Any:
        batches = (Batch(images, labels, None), Batch(images, labels, mask))
        return [training_loss(state.params, state, hparams, batch) for batch in batches]

    jaxpr = jax.make_jaxpr(loss)(hparams, state, images, labels, mask).jaxpr
    return (option_of(name) or name) in list_read(jaxpr, hparams)


def list_read(jaxpr: Jaxpr, hparams: Hparams | None = None) -> set[str]:
    """Returns which hyperparameters the outputs of a program depend on.

    Args:
      jaxpr: the program's; its first inputs are `Hparams`.
      hparams: those that it was traced with; None: those that are in every program.
    """
    read = _find_read(jaxpr, [True] * len(jaxpr.outvars))
    names = name_numbers(create_hparams() if hparams is None else hparams)
    return {name for name, is_read in zip(names, read, strict=False) if is_read}


def _find_read(jaxpr: Jaxpr, wanted: Sequence[bool]) -> list[bool]:
    """Returns which inputs the wanted outputs may depend on."""
    needed = {v for v, want in zip(jaxpr.outvars, wanted, strict=True) if want and isinstance(v, Var)}
    for equation in reversed(jaxpr.eqns):
        outputs = [v in needed for v in equation.outvars]
        if any(outputs) or equation.effects:
            needed |= {v for v in _list_needed(equation, outputs) if isinstance(v, Var)}
    return [v in needed for v in jaxpr.invars]


def _list_needed(equation: Any, outputs: Sequence[bool]) -> Iterator[Any]:
    """Yields what an equation reads for its wanted outputs: all it is given, if it is no function call."""
    inside = equation.params.get("jaxpr") if equation.primitive.name in ("jit", "pjit") else None
    if inside is None or equation.effects:
        yield from equation.invars
    else:
        read = _find_read(inside.jaxpr, outputs)
        yield from (v for v, is_read in zip(equation.invars, read, strict=True) if is_read)


# What is compiled for a value: the same as for another one, or something else.


def _optimizer_differs(name: str, trials: list[Config], load: Load, swept: set[str]) -> bool:
    decays = "weight_decay" in swept or trials[0].optimizer.weight_decay > 0
    rules = [optimizer_rule(trial, len(load(trial).train)) for trial in trials]
    if not decays:  # what is added to the gradient or takes from the weights is 0
        rules = [
            dataclasses.replace(rule, weight_decay_mode="coupled", weight_decay_on="all") for rule in rules
        ]
    return len(set(map(_lower_update, rules))) > 1


@functools.lru_cache(maxsize=64)
def _lower_update(rule: OptimizerRule) -> str:
    """Returns the rule's update as the compiler gets it."""
    update, arguments = _make_update(rule)
    return jax.jit(update).lower(*arguments).as_text()


def _make_update(rule: OptimizerRule) -> tuple[Callable[..., Any], tuple]:
    """Returns the rule's update and arguments to try it with: it is the same for weights of any shape.

    Raises:
      UserCodeError: One of the user's own asks for its own network's weights.
    """
    numbers = Numbers(create_hparams(), np.float32(1), np.bool_(True))  # type: ignore[arg-type]
    weights = {"bias": jnp.zeros(3), "kernel": jnp.zeros((2, 3))}
    moments = make_optimizer(rule, numbers.hparams).init(weights)

    def update(numbers: Numbers, grads: Any, moments: Any, weights: Any) -> Any:
        return update_weights(rule, numbers, grads, moments, weights)

    return update, (numbers, weights, moments, weights)


def _batches_differ(name: str, trials: list[Config], load: Load, swept: set[str]) -> bool:
    sizes = {fit_batch_size(trial.train.batch_size, len(load(trial).train)) for trial in trials}
    return len(sizes) > 1


def _network_differs(name: str, trials: list[Config], load: Load, swept: set[str]) -> bool:
    """Whether networks differ: in their structure, or, of a class of the user's own, in their programs."""
    parameters = inspect.signature(find_model_class(trials[0].model.name).__init__).parameters
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    taken = option_of(name) or HYPERPARAMETERS[name].key.partition(".")[2]
    if not takes_all and taken not in parameters:
        return False
    if trials[0].model.name in MODEL_NAMES:
        networks = (_describe_network(model_arguments(trial, load(trial))) for trial in trials)
    else:
        networks = (_lower_network(trial, load(trial)) for trial in trials)
    return any(a != b for a, b in itertools.pairwise(networks))


def _lower_network(config: Config, dataset: Dataset) -> tuple[str, str, str]:
    """Returns how a network begins, what training lowers and what it predicts, as the compiler gets them."""
    arguments = model_arguments(config, dataset)
    create = lambda seed: create_model(rngs=init_rngs(seed), **arguments)  # noqa: E731
    recipe = create_group_recipe(config, dataset, nnx.eval_shape(lambda: create(0)))
    num = fit_batch_size(config.train.batch_size, len(dataset.train))
    hparams, batch = trial_hparams(config, 0), Batch(*example_shapes(dataset, num))
    init = lambda hparams: create_state(create(hparams.seed), recipe, hparams)  # noqa: E731
    state = jax.eval_shape(init, hparams)
    loss = lambda state, hparams, batch: training_loss(state.params, state, hparams, batch)  # noqa: E731
    return (
        jax.jit(init).lower(hparams).as_text(),
        jax.jit(loss).lower(state, hparams, batch).as_text(),
        jax.jit(predict_step).lower(state, batch.images, hparams.options).as_text(),
    )


def _describe_network(arguments: dict[str, Any]) -> tuple[nnx.GraphDef, Any]:
    """Returns a built-in network's structure, which has all that its program depends on, and its shapes."""
    model = nnx.eval_shape(lambda: create_model(rngs=init_rngs(0), **arguments))
    structure, state = nnx.split(model)
    return structure, jax.tree.map(lambda x: (x.shape, x.dtype), nnx.to_pure_dict(state))


_OPTIMIZER_NUMBER = _Question(
    ("optimizer",), _optimizer_reads, lambda config: f"optimizer {config.optimizer.name} doesn't read it"
)
_LOSS_NUMBER = _Question(
    ("model", "image_size"), _loss_reads, lambda config: f"{config.model.name} doesn't read it"
)
_NETWORK = _Question(
    ("model", "image_size", "kernel_width", "padding"),
    _network_differs,
    lambda config: f"{config.model.name} is the same with each value",
)
_MODE = _Question(
    ("optimizer",),
    _optimizer_differs,
    lambda config: f"optimizer {config.optimizer.name} does the same with each value",
)
_RATE = _Question(
    ("schedule", "warmup_fraction", "epochs", "batch_size"),
    _optimizer_differs,
    lambda config: "the learning rate is the same with each value",
)
_QUESTIONS = {
    **dict.fromkeys(
        ("learning_rate", "weight_decay", "momentum", "b1", "b2", "eps", "clip_norm"), _OPTIMIZER_NUMBER
    ),
    **dict.fromkeys(("dropout_rate", "label_smoothing"), _LOSS_NUMBER),
    **dict.fromkeys(("kernel_width", "padding"), _NETWORK),
    **dict.fromkeys(("schedule", "warmup_fraction"), _RATE),
    **dict.fromkeys(("weight_decay_mode", "weight_decay_on"), _MODE),
    "batch_size": _Question((), _batches_differ, lambda config: "a step takes all images with each value"),
}
