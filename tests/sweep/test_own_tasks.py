"""Arrays and tasks of one's own in whole sweeps: the promises hold, and their own metric decides."""

import csv
import json
import shutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import own_tasks
import pytest
from interrupting import interrupt_in_second_epoch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import hpjax
from hpjax import predict
from hpjax.config import parse_config
from hpjax.errors import ConfigError, HpjaxError, ModelError, UserCodeError, WorkdirError
from hpjax.handover.forward import load_forward
from hpjax.handover.onnx_graph import load_onnx
from hpjax.handover.package import export_trial
from hpjax.handover.replay import replay_trial
from hpjax.sweep import Interrupted, run_sweep
from hpjax.sweep.datasets import Datasets

OWN = own_tasks.FILE
TASKS = {
    "mse": {"data": {"name": f"{OWN}:table", "normalize": "dataset"}, "task": {"loss": "mse"}},
    "own loss": {"data": {"name": f"{OWN}:table"}, "task": {"loss": f"{OWN}:cubed", "metrics": ("mae",)}},
    "binary": {"data": {"name": f"{OWN}:signs"}, "task": {"loss": "binary", "class_weights": "balanced"}},
    "tokens": {
        "data": {"name": f"{OWN}:tokens"},
        "model": {"name": f"{OWN}:Net", "options": {"embed": True}},
        "task": {"metrics": ("f1", "auroc"), "class_weights": "balanced"},
    },
}
MAIN = {"mse": "mae", "own loss": "mae", "binary": "accuracy", "tokens": "f1"}


def _config(name="mse", **more):
    base = {
        "model": {"name": f"{OWN}:Net"},
        "train": {"epochs": 2, "batch_size": 12, "dropout_rate": 0.1},
        # Two seeds side by side: each lane takes batches of its own.
        "sweep": {"space": {"learning_rate": (1e-2, 0.3)}, "seeds": 2},
        "lanes": {"count": 2, "strategy": "fused"},
        "trackers": (),
    }
    return parse_config({**base, **TASKS[name], **more})


