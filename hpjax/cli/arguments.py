"""The command line of a sweep; every misuse is one `HpjaxError`."""

import re
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_flags

from hpjax.cli.reference import describe_fields
from hpjax.config.checks import unknown_field
from hpjax.config.fields import FIELDS, Config
from hpjax.config.parsing import get_default, parse_config
from hpjax.config.paths import expand_path
from hpjax.errors import ConfigError, HpjaxError
from hpjax.search.space import parse_space_flag
from hpjax.store.workdir import Resume

HELP = """\
usage: python -m hpjax.main --config=FILE [--config.SECTION.FIELD=VALUE …] [options]

Trains every trial of a sweep, many at once, and writes tables, figures and checkpoints.

  --config=FILE         the sweep, e.g. configs/wd.py; --config.train.epochs=3 changes a field
                        (--helpfull lists them; hpjax/config/fields.py documents each)
  --space=NAME=SPEC     replaces the search space; repeatable. SPEC is choices (0.01,1.0),
                        a range (1e-5:1e-1:log) or a range with a step (8:64:8)
  --workdir=DIR         where everything is kept; default runs/<name of the config>
  --resume=auto         continue an unfinished sweep there (auto), or never, or must
  --plan                print what would be compiled and trained, and run nothing
  --help, --helpfull    this text; with every field, its default and what it may be

exit status: 0 done, 2 the input is wrong, 130 or 143 interrupted (saved), 1 a defect
"""

_OVERRIDE = re.compile(r"--?(?:no)?config\.([^=]*)(?:=(.*))?", re.DOTALL)
_BAD_VALUE = re.compile(r"flag --config\.([^=]+)=(.*?): ", re.DOTALL)


class UsageError(HpjaxError):
    """The command line is wrong."""


@dataclass(frozen=True)
class Arguments:
    """What the command line asks for.

    Attributes:
      config: the sweep.
      workdir: where it is kept.
      resume: auto, never or must.
      plan: only print the plan.
    """

    config: Config
    workdir: str
    resume: Resume
    plan: bool


def find_help(argv: Sequence[str]) -> str | None:
    """Returns the help that is asked for; None where none is."""
    if any(arg in ("-helpfull", "--helpfull") for arg in argv[1:]):
        return f"{HELP}\n{describe_fields()}"
    return HELP if any(arg in ("-h", "-help", "--help", "--helpshort") for arg in argv[1:]) else None


def parse_arguments(argv: Sequence[str]) -> Arguments:
    """Returns what a command line asks for.

    Args:
      argv: the program's name and its arguments.

    Raises:
      HpjaxError: A flag, a field or a value isn't allowed, or the config file can't be read.
    """
    argv = [_expand_config(arg) for arg in argv]
    try:
        values = _parse_flags(list(argv))
        chosen: dict[str, Any] = values.flag_values_dict()
        given = chosen["config"].to_dict() if hasattr(chosen["config"], "to_dict") else chosen["config"]
    except HpjaxError:
        raise
    except (Exception, SystemExit) as error:  # whatever a user's config file, or a flag's parser, raises
        raise _explain(argv, error) from error
    given = _with_space(given, chosen["space"])
    name = Path(config_flags.get_config_filename(values["config"]).split(":")[0]).stem
    workdir = expand_path(chosen["workdir"]) if chosen["workdir"] else str(Path("runs") / name)
    if not workdir.isprintable():
        raise UsageError(f"--workdir={workdir!r} is not allowed: expected a path without control characters")
    return Arguments(parse_config(given), workdir, chosen["resume"], chosen["plan"])


def _expand_config(arg: str) -> str:
    """Returns `--config=FILE` with `~` and variables replaced, which few shells do behind a `=`."""
    flag, equals, path = arg.partition("=")
    return f"{flag}={expand_path(path)}" if equals and flag in ("--config", "-config") else arg


