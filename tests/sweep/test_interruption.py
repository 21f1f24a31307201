"""Ctrl-C in a real process: tables are as new as the history; an epoch left unfinished is in neither."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONFIG = """
from hpjax.config import get_default

def get_config():
    config = get_default()
    config.model.name = {net!r}
    config.data.name, config.data.image_size = "synthetic_scenes", 30
    config.data.max_train_examples, config.data.max_test_examples = 40, 12
    config.train.batch_size, config.train.epochs = 10, 6
    config.sweep.space = {{"learning_rate": (1e-3, 1e-2)}}
    config.lanes.strategy, config.lanes.count = "fused", 2
    config.trackers = ()
    return config
"""
# Raises the signal as an epoch begins, as a key does: between two steps of it the sweep stops.
RUN = """
import os, signal, sys
from hpjax.main import main
from hpjax.sweep import events
from hpjax.sweep.loop import GroupRun

events.CHECKPOINT_SHARE = {share}
run_epoch = GroupRun.run_epoch

def interrupt(run):
    if run.epoch == 3:
        os.kill(os.getpid(), signal.SIGINT)
    return run_epoch(run)

GroupRun.run_epoch = interrupt
sys.exit(main())
"""


@pytest.mark.parametrize(
    ("share", "epochs"),
    [
        (1e9, 3),
        (1e-9, 4),
    ],  # the last boundary was saved: the epoch is left unfinished; or it wasn't: it is ended
)
def test_ctrl_c_leaves_tables_as_new_as_the_history(share, epochs, net, tmp_path):
    (tmp_path / "config.py").write_text(CONFIG.format(net=net))
    arguments = [f"--config={tmp_path}/config.py", f"--workdir={tmp_path}/wd"]
    command = [sys.executable, "-c", RUN.format(share=share), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 128 + signal.SIGINT, done.stderr
    events = [json.loads(line) for line in (tmp_path / "wd" / "history.jsonl").read_text().splitlines()]
    recorded = {(e["trial"], e["epoch"], e["train_loss"]) for e in events if e["kind"] == "epoch"}
    with open(tmp_path / "wd" / "epochs.csv", encoding="utf-8") as file:
        rows = {(int(r["trial"]), int(r["epoch"]), float(r["train_loss"])) for r in csv.DictReader(file)}
    assert rows == recorded and len(rows) == 2 * epochs
    summary = json.loads((tmp_path / "wd" / "summary.json").read_text())
    assert summary["trials"] == {"total": 2, "running": 2} and summary["epochs"] == 2 * epochs
