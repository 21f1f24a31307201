"""What every command shares: one-line errors, exit statuses, signals and logging."""

import io
import logging
import signal
import sys
from collections.abc import Callable
from types import FrameType

from hpjax.errors import HpjaxError


def run_command(command: Callable[[], None]) -> int:
    """Runs a command; returns its exit status.

    0: done. 2: the user's input or surroundings are wrong, said in one line. 130 and 143: interrupted by
    SIGINT and SIGTERM. Any other exception is a defect: it passes through, and Python exits with 1.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("hpjax").setLevel(logging.INFO)
    logging.getLogger("absl").setLevel(logging.WARNING)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # where the locale has no "…", nothing ends for it
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


def _report(error: HpjaxError) -> int:
    text = " ".join(str(error).split())
    signum = getattr(error, "signum", 0)
    print(f"hpjax: {text}" if signum else f"hpjax: error: {text}", file=sys.stderr)
    return 128 + signum if signum else 2


def _terminate(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt(number)
