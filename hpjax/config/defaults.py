"""The configuration that a file in `configs/` changes."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from hpjax.config.checks import to_plain


class Defaults(ConfigDict):
    """A `ConfigDict` that takes numbers and arrays of NumPy, and ranges, as Python's own values."""

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, to_plain(value))


def create_defaults(fields: Mapping[str, Any]) -> Defaults:
    """Returns nested mappings as `Defaults`."""
    defaults = Defaults()
    for name, value in fields.items():
        defaults[name] = create_defaults(value) if isinstance(value, Mapping) else value
    return defaults
