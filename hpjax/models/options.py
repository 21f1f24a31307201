"""A model's options: further arguments of its class, which may be searched.

Most are arguments of `__init__` and shape the program. A class may declare others to be numbers inside it,
`dynamic = ("drop_path", "temperature")`: arguments of `__call__` that each lane has its own value of.
"""

import difflib
import functools
import inspect
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from hpjax.config.checks import check_single
from hpjax.config.hyperparameters import OPTION, Hyperparameter
from hpjax.config.rules import is_int
from hpjax.errors import ConfigError, one_line

GIVEN = (
    "num_classes",
    "image_size",
    "input_shape",
    "rngs",
)  # arguments of `__init__` that the data and the seed decide
FIELDS = ("kernel_widths", "padding")  # that hpjax's own networks take from fields of these names
CALLED = ("mask", "dropout_rate", "rngs")  # of `__call__`, each with a meaning of its own
_EMPTY = inspect.Parameter.empty
_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_LONGEST = 400  # characters of a signature, in a message


@dataclass(frozen=True)
class Option:
    """One option of a class.

    Attributes:
      hint: the type that its values have; Any where nothing says so.
      default: `inspect.Parameter.empty` where there is none.
      dynamic: whether it is a number inside the program.
    """

    hint: Any
    default: Any = _EMPTY
    dynamic: bool = False


def list_options(model_class: type) -> dict[str, Option]:
    """Returns the options of a class by name.

    Raises:
      ConfigError: What it declares to be dynamic is none of its `__call__`'s arguments.
    """
    parameters, hints = _parameters(model_class.__init__), _hints(model_class.__init__)
    static = {
        name: Option(_hint(hints.get(name), p.default), p.default)
        for name, p in parameters.items()
        if p.kind in _BY_NAME and name not in (*GIVEN, *_fields_of(model_class))
    }
    return static | _list_dynamic(model_class)


def dynamic_names(model_class: type) -> tuple[str, ...]:
    """Returns the names of the options that a class declares to be numbers inside the program.

    Raises:
      ConfigError: It declares something else.
    """
    return tuple(_list_dynamic(model_class))


def dynamic_values(model_class: type, options: Mapping[str, Any]) -> dict[str, float]:
    """Returns the value of every dynamic option: the one that is given, or the class's own default.

    Raises:
      ConfigError: One has neither.
    """
    values = {}
    for name, option in _list_dynamic(model_class).items():
        value = options.get(name, option.default)
        if value is _EMPTY:
            allowed = f"a value for {name}, which {describe_class(model_class)} has no default for"
            raise ConfigError("model.options", dict(options), allowed)
        values[name] = float(check_option(f"model.options.{name}", model_class, name, value))
    return values


