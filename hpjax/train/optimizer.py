"""Optimizers from optax, every number of which is a traced scalar."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree

from hpjax.errors import ConfigError
from hpjax.ops.sums import square_sum
from hpjax.train.hparams import Hparams, Scalar
from hpjax.train.weights import is_within, name_weights

WEIGHT_DECAY_MODES = ("coupled", "decoupled")
DECAYED = ("all", "kernels")
# What an optimizer of the user's own is given by name; the learning rate is that of the step.
OWN_NUMBERS = ("learning_rate", "weight_decay", "momentum", "b1", "b2", "eps")
ALWAYS_DECOUPLED = ("adamw", "lamb", "lion")
ELEMENTWISE = ("sgd", "momentum", "nesterov", "adam", "adamw", "lion", "rmsprop")


class Role(NamedTuple):
    """How a weight is told apart from others.

    Attributes:
      head: whether it is the head's, which has a learning rate of its own.
      decays: whether weight decay applies to it.
    """

    head: bool
    decays: bool


@dataclass(frozen=True)
class OptimizerRule:
    """The static half of an optimizer: what it does, not how strongly.

    `adamw`, `lamb` and `lion` are decoupled by definition, whatever `weight_decay_mode` says.
    """

    name: str = "adam"
    weight_decay_mode: str = "coupled"  # coupled: decay joins the gradient; decoupled: it shrinks the weights
    schedule: str = "constant"
    warmup_fraction: float = 0.0  # share of total_steps with a linear warm-up, in [0, 1)
    total_steps: int = 1  # over which the schedule is stretched
    weight_decay_on: str = "all"  # kernels: not biases, nor weights of one axis
    head: str = ""  # the module that `Hparams.head_factor` is about; empty where it isn't used
    role: Role | None = None  # of the only weight that there is; None: as its name and its axes say
    own: Callable[..., optax.GradientTransformation] | None = None  # the user's, where `name` is its own

    def __post_init__(self):
        """Raises ConfigError for a name that doesn't exist."""
        if self.own is None:
            _check_choice("optimizer.name", self.name, OPTIMIZER_NAMES)
        _check_choice("optimizer.weight_decay_mode", self.weight_decay_mode, WEIGHT_DECAY_MODES)
        _check_choice("optimizer.weight_decay_on", self.weight_decay_on, DECAYED)
        _check_choice("optimizer.schedule", self.schedule, SCHEDULE_NAMES)
        if not 0 <= self.warmup_fraction < 1:
            raise ConfigError("optimizer.warmup_fraction", self.warmup_fraction, "a number in [0, 1)")

    @property
    def decoupled(self) -> bool:
        """Whether weight decay bypasses the gradient's moments."""
        return self.name in ALWAYS_DECOUPLED or self.weight_decay_mode == "decoupled"

    @property
    def elementwise(self) -> bool:
        """Whether each number's update follows from its own gradient, once the gradients' norm is known."""
        return self.own is None and self.name in ELEMENTWISE

    def roles(self, params: PyTree) -> list[Role]:
        """Returns the role of each weight, in the order of the tree's leaves."""
        leaves = jax.tree.leaves(params)
        if self.role is not None:
            return [self.role] * len(leaves)
        heads = (self.head,) if self.head else ()
        return [
            Role(is_within(name, heads), self.weight_decay_on == "all" or _is_kernel(name, leaf))
            for name, leaf in zip(name_weights(params), leaves, strict=True)
        ]

    def for_each(self, params: PyTree) -> list["OptimizerRule"]:
        """Returns the rule of each weight by itself: one that knows its role, where there are several."""
        if not self.head and self.weight_decay_on == "all":
            return [self] * len(jax.tree.leaves(params))
        return [dataclasses.replace(self, role=role) for role in self.roles(params)]


