"""Killed anywhere and started again, a sweep ends with the tables and weights of one that wasn't."""

import itertools
import json
import signal

import pytest
from sweeps import POINTS, Sweeps, after, assert_same_sweep, between_tables, count_bytes

KILLS_A_SWEEP = 5
KILLS = 3  # unless told otherwise
FEW = 9  # so many kills are all of one sweep
OTHER_SWEEPS = ("grid_sweep.py", "population_sweep.py")
pytestmark = pytest.mark.slow


def test_killed_once(searches, uninterrupted_search, rng):
    workdir = searches.folder / "killed_once"
    assert _kill_at(POINTS[0], searches, workdir, rng)
    searches.finish(workdir)
    assert_same_sweep(workdir, uninterrupted_search)


@pytest.mark.landing
def test_killed_at_any_moment(searches, uninterrupted_search, request, rng, counted):
    kills = request.config.getoption("--kills", KILLS)
    others = len(OTHER_SWEEPS) * (kills // 4) if kills > FEW else 0
    _kill_and_compare(searches, uninterrupted_search, kills - others, rng, counted)


@pytest.mark.parametrize("config", OTHER_SWEEPS)
def test_other_sweeps_killed_at_any_moment(config, tmp_path, request, rng, counted):
    kills = request.config.getoption("--kills", KILLS)
    if kills <= FEW:
        pytest.skip("make faults does it")
    sweeps = Sweeps(config, tmp_path)
    sweeps.finish(tmp_path / "uninterrupted")
    _kill_and_compare(sweeps, tmp_path / "uninterrupted", kills // 4, rng, counted)


def _kill_and_compare(sweeps: Sweeps, reference, kills: int, rng, counted) -> None:
    points, left = itertools.cycle(POINTS), kills
    for number in itertools.count():
        if not left:
            break
        workdir = sweeps.folder / f"killed_{number}"
        for _ in range(min(left, KILLS_A_SWEEP)):
            point = next(points)
            killed = _kill_at(point, sweeps, workdir, rng)
            left -= killed
            counted["kills survived"] += killed
            counted[f"kills {point.__name__.replace('_', ' ')}"] += killed
        sweeps.finish(workdir)
        assert_same_sweep(workdir, reference)
        counted["bytes compared after kills"] += count_bytes(reference)


def _kill_at(point, sweeps: Sweeps, workdir, rng) -> bool:
    came, status, text = sweeps.start(workdir).signal_when(point(workdir, rng))
    assert status in (0, -signal.SIGKILL), text
    return came and status != 0


@pytest.mark.landing
def test_signals_save_and_end(searches, uninterrupted_search, rng):
    workdir = searches.folder / "signalled"
    for number in (signal.SIGTERM, signal.SIGINT):
        trained = between_tables(workdir, rng)
        came, status, text = searches.start(workdir).signal_when(after(trained, 0.1), number)
        assert came and status == 128 + number
        last = text.splitlines()[-1]
        assert last == f"hpjax: interrupted; the same command continues the sweep in {workdir}"
        newest = max((workdir / "checkpoints" / "population").iterdir())
        ledger = json.loads((newest / "ledger/ledger.json").read_text())["ledger"]
        history = (workdir / "history.jsonl").read_text()
        assert ledger["records"][0] == len(history.encode()) > 0
        rows = (workdir / "epochs.csv").read_text().splitlines()[1:]
        assert len(rows) == history.count('"kind": "epoch"')  # tables are as new as the history
    searches.finish(workdir)
    assert_same_sweep(workdir, uninterrupted_search)
