"""The command line of a sweep; every misuse is one `HpjaxError`."""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags

from hpjax.cli.config_file import find_config_file, load_config_file
from hpjax.cli.options import refusing_flags
from hpjax.cli.overrides import take_config, with_fields
from hpjax.cli.reference import describe_fields
from hpjax.config.fields import FIELDS, Config
from hpjax.config.names import find_field
from hpjax.config.parsing import parse_config
from hpjax.config.paths import expand_path
from hpjax.errors import ConfigError, UsageError
from hpjax.search.flags import parse_space_flag
from hpjax.store.workdir import Resume

__all__ = ["Arguments", "UsageError", "find_help", "parse_arguments"]

HELP = """\
usage: python -m hpjax.main --config=FILE [--config.SECTION.FIELD=VALUE …] [options]

Trains every trial of a sweep, many at once, and writes tables, figures and checkpoints.

  --config=FILE         the sweep: Python, YAML or JSON; or, from any folder, one of hpjax's own:
                        wd, lr, batch_size, kernel_width, asha, lr_wd_tpe, pbt, seeds.
                        --config.train.epochs=3 changes a field (--helpfull lists them)
  --space=NAME=SPEC     replaces the search space; repeatable. SPEC is choices (0.01,1.0),
                        a range (1e-5:1e-1:log) or a range with a step (8:64:8); behind it,
                        ' if OTHER=a,b' says beside which values it exists
  --workdir=DIR         where everything is kept; default runs/<name of the config>
  --resume=auto         continue an unfinished sweep there (auto), or never, or must
  --plan                print what would be compiled and trained, and run nothing
  --plan --for=h200     the same for a GPU that isn't here (a100, h100, h200): which lanes fit,
                        what they move; needs XLA's compiler for CUDA, and no GPU
  --launcher=ray        train on the workers of a Ray cluster; needs Ray
  --ray_address=ADDRESS  which cluster, or auto for the one of this machine; one is started here
                        where none is named
  --ray_workers=N       how many workers; default one per GPU, or one per node where there is none
  --ray_deadline=60     seconds after which a worker that answers nothing counts as lost
  --help, --helpfull    this text; with every field, its default and what it may be

exit status: 0 done, 3 done but every trial diverged, 2 the input is wrong, 130, 143 or 129
interrupted (saved), 141 done but nobody reads the output, 1 a defect
"""


class RayOptions(NamedTuple):
    """How a Ray cluster is reached; see `hpjax.launch.ray.RayWorkers`."""

    address: str
    count: int
    deadline: float


@dataclass(frozen=True)
class Arguments:
    """What the command line asks for.

    Attributes:
      config: the sweep.
      workdir: where it is kept.
      resume: auto, never or must.
      plan: only print the plan.
      plan_for: the GPU that is planned for; None: this machine.
      ray: how a cluster is reached; None: this process trains.
      fields: dotted keys of the fields that were typed.
      spaces: what was typed after `--space=`, by hyperparameter.
    """

    config: Config
    workdir: str
    resume: Resume
    plan: bool
    plan_for: str | None = None
    ray: "RayOptions | None" = None
    fields: frozenset[str] = frozenset()
    spaces: dict[str, str] = field(default_factory=dict)

    @contextlib.contextmanager
    def naming_flags(self) -> Iterator[None]:
        """Has errors about what was typed name the flag as it was typed."""
        with _naming(self.fields, self.spaces):
            yield


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
    with _explaining_flags():
        taken = take_config(flags.FlagValues().read_flags_from_files(list(argv[1:])))
        chosen = _parse_flags([argv[0], *taken.rest])
    if taken.file is None:
        raise UsageError("--config is missing: expected --config=FILE, e.g. --config=configs/wd.py")
    axes, spaces = _parse_spaces(chosen["space"])
    stem = Path(taken.file.partition(":")[0]).stem
    workdir = expand_path(chosen["workdir"]) if chosen["workdir"] else str(Path("runs") / stem)
    if not workdir.isprintable():
        raise UsageError(f"--workdir={workdir!r} is not allowed: expected a path without control characters")
    fields = {**taken.fields, **({"sweep.space": axes} if axes else {})}
    given = with_fields(load_config_file(find_config_file(expand_path(taken.file))), fields)
    if chosen["for"] and not chosen["plan"]:
        raise UsageError(f"--for={chosen['for']} is not allowed alone: expected --plan --for={chosen['for']}")
    asked = (workdir, chosen["resume"], chosen["plan"], chosen["for"], _ray_options(chosen))
    arguments = Arguments(Config(), *asked, frozenset(taken.fields), spaces)
    with arguments.naming_flags():
        return dataclasses.replace(arguments, config=parse_config(given))


