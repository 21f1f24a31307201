"""Sweeps that are interrupted while an epoch is trained."""

import os
import signal

from hpjax.sweep.loop import GroupRun


def interrupt_in_second_epoch(monkeypatch) -> None:
    """Sends SIGINT once, as the second epoch of this process begins."""
    run_epoch, calls = GroupRun.run_epoch, []

    def interrupt(run):
        calls.append(run)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return run_epoch(run)

    monkeypatch.setattr(GroupRun, "run_epoch", interrupt)
