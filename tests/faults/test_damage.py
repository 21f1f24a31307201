"""Damaged checkpoints are never trained on: the one before is used, or the sweep refuses to go on."""

import json
import shutil

import pytest
from sweeps import assert_same_sweep

from hpjax.main import main
from hpjax.store.manifest import write_manifest
from hpjax.store.records import load_trials

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def killed(searches, tmp_path_factory):
    """A workdir with two checkpoints of a search that was killed."""
    workdir = tmp_path_factory.mktemp("damage") / "killed"
    came, *_ = searches.start(workdir).signal_when(lambda: len(_steps(workdir)) == 2)
    assert came
    return workdir


@pytest.fixture
def workdir(killed, tmp_path):
    return shutil.copytree(killed, tmp_path / "sweep")


def _steps(workdir) -> list:
    folders = (workdir / "checkpoints" / "population").glob("step_*")
    return sorted(folder for folder in folders if folder.name.removeprefix("step_").isdigit())


def _flip_a_bit(folder) -> None:
    file = max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def test_the_checkpoint_before_a_damaged_one_is_used(searches, uninterrupted_search, workdir):
    newest = _steps(workdir)[-1]
    _flip_a_bit(newest)
    text = searches.finish(workdir)
    assert f"{newest} is damaged" in text and "going back to the one before" in text
    assert json.loads((workdir / "summary.json").read_text())["damaged_checkpoints"] == 1
    assert_same_sweep(workdir, uninterrupted_search)


DAMAGES = {
    "is not what was saved": lambda workdir: [_flip_a_bit(step) for step in _steps(workdir)],
    "all are missing": lambda workdir: shutil.rmtree(workdir / "checkpoints" / "population"),
    "history.jsonl is damaged": lambda workdir: (workdir / "history.jsonl").write_text(""),
    "study.journal is damaged": lambda workdir: (workdir / "study.journal").unlink(),
    "config.json is damaged": lambda workdir: (workdir / "config.json").write_text("{"),
}


@pytest.mark.parametrize("said", DAMAGES)
def test_what_cannot_be_mended_is_refused_and_left_as_it_is(searches, workdir, said, capsys):
    DAMAGES[said](workdir)
    before = {path: path.stat().st_size for path in workdir.rglob("*") if path.is_file()}
    assert main(["hpjax", f"--config={searches.config}", f"--workdir={workdir}"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("hpjax: error: ") and said in line and "choose another workdir" in line
    after = {path: path.stat().st_size for path in workdir.rglob("*") if path.is_file()}
    lock = workdir / ".lock"
    assert {**after, lock: 0} == {**before, lock: 0}


def test_other_data_is_refused(searches, workdir, tmp_path, capsys):
    for step in _steps(workdir):
        ledger = json.loads((step / "ledger.json").read_text())
        key, fingerprint = next(iter(ledger["ledger"]["fingerprints"].items()))
        ledger["ledger"]["fingerprints"][key] = fingerprint[::-1]  # as if it had begun on other images
        (step / "ledger.json").write_text(json.dumps(ledger))
        write_manifest(step)
    assert main(["hpjax", f"--config={searches.config}", f"--workdir={workdir}"]) == 2
    assert "was begun on other images of synthetic_scenes" in capsys.readouterr().err


def test_other_lanes_and_another_jax_go_on(searches, uninterrupted_search, workdir):
    for step in _steps(workdir):
        ledger = json.loads((step / "ledger.json").read_text())
        ledger["ledger"]["jax"] = "0.0.1"
        (step / "ledger.json").write_text(json.dumps(ledger))
        write_manifest(step)
    text = searches.finish(workdir, "--config.lanes.count=2", "--config.checkpoint.every_epochs=2")
    assert "begun with jax 0.0.1" in text
    trials, others = (load_trials(path) for path in (workdir, uninterrupted_search))
    assert len(trials) == len(others)
    for trial, other in zip(trials[:3], others[:3], strict=True):  # those that were running
        assert trial.final_train_loss == pytest.approx(other.final_train_loss, rel=1e-2)
