"""`python -m hpjax.report --workdir=DIR`: writes a sweep's page again, also while the sweep runs."""

import sys
from collections.abc import Sequence
from pathlib import Path

from hpjax.cli.options import run_with_help
from hpjax.config.paths import expand_path
from hpjax.errors import UsageError

HELP = """\
usage: python -m hpjax.report --workdir=DIR

Writes DIR/report.html, the page of the sweep in DIR: of one that is done, that was interrupted, or that runs.

exit status: 0 done, 2 the input is wrong, 1 a defect
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the page that a command line asks for; returns the exit status."""
    argv = sys.argv if argv is None else argv
    return run_with_help(argv, HELP, lambda: _write(_parse(argv[1:])))


def _parse(arguments: Sequence[str]) -> Path:
    workdir, waiting = None, iter(arguments)
    for argument in waiting:
        name, equals, value = argument.partition("=")
        if name not in ("-workdir", "--workdir"):
            raise UsageError(f"argument {argument!r} is not allowed: expected --workdir=DIR")
        workdir = value if equals else next(waiting, "")
    if not workdir:
        raise UsageError("--workdir is missing: expected --workdir=DIR, the folder of a sweep")
    return Path(expand_path(workdir))


def _write(workdir: Path) -> None:
    from hpjax.report.page import load_source, refusing_damage, write_page

    with refusing_damage(workdir):
        print(f"page  {write_page(load_source(workdir))}")


if __name__ == "__main__":
    sys.exit(main())
