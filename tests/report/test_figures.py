"""Figures: what is drawn and said, checked on the figure's own objects and on the files."""

import dataclasses
import math
import sys

import pytest
from PIL import Image

from hpjax.errors import WorkdirError
from hpjax.report import figures as figures_module
from hpjax.report.curves import Curve, create_curves, label_trials
from hpjax.report.figures import draw_figures
from hpjax.report.lineage import trace_ancestry
from hpjax.report.style import FigureInfo, format_amount, format_value, is_log_like
from hpjax.store.ranking import Ranking
from hpjax.store.rows import CopyRow, EpochRow, TrialRow

NOTICE = "Synthetic scenes stand in for the images."


def _sweep(name, values, seeds=1, epochs=4, status="complete"):
    rows, trials = [], []
    for setting, value in enumerate(values):
        for seed in range(seeds):
            number = len(trials)
            accuracy = [0.2 + 0.1 * epoch + 0.01 * seed for epoch in range(epochs)]
            for epoch, share in enumerate(accuracy, 1):
                rows.append(EpochRow(number, epoch, 2.0 / epoch, 1.9 / epoch, share))
            hyperparameters = {name: value}
            trials.append(
                TrialRow(number, status, seed, hyperparameters, epochs, final_test_accuracy=accuracy[-1],
                         setting=setting, seed_index=seed, initial=hyperparameters)
            )  # fmt: skip
    return rows, trials


@pytest.fixture
def drawn(monkeypatch):
    """Figures by file name, caught on their way to disk."""
    caught = {}

    def save(figure, path):
        caught[path.name] = figure
        return path

    for module in ("figures", "response", "lineage", "together"):
        monkeypatch.setattr(sys.modules[f"hpjax.report.{module}"], "save_figure", save)
    return caught


def _draw(rows, trials, swept, tmp_path, copies=(), notice=""):
    info = FigureInfo("digits, 48 px", "custom_cnn", swept, "batch size 32", notice, classes=10)
    return draw_figures(rows, trials, label_trials(trials, swept), info, tmp_path, copies)


