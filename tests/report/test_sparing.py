"""Figures and trackers may fail, with a line each; the sweep never does."""

import importlib.util
import math

import matplotlib
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from hpjax.errors import HpjaxError, Signalled
from hpjax.report.curves import label_trials
from hpjax.report.figures import draw_figures
from hpjax.report.style import FigureInfo, format_value, sparing
from hpjax.store.ranking import Ranking
from hpjax.store.rows import CopyRow, EpochRow, TrialRow
from hpjax.store.trackers import TRACKERS, make_trackers

TEXTS = st.sampled_from(
    (
        "",
        "a",
        "$x_{",
        "$\\frac{1}{2}$",
        "\\",
        "%s",
        "a" * 5_000,
        "$" * 5_000,
        "猫",
        "\x1b[2J",
        "\0",
        "\ud800",
        "a\nb",
    )
) | st.text(max_size=20)
NUMBERS = st.sampled_from(
    (0.0, 0.5, 1.0, -1.0, 1e308, -1e308, 1.7e308, 5e-324, 1e-300, 1e30, math.nan, math.inf, -math.inf)
) | st.floats(0, 1)
VALUES = NUMBERS | TEXTS | st.booleans() | st.integers(-(2**31), 2**31)


@st.composite
def sweeps(draw):
    """Rows of a sweep whose numbers and names may be anything, and what its figures say."""
    count, epochs, seeds = draw(st.integers(1, 14)), draw(st.integers(1, 3)), draw(st.integers(1, 2))
    names = draw(st.lists(st.sampled_from(("learning_rate", "model", "x", "y")), unique=True, max_size=3))
    measured = ("train_loss", "test_loss", "test_accuracy", "objective")
    rows, trials = [], []
    for number in range(count):
        values = {name: draw(VALUES) for name in names}
        for epoch in range(1, epochs + 1):
            rows.append(EpochRow(number, epoch, **{name: draw(NUMBERS) for name in measured}))
        last = {f"final_{name}": getattr(rows[-1], name) for name in measured}
        status = draw(st.sampled_from(("complete", "pruned", "diverged")))
        place = {"setting": number - number % seeds, "seed_index": number % seeds}
        trials.append(TrialRow(number, status, 0, values, epochs, **last, **place, initial=values))
    copies = [CopyRow(t.trial, 1, 0, t.hyperparameters) for t in trials[1:2]] if draw(st.booleans()) else []
    texts = {
        name: draw(TEXTS) for name in ("dataset", "model", "details", "notice", "ranked_by", "own_metric")
    }
    metric = draw(st.sampled_from(measured))
    more = {
        "classes": draw(st.integers(0, 3)),
        "images": draw(st.sampled_from(({}, {"test": 1}, {"test": 9_999}))),
    }
    info = FigureInfo(
        swept=tuple(names), winner=0, choices=tuple(names), ranking=Ranking(metric), **texts, **more
    )
    return rows, trials, info, copies


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(sweeps())
def test_any_numbers_and_names_are_drawn_or_left_out_with_a_line(tmp_path_factory, caplog, drawn):
    rows, trials, info, copies = drawn
    folder = tmp_path_factory.mktemp("figures")
    caplog.clear()
    files = draw_figures(rows, trials, label_trials(trials, info.swept), info, folder, copies)
    assert set(files) == set(folder.iterdir())
    for message in caplog.messages:
        assert message.isprintable() and " is left out: " in message
    for file in files:
        with Image.open(file) as image:
            assert image.width <= 10_000 and image.height <= 10_000
    assert len(files) + len(caplog.messages) <= 7


def _rows(value=0.5):
    rows = [EpochRow(n, e, value, value, min(value, 1.0)) for n in range(3) for e in (1, 2)]
    return rows, [TrialRow(n, "complete", 0, {"learning_rate": 0.1 * n}, 2) for n in range(3)]


