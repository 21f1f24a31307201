"""What every command shares: one-line errors, exit statuses, signals, logging and output that may be gone."""

import contextlib
import logging
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType

from hpjax.cli.streams import describe_lost_output, lasting_output
from hpjax.errors import HpjaxError, PrintableRecords, Signalled, text_of

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run_command(command: Callable[[], int | None]) -> int:
    """Runs a command; returns its exit status.

    0, or what the command returns: done. 2: the user's input or surroundings are wrong, said in one line.
    130, 143 and 129: interrupted by SIGINT, SIGTERM or SIGHUP. Any other exception is a defect: it passes
    through, and Python exits with 1.

    Where nothing reads what is printed any more, the command runs to its end all the same, and its status
    is 141, as of one that SIGPIPE ends; where stdout can't be written for another reason, 2.
    """
    with lasting_output() as stdout:
        _configure_logging()
        with _raising_signals():
            status = _run(command)
        stdout.flush()
        if status == 0 and stdout.error is not None:
            reason = describe_lost_output(stdout.error)
            status = _report(HpjaxError(f"can't write to stdout: {reason}")) if reason else 141
    return status


def _configure_logging() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    for handler in logging.getLogger().handlers:
        if not any(isinstance(known, PrintableRecords) for known in handler.filters):
            handler.addFilter(PrintableRecords())
    logging.getLogger("hpjax").setLevel(logging.INFO)
    logging.getLogger("absl").setLevel(logging.WARNING)


def _run(command: Callable[[], int | None]) -> int:
    try:
        return command() or 0
    except HpjaxError as error:
        return _report(error)
    except KeyboardInterrupt as error:
        print("hpjax: interrupted", file=sys.stderr)
        # Another library may raise one of its own in place of a `Signalled`.
        return 128 + getattr(error, "signum", _Received.last or signal.SIGINT)


def _report(error: HpjaxError) -> int:
    text = " ".join(text_of(error, most=0).split())
    signum = getattr(error, "signum", 0)
    print(f"hpjax: {text}" if signum else f"hpjax: error: {text}", file=sys.stderr)
    return 128 + signum if signum else 2


@contextlib.contextmanager
def _raising_signals() -> Iterator[None]:
    """Has signals raise `Signalled`; those that are ignored (`nohup`) stay ignored."""
    previous = {
        number: signal.signal(number, _raise)
        for number in SIGNALS
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class _Received:
    last = 0  # signal


def _raise(number: int, frame: FrameType | None) -> None:
    _Received.last = number
    raise Signalled(number)
