"""`python -m hpjax.main --config=FILE`: runs a sweep."""

import logging
import re
import signal
import sys
import traceback
from pathlib import Path

from absl import flags
from absl import logging as absl_logging
from ml_collections import config_flags

from hpjax.errors import HpjaxError

USAGE = (
    "usage: python -m hpjax.main --config=FILE [--config.a.b=value …] [--space=NAME=SPEC …] [--workdir=DIR]"
)

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "The sweep, e.g. configs/wd.py; --config.a.b=value sets a field."
)
_SPACE = flags.DEFINE_multi_string(
    "space", [], "NAME=a,b,… or NAME=low:high[:log|:step]; replaces the config's space."
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Where everything is kept; default runs/<config name>.")
_RESUME = flags.DEFINE_enum(
    "resume", "auto", ["auto", "never", "must"], "What to do with a sweep that is there."
)
_PLAN = flags.DEFINE_bool("plan", False, "Print what would be compiled and trained, and run nothing.")


class UsageError(HpjaxError):
    """The command line can't be understood."""


def run() -> None:
    """Runs the sweep that the parsed flags describe.

    Raises:
      HpjaxError: The user's input is wrong.
    """
    from hpjax.config import parse_config
    from hpjax.search.space import parse_space_flag
    from hpjax.sweep import run_sweep

    given = _CONFIG.value.to_dict()
    if _SPACE.value:
        given["sweep"]["space"] = dict(parse_space_flag(flag) for flag in _SPACE.value)
    config = parse_config(given)
    name = Path(config_flags.get_config_filename(flags.FLAGS["config"])).stem
    result = run_sweep(config, _WORKDIR.value or str(Path("runs") / name), _RESUME.value, progress=True)
    print(f"tables   {result.workdir}/trials.csv, {result.workdir}/epochs.csv")
    print(f"figures  {result.workdir}/figures/")


def parse_flags(argv: list[str]) -> None:
    """Parses the command line.

    Raises:
      UsageError: A flag, a field or a value isn't known or allowed.
    """
    try:
        rest = flags.FLAGS(argv)
    except flags.Error as error:
        raise UsageError(_one_line(error)) from None
    except (AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        raise UsageError(_one_line(error)) from None
    if len(rest) > 1:
        raise UsageError(f"{rest[1]!r} is not a flag; {USAGE}")
    if _CONFIG.value is None:
        raise UsageError(f"--config=None is not allowed: expected a file, e.g. configs/wd.py; {USAGE}")
    file = config_flags.get_config_filename(flags.FLAGS["config"])
    if not Path(file.split(":")[0]).is_file():
        raise UsageError(f"--config={file} is not allowed: expected a file that exists, e.g. configs/wd.py")


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0 done, 2 wrong input, 130 or 143 interrupted, 1 a defect."""
    argv = sys.argv if argv is None else argv
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    absl_logging.set_verbosity(absl_logging.WARNING)
    if any(flag in ("-h", "--help") for flag in argv[1:]):
        print(f"{USAGE}\n{_describe_flags()}")
        return 0
    try:
        parse_flags(argv)
        run()
        return 0
    except HpjaxError as error:
        print(f"hpjax: error: {_one_line(error)}", file=sys.stderr)
        return 128 + signum if (signum := getattr(error, "signum", 0)) else 2
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Exception:
        traceback.print_exc()
        return 1


def _describe_flags() -> str:
    names = ("config", "space", "workdir", "resume", "plan")
    return "\n".join(f"  --{name:8} {flags.FLAGS[name].help}" for name in names)


def _one_line(error: BaseException) -> str:
    return re.sub(r"\s+", " ", str(error)).strip()


if __name__ == "__main__":
    sys.exit(main())
