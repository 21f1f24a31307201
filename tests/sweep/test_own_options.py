"""Options of a model of the user's own are searched, and keep every promise that hyperparameters have."""

import csv
import os
import signal

import jax.numpy as jnp
import numpy as np
import optax
import optional_network
import optuna
import pytest
from optuna.storages.journal import JournalFileBackend
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

import hpjax
from hpjax.config import parse_config
from hpjax.data.dataset import load_dataset
from hpjax.errors import ConfigError, UserCodeError
from hpjax.main import main
from hpjax.sweep import Interrupted, run_sweep
from hpjax.sweep.loop import GroupRun
from hpjax.sweep.spec import create_space
from hpjax.sweep.variants import list_variants

NET = f"{optional_network.__file__}:Net"
SPACE = {
    "model.width": {"low": 2, "high": 4, "step": 2},
    "model.temperature": (0.5, 2),
    "model.drop_path": {"choices": (0.25, 0.75), "when": {"model.width": (4,)}},
    "model.act": {"choices": ("tanh",), "when": {"model.width": 4}},
}


def _config(space=None, options=(), count=0, sweep=(), **changed):
    return parse_config(
        {
            "model": {"name": NET, "options": {"scale": 3, **dict(options)}},
            "data": {
                "name": "synthetic_scenes",
                "image_size": 16,
                "max_train_examples": 40,
                "max_test_examples": 12,
            },
            "optimizer": {"learning_rate": 0.05},
            "train": {"batch_size": 10, "epochs": 3},
            "lanes": {"strategy": "fused", "count": count, "devices": 1},
            "sweep": {"space": SPACE if space is None else space, **dict(sweep)},
            **changed,
        }
    )


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A sweep that was stopped in its second group, and went on."""
    workdir, run_epoch, calls = tmp_path_factory.mktemp("options") / "sweep", GroupRun.run_epoch, []

    def interrupt(run):
        calls.append(run)
        if len(calls) == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return run_epoch(run)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(GroupRun, "run_epoch", interrupt)
        run_sweep(_config(), workdir)
    return run_sweep(_config(), workdir)


def _searched(trial):
    return {name: value for name, value in trial.hyperparameters.items() if name in SPACE}


def _losses(result, trial):
    rows = [row for row in result.epochs if row.trial == trial]
    return np.array([(row.train_loss, row.test_loss) for row in rows])


def test_static_ones_make_groups_of_one_trace_each_and_dynamic_ones_share_them(swept):
    assert [_searched(trial) for trial in swept.trials] == [
        {"model.width": 2, "model.temperature": 0.5},
        {"model.width": 2, "model.temperature": 2.0},
        *(
            {"model.width": 4, "model.temperature": t, "model.drop_path": d, "model.act": "tanh"}
            for t in (0.5, 2.0)
            for d in (0.25, 0.75)
        ),
    ]
    assert [group["lanes_per_call"] for group in swept.summary["layouts"]] == [2, 4]
    assert swept.summary["groups"] == swept.summary["traces"] == 2
    losses = [tuple(_losses(swept, trial)[-1]) for trial in range(6)]
    assert len(set(losses)) == 6


def test_a_lane_equals_the_trial_alone_whose_options_are_fixed(swept, tmp_path):
    options = {"width": 4, "temperature": 2, "act": "tanh"}
    alone = run_sweep(_config({"model.drop_path": (0.25, 0.75)}, options, count=1), tmp_path / "alone")
    for trial in (0, 1):
        np.testing.assert_allclose(_losses(swept, 4 + trial), _losses(alone, trial), rtol=2e-5)


@pytest.mark.landing
def test_a_sweep_that_was_stopped_gives_the_same_bits(swept, tmp_path):
    result = run_sweep(_config(), tmp_path / "sweep")
    assert [_strip(row) for row in result.epochs] == [_strip(row) for row in swept.epochs]
    alone = run_sweep(_config(count=1), tmp_path / "one")
    for trial in range(6):
        np.testing.assert_allclose(_losses(swept, trial), _losses(alone, trial), rtol=2e-5)


def _strip(row):
    return row.trial, row.epoch, row.train_loss, row.test_loss, row.test_accuracy


def test_tables_and_trackers_and_optuna_know_the_axes(swept):
    with open(swept.workdir / "trials.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["model.drop_path"] for row in rows] == ["", "", "0.25", "0.75", "0.25", "0.75"]
    assert rows[5]["model.width"] == "4" and rows[5]["model.act"] == "tanh"
    backend = JournalFileBackend(str(swept.workdir / "study.journal"))
    study = optuna.load_study(study_name="hpjax", storage=optuna.storages.JournalStorage(backend))
    assert [trial.params for trial in study.trials] == [_searched(trial) for trial in swept.trials]
    events = EventAccumulator(str(swept.workdir / "tensorboard" / "trial_00005"))
    events.Reload()
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    hparams = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info.hparams
    assert hparams["model.drop_path"].number_value == 0.75 and hparams["model.act"].string_value == "tanh"
    assert len(list((swept.workdir / "figures").glob("*.png"))) >= 3


def test_a_loaded_trial_predicts_what_was_recorded(swept):
    config = _config()
    test = load_dataset(config.data, config.seed).test
    images = jnp.asarray(test.images, jnp.float32) / 255
    for trial in (1, 4):
        model, _ = hpjax.load_trial(swept.workdir, trial, model_file=optional_network.__file__)
        losses = optax.softmax_cross_entropy_with_integer_labels(model(images), jnp.asarray(test.labels))
        assert float(losses.mean()) == pytest.approx(swept.trials[trial].final_test_loss, rel=1e-5)
        assert isinstance(model, optional_network.Net) or type(model).__name__ == "Net"


@pytest.mark.landing
def test_a_search_tests_its_winner_with_its_own_numbers(tmp_path):
    space = {
        "model.temperature": {"low": 0.5, "high": 3},
        "model.drop_path": {"low": 0, "high": 1, "step": 0.5},
    }
    config = _config(space, count=1, sweep={"sampler": "random", "trials": 2})
    result = run_sweep(config, tmp_path / "sweep")
    assert result.summary["groups"] == 1
    test = load_dataset(config.data, config.seed).test
    model, _ = hpjax.load_trial(result.workdir, result.best.trial, model_file=optional_network.__file__)
    logits = model(jnp.asarray(test.images, jnp.float32) / 255)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.asarray(test.labels))
    assert float(losses.mean()) == pytest.approx(result.best.final_test_loss, rel=1e-5)


@pytest.mark.landing
def test_a_population_moves_dynamic_ones_and_refuses_static_ones(tmp_path):
    space = {"model.temperature": {"low": 0.5, "high": 8.0}}
    pbt = {"every_epochs": 1, "fraction": 0.5}
    sweep = {"sampler": "random", "trials": 4, "metric": "validation_loss", "pbt": pbt}
    result = run_sweep(_config(space, sweep=sweep), tmp_path / "sweep")
    moved = [trial for trial in result.trials if trial.initial != trial.hyperparameters]
    assert moved and all(0.5 <= trial.hyperparameters["model.temperature"] <= 8.0 for trial in moved)
    config, best = _config(space, sweep=sweep), result.best
    model, _ = hpjax.load_trial(result.workdir, best.trial, model_file=optional_network.__file__)
    test = load_dataset(config.data, config.seed).test
    logits = model(jnp.asarray(test.images, jnp.float32) / 255)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.asarray(test.labels))
    assert float(losses.mean()) == pytest.approx(best.final_test_loss, rel=1e-5)
    with pytest.raises(ConfigError, match="sweep.space.model.width"):
        run_sweep(_config({"model.width": (2, 3)}, sweep=sweep), tmp_path / "static")


@pytest.mark.parametrize(
    ("space", "options", "key", "part"),
    [
        (
            {"model.widht": (2,)},
            {},
            "sweep.space.model.widht",
            r"an option of Net\(\*, num_classes, width: int",
        ),
        ({"model.width": ("x",)}, {}, "sweep.space.model.width", r"a whole number, as in Net\("),
        (
            {"model.width": {"low": 1.5, "high": 3}},
            {},
            "sweep.space.model.width",
            "a whole number, as in Net",
        ),
        ({"model.temperature": ("hot",)}, {}, "sweep.space.model.temperature", "a number, as in Net"),
        ({"model.scale": (True,)}, {}, "sweep.space.model.scale", "a number or None, as in Net"),
        ({}, {"width": 2.5}, "model.options.width", "a whole number, as in Net"),
        ({}, {"depth": 1}, "model.options.depth", r"an option of Net\("),
        ({}, {"num_classes": 3}, "model.options.num_classes", r"an option of Net\("),
        ({}, {"rngs": 3}, "model.options.rngs", r"an option of Net\("),
        ({"model.name": ("x",)}, {}, "sweep.space.model.name", "did you mean model"),
    ],
)
def test_what_the_class_does_not_take_is_named_with_its_signature(space, options, key, part, tmp_path):
    with pytest.raises(ConfigError, match=part) as error:
        run_sweep(_config(space, options), tmp_path / "sweep")
    assert error.value.key == key and "\n" not in str(error.value)
    assert not (tmp_path / "sweep").exists()


def test_an_init_that_fails_is_named_with_its_options(tmp_path):
    for space, options in (
        ({}, {"act": "gelu"}),
        ({"model.width": (2, 3), "model.act": ("tanh", "gelu")}, {}),
    ):
        with pytest.raises(UserCodeError, match=r"act='gelu'.* of Net\(.*line 15: ValueError: no activation"):
            run_sweep(_config(space, options), tmp_path / "sweep")


def test_an_option_of_one_model_alone_needs_a_condition(net):
    space = {"model": (NET, net), "model.width": (2, 3), "model.temperature": (1,)}
    with pytest.raises(ConfigError, match=r"an option of Net\(\*, num_classes, rngs\)") as error:
        create_space(_config(space, model={"name": NET}))
    assert error.value.key == "sweep.space.model.width"
    for option in ("model.width", "model.temperature"):
        space[option] = {"choices": (1, 2), "when": {"model": NET}}
    found = create_space(_config(space, model={"name": NET}))
    assert found.dynamic == ("model.temperature",) and len(found.grid()) == 5
    # Both networks, and the second width by itself.
    assert list_variants(found) == [
        {"model": NET, "model.width": 1, "model.temperature": 1.0},
        {"model": net},
        {"model": NET, "model.width": 2, "model.temperature": 1.0},
    ]


DECLARED = """
from flax import nnx

