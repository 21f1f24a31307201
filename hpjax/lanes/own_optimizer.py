"""Optimizers of the user's own: a function of one trial's numbers that returns an optax transformation."""

import functools
import inspect
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.core import Tracer

from hpjax.config.user_files import blaming, is_own, load_from_file
from hpjax.errors import ConfigError, UserCodeError
from hpjax.train.hparams import Hparams
from hpjax.train.optimizer import OWN_NUMBERS, OptimizerRule, make_optimizer
from hpjax.train.weights import name_weights

_CALLBACKS = ("pure_callback", "io_callback")
_KEY = "optimizer.name"


def load_optimizer(name: str) -> Callable[..., optax.GradientTransformation] | None:
    """Returns the function that `FILE.py:FUNCTION` names, to be called with all of `OWN_NUMBERS` by name.

    Of another name, None.

    Raises:
      ConfigError: There is no such file or function.
      UserCodeError: The file can't be imported, or the function needs what there is none of.
    """
    if not is_own(name):
        return None
    path, function = load_from_file(_KEY, name, "FILE.py:FUNCTION")
    if not callable(function):
        raise ConfigError(_KEY, name, f"the name of a function in {path} after the colon")
    return _blamed(name, path, function)


@functools.lru_cache(maxsize=64)  # rules with one function are to compare equal
def _blamed(name: str, path: Path, function: Callable[..., Any]) -> Callable[..., Any]:
    taken = _list_taken(name, function)

    def create(**numbers: Any) -> optax.GradientTransformation:
        with blaming(f"{_KEY}={name!r} failed", path):
            made = function(**{key: value for key, value in numbers.items() if key in taken})
        if not isinstance(made, optax.GradientTransformation):
            raise UserCodeError(
                f"{_KEY}={name!r} gives {type(made).__name__}: expected an optax.GradientTransformation"
            )

        def blame(part: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any) -> Any:
                with blaming(f"{_KEY}={name!r} failed", path):
                    return part(*arguments)

            return call

        return optax.GradientTransformation(blame(made.init), blame(made.update))

    return create


def _list_taken(name: str, function: Callable[..., Any]) -> tuple[str, ...]:
    """Returns which numbers a function takes."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return OWN_NUMBERS
    known = f"its arguments may be {', '.join(OWN_NUMBERS)}"
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return OWN_NUMBERS
    for p in parameters:
        needed = p.default is p.empty and p.kind is not p.VAR_POSITIONAL
        if needed and (p.name not in OWN_NUMBERS or p.kind is p.POSITIONAL_ONLY):
            raise UserCodeError(f"{_KEY}={name!r} needs {p.name}, which there is none of: {known}")
    return tuple(p.name for p in parameters if p.name in OWN_NUMBERS and p.kind is not p.POSITIONAL_ONLY)


def check_optimizer(rule: OptimizerRule, params: nnx.State, hparams: Hparams) -> None:
    """Checks by tracing that an optimizer of the user's own is one of a single trial, step after step.

    A function of one trial's numbers and weights, which jax maps over lanes, can't mix them unless it leaves
    what is traced: it calls back to the host, or keeps something between two calls.

    Args:
      rule: with the function.
      params: shapes of the weights that are trained.
      hparams: any trial's.

    Raises:
      UserCodeError: It fails, or isn't that.
    """
    what = f"{_KEY}={rule.name!r}"

    def update(hparams: Hparams, grads: Any, state: Any, params: Any) -> tuple[Any, Any]:
        return make_optimizer(rule, hparams).update(grads, state, params)

    state = jax.eval_shape(
        lambda hparams, params: make_optimizer(rule, hparams).init(params), hparams, params
    )
    updates, after = jax.eval_shape(update, hparams, params, state, params)
    if any(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in jax.tree.leaves(state)):
        raise UserCodeError(f"{what} has a typed random key in its state: expected numbers alone")
    _check_alike(f"{what}: its update", updates, "the gradient", params)
    _check_alike(f"{what}: its state after a step", after, "the state before", state)
    two = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((2, *x.shape), x.dtype), (hparams, params, state, params)
    )
    jax.eval_shape(jax.vmap(update), *two)  # what it is made of can be mapped over lanes
    first, second = (jax.make_jaxpr(lambda *a: update(*a))(hparams, params, state, params) for _ in range(2))  # noqa: B023
    kept = any(isinstance(const, Tracer) for traced in (first, second) for const in traced.consts)
    if kept or _describe(first) != _describe(second) or not _are_equal(first.consts, second.consts):
        raise UserCodeError(
            f"{what} keeps something from one call for the next: expected a function of its arguments alone, "
            "which each lane, and a sweep that goes on, calls anew"
        )
    if found := [name for name in _CALLBACKS if re.search(rf"\b{name}\[", str(first))]:
        raise UserCodeError(f"{what} leaves the program ({found[0]}): lanes can't be kept apart there")


def _check_alike(what: str, given: Any, like: str, wanted: Any) -> None:
    if jax.tree.structure(given) != jax.tree.structure(wanted):
        raise UserCodeError(f"{what} is another tree than {like}: expected the same one")
    pairs = zip(name_weights(wanted), jax.tree.leaves(given), jax.tree.leaves(wanted), strict=True)
    for name, leaf, other in pairs:
        if (leaf.shape, leaf.dtype) != (other.shape, other.dtype):
            got, expected = (f"{array.dtype}{list(array.shape)}" for array in (leaf, other))
            place = f" for {name}" if name else ""
            raise UserCodeError(f"{what} has {got}{place}: expected {expected}, as {like} has")


def _are_equal(some: Sequence[Any], others: Sequence[Any]) -> bool:
    pairs = zip(some, others, strict=True) if len(some) == len(others) else [(0, 1)]
    return all(np.array_equal(a, b, equal_nan=True) for a, b in pairs)


def _describe(jaxpr: Any) -> str:
    return re.sub(r"0x[0-9a-f]+", "", str(jaxpr))
