"""Whole sweeps, small ones: what they leave on disk, and that nothing depends on how they were run."""

import csv
import itertools
import json
import time
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.storages.journal import JournalFileBackend
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_network import DATA, MODEL

from hpjax.config import parse_config
from hpjax.errors import ConfigError, WorkdirError
from hpjax.sweep import load_result, plan_sweep, planning, run_sweep
from hpjax.trained.load import load_trial

TINY_FILE = MODEL["name"].partition(":")[0]
TINY = {
    "model": MODEL,
    "data": DATA,
    "train": {"batch_size": 12, "epochs": 2},
    "optimizer": {"learning_rate": 1e-3},
    "lanes": {"strategy": "fused"},
}


def _config(**sections):
    merged = {name: {**TINY.get(name, {}), **sections.get(name, {})} for name in {*TINY, *sections}}
    return parse_config(merged)


def _rows(path):
    with open(path, encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    path = tmp_path_factory.mktemp("sweep") / "wd"
    space = {"weight_decay": (0.01, 1.0), "batch_size": (12, 20)}
    config = _config(data={"name": "auto"}, lanes={"devices": 1}, sweep={"space": space})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("without_images"))
        return config, run_sweep(config, path)


def test_tables_are_complete(finished):
    _, result = finished
    trials, epochs = _rows(result.workdir / "trials.csv"), _rows(result.workdir / "epochs.csv")
    assert [(t["trial"], t["status"], t["epochs"]) for t in trials] == [
        (str(n), "complete", "2") for n in range(4)
    ]
    assert [(t["weight_decay"], t["batch_size"]) for t in trials] == [
        ("0.01", "12"),
        ("0.01", "20"),
        ("1.0", "12"),
        ("1.0", "20"),
    ]
    assert [(e["trial"], e["epoch"]) for e in epochs] == [(str(t), str(e)) for t in range(4) for e in (1, 2)]
    assert all(float(e["test_loss"]) > 0 and float(e["epoch_seconds"]) > 0 for e in epochs)
    summary = json.loads((result.workdir / "summary.json").read_text())
    assert summary["finished"] and summary["trials"] == {"total": 4, "complete": 4}


@pytest.mark.landing
@pytest.mark.parametrize(
    "changed",
    [
        pytest.param(
            {"model": {"name": "custom_cnn", "kernel_widths": (2, 4, 2)}}, marks=pytest.mark.exhaustive
        ),
        {
            "optimizer": {"name": "adafactor"},
            "model": {"name": "custom_cnn", "kernel_widths": (3, 3, 3)},
            "train": {"precision": "bfloat16"},
        },
        pytest.param(
            {"optimizer": {"name": "lamb"}, "model": {"name": "custom_cnn", "kernel_widths": (4, 2, 3)}},
            marks=pytest.mark.exhaustive,
        ),
    ],
    ids=["even_kernels", "adafactor_bfloat16", "lamb_even_kernels"],
)
def test_unusual_networks_and_optimizers_learn(changed, tmp_path):
    changed = {**changed, "train": {"epochs": 8, **changed.get("train", {})}}
    result = run_sweep(_config(**changed, sweep={"space": {"learning_rate": (1e-3, 2e-3)}}), tmp_path / "wd")
    losses = [float(row["train_loss"]) for row in _rows(result.workdir / "epochs.csv")]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[1]


def test_everything_else_is_there(finished):
    _, result = finished
    for name in ("config.json", "plan.json", "study.journal", "tensorboard", "checkpoints"):
        assert (result.workdir / name).exists(), name
    figures = {path.name for path in (result.workdir / "figures").iterdir()}
    assert {"train_loss.png", "test_loss.png", "test_accuracy.png"} <= figures


def test_the_summary_says_how_it_was_trained_and_what_came_out(finished):
    _, result = finished
    summary = result.summary
    assert summary["utilisation"] == summary["busy_lane_epochs"] / summary["lane_epochs"] == 1
    assert [(x["strategy"], x["lanes"], x["lanes_per_call"]) for x in summary["layouts"]] == [
        ("fused", 2, 2)
    ] * 2
    setting = f"weight decay = {result.best.hyperparameters['weight_decay']:g}"
    assert result.outcome.startswith(f"best: trial {result.best.trial}, {setting}, batch size = ")
    assert result.outcome.endswith(", lanes 100 % busy")


def test_the_summary_names_the_data(finished):
    _, result = finished
    data = result.summary["data"]
    assert data["name"] == "synthetic_scenes" and "synthetic" in data["notice"].lower()
    assert data["images"] == {"train": 60, "validation": 0, "test": 24} and data["skipped_images"] == 0
    assert data["remarks"] == [] and data["left_out"] == {}


def test_the_summary_says_what_became_of_the_files(tmp_path):
    for split, label, number in itertools.product(("train", "val"), ("cat", "dog"), range(4)):
        folder = tmp_path / "images" / split / label
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (30, 30), (60 * number, 0, 0)).save(folder / f"{number}.png")
        (folder / "list.csv").touch()
    data = {"name": "folder", "dir": f"{tmp_path}/images"}
    summary = run_sweep(_config(data=data, train={"epochs": 1}), tmp_path / "wd").summary["data"]
    assert summary["left_out"] == {".csv": 4}
    assert ["val is tested on" in remark for remark in summary["remarks"]] == [True]


