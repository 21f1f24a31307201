"""Exit statuses, signals and logging."""

import os
import signal

import pytest

from hpjax.cli.command import run_command
from hpjax.errors import HpjaxError


class _Interrupted(HpjaxError):
    def __init__(self, signum):
        self.signum = signum
        super().__init__("interrupted; everything is saved")


def _raise(error):
    raise error


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (HpjaxError("a.b=3 is not\n  allowed"), 2, "hpjax: error: a.b=3 is not allowed"),
        (_Interrupted(signal.SIGINT), 130, "hpjax: interrupted; everything is saved"),
        (_Interrupted(signal.SIGTERM), 143, "hpjax: interrupted; everything is saved"),
        (KeyboardInterrupt(), 130, "hpjax: interrupted"),
    ],
)
def test_errors_are_one_line_on_stderr_and_a_status(error, status, line, capsys):
    assert run_command(lambda: _raise(error)) == status
    assert capsys.readouterr() == ("", f"{line}\n")


def test_done_is_0():
    assert run_command(lambda: None) == 0


def test_a_defect_passes_through():
    with pytest.raises(ZeroDivisionError):
        run_command(lambda: _raise(ZeroDivisionError()))


def test_sigterm_ends_a_command_with_143_and_is_handed_back():
    before = signal.getsignal(signal.SIGTERM)
    assert run_command(lambda: os.kill(os.getpid(), signal.SIGTERM)) == 143
    assert signal.getsignal(signal.SIGTERM) is before
