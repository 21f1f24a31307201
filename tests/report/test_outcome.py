"""The last line of a sweep."""

import pytest

from hpjax.report.outcome import describe_outcome, describe_standings, describe_time
from hpjax.store.ranking import Ranking
from hpjax.store.rows import TrialRow
from hpjax.store.settings import describe_winner, summarize_settings

SUMMARY = {"metric": "test_accuracy", "select": "final", "swept": ["learning_rate"], "utilisation": 0.934}


def _trial(number, rate, accuracy, seed_index=0):
    values = {"final_test_accuracy": accuracy, "best_test_accuracy": accuracy + 0.01}
    setting = number - seed_index
    return TrialRow(
        number, "complete", 0, {"learning_rate": rate}, 1, setting=setting, seed_index=seed_index, **values
    )


def test_one_seed():
    line = describe_outcome(_trial(3, 1e-4, 0.912345), SUMMARY)
    assert (
        line
        == "best: trial 3, learning rate = 1e-4, final test accuracy 0.9123 (best 0.9223), lanes 93 % busy"
    )


def test_several_seeds():
    better, worse = (0.9, 0.92, 0.88), (0.5, 0.5, 0.5)
    trials = [_trial(seed, 1e-4, value, seed) for seed, value in enumerate(better)]
    trials += [_trial(3 + seed, 1e-5, value, seed) for seed, value in enumerate(worse)]
    winner = describe_winner(summarize_settings(trials, Ranking("test_accuracy")))
    line = describe_outcome(trials[1], {**SUMMARY, "winner": winner})
    assert line == (
        "best: learning rate = 1e-4, mean final test accuracy 0.9 ± 0.05 (best 0.91) over 3 seeds, "
        "noise is unlikely to explain its lead, lanes 93 % busy"
    )


def test_nothing_ended_well():
    assert describe_outcome(None, SUMMARY) == "best: none, no trial ended well"


def test_trials_that_ended_early_are_counted():
    counts = {"total": 9, "complete": 5, "pruned": 3, "diverged": 1}
    line = describe_outcome(_trial(3, 1e-4, 0.9), {**SUMMARY, "trials": counts})
    assert line.endswith(", 3 pruned and 1 diverged of 9 trials, lanes 93 % busy")
    line = describe_outcome(None, {**SUMMARY, "trials": {"total": 2, "diverged": 2}})
    assert line == "best: none, no trial ended well (2 diverged of 2 trials)"


def test_a_searchs_read_of_the_test_set_and_its_speed_are_said():
    best = TrialRow(2, "complete", 0, {"learning_rate": 1e-3}, 1, final_test_accuracy=0.8125,
                    final_test_loss=0.51234, best_validation_accuracy=0.95,
                    final_validation_accuracy=0.9)  # fmt: skip
    layouts = [{"speedup": 2.44}, {"speedup": 1.21}, {"speedup": 0.0}]
    line = describe_outcome(best, {**SUMMARY, "metric": "validation_accuracy", "layouts": layouts})
    assert line == (
        "best: trial 2, learning rate = 0.001, final validation accuracy 0.9 (best 0.95), "
        "test accuracy 0.8125, test loss 0.5123, 1.2 to 2.4 times as fast as one by one, lanes 93 % busy"
    )


def test_what_ranks_is_said():
    best = _trial(3, 1e-4, 0.9)
    line = describe_outcome(best, {**SUMMARY, "select": "best"})
    assert line == (
        "best: trial 3, learning rate = 1e-4, best test accuracy 0.91 (final 0.9), lanes 93 % busy"
    )


def test_the_best_settings_are_listed():
    trials = [_trial(number, 10.0**-number, 0.5 + 0.05 * number) for number in range(8)]
    trials.append(TrialRow(8, "diverged", 0, {"learning_rate": 1.0}, setting=8))
    lines = describe_standings(summarize_settings(trials, Ranking("test_accuracy")), trials, SUMMARY)
    assert lines[0] == "the best of 9 settings, by final test accuracy:" and len(lines) == 6
    assert lines[1] == "  1.  0.85  learning rate = 1e-7" and lines[5].endswith("learning rate = 0.001")


def test_settings_of_several_seeds_and_losses_are_listed_as_they_are_ranked():
    trials = [_trial(seed, 0.1, 0.5 + 0.02 * seed, seed) for seed in range(3)]
    trials += [_trial(3 + seed, 0.2, 0.7 + 0.02 * seed, seed) for seed in range(3)]
    lines = describe_standings(summarize_settings(trials, Ranking("test_accuracy")), trials, SUMMARY)
    assert lines[1:] == ["  1.  0.72 ± 0.05  learning rate = 0.2", "  2.  0.52 ± 0.05  learning rate = 0.1"]
    losses = [
        TrialRow(n, "complete", 0, {"learning_rate": n}, final_test_loss=1.0 + n, setting=n) for n in range(2)
    ]
    summary = {**SUMMARY, "metric": "test_loss"}
    lines = describe_standings(summarize_settings(losses, Ranking("test_loss")), losses, summary)
    assert lines[1:] == ["  1.  1  learning rate = 0", "  2.  2  learning rate = 1"]


def test_one_setting_has_no_list():
    trials = [_trial(0, 0.1, 0.5)]
    assert describe_standings(summarize_settings(trials, Ranking("test_accuracy")), trials, SUMMARY) == []


def test_what_has_no_effect_is_said_under_the_list():
    trials = [_trial(number, 10.0 ** (number - 9), 0.1 * number) for number in range(3)]
    summary = SUMMARY | {"without_effect": {"momentum": "optimizer adam doesn't read it"}}
    lines = describe_standings(summarize_settings(trials, Ranking("test_accuracy")), trials, summary)
    assert len(lines) == 5
    assert (
        lines[-1] == "  momentum has no effect, its values are equally good: optimizer adam doesn't read it"
    )


@pytest.mark.parametrize(
    ("summary", "expected"),
    [
        ({"wall_seconds": 130.0, "planned_seconds": 100.4}, "2 min; its plan said 2 min"),
        (
            {"wall_seconds": 9.0, "planned_seconds": 6.0, "fewer_epochs": 3},
            "9 s; its plan said at most 6 s",
        ),
        ({"wall_seconds": 9.0, "planned_seconds": None}, "9 s"),
        ({}, ""),
        ({"wall_seconds": "x", "planned_seconds": []}, ""),
    ],
)
def test_the_time_is_compared_with_the_plan(summary, expected):
    assert describe_time(summary) == expected