def _legend(figure):
    return [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


def test_files_are_images(tmp_path):
    rows, trials = _sweep("learning_rate", (1e-4, 1e-3, 1e-2))
    files = _draw(rows, trials, ("learning_rate",), tmp_path / "figures", notice=NOTICE)
    assert [file.name for file in files] == [
        "train_loss.png", "test_loss.png", "test_accuracy.png", "final_accuracy.png",
    ]  # fmt: skip
    for file in files:
        with Image.open(file) as image:
            image.load()
            assert min(image.size) >= 500
    assert "matplotlib.pyplot" not in sys.modules


def test_figure_stands_alone(tmp_path, drawn):
    rows, trials = _sweep("weight_decay", (1.0, 0.01))
    _draw(rows, trials, ("weight_decay",), tmp_path, notice=NOTICE)
    assert set(drawn) == {"train_loss.png", "test_loss.png", "test_accuracy.png"}
    figure = drawn["test_accuracy.png"]
    assert [text.get_text() for text in figure.texts] == [
        "Test accuracy per epoch, by weight decay", "custom_cnn on digits, 48 px, batch size 32", NOTICE,
    ]  # fmt: skip
    axes = figure.axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("epoch", "test accuracy (share of images)")
    assert _legend(figure) == [
        "weight decay = 0.01 (final test accuracy 0.500)",
        "weight decay = 1 (final test accuracy 0.500)",
    ]
    assert all(tick == round(tick) for tick in axes.get_xticks())
    lines = axes.get_lines()[:2]
    for read in ("get_color", "get_marker", "get_linestyle"):
        assert len({getattr(line, read)() for line in lines}) == 2


def test_seeds_become_mean_and_band(tmp_path, drawn):
    rows, trials = _sweep("batch_size", (10, 450), seeds=3)
    curves = create_curves(
        rows, trials, label_trials(trials, ("batch_size",)), ("batch_size",), "test_accuracy"
    )
    assert [curve.seeds for curve in curves] == [3, 3]
    assert curves[0].mean[-1] == pytest.approx(0.51) and curves[0].high[-1] == pytest.approx(0.52)
    _draw(rows, trials, ("batch_size",), tmp_path)
    figure = drawn["test_loss.png"]
    assert len(figure.axes[0].collections) == 3 and _legend(figure)[-1] == "lowest to highest of 3 seeds"
    assert _legend(figure)[0] == "batch size = 10 (mean final test loss 0.475)"


def test_diverged_trial_is_marked_and_the_axis_shows_it_all(tmp_path, drawn):
    rows, trials = _sweep("learning_rate", (1e-4,))
    rows += [EpochRow(1, 1, 50.0, 1e6, 0.1), EpochRow(1, 2, math.nan, math.inf, 0.1)]
    trials.append(TrialRow(1, "diverged", 0, {"learning_rate": 1.0}, 2, setting=1))
    rows.append(EpochRow(2, 1, math.nan, math.nan, 0.1))
    trials.append(TrialRow(2, "diverged", 0, {"learning_rate": 10.0}, 1, setting=2))
    _draw(rows, trials, ("learning_rate",), tmp_path)
    axes = drawn["test_loss.png"].axes[0]
    assert axes.get_yscale() == "log" and axes.get_ylim()[1] >= 1e6
    assert "learning rate = 1 (last test loss 1e6, diverged)" in _legend(drawn["test_loss.png"])
    assert "learning rate = 10 (nothing finite, diverged)" in _legend(drawn["test_loss.png"])
    assert "x" in [line.get_marker() for line in axes.get_lines()]


def _info(swept, **more):
    return FigureInfo("digits, 48 px", "custom_cnn", swept, "", classes=10, **more)


def _lost(number, name, value):
    return TrialRow(number, "diverged", 0, {name: value}, 0, setting=number)


def test_a_setting_without_an_epoch_is_marked_at_the_edge(tmp_path, drawn):
    rows, trials = _sweep("learning_rate", (1e-4, 1e-3, 1e-2))
    trials.append(_lost(3, "learning_rate", 10.0))
    _draw(rows, trials, ("learning_rate",), tmp_path)
    assert "learning rate = 10 (nothing finite, diverged)" in _legend(drawn["test_loss.png"])
    for name, height in (("test_loss.png", 1.0), ("test_accuracy.png", 0.0)):
        axes = drawn[name].axes[0]
        edge = [line for line in axes.get_lines() if line.get_transform() is axes.transAxes]
        assert [list(line.get_ydata()) for line in edge] == [[height]]
    axes = drawn["final_accuracy.png"].axes[0]
    assert axes.get_xlim()[1] > 10.0
    assert any(list(line.get_xdata()) == [10.0] for line in axes.get_lines())
    assert "diverged in its first epoch" in _legend(drawn["final_accuracy.png"])


def test_those_without_an_epoch_are_counted_where_there_are_many(tmp_path, drawn):
    rows, trials = _sweep("optimizer", [f"o{i}" for i in range(12)])
    trials += [_lost(12, "optimizer", "p"), _lost(13, "optimizer", "q")]
    _draw(rows, trials, ("optimizer",), tmp_path)
    assert "2 with nothing finite (at the edge)" in _legend(drawn["test_accuracy.png"])
    assert "the other 7" in _legend(drawn["test_accuracy.png"])


def test_long_labels_leave_the_axes_their_width_and_are_whole(tmp_path, drawn):
    swept = ("learning_rate", "weight_decay", "optimizer", "model", "batch_size", "dropout_rate", "schedule")
    rows, trials = _sweep("learning_rate", (1e-4, 1e-3, 1e-2))
    more = {"weight_decay": 0.005047, "optimizer": "adafactor", "model": "/home/a/b/mynet.py:MyNetwork",
            "batch_size": 64, "dropout_rate": 0.486, "schedule": "constant"}  # fmt: skip
    trials = [
        dataclasses.replace(t, hyperparameters={**t.hyperparameters, **more}, initial={}) for t in trials
    ]
    _draw(rows, trials, swept, tmp_path)
    figure = drawn["test_accuracy.png"]
    figure.draw_without_rendering()
    axes, legend = figure.axes[0], figure.axes[0].get_legend()
    box = legend.get_window_extent()
    assert axes.get_position().width > 0.75
    assert box.x0 >= 0 and box.x1 <= figure.bbox.width and box.y0 >= 0
    assert box.y1 <= axes.get_tightbbox().y0
    assert "model = mynet.py:MyNetwork" in " ".join(_legend(figure)[0].split())


def test_the_winner_is_marked_even_among_many(tmp_path, drawn):
    rows, trials = _sweep("optimizer", [f"o{i:02}" for i in range(12)])
    swept = ("optimizer",)
    draw_figures(rows, trials, label_trials(trials, swept), _info(swept, winner=11), tmp_path)
    assert _legend(drawn["test_loss.png"])[0] == "optimizer = o11 (final test loss 0.475, winner)"
    (ring,) = (c for c in drawn["final_accuracy.png"].axes[0].collections if c.get_sizes()[0] > 100
               and len(c.get_offsets()))  # fmt: skip
    assert ring.get_offsets()[0].tolist() == pytest.approx([11, 0.5])


def test_choices_have_ticks_and_are_joined_ranges_are_not(tmp_path, drawn):
    rows, trials = _sweep("batch_size", (10, 256, 450))
    swept = ("batch_size",)
    draw_figures(rows, trials, label_trials(trials, swept), _info(swept, choices=swept), tmp_path)
    axes = drawn["final_accuracy.png"].axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["10", "256", "450"]
    assert len(axes.get_lines()) == 1
    draw_figures(rows, trials, label_trials(trials, swept), _info(swept), tmp_path)
    assert not drawn["final_accuracy.png"].axes[0].get_lines()


def test_crowded_ticks_are_turned_and_panels_left_out_are_said(tmp_path, drawn):
    rows, trials = _sweep("h0", [f"a-long-optimizers-name-{i}" for i in range(4)])
    swept = tuple(f"h{i}" for i in range(7))
    more = [{f"h{i}": n + i for i in range(1, 7)} for n in range(4)]
    trials = [
        dataclasses.replace(t, hyperparameters={**t.hyperparameters, **m})
        for t, m in zip(trials, more, strict=True)
    ]
    _draw(rows, trials, swept, tmp_path)
    figure = drawn["final_accuracy.png"]
    assert figure.texts[0].get_text() == "Final test accuracy against the first 6 of 7 hyperparameters"
    labels = figure.axes[0].get_xticklabels()
    assert {label.get_rotation() for label in labels} == {30.0}
    assert all(len(label.get_text()) <= 20 for label in labels)


def test_seeds_that_differ_in_number_are_each_said(tmp_path, drawn):
    rows, trials = _sweep("batch_size", (10, 450), seeds=3)
    trials = [t for t in trials if t.setting or not t.seed_index]
    rows = [row for row in rows if row.trial in {t.trial for t in trials}]
    _draw(rows, trials, ("batch_size",), tmp_path)
    assert _legend(drawn["test_loss.png"]) == [
        "batch size = 10 (final test loss 0.475)",
        "batch size = 450 (mean final test loss 0.475 over 3 seeds)",
        "lowest to highest of a setting’s seeds",
    ]


def test_the_word_guessing_is_beside_the_curves(tmp_path, drawn):
    rows, trials = _sweep("optimizer", ("adam", "sgd"))
    _draw(rows, trials, ("optimizer",), tmp_path)
    figure = drawn["test_accuracy.png"]
    figure.draw_without_rendering()
    axes = figure.axes[0]
    (word,) = axes.texts
    assert word.get_window_extent().x0 >= axes.bbox.x1
    assert axes.get_legend().get_window_extent().x0 >= word.get_window_extent().x1


def test_a_population_is_labelled_by_what_it_began_with(tmp_path):
    trial = TrialRow(2, "complete", 0, {"learning_rate": 2e-3}, 4, initial={"learning_rate": 1e-2})
    assert label_trials([trial], ("learning_rate",)) == {2: "trial 2, from learning rate = 0.01"}


def test_many_trials_of_one_number_are_coloured_on_a_scale(tmp_path, drawn):
    rows, trials = _sweep("learning_rate", [10 ** (-5 + i / 5) for i in range(20)])
    _draw(rows, trials, ("learning_rate",), tmp_path)
    figure = drawn["test_accuracy.png"]
    assert len(figure.axes) == 2 and figure.axes[1].get_ylabel() == "learning rate"
    assert drawn["final_accuracy.png"].axes[0].get_xscale() == "log"


def test_many_trials_of_several_hyperparameters_show_the_best(tmp_path, drawn):
    rows, trials = _sweep("optimizer", [f"o{i}" for i in range(12)])
    _draw(rows, trials, ("optimizer",), tmp_path)
    labels = _legend(drawn["test_accuracy.png"])
    assert len(labels) == 6 and labels[-1] == "the other 7"


def test_a_search_is_shown_on_what_it_was_measured_on(tmp_path, drawn):
    rows, trials = _sweep("learning_rate", (1e-4, 1e-3, 1e-2))
    validated = [
        dataclasses.replace(t, final_validation_accuracy=0.5, final_test_accuracy=None) for t in trials
    ]
    validated[1] = dataclasses.replace(validated[1], final_test_accuracy=0.6)
    _draw(rows, validated, ("learning_rate",), tmp_path)
    axes = drawn["final_accuracy.png"].axes[0]
    assert axes.get_ylabel() == "final validation accuracy (share of images)"
    assert len(axes.collections[0].get_offsets()) == 3


def test_lineage_follows_the_best(tmp_path, drawn):
    rows, trials = _sweep("learning_rate", (1e-4, 1e-3, 1e-2))
    trials[2] = TrialRow(2, "complete", 0, {"learning_rate": 2e-3}, 4, final_test_accuracy=0.9, setting=2,
                         initial={"learning_rate": 1e-2})  # fmt: skip
    copies = [CopyRow(1, 1, 0, {"learning_rate": 5e-4}), CopyRow(2, 2, 1, {"learning_rate": 2e-3})]
    assert trace_ancestry(trials, copies, Ranking("test_accuracy")) == [(2, 2, 4), (1, 1, 2), (0, 0, 1)]
    _draw(rows, trials, ("learning_rate",), tmp_path, copies)
    axes = drawn["lineage.png"].axes[0]
    best = next(line for line in axes.get_lines() if "ancestry" in str(line.get_label()))
    assert best.get_xydata().tolist() == [[0, 1e-4], [1, 1e-4], [1, 5e-4], [2, 5e-4], [2, 2e-3], [4, 2e-3]]


def test_nothing_to_draw(tmp_path):
    assert _draw([], [], (), tmp_path) == []
    rows, trials = _sweep("x", (1,), epochs=1)
    assert len(_draw(rows, trials, (), tmp_path)) == 3


def test_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkdirError, match="can't create"):
        _draw([], [], (), tmp_path / "file" / "below")


