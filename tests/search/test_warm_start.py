"""Trials of another study are known to a sampler from the start, and are none of the sweep's own."""

import contextlib
import json
import math
import shutil
import sqlite3

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState, create_trial

from hpjax.config import parse_config
from hpjax.errors import ConfigError
from hpjax.search.objective import create_objective
from hpjax.search.opening import STUDY_NAME, open_study
from hpjax.search.samplers import create_sampler, relaying_warnings
from hpjax.sweep.spec import create_space

SPACE = {"learning_rate": {"low": 1e-3, "high": 0.1, "log": True}, "weight_decay": {"low": 0.0, "high": 1.0}}
RATE, DECAY = FloatDistribution(1e-5, 1.0, log=True), FloatDistribution(0, 10)
INSIDE = 12


def _judge(rate):
    return -abs(math.log10(rate) + 1.2)


def _trial(rate, decay=0.5, state=TrialState.COMPLETE, reported=None, **more):
    kinds = {name: CategoricalDistribution([value]) for name, value in more.items()}
    return create_trial(
        state=state,
        value=_judge(rate) if state == TrialState.COMPLETE else None,
        params={"learning_rate": rate, "weight_decay": decay, **more},
        distributions={"learning_rate": RATE, "weight_decay": DECAY, **kinds},
        intermediate_values=reported or {},
    )


TRIALS = [
    *(_trial(10 ** (-3 + 2 * n / INSIDE), n / INSIDE, reported={1: 0.5}) for n in range(INSIDE)),
    _trial(0.02, state=TrialState.PRUNED, reported={1: -3.0, 2: -2.5}),
    *(_trial(0.5), _trial(0.01, momentum=0.9)),  # outside: of a range, and with what isn't searched
    *(_trial(0.01, state=TrialState.FAIL), _trial(0.01, state=TrialState.RUNNING)),
]


def _fill(storage, name="theirs", trials=TRIALS, **about):
    optuna.create_study(storage=storage, study_name=name, **{"direction": "maximize", **about}).add_trials(
        trials
    )


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Folder of a journal, a SQLite file, one of two studies and some that can't be used."""
    folder = tmp_path_factory.mktemp("sources")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    _fill(JournalStorage(JournalFileBackend(str(folder / "theirs.journal"))))
    _fill(f"sqlite:///{folder}/theirs.db")
    shutil.copy(folder / "theirs.db", folder / "two.db")
    _fill(f"sqlite:///{folder}/two.db", "other", [], direction="minimize")
    for name, trials, about in (
        *(("empty", [], {}), ("outside", [_trial(0.5)], {}), ("failed", [TRIALS[-2]], {})),
        *(("less", TRIALS, {"direction": "minimize"}),),
        *(("both", [], {"direction": None, "directions": ["maximize", "minimize"]}),),
    ):
        _fill(JournalStorage(JournalFileBackend(str(folder / name))), trials=trials, **about)
    (folder / "text").write_text("no study\nat all\n")
    (folder / "nothing").write_text("")
    (folder / "folder").mkdir()
    for name, metric in (("workdir", "validation_accuracy"), ("others", "train_loss")):
        (folder / name).mkdir()
        shutil.copy(folder / "theirs.journal", folder / name / "study.journal")
        (folder / name / "summary.json").write_text(json.dumps({"objective": metric}))
    return folder


def _open(path, source, mark=None, sampler="tpe", **sweep):
    given = {"space": SPACE, "sampler": sampler, "trials": 9, "warm_start": str(source), **sweep}
    config = parse_config({"sweep": given})
    objective = create_objective("auto", config.data.validation_fraction > 0)
    return config, open_study(config, create_space(config), objective, path, mark)


