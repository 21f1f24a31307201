"""Every field is documented, checked, and survives the way to disk and back."""

import dataclasses
import importlib
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpjax.config import Config, check_field, get_default, parse_config, to_dict
from hpjax.config.fields import FIELDS
from hpjax.config.hyperparameters import check_value
from hpjax.errors import ConfigError
from hpjax.search.space import parse_space

CONFIGS = sorted(path.stem for path in (Path(__file__).parents[2] / "configs").glob("*.py"))
SECTIONS = [f.name for f in dataclasses.fields(Config) if dataclasses.is_dataclass(getattr(Config(), f.name))]
KEYS = [f"{s}.{f.name}" for s in SECTIONS for f in dataclasses.fields(getattr(Config(), s))]
KEYS += [f.name for f in dataclasses.fields(Config) if f.name not in SECTIONS]
SEARCH = {"sampler": "tpe", "trials": 4, "space": {"learning_rate": {"low": 1e-5, "high": 1e-1, "log": True}}}


def _nest(key, value):
    for name in reversed(key.split(".")):
        value = {name: value}
    return value


def _load(name):
    return importlib.import_module(f"configs.{name}").get_config()


def test_defaults_are_valid_and_their_own_round_trip():
    assert parse_config(get_default()) == Config() == parse_config({})


@pytest.mark.parametrize("section", [Config(), *(getattr(Config(), s) for s in SECTIONS)])
def test_every_field_is_documented(section):
    for field in dataclasses.fields(section):
        assert field.metadata.get("doc") or dataclasses.is_dataclass(getattr(section, field.name)), field.name


def test_every_choice_is_documented_and_allowed_and_another_is_not():
    assert {*FIELDS} == {*KEYS}
    for key, field in FIELDS.items():
        for choice, doc in field.rule.choices.items():
            assert doc, f"{key}={choice}"
            value = (choice,) if isinstance(field.default, tuple) else choice
            assert check_field(key, value) == value
        if field.rule.choices:
            with pytest.raises(
                ConfigError, match=", ".join(field.rule.choices) if field.rule.forms else "or|one of"
            ):
                check_field(key, ("zzz",) if isinstance(field.default, tuple) else "zzz")


@pytest.mark.parametrize("name", CONFIGS)
def test_config_files_are_valid_and_json_brings_them_back(name):
    config = parse_config(_load(name))
    assert parse_space(config.sweep.space).axes
    assert parse_config(json.loads(json.dumps(to_dict(config)))) == config


def test_the_reference_experiments_have_the_true_values():
    experiments = {name: parse_config(_load(name)) for name in ("lr", "batch_size", "kernel_width", "wd")}
    assert experiments["lr"].sweep.space == {"learning_rate": (1e-7, 1e-4, 1e-2)}
    assert (experiments["lr"].model.name, experiments["lr"].train.batch_size) == ("resnet18", 32)
    assert experiments["batch_size"].sweep.space == {"batch_size": (10, 256, 450)}
    assert experiments["kernel_width"].sweep.space == {"kernel_width": (3, 5, 7, 9)}
    assert experiments["wd"].sweep.space == {"weight_decay": (0.01, 1.0)}
    assert experiments["wd"].train.batch_size == 450
    for config in experiments.values():
        assert (config.train.epochs, config.optimizer.name, config.optimizer.learning_rate) == (
            10,
            "adam",
            1e-4,
        )
        assert (config.optimizer.weight_decay_mode, config.data.augment) == ("coupled", "none")
        assert config.data.validation_fraction == 0  # they report the test set, as the article does