@pytest.mark.parametrize(
    ("amount", "text"),
    [(1272.4, "1,272"), (99.96, "100"), (12.34, "12.3"), (0.0012345, "0.00123"), (0.0, "0")],
)
def test_amounts_have_no_exponent(amount, text):
    assert format_amount(amount) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(1e-4, "1e-4"), (0.01, "0.01"), (1.0, "1"), (5.767e-4, "5.767e-4"), (256, "256"), (1e6, "1e6"),
     (True, "yes"), ("adam", "adam"), (None, "–"), (0.0, "0"), (-2.5e-7, "-2.5e-7")],
)  # fmt: skip
def test_format_value(value, text):
    assert format_value(value) == text


def test_log_scale_only_where_it_spreads_values():
    assert is_log_like([1e-7, 1e-4, 1e-2])
    assert not is_log_like([10, 256, 450])
    assert not is_log_like([0.0, 0.5])
    assert figures_module.METRICS.keys() >= {"train_loss", "test_loss", "test_accuracy"}


def test_every_number_says_which_epoch_it_is_of(tmp_path, drawn):
    rows, trials = _sweep("learning_rate", (1e-4, 1e-3, 1e-2))
    rows.append(EpochRow(0, 5, 9.0, 9.0, 0.1))  # worse at the end than before
    trials = [dataclasses.replace(trial, best_test_accuracy=0.5) for trial in trials]
    trials[0] = dataclasses.replace(trials[0], final_test_accuracy=0.1)
    for select, number in (("final", "0.100"), ("best", "0.500")):
        ranking = Ranking("test_accuracy", select)
        info = _info(("learning_rate",), ranking=ranking, ranked_by=ranking.describe())
        draw_figures(rows, trials, label_trials(trials, info.swept), info, tmp_path)
        figure = drawn["test_accuracy.png"]
        assert _legend(figure)[0] == f"learning rate = 1e-4 ({select} test accuracy {number})"
        assert figure.texts[1].get_text().endswith(f"ranked by {select} test accuracy")
        response = drawn[f"{select}_accuracy.png"]
        assert response.texts[0].get_text() == f"{select.capitalize()} test accuracy against learning rate"
        assert response.axes[0].get_ylabel() == f"{select} test accuracy (share of images)"
        heights = response.axes[0].collections[0].get_offsets()[:, 1].tolist()
        assert heights[0] == float(number)