@pytest.mark.parametrize(
    "name", ["workdir", "theirs.journal", "theirs.db", "sqlite:///theirs.db", "two.db#theirs"]
)
def test_the_sampler_knows_what_ended_inside_of_the_space(sources, tmp_path, caplog, name, monkeypatch):
    caplog.set_level("INFO")
    monkeypatch.chdir(sources)
    before = {file: file.read_bytes() for file in sources.iterdir() if file.is_file()}
    config, study = _open(tmp_path / "journal", name)
    line = caplog.messages[-1]
    assert line.endswith(f"knows 13 trials of {name}; 2 others lie outside of sweep.space")
    assert {file: file.read_bytes() for file in sources.iterdir() if file.is_file()} == before
    assert study.unfinished == 0 and study.left == 9
    trial = study.ask()
    assert (trial.number, trial.setting, trial.seed) == (0, 0, 0)
    # What Optuna's own sampler names to whom knows them.
    with relaying_warnings():
        theirs = optuna.create_study(
            direction="maximize", sampler=create_sampler(config.sweep, 0, INSIDE + 1)
        )
    kinds = {"learning_rate": FloatDistribution(1e-3, 0.1, log=True), "weight_decay": FloatDistribution(0, 1)}
    for known in TRIALS[: INSIDE + 1]:
        about = {"state": known.state, "value": known.value, "intermediate_values": known.intermediate_values}
        theirs.add_trial(create_trial(params=known.params, distributions=kinds, **about))
    assert theirs.ask(kinds).params == trial.hyperparameters
    ours = optuna.load_study(
        study_name=STUDY_NAME, storage=JournalStorage(JournalFileBackend(str(tmp_path / "journal")))
    ).trials
    assert [t.value for t in ours[:INSIDE]] == [t.value for t in TRIALS[:INSIDE]]
    assert not any(t.intermediate_values for t in ours[:INSIDE])  # nothing that a pruner would compare with
    assert ours[INSIDE].intermediate_values == {2: -2.5}


@pytest.mark.parametrize("sampler", ["tpe", "cmaes", pytest.param("gp", marks=pytest.mark.landing)])
def test_a_study_goes_on_without_the_other_one(sources, tmp_path, sampler):
    source = shutil.copy(sources / "theirs.journal", tmp_path / "theirs")
    _, study = _open(tmp_path / "journal", source, sampler=sampler, seeds=2)
    asked, mark = [], None
    while (trial := study.ask()) is not None:
        study.report(trial, 1, 0.5)
        study.tell(trial, "complete", _judge(trial.hyperparameters["learning_rate"]))
        asked.append(trial)
        if trial.number == 7:
            mark = study.mark()
    assert [trial.setting for trial in asked] == [number - number % 2 for number in range(18)]
    source.unlink()
    _, again = _open(tmp_path / "journal", source, mark, sampler=sampler, seeds=2)
    again.reopen({3, 4})
    assert again.unfinished == 2 and again.recall(3) == asked[3]
    for number in (3, 4):
        again.tell(asked[number], "complete", _judge(asked[number].hyperparameters["learning_rate"]))
    following = []
    while (trial := again.ask()) is not None:
        again.tell(trial, "complete", _judge(trial.hyperparameters["learning_rate"]))
        following.append(trial)
    assert following == asked[8:]


def test_cma_es_begins_where_the_others_were_best(sources, tmp_path):
    values = []
    for name in ("known", "unknown"):
        source = sources / "theirs.journal" if name == "known" else ""
        _, study = _open(tmp_path / name, source, sampler="cmaes", trials=8)
        asked = []
        while (trial := study.ask()) is not None:
            study.tell(trial, "complete", 0.5)
            asked.append(_judge(trial.hyperparameters["learning_rate"]))
        values.append(sum(asked) / len(asked))
    assert 0 > values[0] > values[1] / 2


