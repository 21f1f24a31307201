"""Damaged checkpoints are never trained on: the one before is used, or the sweep refuses to go on."""

import itertools
import json
import shutil
import signal

import pytest
from PIL import Image
from sweeps import assert_same_sweep
from tiny_network import DATA, MODEL

from hpjax.config import parse_config
from hpjax.errors import CheckpointError, WorkdirError
from hpjax.main import main
from hpjax.store.checkpoints import PopulationCheckpoints
from hpjax.store.ledger import seal_ledger
from hpjax.store.records import load_trials
from hpjax.store.resume import restore_population
from hpjax.sweep import Interrupted, run_sweep, scheduler
from hpjax.sweep.events import Upkeep
from hpjax.sweep.protocol import Order

pytestmark = pytest.mark.slow
SMALL = {
    "model": MODEL,
    "data": DATA,
    "train": {"batch_size": 12, "epochs": 2},
    "sweep": {"space": {"learning_rate": (1e-3, 3e-3)}},
    "lanes": {"strategy": "fused", "count": 2},
    "trackers": (),
}


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


@pytest.mark.landing
def test_the_checkpoint_before_a_damaged_one_is_used(searches, uninterrupted_search, workdir):
    newest = _steps(workdir)[-1]
    _flip_a_bit(newest)
    text = searches.finish(workdir)
    assert f"{newest} is damaged" in text and "going back to the checkpoint before" in text
    assert json.loads((workdir / "summary.json").read_text())["damaged_checkpoints"] == 1
    assert_same_sweep(workdir, uninterrupted_search)


