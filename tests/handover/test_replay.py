"""A trial that is trained again, from its record alone, gives what was recorded."""

import dataclasses
import json
import re
import shutil

import linear_network
import pytest
import tiny_network

from hpjax.config import parse_config
from hpjax.handover import record
from hpjax.handover.agreement import Agreement, Difference, list_ancestors
from hpjax.handover.replay import replay_trial
from hpjax.replay import DIFFERS, main
from hpjax.store.records import load_copies
from hpjax.store.rows import CopyRow
from hpjax.sweep import run_sweep

PBT = {
    "model": {"name": f"{linear_network.__file__}:Net"},
    "data": tiny_network.DATA,
    "train": {"batch_size": 20, "epochs": 3},
    "sweep": {
        "space": {"learning_rate": {"low": 1e-4, "high": 3e-3, "log": True}},
        "sampler": "random",
        "metric": "train_loss",
        "trials": 4,
        "pbt": {"fraction": 0.5},
    },
    "lanes": {"strategy": "fused"},
    "checkpoint": {"every_epochs": 0},
    "trackers": (),
}


@pytest.fixture(scope="module")
def population(tmp_path_factory):
    return run_sweep(parse_config(PBT), tmp_path_factory.mktemp("pbt") / "sweep").workdir


def _run(capsys, *arguments):
    status = main(["replay", *map(str, arguments)])
    out, err = capsys.readouterr()
    return status, out, err


def test_in_the_same_layout_it_is_equal_to_the_bit(own, capsys):
    arguments = f"--workdir={own.workdir}", "--trial=1", f"--model_file={own.file}"
    status, out, err = _run(capsys, *arguments)
    assert (status, err) == (0, "")
    *epochs, verdict = out.splitlines()
    assert [line.split(" 0.")[0].split(" 1.")[0] for line in epochs] == [
        "epoch 1: train_loss",
        "epoch 2: train_loss",
    ]
    assert verdict == "agrees to the bit: 8 numbers are equal"
    status, out, err = _run(capsys, *arguments, "--layout=alone")
    assert (status, err) == (0, "") and out.splitlines()[-1].startswith("agrees ")


def test_what_differs_is_said_and_is_the_exit_status(own, capsys, monkeypatch):
    rows = own.result.epochs
    rows = [dataclasses.replace(r, test_loss=r.test_loss * 1.1) if r.epoch == 2 else r for r in rows]
    monkeypatch.setattr(record, "load_epochs", lambda path: rows)
    arguments = f"--workdir={own.workdir}", "--trial=1", f"--model_file={own.file}"
    status, out, err = _run(capsys, *arguments)
    assert (status, err) == (DIFFERS, "")
    assert out.splitlines()[-1].startswith("differs in 1 of 8 numbers: test_loss of trial 1 in epoch 2 was ")


@pytest.mark.parametrize(
    ("changed", "place"),
    [
        ({}, (2, 1, 2, True)),  # lanes, lanes a call, devices, whether that is how it was trained
        ({"changes": [{"lanes_per_call": 1, "threads": 2}]}, (2, 1, 2, True)),  # the same programs
        ({"changes": [{"lanes_per_call": 2, "threads": 1}]}, (1, 1, 1, False)),
        ({"changes": {"lanes_per_call": 1}}, (1, 1, 1, False)),
        ({"devices": 1}, (1, 1, 1, True)),
        ({"devices": 64}, (1, 1, 1, False)),  # there aren't so many here
        ({"devices": 1, "lanes_per_call": 2}, (2, 2, 1, True)),
    ],
)
def test_lanes_are_put_where_they_were(own, tmp_path, changed, place):
    workdir = shutil.copytree(own.workdir, tmp_path / "w")
    summary = json.loads((workdir / "summary.json").read_text())
    assert (summary["layouts"][0]["lanes"], summary["layouts"][0]["devices"]) == (2, 2)
    summary["layouts"][0] |= changed
    (workdir / "summary.json").write_text(json.dumps(summary))
    found = record.find_place(record.read_record(workdir, 1))
    assert (found.num_lanes, found.lanes_per_call, found.devices, found.same) == place


@pytest.mark.landing
def test_a_member_of_a_population_is_trained_with_its_ancestors(population, capsys, monkeypatch):
    copied = [copy for copy in load_copies(population) if copy.epoch < 3]
    trial, file = copied[-1].trial, linear_network.__file__
    status, out, err = _run(capsys, f"--workdir={population}", f"--trial={trial}", f"--model_file={file}")
    assert (status, err) == (0, "") and "agrees to the bit" in out
    found = replay_trial(population, trial, file, layout="alone")
    assert found.agrees
    assert {difference.trial for difference in found.differences} >= {trial, copied[-1].source}
    monkeypatch.setattr(record, "load_copies", lambda path: [])  # without its lineage, it is another
    assert not replay_trial(population, trial, file).agrees