def make_optimizer(
    rule: OptimizerRule, hparams: Hparams, norm: Float[Array, ""] | None = None
) -> optax.GradientTransformation:
    """Returns the optimizer; make it inside the traced function, from one trial's scalars.

    In order: the gradient is clipped to `clip_norm`, coupled decay is added, the rule is applied,
    decoupled decay is added, and the result is scaled by the learning rate at this step. So `sgd`,
    `momentum`, `nesterov`, `adam`, `adamw` and `rmsprop` follow PyTorch's definitions. `rmsprop` decays
    its mean square by `b2` (PyTorch's `alpha`) and uses `momentum`; `adafactor` uses none of `momentum`,
    `b1`, `b2` and `eps`. An optimizer of the user's own is given clipped gradients, and decays by itself.
    `head_factor` multiplies the head's learning rate, and so its decoupled decay, as
    in a parameter group of PyTorch's.

    Args:
      rule: what it does.
      hparams: how strongly; every field can be traced.
      norm: the gradients' global norm where it is known already; else clipping measures it.
    """
    head = [] if hparams.head_factor is None else [_scale_head(rule, hparams.head_factor)]
    if rule.own is not None:
        chain = optax.chain(clip_by_global_norm(hparams.clip_norm, norm), _create_own(rule, hparams), *head)
        return optax.GradientTransformation(chain.init, _promoting(chain.update))
    decay = _add_decay(rule, hparams.weight_decay)
    after = [decay] if rule.decoupled else []
    if rule.name == "lamb":
        after.append(optax.scale_by_trust_ratio())
    chain = optax.chain(
        clip_by_global_norm(hparams.clip_norm, norm),
        *([] if rule.decoupled else [decay]),
        *_DIRECTIONS[rule.name](hparams),
        *after,
        _scale_by_learning_rate(rule, hparams.learning_rate, hparams.warmup_fraction),
        *head,
    )
    return optax.GradientTransformation(chain.init, _promoting(chain.update))


def clip_by_global_norm(
    max_norm: Scalar | float, norm: Float[Array, ""] | None = None
) -> optax.GradientTransformation:
    """Returns a transformation that scales gradients down to a global norm of `max_norm`.

    Unlike optax's own, `max_norm` can be traced, and 0 leaves gradients as they are. `norm` is the gradients'
    own where it is known already.
    """

    def update(updates, state, params=None):
        del params
        factor = _clip_factor(global_norm(updates) if norm is None else norm, max_norm)
        return jax.tree.map(lambda g: g * factor.astype(g.dtype), updates), state

    return optax.GradientTransformation(optax.init_empty_state, update)


def global_norm(grads: PyTree) -> Float[Array, ""]:
    """Returns the norm of all gradients as one vector; not finite where one of them isn't."""
    return jnp.sqrt(sum(map(square_sum, jax.tree.leaves(grads))))


def make_schedule(rule: OptimizerRule, warmup_fraction: Scalar | None = None) -> optax.Schedule:
    """Returns `factor(step)` in [0, 1], by which the learning rate is multiplied; steps count from 0.

    Warm-up rises linearly and reaches 1 at its last step; `cosine` and `linear` then fall to 0 at
    `total_steps`. The factor is the same for all trials, so that their learning rates can be traced.

    Args:
      rule: what it does.
      warmup_fraction: instead of the rule's; can be traced.
    """
    if warmup_fraction is not None:
        return _make_own_schedule(rule, warmup_fraction)
    # As a traced one is rounded: a lane's own fraction means as many steps as the same one of all lanes.
    warmup = int(np.round(np.float32(rule.warmup_fraction) * np.float32(rule.total_steps)))
    rest = max(rule.total_steps - warmup, 1)
    after = _SCHEDULES[rule.schedule](rest)
    rise = optax.linear_schedule(0.0, 1.0, max(warmup, 1))
    factor = optax.join_schedules([lambda step: rise(step + 1), after], [warmup])
    return lambda step: factor(jnp.asarray(step, jnp.float32))


def _make_own_schedule(rule: OptimizerRule, warmup_fraction: Scalar) -> optax.Schedule:
    """Returns the factor where the number of steps of the warm-up is traced, which optax's own can't take."""
    total = jnp.asarray(rule.total_steps, jnp.float32)
    warmup = jnp.round(warmup_fraction * total)
    after = _SCHEDULES[rule.schedule](1)  # over one unit, of which so much has passed

    def factor(step: Any) -> Array:
        step = jnp.asarray(step, jnp.float32)
        passed = jnp.clip((step - warmup) / jnp.maximum(total - warmup, 1), 0, 1)
        return jnp.where(step < warmup, (step + 1) / jnp.maximum(warmup, 1), after(passed))

    return factor


def _promoting(update: Callable[..., Any]) -> Callable[..., Any]:
    """Returns `update` with jax's usual promotion: optax raises floats to its int32 count of steps."""

    def promoting(*arguments: Any) -> Any:
        with jax.numpy_dtype_promotion("standard"):
            return update(*arguments)

    return promoting


def _scale_by_learning_rate(rule: OptimizerRule, learning_rate, warmup) -> optax.GradientTransformation:
    if rule.schedule == "constant" and rule.warmup_fraction == 0 and warmup is None:
        return optax.scale(-learning_rate)
    factor = make_schedule(rule, warmup)
    return optax.scale_by_schedule(lambda step: -learning_rate * factor(step))