def _ray_options(chosen: dict[str, Any]) -> RayOptions | None:
    if chosen["launcher"] == "ray":
        if chosen["for"]:
            raise UsageError("--launcher=ray is not allowed with --for: nothing is trained then")
        deadline = 60.0 if chosen["ray_deadline"] is None else chosen["ray_deadline"]
        if not 1.0 <= deadline <= 86400.0:  # nan too
            raise UsageError(f"--ray_deadline={deadline} is not allowed: expected seconds, 1 to 86400")
        return RayOptions(chosen["ray_address"], chosen["ray_workers"], deadline)
    for name in ("ray_address", "ray_workers", "ray_deadline"):
        if chosen[name]:
            raise UsageError(f"--{name} is not allowed alone: expected --launcher=ray --{name}=…")
    return None


def _parse_spaces(given: Sequence[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Returns the axes that `--space` flags describe, and the flags, both by hyperparameter."""
    axes: dict[str, Any] = {}
    spaces: dict[str, str] = {}
    for flag in given:
        name, spec = parse_space_flag(flag)
        if name in axes:
            raise ConfigError("--space", flag, f"{name} once: all choices, or the range, in one --space")
        axes[name], spaces[name] = spec, flag
    return axes, spaces


def _parse_flags(argv: list[str]) -> dict[str, Any]:
    values = flags.FlagValues()
    flags.DEFINE_multi_string("space", [], "", flag_values=values)
    flags.DEFINE_string("workdir", None, "", flag_values=values)
    flags.DEFINE_enum("resume", "auto", ["auto", "never", "must"], "", flag_values=values)
    flags.DEFINE_bool("plan", False, "", flag_values=values)
    flags.DEFINE_enum("for", None, ["a100", "h100", "h200"], "", flag_values=values)
    flags.DEFINE_enum("launcher", "local", ["local", "ray"], "", flag_values=values)
    flags.DEFINE_string("ray_address", "", "", flag_values=values)
    flags.DEFINE_integer("ray_workers", 0, "", lower_bound=0, upper_bound=10_000, flag_values=values)
    flags.DEFINE_float("ray_deadline", None, "", flag_values=values)
    if rest := values(argv)[1:]:
        raise UsageError(f"argument {rest[0]!r} is not allowed: expected only flags, as in --plan")
    return values.flag_values_dict()


@contextlib.contextmanager
def _explaining_flags() -> Iterator[None]:
    """Says what absl refuses; a flag that is called as a field answers with the field's."""
    with refusing_flags():
        try:
            yield
        except flags.UnrecognizedFlagError as error:
            if meant := find_field(error.flagname, FIELDS):
                text = f"--{error.flagname} is no flag; did you mean --config.{meant}=…?"
                raise UsageError(text) from error
            raise


@contextlib.contextmanager
def _naming(fields: frozenset[str], spaces: dict[str, str]) -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        raise _as_typed(error, fields, spaces) from error


def _as_typed(error: ConfigError, fields: frozenset[str], spaces: dict[str, str]) -> ConfigError:
    """Returns an error about a field's key as one about the flag that gave it, if one did."""
    for name, flag in spaces.items():
        if _is_below(error.key, f"sweep.space.{name}"):
            return ConfigError("--space", flag, error.allowed)
    if any(_is_below(error.key, typed) for typed in fields):
        return ConfigError(f"--config.{error.key}", error.value, error.allowed)
    if spaces and _is_below(error.key, "sweep.enqueue"):
        cure = "--config.sweep.enqueue= leaves out the settings that the config runs first"
        return ConfigError(error.key, error.value, f"{error.allowed}; {cure}")
    return error


def _is_below(key: str, typed: str) -> bool:
    return key == typed or key.startswith(f"{typed}.")
