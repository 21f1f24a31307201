"""Figures of searches: what mattered, how hyperparameters act together, how early trials can be judged."""

import dataclasses

import numpy as np
import pytest
from page_workdirs import SPACE, record_population, record_search

from hpjax.report.page import importance
from hpjax.report.page.axes import list_axes
from hpjax.report.page.figures import create_figures
from hpjax.report.page.judgement import create_foresight, create_spread
from hpjax.report.page.maps import create_maps, create_parallel


@pytest.fixture(scope="module")
def search(tmp_path_factory):
    return record_search(tmp_path_factory.mktemp("searches"), trials=90, pruned=0.4)


def _replace_scores(source, scores):
    trials = [
        dataclasses.replace(trial, final_validation_accuracy=float(score))
        for trial, score in zip(source.trials, scores, strict=True)
    ]
    return dataclasses.replace(source, trials=trials)


def test_what_decides_the_score_is_most_important_by_both_measures(search):
    (figure,) = importance.create_importance(search, list_axes(search))
    first, *others = figure["rows"]
    assert first["name"] == "learning rate" and figure["order"][0] == "learning_rate"
    assert first["ped"] > 2 * first["chance"] and first["fanova"] > 0.8
    assert sum(row["ped"] for row in figure["rows"]) == pytest.approx(1, abs=1e-3)
    assert all(row["ped"] < 2 * row["chance"] for row in others)
    assert "More than chance: learning rate." in figure["alt"]


def test_importances_of_scores_without_a_reason_are_called_chance(search):
    null = _replace_scores(search, np.random.default_rng(1).random(len(search.trials)))
    (figure,) = importance.create_importance(null, list_axes(null))
    assert "None does" in figure["note"] and "More than chance: none." in figure["alt"]


def test_few_settings_say_nothing_about_importance(tmp_path, search):
    few = record_search(tmp_path, trials=19, pruned=0)
    assert importance.create_importance(few, list_axes(few)) == []
    assert importance.create_importance(search, list_axes(search)[:1]) == []


def test_seeds_of_a_setting_count_once(tmp_path):
    source = record_search(tmp_path, trials=24, seeds=2, pruned=0)
    (figure,) = importance.create_importance(source, list_axes(source))
    assert figure["note"].startswith("Of 24 settings that ran to the end.")


def test_forests_wait_for_the_end_and_look_at_few_settings(search, monkeypatch):
    unfinished = dataclasses.replace(search, summary={**search.summary, "finished": False})
    (figure,) = importance.create_importance(unfinished, list_axes(unfinished))
    assert {row["fanova"] for row in figure["rows"]} == {None} and "follows when" in figure["note"]
    monkeypatch.setattr(importance, "MOST_IN_TREES", 25)
    monkeypatch.setattr(importance, "MOST", 30)
    (figure,) = importance.create_importance(search, list_axes(search))
    assert ", 30 of them sampled" in figure["note"] and "of 25 settings" in figure["note"]


def test_settings_beyond_the_space_dont_count(search):
    odd = [{**trial.hyperparameters, "learning_rate": 5.0} for trial in search.trials[:40]]
    trials = [dataclasses.replace(t, hyperparameters=h) for t, h in zip(search.trials, odd, strict=False)]
    source = dataclasses.replace(search, trials=[*trials, *search.trials[40:]])
    (figure,) = importance.create_importance(source, list_axes(source))
    complete = sum(trial.status == "complete" for trial in search.trials[40:])
    assert figure["note"].startswith(f"Of {complete} settings")


def test_the_map_is_highest_where_the_best_trials_are(search):
    contour, rank = create_maps(search, list_axes(search))
    assert [contour["x"]["column"], contour["y"]["column"]] == ["learning_rate", "weight_decay"]
    cells, (across, _) = np.array(contour["cells"], float), contour["edges"]
    best = np.nanargmax(np.nanmean(cells, axis=0))
    assert across[best] < 3e-3 and across[best + 1] > 3e-4  # 0.001 is the best rate
    assert contour["levels"][0] == pytest.approx(np.nanmin(cells), abs=1e-4) and rank["kind"] == "rank"