@pytest.mark.parametrize(
    "name, told",
    [
        ("gone", "that exists"),
        ("a" * 300, r"that can be read \(OSError"),
        ("sqlite:///gone.db", "that exists"),
        ("folder", "there is no study.journal in that folder"),
        ("others", "a sweep with sweep.metric=validation_accuracy, not train_loss"),
        ("text", r"that can be read \(JSONDecodeError"),
        ("nothing", "a storage with a study in it"),
        ("two.db", "#NAME behind it, of one of its studies: .*theirs"),
        ("two.db#third", "#NAME behind it"),
        ("two.db#other", "a study to maximize one value, not to minimize"),
        ("less", "not to minimize"),
        ("both", "not to maximize and minimize"),
        ("empty", "trials that are complete or pruned"),
        ("failed", "trials that are complete or pruned"),
        ("outside", "none of its 1 is"),
    ],
)
def test_what_is_no_study_for_it_is_refused_in_a_line(sources, tmp_path, name, told, monkeypatch):
    monkeypatch.chdir(sources)
    with pytest.raises(ConfigError, match=f"sweep.warm_start=.*{told}") as caught:
        _open(tmp_path / "journal", name)
    assert "\n" not in str(caught.value) and not (tmp_path / "journal").exists()
    assert not (sources / "gone.db").exists()


def test_a_broken_sqlite_file_is_refused_in_a_line(sources, tmp_path):
    (tmp_path / "broken.db").write_bytes((sources / "theirs.db").read_bytes()[:3000])
    with contextlib.closing(sqlite3.connect(tmp_path / "others.db")) as connection:
        connection.execute("create table notes (text)")
        connection.commit()
    for name in ("broken.db", "others.db"):
        with pytest.raises(ConfigError, match=r"sweep.warm_start=.* is not allowed: expected a"):
            _open(tmp_path / "journal", tmp_path / name)


def test_it_goes_with_samplers_that_learn(sources):
    for sampler, more in (("grid", {}), ("random", {}), ("qmc", {}), ("tpe", {"pruner": "wilcoxon"})):
        with pytest.raises(ConfigError, match="sweep.warm_start='x' is not allowed: expected empty with"):
            parse_config(
                {"sweep": {"space": SPACE, "sampler": sampler, "trials": 3, "warm_start": "x", **more}}
            )


def test_cma_es_says_how_many_trials_it_begins_from(tmp_path):
    _fill(JournalStorage(JournalFileBackend(str(tmp_path / "few"))), trials=TRIALS[:9])
    with pytest.raises(
        ConfigError, match="at least 10 complete trials in sweep.space for cmaes; there are 9"
    ):
        _open(tmp_path / "journal", tmp_path / "few", sampler="cmaes")
    _open(tmp_path / "journal", tmp_path / "few", sampler="tpe")


def test_cma_es_goes_on_where_a_hyperparameter_is_missing(tmp_path):
    """Known to all trials of the other study, and not to all of this one."""
    kinds = {
        "optimizer": CategoricalDistribution(("adam", "momentum")),
        "momentum": FloatDistribution(0.1, 0.9),
    }
    known = [
        create_trial(
            value=-n / 9,
            params={
                "learning_rate": 10 ** (-2 - n / 20),
                "weight_decay": 0.1,
                "optimizer": "momentum",
                "momentum": 0.5,
            },
            distributions={"learning_rate": RATE, "weight_decay": DECAY, **kinds},
        )
        for n in range(12)
    ]
    _fill(JournalStorage(JournalFileBackend(str(tmp_path / "theirs"))), trials=known)
    momentum = {"low": 0.1, "high": 0.9, "when": {"optimizer": ("momentum",)}}
    space = {**SPACE, "optimizer": ("adam", "momentum"), "momentum": momentum}
    _, study = _open(tmp_path / "journal", tmp_path / "theirs", sampler="cmaes", space=space)
    optimizers = set()
    while (trial := study.ask()) is not None:
        study.tell(trial, "complete", _judge(trial.hyperparameters["learning_rate"]))
        optimizers.add(trial.hyperparameters["optimizer"])
    assert optimizers == {"adam", "momentum"}
