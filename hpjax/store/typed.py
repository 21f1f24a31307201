"""From JSON's values to dataclasses: nothing that a file says is taken for a number before it is one."""

import dataclasses
import functools
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, Union

LARGEST = 2**53  # of whole numbers: counts, sizes and seeds are smaller
_MOST_DIGITS = 2**1000  # of a whole number that stands for a float

T = TypeVar("T")
Fits = Callable[[Any], bool]


def read_as(kind: type[T], value: object) -> T:
    """Returns the dataclass that JSON values describe; fields that are dataclasses are made of mappings.

    Raises:
      ValueError: a field is missing, unknown or of another type, or a whole number is huge.

    """
    check_as(kind, value)
    nested = _list_nested(kind)
    if not nested:
        return kind(**value)  # pyright: ignore[reportCallIssue]
    return kind(**{name: _nest(nested, name, item) for name, item in value.items()})  # pyright: ignore


def check_as(kind: type, value: object) -> None:
    """Checks JSON values as `read_as` does, but for what lies inside of fields that are dataclasses.

    Raises:
      ValueError: a field is missing, unknown or of another type, or a whole number is huge.

    """
    if not isinstance(value, dict):
        raise ValueError(f"{kind.__name__} is no mapping")
    hints, required = _list_fields(kind)
    if unknown := value.keys() - hints.keys():
        raise ValueError(f"{kind.__name__} has no {min(unknown)[:99]!r}")
    if missing := required - value.keys():
        raise ValueError(f"{kind.__name__} lacks {min(missing)!r}")
    for name, item in value.items():
        if not hints[name](item):
            raise ValueError(f"{kind.__name__}.{name} can't be {str(item)[:99]!r}")


def is_dict_of(kind: Any, value: object) -> bool:
    """Returns whether a value is a mapping from text to values of a kind, e.g. `dict[str, str]`."""
    return _fits(dict[str, kind])(value)


@functools.cache
def _list_fields(kind: type) -> tuple[dict[str, Fits], set[str]]:
    assert dataclasses.is_dataclass(kind)
    hints = typing.get_type_hints(kind)
    fields = [field for field in dataclasses.fields(kind) if field.init]
    required = {f.name for f in fields if f.default is f.default_factory is dataclasses.MISSING}
    return {field.name: _fits(hints[field.name]) for field in fields}, required


@functools.cache
def _list_nested(kind: type) -> dict[str, type]:
    hints = typing.get_type_hints(kind)
    return {name: hint for name, hint in hints.items() if dataclasses.is_dataclass(hint)}  # type: ignore[misc]


def _nest(nested: dict[str, type], name: str, item: Any) -> Any:
    return read_as(nested[name], item) if name in nested else item


@functools.cache
def _fits(hint: Any) -> Fits:
    """Returns `f(value)`: whether a value is of the type that a hint names, as JSON has it."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return lambda value: True
    if hint is None or hint is type(None):
        return lambda value: value is None
    if dataclasses.is_dataclass(hint):
        return lambda value: isinstance(value, dict)
    if origin in (Union, types.UnionType):
        if len(arguments) == 2 and type(None) in arguments:  # a history has millions of these
            known = _fits(next(argument for argument in arguments if argument is not type(None)))
            return lambda value: value is None or known(value)
        any_of = [_fits(argument) for argument in arguments]
        return lambda value: any(fits(value) for fits in any_of)
    if origin in (dict, Mapping):
        each = _fits(arguments[1])
        return lambda value: isinstance(value, dict) and all(map(each, value.values()))
    if origin in (list, tuple, Sequence):
        each = _fits(arguments[0])
        return lambda value: isinstance(value, list) and all(map(each, value))
    return _PLAIN[hint]


def _is_float(value: Any) -> bool:
    return type(value) is float or (type(value) is int and abs(value) < _MOST_DIGITS)


_PLAIN: dict[type, Fits] = {
    bool: lambda value: type(value) is bool,
    int: lambda value: type(value) is int and abs(value) <= LARGEST,
    float: _is_float,
    str: lambda value: type(value) is str,
}
