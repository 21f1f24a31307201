"""Settings: estimates over seeds against scipy, and what noise could explain."""

import numpy as np
import pytest
from scipy import stats

from hpjax.store.ranking import Ranking
from hpjax.store.rows import TrialRow
from hpjax.store.settings import describe_winner, estimate, summarize_settings
from hpjax.store.tables import format_settings

ACCURACY = Ranking("test_accuracy", "best")
GOOD, CLOSE, BAD = (0.90, 0.92, 0.88), (0.89, 0.93, 0.87), (0.5, 0.6, 0.55)


def _trials(*settings, offset=0, **changed):
    rows = []
    for number, values in enumerate(settings):
        for seed, value in enumerate(values):
            rows.append(
                TrialRow(
                    len(rows), "complete", seed, {"weight_decay": float(number)}, 1,
                    final_test_accuracy=value - 0.01, best_test_accuracy=value, setting=number,
                    seed_index=seed, order_offset=offset * number, **changed,
                )
            )  # fmt: skip
    return rows


def test_an_estimate_is_students():
    found = estimate(list(GOOD))
    low, high = stats.t.interval(0.95, 2, np.mean(GOOD), stats.sem(GOOD))
    assert (found.n, found.mean, found.sd) == pytest.approx((3, 0.9, 0.02))
    assert (found.low, found.high) == pytest.approx((low, high))
    assert estimate([0.5]).sd is None and estimate([]) is None


def test_noise_is_told_from_effect():
    good, close, bad = summarize_settings(_trials(GOOD, CLOSE, BAD), ACCURACY)
    assert (good.winner, good.noise_p, good.could_win) == (True, None, True)
    assert close.test == bad.test == "paired t"
    assert close.noise_p == pytest.approx(stats.ttest_rel(CLOSE, GOOD).pvalue)
    assert bad.noise_p == pytest.approx(stats.ttest_rel(BAD, GOOD).pvalue)
    assert close.could_win and not bad.could_win
    described = describe_winner([good, close, bad])
    assert described["setting"] == 0 and described["rivals"] == [1] and described["noise_could_explain"]
    assert not describe_winner([good, bad])["noise_could_explain"]


def test_seeds_that_saw_other_orders_are_not_paired():
    _, bad = summarize_settings(_trials(GOOD, BAD, offset=3), ACCURACY)
    assert bad.test == "Welch"
    assert bad.noise_p == pytest.approx(stats.ttest_ind(BAD, GOOD, equal_var=False).pvalue)


def test_too_few_seeds_tell_nothing():
    one, other = summarize_settings(_trials((0.9,), (0.8,)), ACCURACY)
    assert one.winner and other.noise_p is None and other.could_win is None
    assert describe_winner([one, other])["noise_could_explain"] is None


@pytest.mark.parametrize(("other", "p"), [((0.5, 0.5), 1.0), ((0.3, 0.3), 0.0)])
@pytest.mark.parametrize("offset", [0, 1])
def test_seeds_without_any_spread(other, p, offset):
    assert summarize_settings(_trials((0.5, 0.5), other, offset=offset), ACCURACY)[1].noise_p == p


def test_losses_win_when_small():
    rows = [
        TrialRow(n, "complete", 0, {}, 1, final_train_loss=v, setting=n) for n, v in enumerate((2.0, 1.0))
    ]
    assert [row.winner for row in summarize_settings(rows, Ranking("train_loss"))] == [False, True]


def test_a_setting_that_loses_seeds_is_no_winner_by_its_survivors():
    rows = _trials(GOOD, BAD)
    rows[0] = TrialRow(0, "diverged", 0, {"weight_decay": 0.0}, 1, best_test_accuracy=0.99, setting=0)
    lossy, whole = summarize_settings(rows, ACCURACY)
    assert (lossy.lost, lossy.best.n, lossy.winner, whole.winner) == (1, 2, False, True)


def test_the_setting_that_was_run_again_stays_the_winner():
    once_lucky, run_again = summarize_settings(_trials((0.95,), GOOD), ACCURACY)
    assert run_again.winner and not once_lucky.winner


def test_the_table_reads_back():
    text = format_settings(summarize_settings(_trials(GOOD, BAD), ACCURACY), ACCURACY)
    head, first, second = (line.split(",") for line in text.splitlines())
    good, bad = dict(zip(head, first, strict=True)), dict(zip(head, second, strict=True))
    assert (good["setting"], good["winner"], good["n"], good["could_win"]) == ("0", "yes", "3", "yes")
    assert good["ranked_by"] == "best_test_accuracy"
    assert float(good["best_test_accuracy_mean"]) == pytest.approx(0.9)
    assert float(good["final_test_accuracy_mean"]) == pytest.approx(0.89)
    low, high = float(bad["best_test_accuracy_low"]), float(bad["best_test_accuracy_high"])
    assert low < 0.55 < high and (bad["test"], bad["could_win"]) == ("paired t", "no")
    assert len(head) == len(set(head))