def _measured(count, images, tmp_path, drawn, seeds=1, swept=("learning_rate",), **about):
    rows, trials = _sweep("learning_rate", [10.0**-n for n in range(count)], seeds)
    rows = [dataclasses.replace(row, train_accuracy=row.test_accuracy + 0.1) for row in rows]
    info = FigureInfo("digits", "net", swept, classes=10, images={"test": images}, **about)
    draw_figures(rows, trials, label_trials(trials, swept), info, tmp_path)
    return drawn


def test_training_and_test_are_together_in_one_figure(tmp_path, drawn):
    figure = _measured(3, 100, tmp_path, drawn)["train_and_test.png"]
    assert "train_accuracy.png" in drawn
    loss, accuracy = figure.axes
    assert (loss.get_ylabel(), accuracy.get_ylabel()) == (
        "loss (nats per image)",
        "accuracy (share of images)",
    )
    for axes in figure.axes:
        styles = [line.get_linestyle() for line in axes.get_lines() if len(line.get_xdata()) == 4]
        assert sorted(styles) == ["-"] * 3 + ["--"] * 3
    assert len(_legend(figure)) == 4 and "95 % interval" in _legend(figure)[-1]
    assert len(accuracy.containers) == 3 and not loss.containers
    assert "the best" not in " ".join(text.get_text() for text in figure.texts)