BAD = [
    ("optimizer.learning_rate", -1.0),
    ("optimizer.learning_rate", 0),
    ("optimizer.learning_rate", float("nan")),
    ("optimizer.learning_rate", float("inf")),
    ("optimizer.learning_rate", 10**400),
    ("optimizer.learning_rate", 1e-40),
    ("optimizer.learning_rate", "fast"),
    ("optimizer.learning_rate", None),
    ("optimizer.learning_rate", True),
    ("optimizer.weight_decay", -0.1),
    ("optimizer.name", "adamm"),
    ("optimizer.momentum", 1),
    ("optimizer.schedule", 3),
    ("train.epochs", 0),
    ("train.epochs", 1.5),
    ("train.epochs", 2.0),
    ("train.epochs", True),
    ("train.epochs", 2**31),
    ("train.batch_size", 0),
    ("train.batch_size", -450),
    ("train.precision", "float16"),
    ("train.dropout_rate", 1.0),
    ("model.name", "resnet19"),
    ("model.kernel_widths", (3, 64, 5)),
    ("model.kernel_widths", (3, 3)),
    ("model.kernel_widths", (3, -3, 3)),
    ("model.kernel_widths", (3, 3.0, 3)),
    ("model.kernel_widths", 5),
    ("data.name", "mnist"),
    ("data.name", "tfds:"),
    ("data.image_size", -1),
    ("data.image_size", 10**9),
    ("data.image_size", (30, 4)),
    ("data.image_size", (30, 40, 3)),
    ("data.channels", 2),
    ("data.normalize", "imagnet"),
    ("data.normalize", (0.5, 0.0)),
    ("data.normalize", (0.5,)),
    ("task.loss", "l1"),
    ("task.metrics", ("accuracies",)),
    ("task.class_weights", "balance"),
    ("task.class_weights", (1.0, -1.0)),
    ("data.validation_fraction", 1),
    ("data.dir", "a\0b"),
    ("data.dir", 3),
    ("sweep.sampler", "bayes"),
    ("sweep.pruner", "asha"),
    ("sweep.metric", "accuracy"),
    ("sweep.space", 3),
    ("sweep.space.weight_decay", ()),
    ("sweep.space.weight_decay", {}),
    ("sweep.space.weight_decay", (float("nan"),)),
    ("sweep.space.weight_decay", (object(),)),
    ("sweep.pbt.speed", 1),
    ("sweep.pbt.fraction", 0.9),
    ("sweep.enqueue", (3,)),
    ("sweep.seeds", 0),
    ("lanes.count", -1),
    ("lanes.strategy", "vmap"),
    ("lanes.tune", 1),
    ("checkpoint.keep", -1),
    ("trackers", ("tensorbord",)),
    ("trackers", "tensorboard"),
    ("seed", -1),
    ("optimizer", 3),
    ("train", None),
]


@pytest.mark.parametrize(("key", "value"), BAD, ids=[f"{key}={str(value)[:20]!r}" for key, value in BAD])
def test_a_wrong_value_is_refused_by_key_value_and_what_is_allowed(key, value):
    with pytest.raises(ConfigError) as caught:
        parse_config(_nest(key, value))
    error = caught.value
    assert key == error.key or key.startswith(error.key) or error.key.startswith(key)
    assert error.allowed and "\n" not in str(error)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("optimizer.learningrate", "optimizer.learning_rate"),
        ("optimzer.name", "optimizer"),
        ("train.epoch", "train.epochs"),
        ("optimizer.zzz", "name, learning_rate"),
        ("optimizer.lr.x", "learning_rate"),
        ("zzz", "seed, model, data"),
    ],
)
def test_an_unknown_field_is_refused_with_what_was_meant(key, expected):
    with pytest.raises(ConfigError, match=expected):
        parse_config(_nest(key, 1))


def test_whole_numbers_do_where_numbers_are_expected():
    config = parse_config({"optimizer": {"learning_rate": 1, "clip_norm": 5}})
    assert type(config.optimizer.learning_rate) is float and config.optimizer.clip_norm == 5.0


@pytest.mark.parametrize(
    ("sweep", "key"),
    [
        ({"sampler": "tpe", "space": {"learning_rate": (1e-3,)}}, "sweep.trials"),
        ({"sampler": "tpe", "trials": 3}, "sweep.space"),
        ({**SEARCH, "metric": "test_loss"}, "sweep.metric"),
        ({"pruner": "median", "metric": "test_accuracy"}, "sweep.metric"),
        ({"trials": 3}, "sweep.trials"),
    ],
)
def test_contradicting_fields_are_refused(sweep, key):
    with pytest.raises(ConfigError) as caught:
        parse_config({"sweep": sweep})
    assert caught.value.key == key


