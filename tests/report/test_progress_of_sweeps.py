"""What a running sweep shows: shares of what is left to do, the best trial from its first epoch on."""

import pytest
from tiny_network import DATA, MODEL

from hpjax.config import parse_config
from hpjax.report import progress
from hpjax.sweep import run_sweep

TINY = {
    "model": MODEL,
    "data": DATA,
    "lanes": {"strategy": "fused", "count": 1},
    "train": {"batch_size": 12, "epochs": 5},
    "optimizer": {"name": "sgd", "learning_rate": 0.1},
    "trackers": (),
}


@pytest.fixture
def lines(monkeypatch, capfd):
    """Returns the progress lines of a sweep, one for every epoch."""
    monkeypatch.setattr(progress.Progress.__init__, "__defaults__", (None, 0.0, lambda: 0.0))

    def run(sweep, workdir):
        config = parse_config({**TINY, "sweep": sweep})
        run_sweep(config, workdir, progress=True)
        return [line for line in capfd.readouterr().err.splitlines() if "trial epochs" in line]

    return run


@pytest.mark.landing
def test_epochs_that_were_pruned_are_not_waited_for(lines, tmp_path):
    pruner = {"pruner": "threshold", "pruner_options": {"lower": 2.0}}  # ends every trial after one epoch
    shown = lines({"space": {"weight_decay": (0.0, 0.1, 0.2)}, **pruner}, tmp_path)
    assert [line.split(" trial")[0] for line in shown] == ["  9% 1/11", " 29% 2/7", "100% 3/3"]


def test_the_best_trial_is_there_from_the_first_epoch_and_never_a_diverged_one(lines, tmp_path):
    (tmp_path / "metric.py").write_text("def grown(epoch):\n    return epoch['train_loss'] - 100\n")
    # Coupled decay of 400 at a rate of 0.1 takes weights times -39 at each step: the loss grows for epochs.
    sweep = {"space": {"weight_decay": (0.0, 400.0)}, "metric": f"{tmp_path}/metric.py:grown"}
    shown = lines(sweep, tmp_path / "sweep")
    assert "| epoch 1/5 |" in shown[0] and "| epoch 2/5 |" in shown[1]
    assert all("| best: trial 0, final grown -9" in line for line in (*shown[:5], shown[-1]))
    assert "| best: trial 1, final grown " in shown[-2] and shown[-1].startswith("100% ")
