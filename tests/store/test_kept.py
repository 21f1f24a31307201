"""Kept weights: the best trials', and all of the setting that wins, whatever is killed on the way."""

import math
import random

import numpy as np
import pytest

from hpjax.store.kept import KeptWeights, most_kept
from hpjax.store.ranking import Ranking
from hpjax.store.rows import TrialRow
from hpjax.store.settings import find_winner

SEEDS = 3


def _row(trial, score):
    setting, lost = trial - trial % SEEDS, score == -math.inf
    return TrialRow(
        trial, "diverged" if lost else "complete", 0, {}, 1, setting=setting, seed_index=trial % SEEDS,
        final_test_accuracy=None if lost else score,
    )  # fmt: skip


def _finish(kept, trial, score):
    wanted = kept.wants(trial, trial - trial % SEEDS, score)
    weights = {"w": np.full(2, trial, np.float32)} if wanted else None
    kept.finish(trial, trial - trial % SEEDS, score, weights, {"trial": trial})


def _expected(scores, keep):
    best = sorted((t for t, s in scores.items() if s > -math.inf), key=lambda t: (-scores[t], t))[:keep]
    winner = find_winner([_row(*item) for item in scores.items()], Ranking("test_accuracy"))
    return {*best, *(t for t in winner.trials if scores[t] > -math.inf)}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("keep", [0, 1, 4])
def test_the_best_and_the_winners_stay(seed, keep, tmp_path):
    rng, most = random.Random(seed), 0
    scores = {trial: rng.choice((-math.inf, rng.random(), rng.random())) for trial in range(8 * SEEDS)}
    order = sorted(scores, key=lambda trial: trial + rng.uniform(0, 4))  # as four lanes end them
    with KeptWeights(tmp_path / "trials", keep, SEEDS) as kept:
        for trial in order:
            _finish(kept, trial, scores[trial])
            most = max(most, len(kept.trials()))
        assert set(kept.trials()) == _expected(scores, keep)
        assert most <= most_kept(keep, SEEDS, 0, lanes=4)
        for trial in kept.trials():
            assert kept.load(trial)[0]["w"][0] == trial


@pytest.mark.parametrize("cut", [1, 7, 12, 23])
def test_a_kill_leaves_what_no_kill_would_have_left(cut, tmp_path):
    rng = random.Random(3)
    scores = {trial: rng.random() for trial in range(8 * SEEDS)}
    with KeptWeights(tmp_path / "trials", 2, SEEDS) as kept:
        for trial in scores:
            _finish(kept, trial, scores[trial])
    with KeptWeights(tmp_path / "trials", 2, SEEDS) as kept:  # goes on from a checkpoint long before
        for trial in range(cut):
            kept.recall(trial, trial - trial % SEEDS, scores[trial])
        for trial in range(cut, len(scores)):
            _finish(kept, trial, scores[trial])
        assert set(kept.trials()) == _expected(scores, 2)


def test_further_seeds_of_the_winner_stay(tmp_path):
    with KeptWeights(tmp_path / "trials", 1, 1) as kept:
        for trial, score in enumerate((0.5, 0.9, 0.7)):
            assert kept.wants(trial, trial, score) == (trial < 2)
            kept.finish(trial, trial, score, {"w": np.zeros(1)}, {})
        for trial in (3, 4):
            assert kept.wants(trial, 1, 0.1)
            kept.finish(trial, 1, 0.1, {"w": np.zeros(1)}, {})
        assert kept.trials() == [1, 3, 4]
        kept.clear()
        assert kept.trials() == []


def test_without_a_winner_to_keep_the_best_stay_alone(tmp_path):
    with KeptWeights(tmp_path / "trials", 0, SEEDS, winner=False) as kept:
        assert not kept.wants(0, 0, 0.9)
        kept.finish(0, 0, 0.9, None, {})
        assert kept.trials() == []
    assert most_kept(0, SEEDS, 2, 4, winner=False) == 0
    assert most_kept(20, 1, 0, 4) == 20 and most_kept(0, 1, 0, 4) == 1
