"""Every field of the configuration as text, from its own metadata."""

import itertools
import textwrap
from typing import Any

from hpjax.config.fields import FIELDS, Config
from hpjax.config.rules import Field, list_fields

_WIDTH = 100


def describe_fields() -> str:
    """Returns each field with its default, what it may hold and what that does, section by section."""
    keys = sorted(FIELDS, key=lambda key: "." in key)  # those of no section first
    sections = itertools.groupby(keys, lambda key: key.rpartition(".")[0])
    return "\n".join(_describe_section(name, list(members)) for name, members in sections)


def _describe_section(name: str, keys: list[str]) -> str:
    config = Config()
    title = (getattr(config, name) if name else config).__doc__
    return "\n".join([f"{title}\n", *(_describe(key, FIELDS[key]) for key in keys), ""])


def _describe(key: str, field: Field) -> str:
    rule = field.rule
    lines = [f"  --config.{key}={_show(field.default)}", *_wrap(_about(field), "      ")]
    values = {**rule.choices, **{form.name: form.doc for form in rule.forms}}
    width = max(map(len, values), default=0)
    for value, doc in values.items():
        lines += _wrap(doc, f"        {value.ljust(width)}  ")
    options = list_fields(rule.options, f"{key}.") if rule.options else {}
    return "\n".join([*lines, *(_describe(name, option) for name, option in options.items())])


def _about(field: Field) -> str:
    rule = field.rule
    parts = [rule.doc]
    if rule.allowed and not rule.choices:
        parts.append(rule.allowed)
    elif field.type is bool:
        parts.append("true or false")
    elif isinstance(field.default, tuple) and rule.choices:
        parts.append("any of these")
    elif rule.tuples:
        parts.append(f"one of these, or {rule.tuples.allowed}")
    if field.axis:
        parts.append(f"searched with --space={field.axis}=…{'' if rule.dynamic else ' (a program each)'}")
    return "; ".join(parts)


def _wrap(text: str, start: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent=start, subsequent_indent=" " * len(start))


def _show(default: Any) -> str:
    """Returns a default as it would be typed."""
    if isinstance(default, tuple | list):
        inner = ",".join(repr(item) for item in default)
        return f"({inner},)" if len(default) == 1 else f"({inner})"
    return str(default).lower() if isinstance(default, bool) else str(default)
