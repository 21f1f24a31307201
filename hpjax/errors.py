"""Errors that a user can mend: one line each, without a traceback."""


class HpjaxError(Exception):
    """The user's input or surroundings are wrong; commands print it as one line and exit with 2."""


class ConfigError(HpjaxError):
    """A configuration value is not allowed.

    Args:
      key: the dotted key, e.g. `optimizer.learning_rate`.
      value: what was given.
      allowed: what is allowed, in words, e.g. `a number greater than 0`.
    """

    def __init__(self, key: str, value: object, allowed: str):
        self.key, self.value, self.allowed = key, value, allowed
        super().__init__(f"{key}={_show(value)} is not allowed: expected {allowed}")


def _show(value: object, most: int = 200) -> str:
    try:
        text = repr(value)
    except Exception:  # Python refuses numbers of many digits and deep nesting; a user's object, anything
        return f"<{type(value).__name__}>"
    return text if len(text) <= most else f"{text[:most]}…"


class DataError(HpjaxError):
    """The data set can't be read; names the file or folder and what was expected."""


class ModelError(HpjaxError):
    """The model can't be built, or the weights don't fit it; names every offending tensor."""


class UserCodeError(HpjaxError):
    """A Python file of the user's own fails; names the file, the line and what it raised."""


class WorkdirError(HpjaxError):
    """The workdir is in use, belongs to another sweep, or can't be written."""


class CheckpointError(HpjaxError):
    """No valid checkpoint could be read; names the checkpoint and what is wrong with it."""


class OutOfMemory(HpjaxError):
    """A single lane doesn't fit into memory; says what to make smaller."""
