"""Flags of the smaller commands; every misuse is one `UsageError`."""

from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from hpjax.errors import UsageError

HELP_FLAGS = ("-h", "-help", "--help", "--helpshort", "--helpfull")


def wants_help(argv: Sequence[str]) -> bool:
    """Returns whether a command line asks for help."""
    return any(argument in HELP_FLAGS for argument in argv[1:])


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
    try:
        others = values(list(argv))[1:]
    except flags.Error as error:
        raise UsageError(str(error).removeprefix("ERROR:: ")) from error
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
    if text == "best":
        return text
    if text.isascii() and text.isdecimal() and len(text) < 12:
        return int(text)
    raise UsageError(f"{flag}={text!r} is not allowed: expected best or a trial's number")
