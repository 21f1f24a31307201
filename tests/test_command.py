"""Exit statuses, signals, and the restart for huge pages."""

import os
import signal

import pytest

from hpjax.command import huge_pages_environment, run_command
from hpjax.errors import HpjaxError

KEPT_HUGE_PAGES = (
    "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=17179869184:"
    "glibc.malloc.trim_threshold=17179869184:glibc.malloc.arena_max=1"
)


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


@pytest.mark.parametrize(
    ("environment", "tunables"),
    [
        ({"JAX_PLATFORMS": "cpu"}, KEPT_HUGE_PAGES),
        ({}, KEPT_HUGE_PAGES),
        ({"GLIBC_TUNABLES": "glibc.malloc.check=0"}, f"glibc.malloc.check=0:{KEPT_HUGE_PAGES}"),
    ],
)
def test_huge_pages_are_asked_for_on_the_cpu(environment, tunables):
    assert huge_pages_environment(environment, accelerators=()) == {**environment, "GLIBC_TUNABLES": tunables}


@pytest.mark.parametrize(
    "environment",
    [{"HPJAX_NO_REEXEC": "1"}, {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"}, {"JAX_PLATFORMS": "cuda"}],
)
def test_a_process_stays_as_it_is(environment):
    assert huge_pages_environment(environment, accelerators=()) is None


def test_a_process_with_an_accelerator_stays_as_it_is(tmp_path):
    assert huge_pages_environment({}, accelerators=(str(tmp_path),)) is None
    assert huge_pages_environment({"JAX_PLATFORMS": "cpu"}, accelerators=(str(tmp_path),)) is not None
