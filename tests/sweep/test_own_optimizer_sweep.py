"""An optimizer of the user's own in a whole sweep: checked before it begins, and a part of what it is."""

import pytest
import tuned_network

from hpjax.config import parse_config
from hpjax.errors import ConfigError, UserCodeError, WorkdirError
from hpjax.sweep import run_sweep

CODE = """
import optax

def slow(learning_rate, b1):
    return optax.chain(optax.scale_by_amsgrad(b1), optax.scale(-learning_rate))

def wrong(learning_rate):
    return optax.sgd(float(learning_rate))
"""


def _config(folder, space, **optimizer):
    data = {"name": "synthetic_scenes", "image_size": 30, "max_train_examples": 24, "max_test_examples": 12}
    return parse_config(
        {
            "model": tuned_network.MODEL,
            "data": data,
            "train": {"epochs": 1, "batch_size": 12},
            "optimizer": {"name": f"{folder}/own.py:slow", "ema_decay": 0.5, **optimizer},
            "sweep": {"space": space},
            "lanes": {"count": 2, "strategy": "fused"},
            "trackers": (),
        }
    )


def test_what_is_wrong_is_said_before_anything_is_trained(tmp_path):
    (tmp_path / "own.py").write_text(CODE)
    wrong = {"optimizer": ("adam", f"{tmp_path}/own.py:wrong")}
    with pytest.raises(UserCodeError, match=r"own.py:wrong' failed: line 8: "):
        run_sweep(_config(tmp_path, wrong), tmp_path / "sweep")
    with pytest.raises(ConfigError, match="weight_decay_on='kernels' is not allowed: expected all with"):
        run_sweep(_config(tmp_path, {"weight_decay_on": ("all", "kernels")}), tmp_path / "sweep")


@pytest.mark.landing
def test_lanes_are_trials_alone_and_its_content_counts(tmp_path):
    (tmp_path / "own.py").write_text(CODE)
    with pytest.raises(ConfigError, match="eps.*own.py:slow doesn't read it"):
        run_sweep(_config(tmp_path, {"eps": (1e-8, 1e-3)}), tmp_path / "sweep")
    space = {"learning_rate": (1e-3, 1e-2), "b1": (0.5, 0.9)}
    together = run_sweep(_config(tmp_path, space), tmp_path / "sweep")
    assert together.summary["traces"] == 1
    assert len({trial.final_test_loss for trial in together.trials}) == 4
    alone = run_sweep(_config(tmp_path, {"learning_rate": (1e-2,)}, b1=0.5), tmp_path / "alone")
    assert alone.trials[0].final_test_loss == pytest.approx(together.trials[2].final_test_loss, rel=1e-4)
    (tmp_path / "own.py").write_text(CODE + "\n")
    with pytest.raises(WorkdirError, match="was begun with another content of .*own.py"):
        run_sweep(_config(tmp_path, space), tmp_path / "sweep")