@pytest.mark.parametrize("text", ["a$b$c", "$x_{", "\\alpha$$", "a" * 5_000])
def test_names_are_drawn_as_they_are(text, tmp_path, caplog):
    rows, trials = _rows()
    labels = {trial.trial: text for trial in trials}
    info = FigureInfo(text, text, ("learning_rate",), text, text)
    assert len(draw_figures(rows, trials, labels, info, tmp_path)) == 3 and not caplog.messages


def test_settings_of_the_users_own_change_no_figure(tmp_path, caplog):
    rows, trials = _rows()
    info = FigureInfo("digits", "net", ("learning_rate",))
    draw = lambda folder: draw_figures(rows, trials, label_trials(trials, info.swept), info, folder)  # noqa: E731
    plain = draw(tmp_path / "plain")
    changed = {
        "text.usetex": True,
        "font.size": 30,
        "axes.facecolor": "red",
        "axes.formatter.use_mathtext": True,
    }
    with matplotlib.rc_context(changed):
        others = draw(tmp_path / "others")
        assert matplotlib.rcParams["font.size"] == 30
    assert [file.read_bytes() for file in plain] == [file.read_bytes() for file in others]
    assert not caplog.messages


def test_one_figure_that_cannot_be_written_costs_no_other(tmp_path, caplog):
    rows, trials = _rows()
    (tmp_path / "test_loss.png" / "file").mkdir(parents=True)
    info = FigureInfo("digits", "net", ("learning_rate",))
    files = draw_figures(rows, trials, label_trials(trials, info.swept), info, tmp_path)
    assert [file.name for file in files] == ["train_loss.png", "test_accuracy.png"]
    (message,) = caplog.messages
    assert message.startswith("figure test_loss.png is left out: can't write")


class _Unspeakable(Exception):
    def __str__(self):
        raise SystemExit


FAILURES = [
    ValueError("a\nb"),
    MemoryError(),
    RecursionError(),
    OSError(28, "full"),
    HpjaxError("no"),
    _Unspeakable(),
]


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
def test_any_failure_is_one_line(error, caplog):
    with sparing("figure x.png"):
        raise error
    (message,) = caplog.messages
    assert message.startswith("figure x.png is left out: ") and message.isprintable()


@pytest.mark.parametrize("error", [Signalled(15), KeyboardInterrupt(), SystemExit()])
def test_a_person_may_still_end_it(error):
    with pytest.raises(type(error)), sparing("figure x.png"):
        raise error


def test_long_values_are_shortened():
    assert len(format_value("a" * 5_000)) == 80 and format_value("a\x1b") == "a\\x1b"


class _Tracker:
    def __init__(self, error, method):
        self._error, self._method = error, method

    def __getattr__(self, name):
        def call(*_):
            if name == self._method:
                raise self._error

        return call


@pytest.mark.parametrize("method", ["log_epoch", "log_hparams", "close"])
@pytest.mark.parametrize("error", [*FAILURES, SystemExit(1)], ids=lambda error: type(error).__name__)
def test_a_tracker_that_fails_is_one_line_and_left_out(error, method, tmp_path, monkeypatch, caplog):
    package = next(name for name in ("tensorboardX", "json") if importlib.util.find_spec(name))
    monkeypatch.setitem(TRACKERS, "broken", (package, lambda _: _Tracker(error, method)))
    with make_trackers(("broken", "tensorboard"), tmp_path) as trackers:
        for _ in range(2):
            trackers.log_epoch(0, 1, {"train_loss": 1.0})
        trackers.log_hparams(0, {}, {})
    (message,) = caplog.messages
    assert message.startswith("tracker broken failed") and message.isprintable()
    assert (tmp_path / "tensorboard").exists()


@pytest.mark.parametrize("error", [ValueError("no network"), SystemExit(1)])
def test_a_tracker_that_cannot_be_made_is_one_line_and_left_out(error, tmp_path, monkeypatch, caplog):
    def refuse(workdir):
        raise error

    monkeypatch.setitem(TRACKERS, "broken", ("json", refuse))
    with make_trackers(("broken",), tmp_path) as trackers:
        trackers.log_epoch(0, 1, {"train_loss": 1.0})
    assert len(caplog.messages) == 1 and "tracker broken failed" in caplog.messages[0]
