"""Flags of the smaller commands; every misuse is one `UsageError`."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from absl import flags

from hpjax.cli.command import run_command
from hpjax.errors import ConfigError, UsageError, text_of

HELP_FLAGS = ("-h", "-help", "--help", "--helpshort", "--helpfull")


def run_with_help(argv: Sequence[str], text: str, run: Callable[[], int | None]) -> int:
    """Prints a command's help where its command line asks for it, else runs it; returns the exit status."""
    return run_command((lambda: print(text, end="")) if wants_help(argv) else run)


def wants_help(argv: Sequence[str]) -> bool:
    """Returns whether a command line asks for help."""
    return any(argument in HELP_FLAGS for argument in argv[1:])


@contextlib.contextmanager
def refusing_flags() -> Iterator[None]:
    """Raises UsageError for what absl refuses, and for a `--flagfile` that it can't read."""
    try:
        yield
    except (OSError, UnicodeError) as error:
        raise UsageError(f"--flagfile can't be read: {text_of(error)}") from error
    except (flags.Error, ValueError) as error:  # the latter for --noFLAG=VALUE
        raise UsageError(str(error).removeprefix("ERROR:: ")) from error


def parse_options(
    argv: Sequence[str], defaults: Mapping[str, Any], rest: str = ""
) -> tuple[dict[str, Any], list[str]]:
    """Returns the flags of a command line, each in its default's type, and the other arguments.

    Args:
      argv: the program's name and its arguments.
      defaults: by name; None: text that isn't given, `...`: text that has to be.
      rest: what the other arguments are, in words; empty: there are none.

    Raises:
      UsageError: A flag is unknown, missing or of another type, or arguments are given where there are none.
    """
    values = flags.FlagValues()
    values.set_gnu_getopt(True)  # flags may stand behind other arguments
    for name, default in defaults.items():
        if isinstance(default, int):
            flags.DEFINE_integer(name, default, "", lower_bound=1, flag_values=values)
        else:
            flags.DEFINE_string(name, None if default is ... else default, "", flag_values=values)
    with refusing_flags():
        others = values(list(argv))[1:]
    given = values.flag_values_dict()
    for name, default in defaults.items():
        if default is ... and not given[name]:
            raise UsageError(f"--{name} is missing: expected --{name}=…; --help says more")
    if others and not rest:
        raise UsageError(f"argument {others[0]!r} is not allowed: expected only flags; --help lists them")
    if rest and not others:
        raise UsageError(f"nothing is named: expected {rest}; --help says more")
    return given, others


def parse_trial(flag: str, text: str) -> int | str:
    """Returns a trial's number, or `best`.

    Raises:
      UsageError: The text is neither; names it as the flag's.
    """
    if (trial := read_trial(text)) is None:
        raise UsageError(f"{flag}={text!r} is not allowed: expected best or a trial's number")
    return trial


def read_trial(text: str) -> int | str | None:
    """Returns the trial's number, or `best`, that a text is; None where it is neither."""
    if text == "best":
        return text
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 12 else None


def check_choice(options: Mapping[str, Any], name: str, allowed: Sequence[str]) -> str:
    """Returns the flag's value; raises UsageError where it is none of those that are allowed."""
    if options[name] not in allowed:
        raise UsageError(f"--{name}={options[name]!r} is not allowed: expected {' or '.join(allowed)}")
    return options[name]


@contextlib.contextmanager
def naming_options(options: Mapping[str, Any]) -> Iterator[None]:
    """Has errors about an argument that a flag gave name the flag."""
    try:
        yield
    except ConfigError as error:
        if error.key not in options:
            raise
        raise ConfigError(f"--{error.key}", error.value, error.allowed) from error
