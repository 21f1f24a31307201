"""Every field of the configuration as text, from its own metadata."""

import dataclasses
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from hpjax.config.fields import Config
from hpjax.config.rules import Field, Rule, list_fields

_WIDTH = 100


def describe_fields() -> str:
    """Returns each field of the configuration with its default, what it may hold and what that does."""
    lines = [line for key, field in list_fields(Config).items() for line in _describe(key, field)]
    return "\n".join(lines) + "\n"


def _describe(key: str, field: Field) -> Iterator[str]:
    section, _, name = key.rpartition(".")
    ...
