"""Training in bfloat16: it learns, and a lane equals the same trial alone as far as its 8 bits go."""

import numpy as np
import pytest
from tiny_network import MODEL

from hpjax.config import parse_config
from hpjax.data.dataset import load_dataset
from hpjax.lanes.engine import Engine, Layout
from hpjax.lanes.group import create_program, create_task, trial_hparams
from hpjax.lanes.shuffle import Shuffle
from hpjax.train.hparams import create_hparams


@pytest.mark.parametrize(("optimizer", "rates"), [("adam", (1e-3, 3e-3))])
def test_lanes_learn_and_equal_the_trial_alone(optimizer, rates):
    data = {"name": "synthetic_scenes", "image_size": 30, "max_train_examples": 48, "max_test_examples": 12}
    config = parse_config(
        {
            "model": MODEL,
            "data": data,
            "optimizer": {"name": optimizer},
            "train": {"batch_size": 16, "precision": "bfloat16"},
        }
    )
    dataset = load_dataset(config.data, 0)
    program, task = create_program(config, dataset), create_task(config, dataset, True)

    def losses(trials):
        engine = Engine(program, task, trial_hparams(config, 0), len(trials), Layout(len(trials)))
        for lane, trial in enumerate(trials):
            engine.admit(lane, trial)
        results = [engine.run_epoch([Shuffle(0, e)] * len(trials), ("test",)) for e in range(4)]
        assert all(np.isfinite(r.evaluated["test"].loss).all() for r in results)
        return np.array([r.train.loss / r.train.count for r in results])

    trials = [create_hparams(learning_rate=rate, dropout_rate=0.0, seed=0) for rate in rates]
    together = losses(trials)
    assert np.isfinite(together).all() and (together[-1] < together[0]).all()
    for lane, trial in enumerate(trials):
        # Products of 8 bits, summed in another order, over twelve steps of the optimizer.
        np.testing.assert_allclose(together[:, lane], losses([trial])[:, 0], rtol=3e-2)
