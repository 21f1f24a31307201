"""What every command shares: one-line errors, exit statuses, signals, logging and memory."""

import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from hpjax.errors import HpjaxError

_TUNABLE = "glibc.malloc.hugetlb"
_BYTES = 1 << 34  # more than any temporary has
# Huge pages; and big temporaries stay with the process, in the only arena that can grow by so much: else two
# threads that map and fault gigabytes in every step wait for each other in the kernel.
_TUNABLES = (
    f"{_TUNABLE}=1",
    f"glibc.malloc.mmap_threshold={_BYTES}",
    f"glibc.malloc.trim_threshold={_BYTES}",
    "glibc.malloc.arena_max=1",
)
_ACCELERATORS = ("/dev/nvidia0", "/dev/nvidiactl", "/dev/kfd", "/dev/accel0")


def run_command(command: Callable[[], None]) -> int:
    """Runs a command; returns its exit status.

    0: done. 2: the user's input or surroundings are wrong, said in one line. 130 and 143: interrupted by
    SIGINT and SIGTERM. Any other exception is a defect: it passes through, and Python exits with 1.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("hpjax").setLevel(logging.INFO)
    logging.getLogger("absl").setLevel(logging.WARNING)
    _quiet_failed_saves()
    previous = signal.signal(signal.SIGTERM, _terminate)
    try:
        command()
    except HpjaxError as error:
        return _report(error)
    except KeyboardInterrupt as error:
        print("hpjax: interrupted", file=sys.stderr)
        return 128 + (error.args[0] if error.args else signal.SIGINT)
    finally:
        signal.signal(signal.SIGTERM, previous)
    return 0


def use_huge_pages() -> None:
    """Restarts this process with huge pages that malloc keeps, where that pays: on the CPU, under Linux.

    Training would free and fault its big temporaries anew in every step; glibc reads the setting only when a
    process starts. `HPJAX_NO_REEXEC=1` keeps the process as it is.
    """
    environment = huge_pages_environment(os.environ)
    if sys.platform == "linux" and environment is not None:
        os.execve(sys.executable, sys.orig_argv, environment)


def huge_pages_environment(
    environment: Mapping[str, str], accelerators: Sequence[str] = _ACCELERATORS
) -> dict[str, str] | None:
    """Returns the environment to restart in, or None where there is no need to."""
    tunables = environment.get("GLIBC_TUNABLES", "")
    if environment.get("HPJAX_NO_REEXEC") or _TUNABLE in tunables:
        return None
    platforms = environment.get("JAX_PLATFORMS", "")
    if platforms != "cpu" and (platforms or any(Path(device).exists() for device in accelerators)):
        return None
    return {**environment, "GLIBC_TUNABLES": ":".join(filter(None, (tunables, *_TUNABLES)))}


def _report(error: HpjaxError) -> int:
    text = " ".join(str(error).split())
    signum = getattr(error, "signum", 0)
    print(f"hpjax: {text}" if signum else f"hpjax: error: {text}", file=sys.stderr)
    return 128 + signum if signum else 2


def _quiet_failed_saves() -> None:
    """Keeps a save that fails to the one line of the error that it raises.

    Orbax's threads log it too, asyncio what its other tasks met, and TensorStore whose event loop was gone:
    hundreds of lines, none of which says more.
    """
    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(_is_no_exception)
    sys.unraisablehook = _print_unless_late


def _is_no_exception(record: logging.LogRecord) -> bool:
    return record.exc_info is None


def _print_unless_late(unraisable: Any) -> None:
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt(number)