def _columns(workdir):
    with open(workdir / "epochs.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    timed = ("epoch_seconds", "images_per_second", "lanes")
    return [{name: float(v) for name, v in row.items() if v and name not in timed} for row in rows]


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """Returns a function that gives the result of a task's sweep; each is run once."""
    results = {}

    def sweep(name):
        if name not in results:
            results[name] = run_sweep(_config(name), tmp_path_factory.mktemp("tasks") / "sweep")
        return results[name]

    return sweep


VARIANTS = [pytest.param(name, marks=pytest.mark.landing) for name in ("own loss", "binary")]


@pytest.mark.landing
@pytest.mark.parametrize("name", ["own loss", "binary", "mse", "tokens"])
def test_a_lane_equals_the_trial_alone_and_one_trace_does_for_all(name, swept, tmp_path):
    together = swept(name)
    alone = run_sweep(_config(name, lanes={"count": 1, "strategy": "sequential"}), tmp_path / "alone")
    assert together.summary["traces"] == alone.summary["traces"] == 1
    for ours, theirs in zip(_columns(together.workdir), _columns(alone.workdir), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("name", ["mse", *VARIANTS, "tokens"])
def test_its_own_metric_ranks(name, swept):
    result, column = swept(name), f"final_test_{MAIN[name]}"
    assert result.summary["metric"] == f"test_{MAIN[name]}"
    values = [getattr(trial, column) for trial in result.trials]
    assert result.best.trial == values.index((min if MAIN[name] == "mae" else max)(values))
    assert result.summary["best"][column] == values[result.best.trial]
    assert json.loads((result.workdir / "summary.json").read_text())["best"][column] is not None
    assert (result.workdir / "figures" / f"test_{MAIN[name]}.png").exists()
    with open(result.workdir / "trials.csv", encoding="utf-8") as file:
        assert ("final_test_accuracy" in next(csv.reader(file))) == (name == "binary")
    blamed = {finding.name for finding in result.diagnosis}
    assert "failed_trials" not in blamed  # it knows accuracies alone


def test_interrupted_and_continued_it_gives_the_same_bits(swept, tmp_path, monkeypatch):
    interrupt_in_second_epoch(monkeypatch)
    with pytest.raises(Interrupted):
        run_sweep(_config("mse"), tmp_path / "sweep")
    run_sweep(_config("mse"), tmp_path / "sweep")
    assert _columns(tmp_path / "sweep") == _columns(swept("mse").workdir)


def test_pruning_and_selection_go_by_the_metric_of_the_task(tmp_path):
    """Of errors the largest are pruned; of the winner alone the test split is read."""
    sweep = {
        "space": {"learning_rate": (1e-1, 1e-9, 1e-8)},
        "pruner": "median",
        "pruner_options": {"n_startup_trials": 1},
    }
    more = {"lanes": {"count": 1}, "train": {"epochs": 3, "batch_size": 12}, "trackers": ("tensorboard",)}
    config = _config("mse", sweep=sweep, **more)
    result = run_sweep(config, tmp_path / "sweep")
    assert result.summary["metric"] == "validation_mae" and result.best.trial == 0
    assert [trial.status for trial in result.trials] == ["complete", "pruned", "pruned"]
    assert [trial.final_test_mae is not None for trial in result.trials] == [True, False, False]
    assert f"test mae {result.best.final_test_mae:.4g}" in result.outcome
    events = EventAccumulator(str(tmp_path / "sweep" / "tensorboard" / "trial_00000")).Reload()
    tags = {"validation_mae", "validation_r2", "train_mae", "hparam/final_validation_mae"}
    assert tags <= {*events.Tags()["scalars"]}
    best = result.best.final_validation_mae
    assert events.Scalars("hparam/final_validation_mae")[-1].value == pytest.approx(best)


def test_a_trial_is_loaded_and_answers(swept):
    result = swept("mse")
    trained = hpjax.load_trial(result.workdir, "best", model_file=OWN)
    x, y = own_tasks.table()["test"]
    error = float(jnp.abs(trained.model(x)[:, 0] - jnp.asarray(y, jnp.float32)).mean())
    assert error == pytest.approx(result.best.final_test_mae, rel=1e-5)  # normalised as in training
    with pytest.raises(ModelError, match=r"expected inputs of \[3\]"):
        trained.model(x[:, :2])
    with pytest.raises(ModelError, match="another task"):
        trained.predict(x)


def test_tokens_stay_whole_numbers(swept):
    trained = hpjax.load_trial(swept("tokens").workdir, 0, model_file=OWN)
    x, _ = own_tasks.tokens()["test"]
    assert trained.classes == ("with", "without")
    np.testing.assert_array_equal(trained.model(x), trained.model(x.astype(np.uint8)))


EXPORTED = {  # answers, classes, type of the inputs
    "mse": ("numbers", [], "float32"),
    "own loss": ("any", [], "float32"),
    "binary": ("labels", [], "float32"),
    "tokens": ("classes", ["with", "without"], "int32"),
}


@pytest.mark.parametrize("name", EXPORTED)
def test_a_model_of_any_task_is_exported(name, swept, tmp_path, monkeypatch, capsys):
    result, (answers, classes, dtype) = swept(name), EXPORTED[name]
    exported = export_trial(result.workdir, "best", tmp_path / "model", OWN)
    assert exported.files == ("README.md", "forward.jaxexport", "model.json", "model.safetensors")
    trained = hpjax.load_trial(result.workdir, "best", model_file=OWN)
    x, _ = {"binary": own_tasks.signs, "tokens": own_tasks.tokens}.get(name, own_tasks.table)()["test"]
    forward = load_forward((exported.folder / "forward.jaxexport").read_bytes(), dtype)
    assert np.asarray(forward(x)) == pytest.approx(np.asarray(trained.model(x)), abs=1e-5)
    content = json.loads((exported.folder / "model.json").read_text())
    assert (content["answers"], content["classes"]) == (answers, classes)
    known = content["preprocessing"]
    assert (known["shape"], known["dtype"]) == (list(x.shape[1:]), dtype)
    assert content["forward"]["input"] == f"{dtype}, [batch, {x.shape[1]}]"
    assert (known["mean"] is not None and len(known["mean"]) == 3) == (name == "mse")
    card, found = (exported.folder / "README.md").read_text(), {}
    monkeypatch.chdir(exported.folder)
    exec(card.partition("```python\n")[2].partition("```")[0], found)
    assert found["outputs"].shape == (2, trained.model(x).shape[1])
    assert ("the outputs are numbers" in card) == (answers == "numbers")
    # It takes no files of images, and says so.
    assert predict.main(["predict", "--model=.", "a.png"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "arrays that are no images, or of another task than classes" in err


@pytest.mark.landing
def test_numbers_from_images_have_a_graph(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (24, 30, 34, 1), np.uint8)
    pair = images, images.reshape(24, -1, 2).mean(1)
    config = parse_config({
        "model": {"kernel_widths": (3, 3, 3)},
        "task": {"loss": "mse"},
        "train": {"epochs": 1, "batch_size": 12},
        "sweep": {"space": {"learning_rate": (1e-3,)}},
        "trackers": (),
    })  # fmt: skip
    result = run_sweep(config, tmp_path / "sweep", data={"train": pair, "test": pair})
    exported = export_trial(result.workdir, "best", tmp_path / "model")
    outputs = np.asarray(hpjax.load_trial(result.workdir, "best").model(images))
    assert outputs.shape == (24, 2)
    graph = load_onnx((exported.folder / "model.onnx").read_bytes())
    forward = load_forward((exported.folder / "forward.jaxexport").read_bytes())
    for compute in (graph, forward):
        assert np.asarray(compute(images / 255)) == pytest.approx(outputs, abs=1e-4)
    content = json.loads((exported.folder / "model.json").read_text())
    assert content["answers"] == "numbers" and content["preprocessing"]["channels"] == 1
    assert "An image classifier" not in (exported.folder / "README.md").read_text()


def test_nothing_that_a_workdir_names_is_run(swept):
    with pytest.raises(UserCodeError, match=r"data.name=.*runs no code that a workdir names"):
        replay_trial(swept("mse").workdir, 0, model_file=OWN)


def test_arrays_are_given_in_python(tmp_path):
    data = own_tasks.table()
    config = _config(data={"normalize": (1.0, 2.0)}, sweep={"space": {"learning_rate": (0.1,)}})
    mapped = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, data["train"][0].shape)
    mapped[:] = data["train"][0]
    first = run_sweep(config, tmp_path / "sweep", data={**data, "train": (mapped, data["train"][1])})
    again = run_sweep(config, tmp_path / "sweep", data=data)  # finished: answered, as the content is the same
    assert again.trials == first.trials and first.best is not None
    data["test"][0][0, 0] += 1e-3
    with pytest.raises(WorkdirError, match="begun on other images"):
        run_sweep(config, tmp_path / "sweep", data=data)
    given = parse_config({**json.loads((tmp_path / "sweep" / "config.json").read_text())})
    assert given.data.name == "arrays"
    with pytest.raises(ConfigError, match=r"run_sweep\(…, data=…\)"):
        run_sweep(given, tmp_path / "other")
    with pytest.raises(ConfigError, match=r"data.name='digits' is not allowed: expected auto or arrays"):
        run_sweep(parse_config({"data": {"name": "digits"}}), tmp_path / "other", data=data)


def test_arrays_in_a_file_may_move_but_not_change(tmp_path):
    arrays = {f"{a}_{s}": v for s, pair in own_tasks.table().items() for a, v in zip("xy", pair, strict=True)}
    first, moved = (_config(data={"name": f"npz:{tmp_path}/{name}.npz"}) for name in "ab")
    np.savez(tmp_path / "a.npz", **arrays)
    fingerprints = {}
    Datasets(first, tmp_path, fingerprints).load(first)
    (tmp_path / "a.npz").rename(tmp_path / "b.npz")
    Datasets(moved, tmp_path, fingerprints).check()
    np.savez(tmp_path / "b.npz", **{**arrays, "y_test": arrays["y_test"] + 1})
    with pytest.raises(WorkdirError, match="begun on other images"):
        Datasets(moved, tmp_path, fingerprints).check()


def test_changed_code_is_seen_before_it_is_run(swept, tmp_path):
    shutil.copytree(swept("mse").workdir, tmp_path / "sweep")
    for file, content in {
        "same.py": Path(OWN).read_text("utf-8"),
        "other.py": "raise SystemExit('ran')",
    }.items():
        (tmp_path / file).write_text(content, "utf-8")
    config = _config(data={"name": f"{tmp_path}/same.py:table", "normalize": "dataset"})
    assert run_sweep(config, tmp_path / "sweep").trials == swept("mse").trials
    config = _config(data={"name": f"{tmp_path}/other.py:table", "normalize": "dataset"})
    with pytest.raises(WorkdirError, match=r"another content of .*other.py \(data.name\)"):
        run_sweep(config, tmp_path / "sweep")


WRONG = {
    "a metric of another task": ({"task": {"loss": "mse", "metrics": ("accuracy",)}}, "among mae, r2"),
    "weights of numbers": ({"task": {"loss": "mse", "class_weights": "balanced"}}, "none with task.loss=mse"),
    "a column of another task": ({"sweep": {"metric": "test_accuracy"}}, "one of loss, mae, r2"),
    "numbers as classes": ({"task": {}}, r"not float64\[40\], with task.loss=cross_entropy"),
    "images as numbers": ({"data": {"name": "digits"}}, "its targets are classes"),
    "augmented numbers": ({"data": {"name": f"{OWN}:table", "augment": "flip"}}, "which are no images"),
    "a size of numbers": ({"data": {"name": f"{OWN}:table", "image_size": 30}}, r"here \[3\]"),
    "a network of images": ({"model": {"name": "custom_cnn"}}, r"inputs of \[3\] are no images"),
    "colours of numbers": (
        {"data": {"name": f"{OWN}:table", "normalize": "imagenet"}},
        "images of 3 channels",
    ),
    "too few weights": (
        {**TASKS["tokens"], "task": {"class_weights": (1.0, 2.0, 3.0)}},
        "2 numbers, one per class",
    ),
    "no such function": ({"data": {"name": f"{OWN}:nothing"}}, "the name of a function"),
    "no such loss": ({"task": {"loss": f"{OWN}:nothing"}}, "the name of a function"),
    "a loss of other arguments": ({"task": {"loss": f"{OWN}:table"}}, "task.loss=.* failed: .*TypeError"),
    "normalised tokens": (
        {**TASKS["tokens"], "data": {"name": f"{OWN}:tokens", "normalize": "dataset"}},
        "whole",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_go_together_is_one_line(name, tmp_path):
    more, message = WRONG[name]
    with pytest.raises(HpjaxError, match=message) as error:
        run_sweep(_config(**more), tmp_path / "sweep")
    assert "\n" not in str(error.value)