def _with_space(given: Any, space: Sequence[str]) -> Any:
    axes: dict[str, Any] = {}
    for flag in space:
        name, spec = parse_space_flag(flag)
        if name in axes:
            raise ConfigError("--space", flag, f"{name} once: all choices, or the range, in one --space")
        axes[name] = spec
    sweep = given.get("sweep", {}) if isinstance(given, dict) else None
    if not axes or not isinstance(sweep, dict):
        return given
    return {**given, "sweep": {**sweep, "space": axes}}


def _parse_flags(argv: list[str]) -> flags.FlagValues:
    values = flags.FlagValues()
    # New attributes are let through so that all unknown fields get one kind of error, from `parse_config`.
    config_flags.DEFINE_config_file(
        "config", None, flag_values=values, lock_config=False, accept_new_attributes=True, sys_argv=argv
    )
    flags.DEFINE_multi_string("space", [], "", flag_values=values)
    flags.DEFINE_string("workdir", None, "", flag_values=values)
    flags.DEFINE_enum("resume", "auto", ["auto", "never", "must"], "", flag_values=values)
    flags.DEFINE_bool("plan", False, "", flag_values=values)
    rest = values(argv)[1:]
    if rest:
        raise UsageError(f"argument {rest[0]!r} is not allowed: expected only flags, as in --plan")
    if not values["config"].present:
        raise UsageError("--config is missing: expected --config=FILE, e.g. --config=configs/wd.py")
    return values


def _explain(argv: Sequence[str], error: BaseException) -> HpjaxError:
    """Returns what is wrong in the user's terms; the flag libraries speak in theirs."""
    cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
    if not isinstance(error, flags.Error):
        for arg in argv[1:]:
            if (match := _OVERRIDE.match(arg)) and (unknown := _unknown_field(*match.groups())):
                return unknown
    if match := _BAD_VALUE.match(str(error)):
        key, text = match.groups()
        try:
            parse_config(_nest(key, text))
        except ConfigError as found:
            return found
    path = next((a.split("=", 1)[1] for a in argv if a.startswith(("--config=", "-config="))), "")
    if "Error whilst parsing config file" in str(error):
        # get_config() raised, and only its traceback's text is left.
        return UsageError(f"--config={path} failed at {_find_line(str(error))}: {_brief(error)}")
    if isinstance(error, flags.Error):
        return UsageError(str(error).removeprefix("ERROR:: "))
    if line := _in_file(cause, path):
        return UsageError(f"--config={path} failed at {line}: {type(cause).__name__}: {cause}")
    allowed = "expected a Python file whose get_config() returns get_default(), changed"
    return UsageError(f"--config={path} is not allowed: {allowed} ({_brief(cause)})")


def _unknown_field(key: str, text: str | None) -> HpjaxError | None:
    """Returns an error if `key` leads nowhere in a configuration."""
    node: Any = get_default().to_dict()
    done: list[str] = []
    for name in key.split("."):
        if not isinstance(node, dict):
            return ConfigError(key, text, f"no further name: {'.'.join(done)} is one value")
        if name not in node and not _is_free(".".join(done)):
            return unknown_field(".".join(done), key.removeprefix(".".join([*done, ""])), text, node)
        node = node.get(name, {})
        done.append(name)
    return None


def _is_free(key: str) -> bool:
    """Returns whether any name may be added below `key`."""
    return key in FIELDS and FIELDS[key].type is dict


def _nest(key: str, value: Any) -> Any:
    for name in reversed(key.split(".")):
        value = {name: value}
    return value


def _in_file(error: BaseException, path: str) -> str:
    """Returns the line of the user's file at which an error was raised, or an empty string."""
    if isinstance(error, SyntaxError):
        return f"line {error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [f.lineno for f in frames if path and Path(f.filename).absolute() == Path(path).absolute()]
    return f"line {lines[-1]}" if lines else ""


def _find_line(text: str) -> str:
    lines = re.findall(r"(line \d+), in get_config", text)
    return lines[-1] if lines else "get_config()"


def _brief(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return re.sub(r"\[Errno \d+\] ", "", lines[-1].strip())
