"""Keeps a save that fails to the one line of the error that it raises.

Orbax's threads log it too, asyncio what its other tasks met, and TensorStore whose event loop was gone:
hundreds of lines, none of which says more.
"""

import contextlib
import logging
import sys
import threading
from collections.abc import Iterator
from typing import Any

_LOGGERS = ("absl", "asyncio")
_lock = threading.Lock()
_under_way = 0
_hook_of_others: Any = None  # while it is replaced


@contextlib.contextmanager
def one_line_failures() -> Iterator[None]:
    """Silences the tracebacks of libraries while saves are under way.

    After one that failed they stay silent until another succeeds: what was started for it complains late.
    """
    global _under_way
    with _lock:
        _under_way += 1
        _silence()
    failed = True
    try:
        yield
        failed = False
    finally:
        with _lock:
            _under_way -= 1
            if not (failed or _under_way):
                _give_back()


def _silence() -> None:
    global _hook_of_others
    if _hook_of_others is None:
        _hook_of_others, sys.unraisablehook = sys.unraisablehook, _pass_on_unless_late
        for name in _LOGGERS:
            logging.getLogger(name).addFilter(_is_no_traceback)


def _give_back() -> None:
    global _hook_of_others
    sys.unraisablehook, _hook_of_others = _hook_of_others, None
    for name in _LOGGERS:
        logging.getLogger(name).removeFilter(_is_no_traceback)


def _is_no_traceback(record: logging.LogRecord) -> bool:
    return record.exc_info is None


def _pass_on_unless_late(unraisable: Any) -> None:
    if str(unraisable.exc_value) != "Event loop is closed":
        (_hook_of_others or sys.__unraisablehook__)(unraisable)
