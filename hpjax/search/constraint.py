"""Which settings of a space are allowed: a function of the user's own says so."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hpjax.config.user_files import blaming, load_from_file
from hpjax.errors import ConfigError, UserCodeError, text_of

KEY, ALL = "sweep.constraints", "all"
_MOST_SHOWN = 200  # characters of a setting


@dataclass(frozen=True)
class Constraint:
    """A function that takes a setting, hyperparameters by name, to whether it is allowed.

    Attributes:
      name: FILE.py:FUNCTION.
      path: the file.
      function: the function.
    """

    name: str
    path: Path
    function: Callable[..., Any] = dataclasses.field(compare=False)

    def allows(self, setting: Mapping[str, Any]) -> bool:
        """Returns whether a setting is allowed.

        Raises:
          UserCodeError: The function fails, or gives neither True nor False.
        """
        with blaming(f"{KEY}={self.name!r} failed for {_show(setting)}", self.path):
            found = self.function(dict(setting))
        if not isinstance(found, bool | np.bool_):
            told = f"{KEY}={self.name!r} gives {text_of(found, _MOST_SHOWN)} for {_show(setting)}"
            raise UserCodeError(f"{told}: expected True or False")
        return bool(found)


def load_constraint(name: str) -> Constraint | None:
    """Returns what `sweep.constraints` names; None where all settings are allowed.

    Raises:
      ConfigError: There is no such function.
      UserCodeError: The file can't be imported.
    """
    if name == ALL:
        return None
    path, function = load_from_file(KEY, name, f"{ALL} or FILE.py:FUNCTION")
    if not callable(function):
        raise ConfigError(KEY, name, f"the name of a function in {path} after the colon")
    return Constraint(name, path, function)


def _show(setting: Mapping[str, Any]) -> str:
    return text_of(dict(setting), _MOST_SHOWN)