def test_of_many_settings_as_many_as_there_are_colours_are_together(tmp_path, drawn):
    figure = _measured(12, 100, tmp_path, drawn, winner=11)["train_and_test.png"]
    labels = _legend(figure)
    assert len(labels) - 1 == len({line.get_color() for line in figure.axes[0].get_lines()}) == 7
    assert "the best 7 of 12" in " ".join(text.get_text() for text in figure.texts).replace("\n", " ")
    assert "learning rate = 1e-11" in labels


@pytest.mark.parametrize(("images", "seeds", "bars"), [(0, 1, 0), (100, 1, 3), (100, 2, 0)])
def test_an_accuracy_without_seeds_has_its_interval(images, seeds, bars, tmp_path, drawn):
    axes = _measured(3, images, tmp_path, drawn, seeds)["test_accuracy.png"].axes[0]
    assert len(axes.containers) == bars
    assert any("95 % interval" in text for text in _legend(axes.figure)) == bool(bars)
    low, high = axes.get_ylim()
    assert not images or high - low > 3 * (0.1 if images == 100 else 0.01)


def test_every_axis_of_accuracies_has_the_line_of_guessing(tmp_path, drawn):
    _measured(3, 100, tmp_path, drawn)
    for name in ("test_accuracy.png", "train_accuracy.png", "final_accuracy.png", "train_and_test.png"):
        axes = drawn[name].axes[-1]
        assert [(patch.get_y(), patch.get_height()) for patch in axes.patches] == [(0.1, 0.0)], name
        assert axes.get_ylim()[0] < 0.1 < axes.get_ylim()[1], name
        assert "guessing" in [text.get_text() for text in axes.texts], name


def test_a_metric_of_ones_own_has_its_name(tmp_path, drawn):
    rows, trials = _sweep("learning_rate", [0.1, 0.2])
    rows = [dataclasses.replace(row, objective=row.test_loss) for row in rows]
    info = FigureInfo(
        "digits", "net", ("learning_rate",), ranking=Ranking("objective"), own_metric="my_score"
    )
    draw_figures(rows, trials, label_trials(trials, info.swept), info, tmp_path)
    figure = drawn["objective.png"]
    assert figure.texts[0].get_text().startswith("My score per epoch")
    assert figure.axes[0].get_ylabel().startswith("my score") and "final my score" in _legend(figure)[0]


@pytest.mark.parametrize("logs", [(), ("learning_rate",)])
def test_what_was_searched_in_the_logarithm_is_drawn_so(logs, tmp_path, drawn):
    rows, trials = _sweep("learning_rate", [0.01 * 1.2**n for n in range(12)])
    info = FigureInfo("digits", "net", ("learning_rate",), logs=logs)
    draw_figures(rows, trials, label_trials(trials, info.swept), info, tmp_path)
    scale = "log" if logs else "linear"
    assert drawn["final_accuracy.png"].axes[0].get_xscale() == scale
    assert drawn["test_accuracy.png"].axes[1].get_yscale() == scale  # of the colours


def test_ten_settings_are_told_apart(tmp_path, drawn):
    rows, trials = _sweep("learning_rate", [0.1 * n for n in range(10)])
    _draw(rows, trials, ("learning_rate",), tmp_path)
    lines = [line for line in drawn["test_accuracy.png"].axes[0].get_lines() if len(line.get_xdata()) == 4]
    looks = {(line.get_color(), line.get_marker(), line.get_linestyle()) for line in lines}
    assert len(lines) == len(looks) == 10 and len({line.get_marker() for line in lines}) == 10


def test_trials_are_never_compared_field_by_field(tmp_path, monkeypatch):
    """Of twenty thousand, finding each among all of them would take longer than training them did."""

    def compare(one, other):
        raise AssertionError

    rows, trials = _sweep("learning_rate", [1e-4 * i for i in range(1, 41)])
    for row in trials:
        row.hyperparameters["weight_decay"] = 1e-3 * row.trial
    monkeypatch.setattr(TrialRow, "__eq__", compare)
    monkeypatch.setattr(Curve, "__eq__", compare)
    assert _draw(rows, trials, ("learning_rate", "weight_decay"), tmp_path)
