"""Ranking: one rule for which epoch of a trial counts."""

import math

import pytest

from hpjax.store.ranking import Ranking, rank_setting
from hpjax.store.rows import TrialRow
from hpjax.store.settings import find_winner, summarize_settings


def _trial(number, final, best, status="complete", setting=None, **changed):
    values = {"final_test_accuracy": final, "best_test_accuracy": best}
    setting = number if setting is None else setting
    return TrialRow(
        number, status, 0, {}, 3, setting=setting, seed_index=number - setting, **values, **changed
    )


RISES, FALLS = _trial(0, 0.8, 0.8), _trial(1, 0.6, 0.9)


@pytest.mark.parametrize(
    ("select", "trial", "words"), [("final", 0, "final test accuracy"), ("best", 1, "best test accuracy")]
)
def test_the_rule_picks_the_epoch(select, trial, words):
    ranking = Ranking("test_accuracy", select)
    assert ranking.find_best([RISES, FALLS]).trial == trial
    assert find_winner([RISES, FALLS], ranking).setting == trial
    assert ranking.describe() == words and ranking.column == words.replace(" ", "_")
    assert ranking.other.select != select


@pytest.mark.parametrize("select", ["final", "best"])
def test_what_diverged_or_measured_nothing_has_no_rank(select):
    ranking = Ranking("test_accuracy", select)
    wild, empty = _trial(0, 0.99, 0.99, "diverged"), _trial(1, None, None)
    assert ranking.find_best([wild, empty, _trial(2, math.nan, math.nan)]) is None
    assert ranking.find_best([wild, _trial(3, 0.1, 0.1, "pruned")]).trial == 3


def test_the_lower_number_wins_a_tie_and_losses_when_small():
    ranking = Ranking("train_loss")
    rows = [
        TrialRow(n, "complete", 0, {}, 1, final_train_loss=loss) for n, loss in enumerate((2.0, 1.0, 1.0))
    ]
    assert ranking.find_best(rows).trial == 1


def test_weights_are_those_that_the_number_was_measured_with():
    final, best = Ranking("test_accuracy"), Ranking("test_accuracy", "best")
    scores = (0.5, 0.9, 0.7)
    assert [final.weights_score(epoch, score) for epoch, score in enumerate(scores, 1)] == [1.0, 2.0, 3.0]
    assert tuple(best.weights_score(epoch, score) for epoch, score in enumerate(scores, 1)) == scores
    assert final.weights_score(4, -math.inf) == -math.inf  # what isn't finite is never kept
    assert (final.pick(0.7, 0.9), best.pick(0.7, 0.9)) == (0.7, 0.9)


def test_settings_are_ranked_as_their_parts_say():
    """The winner of the tables is the one that decides which weights stay."""
    rows = [_trial(0, 0.9, 0.9, setting=0), _trial(1, 0.1, 0.1, "diverged", setting=0)]
    rows += [_trial(2, 0.5, 0.5, setting=2), _trial(3, 0.6, 0.6, setting=2)]
    ranks = [rank_setting((0.9, -math.inf), True, 0), rank_setting((0.5, 0.6), False, 2)]
    assert (
        min(ranks)[-1]
        == 2
        == next(row.setting for row in summarize_settings(rows, Ranking("test_accuracy")) if row.winner)
    )
    assert rank_setting((-math.inf,), True, 4) is None
