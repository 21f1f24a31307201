"""Networks that were written for one trial train in lanes as they do alone."""

from pathlib import Path

import foreign_networks
import numpy as np
import pytest
from drawn_images import draw_split
from flax import nnx

from hpjax.config import parse_config
from hpjax.data.dataset import Dataset
from hpjax.lanes.engine import Engine, Layout
from hpjax.lanes.group import create_program, create_task
from hpjax.lanes.shuffle import Shuffle
from hpjax.train.hparams import create_hparams

# Of others, who leave shapes and dtypes to JAX.
pytestmark = pytest.mark.usefixtures("promotion_as_users_have_it")
FILE = Path(foreign_networks.__file__)
NAMES = [name for name, found in vars(foreign_networks).items()
         if isinstance(found, type) and issubclass(found, nnx.Module)]  # fmt: skip
TRIALS = [
    create_hparams(learning_rate=1e-3, weight_decay=0.01, seed=0),
    create_hparams(learning_rate=3e-3, seed=1, label_smoothing=0.1),
    create_hparams(learning_rate=1e-2, weight_decay=0.1, seed=2, clip_norm=1.0),
]
WILD = create_hparams(learning_rate=1e30, seed=3)


@pytest.mark.parametrize(
    "name",
    [name if name == "Residual" else pytest.param(name, marks=pytest.mark.landing) for name in NAMES],
)
def test_a_lane_equals_the_trial_alone(name):
    config = parse_config({"model": {"name": f"{FILE}:{name}"}, "train": {"batch_size": 16}})
    dataset = Dataset("drawn", tuple("abcdef"), draw_split(40, 0), None, draw_split(20, 1), fingerprint="")
    program, task = create_program(config, dataset), create_task(config, dataset, True)

    def train(trials):
        engine = Engine(program, task, trials[0], len(trials), Layout(len(trials)))
        for lane, trial in enumerate(trials):
            engine.admit(lane, trial)
        results = [engine.run_epoch([Shuffle(t.seed, e) for t in trials], ("test",)) for e in range(2)]
        return np.array([[r.train.loss / r.train.count, r.evaluated["test"].loss] for r in results])

    together = train(TRIALS)
    assert np.isfinite(together).all() and len({*together[-1, 0]}) == len(TRIALS)
    beside = train([*TRIALS[:2], WILD])  # one that diverges changes no bit of the others
    np.testing.assert_array_equal(beside[..., :2], together[..., :2])
    for lane, trial in enumerate(TRIALS):
        np.testing.assert_allclose(together[..., lane], train([trial])[..., 0], rtol=2e-3, err_msg=name)