class Net(nnx.Module):
    dynamic = {dynamic}

    def __init__(self, *, num_classes, rngs):
        self.out = nnx.Linear(3, num_classes, rngs=rngs)

    def __call__(self, images, mask=None, *, power, root=None):
        return self.out(images.mean((1, 2))) * power
"""


@pytest.mark.parametrize(
    ("dynamic", "part"),
    [
        ('"power"', "a tuple of names of arguments of __call__"),
        ('("powre",)', "its __call__ takes power, root besides images, mask"),
        ('("mask",)', "its __call__ takes power, root besides"),
        ('("root",)', "a number as the default of root"),
        ('("power",)', "a value for power, which Net"),
    ],
)
def test_a_declaration_that_does_not_hold_is_said(dynamic, part, tmp_path):
    (tmp_path / "net.py").write_text(DECLARED.format(dynamic=dynamic), encoding="utf-8")
    with pytest.raises(ConfigError, match=part):
        run_sweep(_config({}, {}, model={"name": f"{tmp_path}/net.py:Net"}), tmp_path / "sweep")


def test_the_command_line_names_what_was_typed(tmp_path, capsys):
    config = tmp_path / "c.json"
    config.write_text(f'{{"model": {{"name": "{NET}"}}}}', encoding="utf-8")
    flags = [f"--config={config}", f"--workdir={tmp_path}/sweep", "--space=model.width=2,wide"]
    assert main(["hpjax", *flags]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        "hpjax: error: --space='model.width=2,wide' is not allowed: expected a whole number, as"
    )
