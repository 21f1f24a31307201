"""Errors that a user can mend: one line each, without a traceback and without control characters."""

import logging


def one_line(text: str, most: int = 0) -> str:
    """Returns text as one line that any terminal can take.

    Line breaks become blanks. Other control characters, and those that turn the direction of writing, become
    escapes: names of files and messages of others may hold anything.

    Args:
      text: any text.
      most: how many characters are kept; 0: all.
    """
    line = "".join(c if c.isprintable() else " " if c.isspace() else _escape(c) for c in text)
    return line if not most or len(line) <= most else f"{line[: most - 1]}…"


def text_of(value: object, most: int = 500) -> str:
    """Returns `str(value)` as one line; a user's object may fail even at that."""
    try:
        return one_line(str(value), most)
    except Signalled:
        raise
    except BaseException:
        return f"<{type(value).__name__}>"


class PrintableRecords(logging.Filter):
    """Makes text and errors in the arguments of log records one line each; lines of our own stay."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Changes a record; lets all pass."""
        if isinstance(record.args, tuple):
            record.args = tuple(_printable(value) for value in record.args)
        return True


def _printable(value: object) -> object:
    return text_of(value, most=0) if isinstance(value, str | BaseException) else value


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()


class Signalled(KeyboardInterrupt):
    """A signal asks to end at once; other than a KeyboardInterrupt that a user's own code raises."""

    def __init__(self, signum: int):
        self.signum = signum
        super().__init__(signum)


class HpjaxError(Exception):
    """The user's input or surroundings are wrong; commands print it as one line and exit with 2."""

    def __init__(self, *args: object):
        super().__init__(*(one_line(arg) if isinstance(arg, str) else arg for arg in args))

    def __reduce__(self) -> tuple:
        """Lets another process have it: not all are made of what they say."""
        return _unpickle, (type(self), self.args, self.__dict__)


def _unpickle(kind: type[HpjaxError], args: tuple, state: dict) -> HpjaxError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(state)
    return error


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
    except Signalled:
        raise
    except BaseException:  # Python refuses numbers of many digits and deep nesting; a user's object, anything
        return f"<{type(value).__name__}>"
    return text if len(text) <= most else f"{text[:most]}…"


class UsageError(HpjaxError):
    """The command line is wrong."""


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


class DeviceError(HpjaxError):
    """There is no device of the kind that jax was told to use; says which that was."""


class OutOfMemory(HpjaxError):
    """A single lane doesn't fit into memory; says what to make smaller."""
