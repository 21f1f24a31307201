"""The modules of a model by name: which of them are frozen, and which one is the head."""

from collections.abc import Callable, Sequence

import jax
from flax import nnx

from hpjax.errors import ConfigError
from hpjax.models.registry import find_model_class
from hpjax.train.weights import is_within, join_path

NONE = "none"
_MOST_NAMED = 40  # modules, in a message


def parse_names(freeze: str | Sequence[str]) -> tuple[str, ...]:
    """Returns the names in a value of `model.freeze`: a tuple of them, or text with `+` in between."""
    names = freeze.split("+") if isinstance(freeze, str) else freeze
    names = tuple(name.strip() for name in names)
    return () if names == (NONE,) else tuple(dict.fromkeys(names))


def check_frozen(model: nnx.Module, freeze: str | Sequence[str]) -> tuple[str, ...]:
    """Returns the names of the modules that are frozen.

    Args:
      model: its shapes do.
      freeze: a value of `model.freeze`.

    Raises:
      ConfigError: There is no such module, or nothing is left to train.
    """
    _, params, _, others = nnx.split(model, nnx.Param, nnx.RngState, ...)
    frozen, weights = parse_names(freeze), _list_paths(params)
    known = [*weights, *_list_paths(others)]
    for name in frozen:
        if not any(is_within(weight, (name,)) for weight in known):
            allowed = f"{NONE}, or modules of {type(model).__name__}: {_list_meant(name, known)}"
            raise ConfigError("model.freeze", name, allowed)
    if frozen and all(is_within(weight, frozen) for weight in weights):
        raise ConfigError("model.freeze", freeze, "some of the modules: with all of them nothing is trained")
    return frozen


def find_head(name: str, create: Callable[[], nnx.Module], num_outputs: int) -> str:
    """Returns the name of a model's last layer: `HEAD` of its class, or what was created last and fits.

    Args:
      name: the model's, for messages.
      create: returns the model; traced.
      num_outputs: of the model.

    Raises:
      ConfigError: `HEAD` is no module's, or nothing says which one is the last.
    """
    order: list[str] = []

    def create_noting() -> nnx.Module:
        model = create()
        order.extend(vars(model))  # in which they were created; that of shapes is sorted
        return model

    shapes = nnx.state(nnx.eval_shape(create_noting), nnx.Param)
    modules = [attribute for attribute in order if attribute in shapes]
    declared = getattr(find_model_class(name), "HEAD", None)
    if declared is not None and declared not in modules:
        raise ConfigError(f"HEAD of {name}", declared, f"one of {', '.join(modules)}")
    if declared is not None:
        return declared
    last = modules[-1]
    if not any(leaf.shape[-1:] == (num_outputs,) for leaf in jax.tree.leaves(shapes[last])):
        allowed = f'1, or HEAD = "…" in the class, which names its last layer: one of {", ".join(modules)}'
        raise ConfigError("optimizer.head_factor", f"with model.name={name}", allowed)
    return last


def _list_paths(state: nnx.State) -> list[str]:
    return [join_path(path) for path, _ in nnx.to_flat_state(state)]


def _list_meant(name: str, known: Sequence[str]) -> str:
    """Returns the modules that there are beside the one that was meant, or all of the model's own."""
    parts = name.split(".")
    while parts and not any(is_within(weight, (".".join(parts),)) for weight in known):
        parts.pop()
    depth = len(parts) + 1
    inside = [weight.split(".") for weight in known if not parts or is_within(weight, (".".join(parts),))]
    names = list(dict.fromkeys(".".join(path[:depth]) for path in inside))
    return ", ".join(names[:_MOST_NAMED]) + (", …" if len(names) > _MOST_NAMED else "")