def check_options(model_class: type, options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options of one model, each in its type, without the dynamic ones.

    Raises:
      ConfigError: The class has no such option, or it is of another type; names the class's signature.
    """
    dynamic = dynamic_names(model_class)
    checked = {
        name: check_option(f"model.options.{name}", model_class, name, options[name]) for name in options
    }
    return {name: _to_tuples(value) for name, value in checked.items() if name not in dynamic}


def check_option(key: str, model_class: type, name: str, value: Any) -> Any:
    """Returns one option's value in its type; raises ConfigError, under `key`, where it isn't allowed."""
    options = list_options(model_class)
    if name not in options:
        if name not in GIVEN and _takes_any(model_class.__init__):
            return value
        raise ConfigError(key, value, _describe_unknown(model_class, name, options))
    option = options[name]
    if not _fits(value, option.hint):
        raise ConfigError(key, value, f"{_describe(option.hint)}, as in {describe_class(model_class)}")
    return float(value) if _is_float(option.hint) and is_int(value) else value


def declare_option(name: str, models: Iterable[type]) -> Hyperparameter:
    """Returns what the classes that it may be given to know of the hyperparameter `model.NAME`.

    It is dynamic where all of them declare it so: else it splits trials into groups.
    """
    option, models = name.removeprefix(OPTION), tuple(models)
    known = [found for model in models if (found := list_options(model).get(option))]
    kinds = {_kind(each.hint) for each in known}
    dynamic = len(known) == len(models) > 0 and all(each.dynamic for each in known)
    kind = kinds.pop() if len(kinds) == 1 else object
    check = functools.partial(_check_for_all, models, option)
    return Hyperparameter(name, f"model.options.{option}", dynamic, kind, check)


def describe_class(model_class: type) -> str:
    """Returns a class with its own signature in a line, e.g. `Net(*, num_classes, width: int = 16, rngs)`."""
    parameters = list(_parameters(model_class.__init__).values())
    shown, kinds = [_show(parameter) for parameter in parameters], [p.kind for p in parameters]
    if inspect.Parameter.KEYWORD_ONLY in kinds and inspect.Parameter.VAR_POSITIONAL not in kinds:
        shown.insert(kinds.index(inspect.Parameter.KEYWORD_ONLY), "*")
    text = f"{model_class.__name__}({', '.join(shown)})"
    if dynamic := getattr(model_class, "dynamic", ()):
        text += f" with dynamic = {dynamic!r}"
    return one_line(text, _LONGEST)


def _check_for_all(models: tuple[type, ...], option: str, value: Any) -> Any:
    key = f"model.options.{option}"
    value = check_single(key, value)
    for model_class in models:
        value = check_option(key, model_class, option, value)
    return value


def _list_dynamic(model_class: type) -> dict[str, Option]:
    declared = getattr(model_class, "dynamic", ())
    named = isinstance(declared, tuple | list) and all(isinstance(name, str) for name in declared)
    if not named:
        allowed = "a tuple of names of arguments of __call__"
        raise ConfigError(f"{model_class.__name__}.dynamic", declared, allowed)
    if not declared:
        return {}
    parameters = list(_parameters(model_class.__call__).values())[1:]  # behind the images
    taken = {p.name: p for p in parameters if p.kind in _BY_NAME and p.name not in CALLED}
    for name in declared:
        if name not in taken:
            known = f"its __call__ takes {', '.join(taken) or 'none'} besides images, {', '.join(CALLED)}"
            raise ConfigError(f"{model_class.__name__}.dynamic", declared, f"names of arguments: {known}")
        if not (taken[name].default is _EMPTY or _fits(taken[name].default, float)):
            allowed = f"a number as the default of {name}, not {taken[name].default!r}"
            raise ConfigError(f"{model_class.__name__}.dynamic", declared, allowed)
    return {name: Option(float, taken[name].default, dynamic=True) for name in declared}


def _parameters(function: Any) -> dict[str, inspect.Parameter]:
    return dict(list(inspect.signature(function).parameters.items())[1:])  # without self


def _hints(function: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function)
    except Exception:  # a name that is there for type checkers alone; defaults have types, too
        return {}


def _hint(hint: Any, default: Any) -> Any:
    """Returns the type of an argument's values: as it is annotated, else that of its default."""
    if hint is None or isinstance(hint, str):
        return type(default) if type(default) in (int, float, bool, str, tuple) else Any
    return hint | None if default is None and isinstance(hint, type) else hint


def _fields_of(model_class: type) -> tuple[str, ...]:
    return FIELDS if model_class.__module__.startswith("hpjax.") else ()


def _takes_any(function: Any) -> bool:
    return any(p.kind is p.VAR_KEYWORD for p in _parameters(function).values())


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, argument) for argument in arguments)
    if origin is typing.Literal:
        return any(type(value) is type(choice) and value == choice for choice in arguments)
    if hint in (None, type(None)):
        return value is None
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint in (int, bool, str):
        return type(value) is hint
    if (origin or hint) in (tuple, list):
        return isinstance(value, tuple | list)
    return True  # what a type of another kind takes, its class says


def _is_float(hint: Any) -> bool:
    return _kind(hint) is float


def _kind(hint: Any) -> type:
    """Returns float, int, str or bool where values, None apart, are of that type alone; else object."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        kinds = {_kind(argument) for argument in typing.get_args(hint) if argument is not type(None)}
        return kinds.pop() if len(kinds) == 1 else object
    return hint if hint in (float, int, str, bool) else object


_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "None"}


def _describe(hint: Any) -> str:
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(map(_describe, arguments))
    if typing.get_origin(hint) is typing.Literal:
        return " or ".join(map(repr, arguments))
    return _WORDS.get(hint, "a tuple")


def _describe_unknown(model_class: type, name: str, options: Mapping[str, Option]) -> str:
    if name in _fields_of(model_class):
        return f"the field model.{name} instead"
    near = difflib.get_close_matches(name, options, 1)
    meant = f"; did you mean {near[0]}?" if near else ""
    return f"an option of {describe_class(model_class)}{meant}"


def _show(parameter: inspect.Parameter) -> str:
    hint, default = parameter.annotation, parameter.default
    stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
    plain = getattr(hint, "__name__", "") if hint in (int, float, bool, str) else ""
    annotation = f": {plain}" if plain else ""
    equals = " = " if annotation else "="
    return f"{stars}{parameter.name}{annotation}{'' if default is _EMPTY else f'{equals}{default!r}'}"


def _to_tuples(value: Any) -> Any:
    """Returns a value as `__init__` gets it: lists come from JSON."""
    return tuple(map(_to_tuples, value)) if isinstance(value, list | tuple) else value
