"""Any value in any field: a config is refused in one line, or a sweep of it begins."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from fuzzing import fuzz, time_limit
from hypothesis import strategies as st

from hpjax.config import Config, parse_config, to_dict
from hpjax.config.fields import FIELDS as ALL_FIELDS
from hpjax.config.hyperparameters import HYPERPARAMETERS, apply_hyperparameters
from hpjax.errors import HpjaxError
from hpjax.lanes.group import create_task, optimizer_rule, trial_hparams
from hpjax.store.workdir import open_workdir
from hpjax.sweep.preflight import check_config, check_groups
from hpjax.sweep.session import Session

BASE = {
    "model.kernel_widths": (3, 3, 3),
    "data.name": "synthetic_scenes",
    "data.image_size": 30,
    "data.max_train_examples": 24,
    "data.max_test_examples": 12,
    "train.batch_size": 4,
    "trackers": (),
}
CHOICES = {key: tuple(field.rule.choices) for key, field in ALL_FIELDS.items() if field.rule.choices}
CHOICES["model.freeze"] = ("none", "conv1", "batch_norm1 + linear1.bias", "zzz")
PLAIN = to_dict(Config())
FIELDS = [f"{name}.{field}" for name, part in PLAIN.items() if isinstance(part, dict) for field in part]
LARGE = (
    "data.max_train_examples",
    "data.max_test_examples",
    "data.image_size",
)  # a million images take a while

NUMBERS = st.sampled_from(
    (0, 1, 2, 3, 4, 5, 6, 9, 30, -1, -0.0, 0.1, 0.5, 0.999, 1e-3, 1e-30, 1e-320, 1e30, 3.4e38, 1e300)
    + (float("nan"), float("inf"), float("-inf"), 2**31 - 1, 2**31, 2**63, 10**40, 10**400, 10**4000)
    + (True, False, 2.0, 1.5, 2j)
)
WORDS = st.sampled_from(
    ("", " ", "None", "auto", "none", "zzz", "ünï", "\n", "\0", "\ud800", "a" * 10_000, "~nobody/a.py:B")
    + ("a" * 300 + ".py:B", "/dev/null", "/dev/null.py:B", ".py:B", "a.py:", ":", "../..")
    + ("tfds:", "tfds:nothing", "tfds:/", "digits", "folder", "intel_scenes", "custom_cnn", "resnet18")
    + ("test_loss", "validation_loss", "train_loss")
)
SCALARS = NUMBERS | WORDS | st.none() | st.text(max_size=5) | st.binary(max_size=3)
NAMES = st.sampled_from((*HYPERPARAMETERS, "seed", "zzz", "", 3, None))
ANY = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(NAMES | WORDS, inner, max_size=3)
    ),
    max_leaves=6,
)


def _choices_of(name: str) -> st.SearchStrategy:
    """Values that a hyperparameter may well have."""
    hyperparameter = HYPERPARAMETERS.get(name)
    if hyperparameter is None or hyperparameter.key in LARGE:
        return st.sampled_from((16, 20, 30, 31, 40))
    if hyperparameter.type is str:
        return st.sampled_from(CHOICES[hyperparameter.key])
    numbers = (1, 2, 3, 4, 5, 7, 8, 24, 25)
    return st.sampled_from(numbers if hyperparameter.type is int else (0.0, 0.1, 0.25, 0.5, 0.9, 1e-4))


@st.composite
def axes(draw) -> tuple[str, Any]:
    """A hyperparameter and its values: mostly of the right form."""
    name = draw(st.sampled_from(tuple(HYPERPARAMETERS)))
    value = st.one_of(*([_choices_of(name)] * 8), SCALARS)
    choices = st.lists(value, min_size=1, max_size=3).map(tuple)
    ends = st.tuples(value, value).map(lambda pair: sorted(pair, key=repr))
    spec = draw(
        choices
        | ends.map(lambda pair: {"low": pair[0], "high": pair[1]})
        | choices.map(lambda c: {"choices": c})
    )
    if isinstance(spec, dict):
        options = {
            "log": st.booleans() | SCALARS,
            "step": value,
            "when": st.dictionaries(NAMES, ANY, max_size=2),
        }
        for option in draw(st.lists(st.sampled_from(tuple(options)), max_size=2)):
            spec[option] = draw(options[option])
    return name, spec


SPACES = st.lists(axes(), max_size=3).map(dict)
PRUNER_OPTIONS = (
    *("n_startup_trials", "n_warmup_steps", "interval_steps", "min_resource", "max_resource", "upper"),
    *("min_early_stopping_rate", "reduction_factor", "bootstrap_count", "p_threshold", "lower"),
    *("wrapped_pruner", "patience", "min_delta", "zzz"),
)
FITTING: dict[str, st.SearchStrategy] = {
    **{key: st.sampled_from(values) for key, values in CHOICES.items() if key != "trackers"},
    "sweep.space": SPACES,
    "sweep.enqueue": SPACES.map(lambda space: ({name: _first(spec) for name, spec in space.items()},)),
    "sweep.pruner_options": st.dictionaries(
        st.sampled_from(PRUNER_OPTIONS), NUMBERS | st.sampled_from(("auto", "a", None)), max_size=2
    ),
    "sweep.trials": st.integers(0, 3),
    "sweep.pbt": st.fixed_dictionaries({"every_epochs": NUMBERS}, optional={"perturb": NUMBERS}),
}


def _first(spec: Any) -> Any:
    if isinstance(spec, dict):
        return spec.get("low", spec.get("choices", [None])[0])
    return spec[0]


def _value_of(key: str) -> st.SearchStrategy:
    if key in LARGE:
        return WORDS | st.sampled_from((-1, 0, 1, 7, 30, 2**31 - 1))
    fitting = FITTING.get(key, SCALARS)
    return st.one_of(fitting, fitting, fitting, ANY)


CHANGES = st.lists(
    st.sampled_from(
        (*FIELDS, "seed", "trackers", "zzz", "model", "sweep.zzz", *("sweep.space",) * 12, *FITTING)
    ).flatmap(lambda key: st.tuples(st.just(key), _value_of(key))),
    min_size=1,
    max_size=6,
).map(dict)


def _nest(changes: dict[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in {**BASE, **changes}.items():
        section, _, field = key.partition(".")
        part = nested.setdefault(section, {}) if field else nested
        if isinstance(part, dict):
            part[field or section] = value
    return nested


def _begin(given: dict[str, Any], folder: Path) -> None:
    """Does what a sweep does up to where it would compile: checks, opens everything, asks for trials."""
    config = parse_config(given)
    assert parse_config(json.loads(json.dumps(to_dict(config)))) == config
    check_config(config)
    with open_workdir(folder, to_dict(config)) as workdir, Session(config, workdir) as session:
        check_groups(config, session.datasets.load)
        for _ in range(6):
            stores = session.stores
            if (key := stores.queue.next_group()) is None:
                break
            trial = stores.queue.take(key)
            trial_config = apply_hyperparameters(config, trial.hyperparameters)
            dataset = session.datasets.load(trial_config)
            create_task(trial_config, dataset, session.spec.tests_each_epoch)
            optimizer_rule(trial_config, len(dataset.train))
            trial_hparams(trial_config, trial.seed)
            stores.study.report(trial, 1, 0.5)
            stores.study.tell(trial, "complete", 0.5)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("HPJAX_CACHE", str(tmp_path / "cache"))
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")  # "../.." is a value, too


@pytest.mark.filterwarnings("ignore")
def test_any_config(request, tmp_path, counted):
    refused = {"before": 0, "begun": 0}

    def check(changes):
        folder = tmp_path / "sweep"
        with time_limit(changes):
            try:
                _begin(_nest(changes), folder)
                refused["begun"] += 1
            except HpjaxError as error:
                assert 20 < len(str(error)) < 1_500, changes
                counted["bad inputs refused"] += 1
        counted["inputs tried"] += 1
        shutil.rmtree(folder, ignore_errors=True)

    examples = 3 * request.config.getoption("--inputs", 40)
    fuzz(examples, CHANGES, check)
    assert refused["begun"] > examples / 20  # the draws reach what lies behind the first check


def test_a_refused_config_leaves_the_workdir_to_the_next(tmp_path):
    wrong = [
        {"data.name": "folder", "data.dir": "none"},
        {"data.max_train_examples": 1},
        {"data.name": "auto", "data.dir": "none"},
        {"model.kernel_widths": (31,) * 3},
    ]
    for changes in wrong:
        with pytest.raises(HpjaxError):
            _begin(_nest(changes), tmp_path / "sweep")
    _begin(_nest({}), tmp_path / "sweep")
