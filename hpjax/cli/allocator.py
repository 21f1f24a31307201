"""The allocator of a program of the user's own; `python -m hpjax.cli.allocator` prints what to start it with.

eval "$(python -m hpjax.cli.allocator)"; jupyter lab
"""

import functools
import logging
import multiprocessing
import os
import shlex
import sys
import traceback

from hpjax.cli.command import run_command
from hpjax.cli.host_memory import (
    FAST,
    is_settled,
    kept_memory_environment,
    restart_with_kept_memory,
    running_allocator,
)

log = logging.getLogger("hpjax")


def restart_with_fast_allocator() -> None:
    """Restarts the script that calls it, once, with the allocator that `python -m hpjax.main` trains with.

    Call it in the first lines of a script, since what comes before runs twice. It does nothing where there is
    nothing to gain: in a process that was restarted, in a worker of `multiprocessing`, with an accelerator,
    outside Linux. A notebook or an interactive session, whose state would be lost, goes on as it is; the line
    to start it with is printed.
    """
    if _is_worker() or is_settled():
        return
    if not _can_restart():
        if assignments := _assignments():
            line = " ".join(assignments)
            print(
                f"hpjax: an interactive session can't be restarted; start it as: env {line} jupyter lab",
                file=sys.stderr,
            )
        return
    restart_with_kept_memory()


@functools.cache
def advise() -> None:
    """Says once, in one line, that this process trains slower than it could, and the cure."""
    if not is_settled() and running_allocator()[0] not in FAST and _assignments():
        log.info(
            "memory comes from the C library, which is slower than it could be: call"
            " hpjax.restart_with_fast_allocator() in the script's first lines, or start Python after"
            ' eval "$(%s -m hpjax.cli.allocator)"',
            shlex.quote(sys.executable),
        )


def _is_worker() -> bool:
    """Returns whether another process waits for this one; it has the script under another name."""
    names = (frame.f_globals.get("__name__") for frame, _ in traceback.walk_stack(None))
    return multiprocessing.parent_process() is not None or "__mp_main__" in names


def _can_restart() -> bool:
    """Returns whether the same command would do the same again: not where it was typed or piped in."""
    return bool(
        sys.executable and sys.orig_argv and sys.argv[:1] not in ([], [""], ["-"]) and not hasattr(sys, "ps1")
    )


def _assignments() -> list[str]:
    """Returns what a shell sets so that a process has the allocator; empty where there is nothing to gain."""
    changed = kept_memory_environment(os.environ) or {}
    return [
        f"{name}={shlex.quote(value)}" for name, value in changed.items() if os.environ.get(name) != value
    ]


def _print_exports() -> None:
    assignments = _assignments()
    for assignment in assignments:
        print(f"export {assignment}")
    if not assignments:
        print("hpjax: nothing to set: no faster allocator is installed, or needed here", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(run_command(_print_exports))
