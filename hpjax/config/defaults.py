"""The configuration that a file in `configs/` changes."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from hpjax.config.checks import to_plain


class Defaults(ConfigDict):
    """A `ConfigDict` that takes numbers and arrays of NumPy, and ranges, as Python's own values.

    Its keys may have dots: `config.sweep.space["model.width"]` is an axis.
    """

    def __init__(self, initial: Any = None, type_safe: bool = True):
        super().__init__(initial, type_safe, allow_dotted_keys=True)

    def __setitem__(self, key: str, value: Any) -> None:
        value = to_plain(value)
        if isinstance(value, tuple | list) and isinstance(self.get(key), str | int):
            with self.ignore_type():  # some fields take a tuple as well; the check says so of the others
                super().__setitem__(key, tuple(value))
            return
        super().__setitem__(key, Defaults(value, self.is_type_safe) if isinstance(value, dict) else value)


def create_defaults(fields: Mapping[str, Any]) -> Defaults:
    """Returns nested mappings as `Defaults`."""
    defaults = Defaults()
    for name, value in fields.items():
        defaults[name] = create_defaults(value) if isinstance(value, Mapping) else value
    return defaults