class _OwnState(NamedTuple):
    count: Array  # steps taken
    inner: Any


def _create_own(rule: OptimizerRule, hparams: Hparams) -> optax.GradientTransformation:
    """Returns the user's optimizer, made anew at each step from the numbers of that step."""
    assert rule.own is not None
    create, factor = rule.own, make_schedule(rule, hparams.warmup_fraction)
    numbers = {name: getattr(hparams, name) for name in OWN_NUMBERS}

    def init(params):
        return _OwnState(jnp.zeros((), jnp.int32), create(**numbers).init(params))

    def update(updates, state, params=None):
        rate = jnp.asarray(hparams.learning_rate * factor(state.count), jnp.float32)
        updates, inner = create(**{**numbers, "learning_rate": rate}).update(updates, state.inner, params)
        return updates, _OwnState(state.count + 1, inner)

    return optax.GradientTransformation(init, update)


def _add_decay(rule: OptimizerRule, weight_decay: Scalar) -> optax.GradientTransformation:
    """Returns optax's own where all weights decay."""
    if rule.weight_decay_on == "all":
        return optax.add_decayed_weights(weight_decay)  # type: ignore[arg-type]
    decayed = optax.add_decayed_weights(weight_decay)  # type: ignore[arg-type]

    def update(updates, state, params=None):
        added, _ = decayed.update(updates, state, params)
        return _where([role.decays for role in rule.roles(params)], added, updates), state

    return optax.GradientTransformation(optax.init_empty_state, update)


def _scale_head(rule: OptimizerRule, factor: Scalar) -> optax.GradientTransformation:
    def update(updates, state, params=None):
        scaled = jax.tree.map(lambda update: update * factor.astype(update.dtype), updates)
        return _where([role.head for role in rule.roles(params)], scaled, updates), state

    return optax.GradientTransformation(optax.init_empty_state, update)


def _where(chosen: list[bool], tree: PyTree, others: PyTree) -> PyTree:
    """Returns the leaves of `tree` that are chosen, and those of the other one where they aren't."""
    leaves, structure = jax.tree.flatten(tree)
    pairs = zip(chosen, leaves, jax.tree.leaves(others), strict=True)
    return jax.tree.unflatten(structure, [leaf if is_chosen else other for is_chosen, leaf, other in pairs])


def _is_kernel(name: str, weight: Any) -> bool:
    """Returns whether a weight is no bias and has several axes, as no scale or shift of a norm has."""
    return name.rpartition(".")[2] != "bias" and jnp.ndim(weight) > 1


def _clip_factor(norm: Float[Array, ""], max_norm: Scalar | float) -> Float[Array, ""]:
    """Returns what scales gradients of this norm down to one of `max_norm`: 1 if it is 0 or not exceeded."""
    too_long = (max_norm > 0) & (norm > max_norm)
    return jnp.where(too_long, max_norm / jnp.where(too_long, norm, 1), 1)


def _check_choice(key: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(key, value, "one of " + ", ".join(choices))


def _adam(hparams: Hparams) -> list[optax.GradientTransformation]:
    return [optax.scale_by_adam(hparams.b1, hparams.b2, hparams.eps)]


# What turns a gradient into a direction, before decoupled decay and the learning rate.
_DIRECTIONS: dict[str, Callable[[Hparams], list[optax.GradientTransformation]]] = {
    "sgd": lambda h: [],
    "momentum": lambda h: [optax.trace(h.momentum)],
    "nesterov": lambda h: [optax.trace(h.momentum, nesterov=True)],
    "adam": _adam,
    "adamw": _adam,
    "lamb": _adam,
    "lion": lambda h: [optax.scale_by_lion(h.b1, h.b2)],
    "rmsprop": lambda h: [optax.scale_by_rms(h.b2, h.eps, eps_in_sqrt=False), optax.trace(h.momentum)],
    "adafactor": lambda h: [
        optax.scale_by_factored_rms(),
        optax.clip_by_block_rms(1.0),
        optax.scale_by_param_block_rms(),
    ],
}
# The learning rate's factor after the warm-up, over so many steps.
_SCHEDULES: dict[str, Callable[[int], optax.Schedule]] = {
    "constant": lambda steps: optax.constant_schedule(1.0),
    "cosine": lambda steps: optax.cosine_decay_schedule(1.0, steps),
    "linear": lambda steps: optax.linear_schedule(1.0, 0.0, steps),
}
OPTIMIZER_NAMES, SCHEDULE_NAMES = tuple(_DIRECTIONS), tuple(_SCHEDULES)