@pytest.mark.landing
@pytest.mark.parametrize("log", ["history.jsonl", "study.journal"])
def test_the_checkpoint_before_is_used_where_a_log_has_changed_since(
    searches, uninterrupted_search, workdir, log
):
    before, newest = (_mark(step, log) for step in _steps(workdir))
    _change_byte(workdir / log, (before + newest) // 2)
    text = searches.finish(workdir)
    assert f"{workdir / log} is damaged" in text and "going back to the checkpoint before" in text
    assert json.loads((workdir / "summary.json").read_text())["damaged_checkpoints"] == 1
    assert_same_sweep(workdir, uninterrupted_search)


@pytest.mark.parametrize("log", ["history.jsonl", "study.journal"])
def test_a_changed_byte_of_a_log_is_never_believed(workdir, log, rng):
    file, steps = workdir / log, _steps(workdir)
    marks = [(_mark(step, log), int(step.name.removeprefix("step_"))) for step in steps]
    content = file.read_bytes()
    for _ in range(40):
        kept = shutil.copytree(workdir / "checkpoints" / "population", workdir / "kept")
        position = rng.randrange(len(content))
        _change_byte(file, position, 1 << rng.randrange(8))
        fitting = [step for mark, step in marks if mark <= position]
        with PopulationCheckpoints(kept) as checkpoints:
            if fitting:
                _, ledger = restore_population(checkpoints, workdir)
                assert ledger["tally"]["saves"] == fitting[-1]
                assert checkpoints.steps() == fitting
            else:
                with pytest.raises(CheckpointError, match=f"{log} is damaged"):
                    restore_population(checkpoints, workdir)
                assert len(checkpoints.steps()) == len(steps)
        file.write_bytes(content)
        shutil.rmtree(kept)


def _mark(step, log: str) -> int:
    ledger = json.loads((step / "ledger/ledger.json").read_text())["ledger"]
    return ledger[{"history.jsonl": "records", "study.journal": "study"}[log]][0]


def _change_byte(file, position: int, bits: int = 1) -> None:
    content = bytearray(file.read_bytes())
    content[position] ^= bits
    file.write_bytes(content)


def test_the_first_checkpoint_lost_before_the_second_is_refused(tmp_path):
    config = parse_config({**SMALL, "train": {"batch_size": 12, "epochs": 3}})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Upkeep, "boundary", _stop)
        with pytest.raises(Interrupted):
            run_sweep(config, tmp_path / "sweep")
    (only,) = _steps(tmp_path / "sweep")
    shutil.rmtree(only)
    history = (tmp_path / "sweep" / "history.jsonl").read_bytes()
    with pytest.raises(CheckpointError, match="all are missing"):
        run_sweep(config, tmp_path / "sweep")
    assert (tmp_path / "sweep" / "history.jsonl").read_bytes() == history


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
    before = _sizes(workdir)
    assert main(["hpjax", f"--config={searches.config}", f"--workdir={workdir}"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("hpjax: error: ") and said in line and "choose another workdir" in line
    assert _sizes(workdir) == before


def _sizes(workdir) -> dict:
    """Sizes of a workdir's files, without the lock and without what a kill cut off half-written."""
    cut_off = ("hpjax-tmp", "orbax-checkpoint-tmp")
    files = (path for path in workdir.rglob("*") if path.is_file() and path.name != ".lock")
    return {path: path.stat().st_size for path in files if not any(part in str(path) for part in cut_off)}


def test_other_data_is_refused(searches, workdir, tmp_path, capsys):
    for step in _steps(workdir):
        file = step / "ledger/ledger.json"
        ledger = json.loads(file.read_text())
        key, fingerprint = next(iter(ledger["ledger"]["fingerprints"].items()))
        ledger["ledger"]["fingerprints"][key] = fingerprint[::-1]  # as if it had begun on other images
        file.write_text(json.dumps(ledger))
        seal_ledger(file, step / "arrays")
    assert main(["hpjax", f"--config={searches.config}", f"--workdir={workdir}"]) == 2
    assert "was begun on other images than those of synthetic_scenes" in capsys.readouterr().err


def test_an_image_that_changed_since_is_refused(tmp_path):
    data = {"name": "folder", "dir": str(tmp_path / "images"), "image_size": 30}
    for split, number, label in itertools.product(("train", "test"), range(12), ("cat", "dog")):
        file = tmp_path / "images" / split / label / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (30, 30), (number * 20, 99, 0)).save(file)
    config = {**SMALL, "data": data, "train": {"batch_size": 12, "epochs": 3}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Upkeep, "boundary", _stop)
        with pytest.raises(Interrupted):
            run_sweep(parse_config(config), tmp_path / "sweep")
    Image.new("RGB", (30, 30), (7, 7, 7)).save(tmp_path / "images" / "train" / "cat" / "3.png")
    with pytest.raises(WorkdirError, match="on other images than those of folder in .*images: restore"):
        run_sweep(parse_config(config), tmp_path / "sweep")


def _stop(upkeep, status) -> Order:
    upkeep._session.signals.received = signal.SIGTERM
    return Order.STOP


def test_damaged_weights_of_the_winner_leave_a_sweep_that_ends(tmp_path, monkeypatch, caplog):
    read_test = scheduler.read_test

    def damage(session) -> None:
        session.stores.weights.wait()
        for folder in (session.workdir.path / "checkpoints" / "trials").iterdir():
            _flip_a_bit(folder)
        read_test(session)

    monkeypatch.setattr(scheduler, "read_test", damage)
    config = {**SMALL, "data": {**SMALL["data"], "validation_fraction": 0.2}}
    result = run_sweep(parse_config(config), tmp_path / "sweep")
    assert result.summary["finished"] and result.best and result.best.final_test_loss is None
    assert result.summary["not_tested"] == [result.best.trial]
    assert f"trial {result.best.trial} has no test accuracy" in caplog.text


@pytest.mark.parametrize(("epochs", "minutes", "saves"), [(0, 1e-9, 2), (0, 0.0, 1), (1, 1e9, 1)])
def test_checkpoints_by_epochs_or_minutes(tmp_path, epochs, minutes, saves):
    checkpoint = {"every_epochs": epochs, "every_minutes": minutes}
    result = run_sweep(parse_config({**SMALL, "checkpoint": checkpoint}), tmp_path / "sweep")
    assert result.summary["saves"] >= saves and (saves > 1 or result.summary["saves"] == 1)  # one at the end


@pytest.mark.landing
def test_another_layout_and_another_jax_go_on(searches, uninterrupted_search, workdir):
    for step in _steps(workdir):
        file = step / "ledger/ledger.json"
        ledger = json.loads(file.read_text())
        ledger["ledger"]["jax"] = "0.0.1"
        file.write_text(json.dumps(ledger))
        seal_ledger(file, step / "arrays")
    text = searches.finish(
        workdir, "--config.lanes.strategy=sequential", "--config.checkpoint.every_epochs=2"
    )
    assert "begun with jax 0.0.1" in text
    trials, others = (load_trials(path) for path in (workdir, uninterrupted_search))
    assert len(trials) == len(others)
    for trial, other in zip(trials[:3], others[:3], strict=True):  # those that were running
        assert trial.final_train_loss == pytest.approx(other.final_train_loss, rel=1e-2)
