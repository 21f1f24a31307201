"""A real sweep writes its page, and is worth more than it."""

import pytest

from hpjax.config import parse_config
from hpjax.main import _describe
from hpjax.report.page import load_source
from hpjax.sweep import events, pacing, run_sweep, session


def _config(net):
    data = {"name": "synthetic_scenes", "image_size": 16, "max_train_examples": 60, "max_test_examples": 24}
    given = {"model": {"name": net}, "data": data, "train": {"batch_size": 20, "epochs": 3}}
    given |= {
        "sweep": {"space": {"learning_rate": (1e-3, 1e-2, 1e-1)}},
        "lanes": {"count": 2, "strategy": "fused"},
    }
    return parse_config(given)


@pytest.fixture(scope="module")
def finished(net, tmp_path_factory):
    return run_sweep(_config(net), tmp_path_factory.mktemp("page") / "s")


def test_a_sweep_ends_with_its_page(finished):
    text = (finished.workdir / "report.html").read_text(encoding="utf-8")
    assert finished.outcome in text and "The sweep is done: 3 trials, 9 epochs in all." in text
    assert finished.best is not None and "learning rate = " in text
    assert _describe(finished).startswith(f"page         {finished.workdir}/report.html")


def test_the_summary_says_with_what_it_was_made(finished):
    made_with = finished.summary["made_with"]
    assert made_with["jax"] and made_with["hpjax"] and "cpu" in made_with["device"]


def test_lanes_are_those_that_were_busy(finished):
    source = load_source(finished.workdir)
    stays = source.occupancy.stays
    assert {stay.lane for stay in stays} == {0, 1}
    assert sum(stay.epochs for stay in stays) == finished.summary["busy_lane_epochs"] == 9
    for stay in stays:
        seconds = sum(row.epoch_seconds for row in finished.epochs if row.trial == stay.trial)
        assert stay.end - stay.begin == pytest.approx(seconds)
    assert source.occupancy.seconds == max(stay.end for stay in stays)


def test_a_page_that_cant_be_written_costs_a_line(net, tmp_path, caplog, monkeypatch):
    def begin(self, name, ago=0.0):  # the folder that lies in its place comes after the sweep has begun
        (tmp_path / "s/report.html").mkdir(exist_ok=True)

    monkeypatch.setattr(pacing.Pace, "begin", begin)
    result = run_sweep(_config(net), tmp_path / "s")
    assert result.summary["finished"] and result.best is not None
    assert caplog.text.count("report.html is left out: can't write") == 1
    assert not _describe(result).startswith("page")


def test_it_is_written_while_the_sweep_runs(net, tmp_path, monkeypatch):
    states = []

    def look(source):
        states.append((source.finished, len(source.epochs)))

    monkeypatch.setattr(events, "FIRST_PAGE", 0.0)
    monkeypatch.setattr(session, "write_page", look)
    run_sweep(_config(net), tmp_path / "s")
    assert states[0][0] is False and 0 < states[0][1] < 9
    assert states[-1] == (True, 9)
