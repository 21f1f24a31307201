"""Killed anywhere and started again, a sweep ends with the tables and weights of one that wasn't."""

import json
import random
import signal

import pytest
from sweeps import POINTS, Sweeps, assert_same_sweep, in_a_step

KILLS_A_SWEEP = 5
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["search_sweep.py", "grid_sweep.py"])
def uninterrupted(request, tmp_path_factory):
    """Returns how to start the sweep, and the workdir of a run that nothing disturbed."""
    if request.param == "grid_sweep.py" and request.config.getoption("--kills", 5) < 10:
        pytest.skip("make faults kills this one too")
    sweeps = Sweeps(request.param, tmp_path_factory.mktemp("sweeps"))
    workdir = sweeps.folder / "uninterrupted"
    sweeps.finish(workdir)
    return sweeps, workdir


def _kills(request) -> int:
    kills = request.config.getoption("--kills", KILLS_A_SWEEP)
    return kills if kills < 10 else kills // 2


def test_killed_at_any_moment(uninterrupted, request, counted):
    sweeps, reference = uninterrupted
    left, rng = _kills(request), random.Random(0)
    points = iter(POINTS * left)
    for number in range(-(-left // KILLS_A_SWEEP)):
        workdir = sweeps.folder / f"killed_{number}"
        for _ in range(min(left, KILLS_A_SWEEP)):
            killed = _kill_at(next(points), sweeps, workdir, rng)
            left -= killed
            counted["kills survived"] += killed
        sweeps.finish(workdir)
        counted["bytes compared after kills"] += assert_same_sweep(workdir, reference)
        counted["bytes lost"] += 0


def _kill_at(point, sweeps: Sweeps, workdir, rng) -> bool:
    came, status, text = sweeps.start(workdir).signal_when(point(workdir, rng))
    assert status in (0, -signal.SIGKILL), text
    return came and status != 0


def test_signals_save_and_end(uninterrupted):
    sweeps, reference = uninterrupted
    workdir, rng = sweeps.folder / "signalled", random.Random(1)
    for number in (signal.SIGTERM, signal.SIGINT):
        came, status, text = sweeps.start(workdir).signal_when(in_a_step(workdir, rng), number)
        assert came and status == 128 + number
        last = text.splitlines()[-1]
        assert last == f"hpjax: interrupted; the same command continues the sweep in {workdir}"
        newest = max((workdir / "checkpoints" / "population").iterdir())
        ledger = json.loads((newest / "ledger.json").read_text())["ledger"]
        assert ledger["records"] == (workdir / "history.jsonl").stat().st_size > 0
    sweeps.finish(workdir)
    assert_same_sweep(workdir, reference)