def test_ancestors():
    copy = lambda trial, epoch, source: CopyRow(trial, epoch, source, {})  # noqa: E731
    copies = [copy(1, 1, 2), copy(2, 1, 3), copy(0, 2, 1), copy(4, 1, 0), copy(0, 4, 4)]
    # 2 gave its state to 1 before it took that of 3 over: 3 isn't needed, nor what came after the last epoch.
    assert list_ancestors(0, 4, copies) == {0: 4, 1: 2, 2: 1}
    assert list_ancestors(3, 4, copies) == {3: 4}


@pytest.mark.landing
@pytest.mark.parametrize(
    ("sweep", "lanes"),
    [
        ({**PBT["sweep"]}, {"strategy": "fused"}),
        ({**PBT["sweep"], "pbt": {}, "pruner": "median"}, {"strategy": "sequential"}),
        ({"space": {"batch_size": (12, 20)}, "seeds": 3}, {"strategy": "fused", "count": 2}),
        ({**PBT["sweep"], "pbt": {}}, {"strategy": "fused", "count": 2, "data_order": "shared"}),
    ],
)
def test_every_trial_of_other_sweeps(tmp_path, sweep, lanes):
    """With batch norm, dropout and augmentation."""
    data = {**tiny_network.DATA, "augment": "flip"}
    sections = {"model": tiny_network.MODEL, "data": data, "sweep": sweep, "lanes": lanes}
    result = run_sweep(parse_config({**PBT, **sections}), tmp_path / "sweep")
    for row in result.trials:
        found = replay_trial(result.workdir, row.trial, tiny_network.__file__)
        assert found.agrees, found.describe()
        own = [difference for difference in found.differences if difference.trial == row.trial]
        assert len({difference.epoch for difference in own}) == row.epochs


def test_a_model_of_ones_own_is_run_from_the_file_that_is_named_and_as_it_was(own, tmp_path, capsys):
    status, out, err = _run(capsys, f"--workdir={own.workdir}", "--trial=0")
    assert (status, out) == (2, "") and "pass model_file=PATH (--model_file=PATH)" in err
    changed = tmp_path / "mine.py"
    changed.write_text(f"open({str(tmp_path / 'run')!r}, 'w')\n" + own.file.read_text())
    status, out, err = _run(capsys, f"--workdir={own.workdir}", "--trial=0", f"--model_file={changed}")
    assert (status, out) == (2, "") and "was trained with another content of" in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--workdir={sweep}",), "--trial is missing"),
        (("--workdir={sweep}", "--trial=2"), "there is no trial 2 in .*: its trials are 0 to 1"),
        (("--workdir={sweep}", "--trial=0", "--layout=other"), "--layout='other' is not allowed"),
        (
            ("--workdir={sweep}", "--trial=0", "--model_file=a.py"),
            "--model_file='a.py' is not allowed",
        ),
        (("--workdir={new}", "--trial=0"), "can't read"),
    ],
)
def test_what_is_wrong_is_one_line(own, tmp_path, capsys, arguments, line):
    places = {"sweep": own.workdir, "new": tmp_path / "new"}
    status, out, err = _run(capsys, *(argument.format(**places) for argument in arguments))
    assert (status, out) == (2, "") and err.count("\n") == 1
    assert re.search(f"^hpjax: error: .*{line}", err), err


def test_other_images_and_another_config_are_one_line(own, tmp_path, capsys):
    place = shutil.copytree(own.workdir, tmp_path / "place")
    text = (place / "config.json").read_text()
    for old, new, line in (
        ('"max_train_examples": 60', '"max_train_examples": 66', "was begun on other images"),
        ('"epochs": 2', '"epochs": -2', "config.json isn't what this version of hpjax writes: train.epochs"),
        ("{", "", "is damaged"),
    ):
        assert old in text
        (place / "config.json").write_text(text.replace(old, new, 1))
        status, out, err = _run(capsys, f"--workdir={place}", "--trial=0", f"--model_file={own.file}")
        assert (status, out) == (2, "") and err.count("\n") == 1 and line in err, err


def test_the_tolerance():
    def found(epoch, column, recorded, replayed, same=False):
        difference = Difference(0, epoch, column, recorded, replayed)
        return Agreement((difference,), {"test": 24}, same).agrees

    assert found(1, "train_loss", 1.0, 1.000005) and not found(1, "train_loss", 1.0, 1.00002)
    assert found(2, "train_loss", 1.0, 1.001) and not found(2, "train_loss", 1.0, 1.003)
    assert found(2, "test_accuracy", 0.5, 0.5 + 2 / 24) and not found(2, "test_accuracy", 0.5, 0.5 + 3 / 24)
    nan = float("nan")
    assert found(2, "test_loss", nan, nan, same=True) and not found(2, "test_loss", 1.0, nan)
    assert not found(2, "train_loss", 1.0, 1.0000001, same=True)