def test_the_map_is_blank_where_no_trial_is_near(search):
    axes = list_axes(search)
    near = {t: v for t, v in axes[0].values.items() if not 1e-4 < v < 1e-2}
    gap = [dataclasses.replace(axes[0], values=near), axes[1]]
    cells = create_maps(search, gap)[0]["cells"]
    assert all(row[len(row) // 2] is None for row in cells) and any(row[0] is not None for row in cells)


def test_listed_values_have_a_cell_each(search):
    axes = {axis.name: axis for axis in list_axes(search)}
    contour, _ = create_maps(search, [axes["optimizer"], axes["learning_rate"]])
    assert contour["x"]["levels"] == ["adam", "sgd"] and {len(row) for row in contour["cells"]} == {2}
    ends = [t for t in search.trials if t.status == "complete" and t.hyperparameters["optimizer"] == "adam"]
    assert len(ends) > 10 and contour["edges"][0] == []


def test_few_trials_have_no_map(tmp_path):
    source = record_search(tmp_path, trials=12, pruned=0)
    assert create_maps(source, list_axes(source)) == []
    assert create_parallel(source, list_axes(source))[0]["axes"][0]["column"] == "learning_rate"


def test_the_distribution_counts_every_trial(search):
    (figure,) = create_spread(search)
    ended, early = figure["lines"]
    assert ended["count"] + early["count"] == 90
    values = np.array([t.final_validation_accuracy for t in search.trials if t.status == "complete"])
    for x, y in zip(ended["x"], ended["y"], strict=True):
        assert y == pytest.approx(np.mean(values <= x + 1e-5), abs=1e-4)
    assert ended["y"][-1] == early["y"][-1] == 1


def test_an_early_epoch_that_tells_the_end_is_told_from_one_that_doesnt(search):
    (figure,) = create_foresight(search)
    assert [row["epoch"] for row in figure["rows"]] == [1, 2, 3, 4, 5]
    assert all(row["agreement"] > 0.9 and row["kept"] == 1 for row in figure["rows"])
    pruned = [trial.epochs for trial in search.trials if trial.status == "pruned"]
    assert [row["pruned"] for row in figure["rows"]] == [pruned.count(epoch) for epoch in range(1, 6)]
    assert "0.9 is reached at epoch 1" in figure["alt"]
    scores = np.random.default_rng(0).random(90)
    (figure,) = create_foresight(_replace_scores(search, scores))
    assert all(abs(row["agreement"]) < 0.5 for row in figure["rows"])
    assert "0.9 is never reached" in figure["alt"]


def test_too_few_trials_are_no_evidence_of_foresight(tmp_path):
    assert create_foresight(record_search(tmp_path, trials=11, pruned=0)) == []


def test_a_population_has_its_lineage(tmp_path):
    source = record_population(tmp_path)
    sections = create_figures(source)
    (figure,) = [f for f in sections["search"] if f["kind"] == "lineage"]
    assert len(figure["copies"]) == len(source.copies) > 5
    trial, epoch, other, _, after = figure["copies"][0]
    row = next(row for row in source.copies if (row.trial, row.epoch) == (trial, epoch))
    assert row.source == other and row.hyperparameters["learning_rate"] == pytest.approx(after, rel=1e-4)
    assert figure["ancestry"][-1][1] == pytest.approx(source.best.hyperparameters["learning_rate"], rel=1e-4)
    assert f"The best is trial {source.best.trial}" in figure["alt"]
    assert not [f for f in sections["response"] if f["kind"] == "importance"]  # values changed on the way


def test_a_sweep_of_one_hyperparameter_has_no_figures_of_several(tmp_path):
    space = {"learning_rate": SPACE["learning_rate"]}
    figures = create_figures(record_search(tmp_path, trials=30, sweep={"space": space}))
    assert [figure["kind"] for figure in figures["response"]] == ["response"]