@pytest.mark.parametrize(
    ("data", "key", "allowed"),
    [
        ({"name": "folder"}, "data.dir", "the folder that holds train/ and test/, or empty with data.train"),
        ({"name": "folder", "dir": "a", "train": "b"}, "data.train", "empty with data.dir='a'"),
        ({"name": "folder", "dir": "a", "test": "b"}, "data.test", "empty without data.train"),
        ({"test": "b"}, "data.test", "empty without data.train"),
        ({"name": "digits", "train": "b"}, "data.train", "empty with data.name=digits, or data.name=folder"),
        ({"name": "intel_scenes", "train": "b"}, "data.train", "data.name=folder"),
        ({"name": "tfds:mnist", "train": "b", "test": "c"}, "data.train", "data.name=folder"),
    ],
)
def test_folders_that_contradict_each_other_are_refused(data, key, allowed):
    with pytest.raises(ConfigError) as caught:
        parse_config({"data": data})
    assert caught.value.key == key and allowed in caught.value.allowed


def test_folders_are_named_as_a_whole_or_one_by_one():
    for name in ("auto", "folder"):
        for data in ({"dir": "a"}, {"train": "a"}, {"train": "a", "test": "b"}):
            assert parse_config({"data": {"name": name, **data}}).data.train == data.get("train", "")


PATHS = [key for key, field in FIELDS.items() if field.rule.path]
FORMS = {
    "model.name": "{}.py:Net",
    "data.name": "{}.py:f",
    "task.loss": "{}.py:f",
    "optimizer.name": "{}.py:f",
    "sweep.metric": "{}.py:f",
    "sweep.constraints": "{}.py:f",
}


def test_the_fields_that_may_name_a_file_or_folder():
    named = ("model.name", "model.pretrained", "data.dir", "data.train", "data.test", "sweep.metric")
    named = (*named, "optimizer.name", "sweep.constraints", "sweep.warm_start")
    assert sorted(PATHS) == sorted((*named, "data.name", "task.loss"))


@pytest.mark.parametrize("key", PATHS)
@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("~/x", "/home/of me/x"),
        ("$THERE/x", "/some where/x"),
        ("${THERE}/x/$PART", "/some where/x/part"),
        ("$TILDE/x", "/home/of me/x"),
        ("/a/$THERE_ISN_T/x", "/a/$THERE_ISN_T/x"),
        ("/a$b/c~d/~", "/a$b/c~d/~"),
        ("~no_such_user/x", "~no_such_user/x"),
        ("plain", "plain"),
    ],
)
def test_tilde_and_variables_are_replaced_in_every_path(key, written, meant, monkeypatch):
    for name, value in {"HOME": "/home/of me", "THERE": "/some where", "PART": "part", "TILDE": "~"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("THERE_ISN_T", raising=False)
    form = FORMS.get(key, "{}")
    value = check_field(key, form.format(written))
    assert value == form.format(meant)
    assert check_field(key, value) == value  # as it comes back from a workdir
    axis = FIELDS[key].axis
    if axis:
        assert check_value(axis, form.format(written)) == form.format(meant)


def test_a_variable_with_control_characters_is_refused(monkeypatch):
    monkeypatch.setenv("THERE", "a\x1b[2Jb\n")
    with pytest.raises(ConfigError, match="data.dir=.*without control characters"):
        parse_config({"data": {"dir": "$THERE/x"}})


@pytest.mark.parametrize(
    "sweep", [SEARCH, {**SEARCH, "metric": "train_loss"}, {"pruner": "median"}, {"pbt": {"every_epochs": 2}}]
)
def test_a_search_holds_images_out_and_says_so(sweep, caplog):
    with caplog.at_level("INFO", "hpjax"):
        config = parse_config({"sweep": sweep})
    assert config.data.validation_fraction == 0.1
    assert "data.validation_fraction=0.1" in caplog.text
    assert parse_config(to_dict(config)) == config


def test_a_search_keeps_a_validation_fraction_that_was_chosen():
    config = parse_config({"sweep": SEARCH, "data": {"validation_fraction": 0.3}})
    assert config.data.validation_fraction == 0.3


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.lists(st.integers(-2, 9) | st.text(max_size=3), max_size=3),
    st.dictionaries(st.text(max_size=4), st.integers(-2, 2), max_size=2),
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([*KEYS, "zzz", "model.zzz", "sweep.space.batch_size"]), VALUES), max_size=3
    )
)
def test_any_values_give_a_config_or_one_line(changes):
    plain: dict = {}
    for key, value in changes:
        section, _, name = key.partition(".")
        if name:
            plain.setdefault(section, {})[name] = value
        else:
            plain[section] = value
    try:
        config = parse_config(plain)
    except ConfigError as error:
        assert error.key
    else:
        assert parse_config(json.loads(json.dumps(to_dict(config)))) == config
