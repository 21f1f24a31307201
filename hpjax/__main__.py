"""`hpjax COMMAND …` and `python -m hpjax COMMAND …`: every command by its name."""

import difflib
import importlib.metadata
import runpy
import sys
from collections.abc import Sequence

from hpjax.cli.command import run_command
from hpjax.errors import UsageError

COMMANDS = {
    "main": ("hpjax.main", "run a sweep, or go on with one"),
    "lr_range": ("hpjax.lr_range", "find which learning rates are worth a search"),
    "report": ("hpjax.report", "write a sweep's page again"),
    "export": ("hpjax.export", "write a trial's model for other programs"),
    "predict": ("hpjax.predict", "ask a trained model about images"),
    "replay": ("hpjax.replay", "train a trial again, and compare it with its record"),
    "prepare": ("hpjax.data.prepare", "check and pack the Intel images, or a set of tensorflow-datasets"),
    "allocator": ("hpjax.cli.allocator", "print what sets a faster allocator for a shell"),
}
HELP_FLAGS = ("-h", "-help", "--help", "help")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command that is named first; returns the exit status."""
    argv = sys.argv if argv is None else argv
    if len(argv) < 2 or argv[1] in HELP_FLAGS:
        return run_command(lambda: print(_describe(), end=""))
    if argv[1] == "--version":
        return run_command(lambda: print(importlib.metadata.version("hpjax")))
    if argv[1] not in COMMANDS:
        return run_command(lambda: _refuse(argv[1]))
    sys.argv = [f"hpjax {argv[1]}", *argv[2:]]
    # As `python -m` does: a command may restart its process, and ends with its own exit status.
    runpy.run_module(COMMANDS[argv[1]][0], run_name="__main__", alter_sys=True)
    return 0


def _describe() -> str:
    lines = [f"  {name:10} {text}" for name, (_, text) in COMMANDS.items()]
    head = "usage: hpjax COMMAND [options]; hpjax COMMAND --help says more; hpjax --version\n"
    return "\n".join([head, *lines]) + "\n"


def _refuse(name: str) -> None:
    meant = difflib.get_close_matches(name, COMMANDS, 1)
    hint = f"; did you mean {meant[0]}?" if meant else ""
    raise UsageError(f"hpjax has no command {name[:99]!r}: expected {', '.join(COMMANDS)}{hint}")


if __name__ == "__main__":
    sys.exit(main())
