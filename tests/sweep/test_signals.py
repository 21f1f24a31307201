"""A signal is noted where there is something to save, and interrupts at once where there isn't."""

import os
import signal

import pytest
from tiny_network import DATA, MODEL

from hpjax.config import parse_config
from hpjax.errors import Signalled
from hpjax.sweep import Interrupted, run_sweep
from hpjax.sweep.signals import Signals
from hpjax.sweep.workers import Here, WorkersLost

NUMBERS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture(autouse=True)
def _hangup():
    """Has hangups end a process, as they do where it wasn't started by `nohup`."""
    previous = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, previous)


@pytest.mark.parametrize("number", NUMBERS)
def test_the_first_is_noted_and_the_second_ends_at_once(number):
    before = [signal.getsignal(n) for n in NUMBERS]
    with Signals() as signals:
        os.kill(os.getpid(), number)
        assert signals.received == number
        with pytest.raises(Signalled) as caught:
            os.kill(os.getpid(), number)
    assert caught.value.signum == number and [signal.getsignal(n) for n in NUMBERS] == before


@pytest.mark.parametrize("number", NUMBERS)
def test_work_of_which_nothing_is_saved_is_interrupted(number):
    with Signals() as signals:
        with pytest.raises(Signalled) as caught, signals.at_once():
            os.kill(os.getpid(), number)
        assert caught.value.signum == signals.received == number
        with pytest.raises(Signalled), signals.at_once():  # one that arrived before
            raise AssertionError


def test_after_such_work_signals_are_noted_again():
    with Signals() as signals:
        with signals.at_once():
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.received == signal.SIGTERM


class _Lost(Here):
    """Whose workers die of the signal that the whole job got."""

    recovered = 0

    def __init__(self, error):
        self._error = error

    def create_lanes(self, *_):
        os.kill(os.getpid(), signal.SIGTERM)
        raise self._error

    def recover(self):
        type(self).recovered += 1


@pytest.mark.parametrize("error", [WorkersLost("gone"), MemoryError()], ids=["workers", "memory"])
def test_a_signal_isnt_forgotten_for_what_is_lost_with_it(error, tmp_path):
    config = parse_config(
        {"model": MODEL, "data": DATA, "train": {"epochs": 1}, "sweep": {"space": {"weight_decay": (0.0,)}}}
    )
    with pytest.raises(Interrupted) as caught:
        run_sweep(config, tmp_path / "w", workers=_Lost(error))
    assert caught.value.signum == signal.SIGTERM and not _Lost.recovered


def test_a_hangup_stays_ignored_where_it_is():
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Signals() as signals:
            os.kill(os.getpid(), signal.SIGHUP)
            assert signals.received == 0
    finally:
        signal.signal(signal.SIGHUP, previous)