def test_classes_are_named_in_the_summary_and_by_the_model(finished):
    _, result = finished
    classes = ["buildings", "forest", "glacier", "mountain", "sea", "street"]
    assert result.summary["data"]["classes"] == classes
    assert load_trial(result.workdir, result.best.trial, TINY_FILE)[0].class_names == tuple(classes)


def test_training_accuracy_lanes_and_each_trials_share_of_the_time_are_there(finished):
    _, result = finished
    for row in result.epochs:
        assert row.train_accuracy == round(row.train_accuracy * 60) / 60
    for trial in result.trials:
        epochs = [row for row in result.epochs if row.trial == trial.trial]
        assert trial.final_train_accuracy == epochs[-1].train_accuracy
        assert trial.lanes == sum(row.lanes for row in epochs) / len(epochs)
        assert trial.amortised_seconds == pytest.approx(sum(row.epoch_seconds / row.lanes for row in epochs))
    assert "train_and_test.png" in {path.name for path in (result.workdir / "figures").iterdir()}


def test_the_best_settings_are_listed_in_their_order(finished):
    _, result = finished
    head, *lines = result.standings
    assert head.startswith(f"the best of {len(result.trials)} settings") and 2 <= len(lines) <= 5
    shares = [float(line.split()[1]) for line in lines]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] == pytest.approx(result.best.final_test_accuracy, abs=1e-4)


def test_tensorboard_has_the_results_of_a_trial(finished):
    _, result = finished
    for row in result.trials:
        events = EventAccumulator(f"{result.workdir}/tensorboard/trial_{row.trial:05d}").Reload()
        names = ("final_test_loss", "best_test_loss", "final_test_accuracy", "best_test_accuracy",
                 "average_epoch_seconds")  # fmt: skip
        for name in names:
            (found,) = events.Scalars(f"hparam/{name}")
            assert found.value == pytest.approx(getattr(row, name), rel=1e-6) and found.step == 2
        assert "hparam/test_accuracy" not in events.Tags()["scalars"]  # of which epoch?


def test_shares_are_exact(finished):
    _, result = finished
    for row in result.epochs:
        assert row.test_accuracy == round(row.test_accuracy * 24) / 24  # not what float32 makes of it


def test_the_plan_bounds_what_checkpoints_take(finished):
    config, result = finished
    plan = json.loads((result.workdir / "plan.json").read_text())
    files = (p for p in (result.workdir / "checkpoints").rglob("*") if p.is_file())
    arrays = sum(p.stat().st_size for p in files if p.suffix != ".json")
    group = plan["groups"][0]
    assert group["population_bytes"] > 2 * 3 * group["weights_bytes"] > 0  # two lanes, Adam's moments too
    assert arrays < plan["disk_bytes"]
    assert plan["disk_bytes"] == 3 * group["population_bytes"] + 21 * group["weights_bytes"]


def test_the_plan_bounds_what_logs_take(finished):
    _, result = finished
    plan = json.loads((result.workdir / "plan.json").read_text())
    apart = ("checkpoints", "figures", "report.html")
    files = [p for p in result.workdir.rglob("*") if p.relative_to(result.workdir).parts[0] not in apart]
    assert (result.workdir / "tensorboard").exists()
    taken = sum(p.stat().st_size for p in files if p.is_file())
    assert plan["logs_bytes"] / 8 < taken < plan["logs_bytes"]


def test_a_group_per_static_setting_and_a_trace_per_group(finished):
    _, result = finished
    plan = json.loads((result.workdir / "plan.json").read_text())
    assert [g["static"] for g in plan["groups"]] == [{"batch_size": 12}, {"batch_size": 20}]
    assert json.loads((result.workdir / "summary.json").read_text())["traces"] == 2


def test_optuna_knows_every_trial(finished):
    _, result = finished
    backend = JournalFileBackend(str(result.workdir / "study.journal"))
    study = optuna.load_study(study_name="hpjax", storage=optuna.storages.JournalStorage(backend))
    assert [t.number for t in study.trials] == [t.trial for t in result.trials]
    assert study.best_trial.number == result.best.trial


def test_a_finished_sweep_is_not_run_again(finished):
    config, result = finished
    before = (result.workdir / "trials.csv").read_bytes()
    assert run_sweep(config, result.workdir).trials == result.trials
    assert (result.workdir / "trials.csv").read_bytes() == before


def test_another_config_is_refused(finished):
    _, result = finished
    with pytest.raises(WorkdirError, match=r"optimizer\.learning_rate"):
        run_sweep(_config(optimizer={"learning_rate": 0.5}), result.workdir)


def test_twice_gives_the_same_bits(finished, tmp_path):
    config, result = finished
    again = run_sweep(config, tmp_path / "again")
    for a, b in zip(result.epochs, again.epochs, strict=True):
        assert (a.train_loss, a.test_loss, a.test_accuracy) == (b.train_loss, b.test_loss, b.test_accuracy)


@pytest.mark.landing
def test_sequential_agrees_with_fused(finished, tmp_path):
    config, result = finished
    space = {"space": dict(config.sweep.space)}
    other = run_sweep(_config(sweep=space, lanes={"strategy": "sequential"}), tmp_path / "s")
    for a, b in zip(result.epochs, other.epochs, strict=True):
        np.testing.assert_allclose(a.train_loss, b.train_loss, rtol=1e-4)


@pytest.mark.parametrize(
    "rates",
    [(1e30, 1e-3), *(pytest.param(r, marks=pytest.mark.landing) for r in ((1e-3, 1e30), (1e30, 2e30)))],
)
def test_a_wild_learning_rate_ends_its_trial_alone(rates, tmp_path):
    result = run_sweep(_config(sweep={"space": {"learning_rate": rates}}), tmp_path / "wild")
    assert [t.status for t in result.trials] == ["diverged" if r > 1 else "complete" for r in rates]
    assert all("not finite" in t.message for t in result.trials if t.status == "diverged")


@pytest.mark.landing
@pytest.mark.parametrize("remainder", ["pad", "drop"])
def test_a_batch_larger_than_the_data_is_all_of_it(remainder, tmp_path, caplog):
    """A short batch, said; and the same results as with a batch of that very size."""
    config = _config(data={"remainder": remainder}, sweep={"space": {"batch_size": (60, 100, 61)}})
    result = run_sweep(config, tmp_path / "wd")
    assert "train.batch_size=61, 100 is more than the 60 training images" in caplog.text
    losses = [[e.train_loss for e in result.epochs if e.trial == trial.trial] for trial in result.trials]
    assert losses[0] == losses[1] == losses[2] and len(losses[0]) == 2
    plan = json.loads((result.workdir / "plan.json").read_text())
    assert {group["steps_per_epoch"] for group in plan["groups"]} == {1}


def test_a_workdir_may_begin_with_a_tilde(finished, tmp_path, monkeypatch):
    config, result = finished
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(result.workdir.parent))
    monkeypatch.setenv("NAME", result.workdir.name)
    for written in ("~/wd", "~/$NAME", Path("~/wd")):
        assert run_sweep(config, written, resume="must").workdir == result.workdir
        assert load_result(written).workdir == result.workdir
    assert load_trial("~/wd", 0, TINY_FILE) and not list(tmp_path.iterdir())


def test_a_single_image_is_no_batch(tmp_path):
    config = _config(data={"max_train_examples": 1})
    with pytest.raises(ConfigError, match=r"train\.batch_size=\d+ .* at least 2 training images .*, not 1"):
        run_sweep(config, tmp_path / "one")


def test_a_search_leaves_the_test_set_alone_until_the_end(tmp_path):
    config = _config(
        sweep={
            "space": {"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}},
            "sampler": "random",
            "trials": 5,
            "pruner": "median",
            "pruner_options": {"n_startup_trials": 1},
        },
        data={"validation_fraction": 0.2},
        lanes={"count": 2},
    )
    result = run_sweep(config, tmp_path / "search")
    assert len(result.trials) == 5
    assert all(e.test_loss is None and e.validation_loss is not None for e in result.epochs)
    tested = [t.trial for t in result.trials if t.final_test_accuracy is not None]
    assert tested == [result.best.trial]


def test_the_winner_is_tested_though_no_weights_are_kept(tmp_path):
    config = _config(
        sweep={"space": {"learning_rate": (1e30, 1e-3, 1e-4)}},
        data={"validation_fraction": 0.2},
        lanes={"strategy": "fused", "count": 1},
        checkpoint={"keep": 0},
    )
    result = run_sweep(config, tmp_path / "none")
    tested = [t.trial for t in result.trials if t.final_test_accuracy is not None]
    assert tested == [result.best.trial]
    assert not list((tmp_path / "none" / "checkpoints" / "trials").iterdir())


def test_the_plan_runs_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = plan_sweep(_config(sweep={"space": {"weight_decay": (0.01, 1.0), "batch_size": (12, 20)}}))
    assert [g.trials for g in plan.groups] == [2, 2]
    assert "batch_size=20" in str(plan)
    assert not list(tmp_path.iterdir())


def test_what_is_checked_first_is_part_of_the_setup(net, monkeypatch):
    late, monotonic, check = [0.0], time.monotonic, planning.check_groups

    def take_long(*arguments):
        late[0] += 1000
        return check(*arguments)

    monkeypatch.setattr(time, "monotonic", lambda: monotonic() + late[0])
    monkeypatch.setattr(planning, "check_groups", take_long)
    space = {"learning_rate": (1e-3, 1e-2), "batch_size": (12, 20)}
    plan = plan_sweep(_config(model={"name": net}, sweep={"space": space}))
    first, second = (group.setup_seconds for group in plan.groups)
    assert second < 500 < 1000 <= first


def test_results_can_be_loaded_later(finished):
    _, result = finished
    assert load_result(result.workdir).best == result.best
