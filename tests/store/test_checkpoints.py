"""Checkpoints: exact round trips, verified bytes, bounded number, clear errors. Real Orbax, real disks."""

import contextlib
import gc
import logging
import math
import os
import pickle
import resource
import shutil
import subprocess
import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from hpjax.errors import CheckpointError, WorkdirError
from hpjax.lanes.exhaustion import is_out_of_memory
from hpjax.store import ledger
from hpjax.store.arrays import fit_template
from hpjax.store.checkpoints import PopulationCheckpoints, TrialCheckpoints, load_trial_checkpoint
from hpjax.store.ledger import Unreadable, read_ledger, seal_ledger
from hpjax.store.marks import DamagedLog
from hpjax.store.steps import Steps, load_folder


class Moments(NamedTuple):
    mu: dict
    nu: dict


def _tree(value: float = 1.0) -> dict:
    weights = {
        "conv/1": {"kernel.a": jnp.full((2, 3), value)},
        "list": {0: jnp.array([math.nan, math.inf, -0.0])},
    }
    return {
        "params": weights,
        "moments": (Moments(weights, {"x": jnp.ones(4, jnp.bfloat16)}), ()),
        "seed": jnp.uint32(7),
        "done": np.array([True, False]),
        "empty": np.zeros((0, 3), np.float16),
        "nothing": None,
    }


def _assert_same_bits(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@pytest.fixture
def population(tmp_path):
    with PopulationCheckpoints(tmp_path / "population") as checkpoints:
        yield checkpoints


def _arrays_file(folder):
    files = [path for path in folder.rglob("*") if path.is_file() and path.parent.name == "d"]
    return max(files, key=lambda path: path.stat().st_size)


def test_population_reads_back_to_the_bit(population):
    population.save(3, _tree(), {"offset": 12, "names": ["a"]})
    restored = population.restore_latest()
    assert (restored.step, restored.ledger, restored.rejected) == (3, {"offset": 12, "names": ["a"]}, ())
    _assert_same_bits(fit_template(restored.arrays, _tree(), "it"), _tree())


def test_arrays_are_nested_dicts_of_numpy(population):
    population.save(1, _tree(), {}, block=True)
    arrays = population.restore_latest().arrays
    assert set(arrays) == {"params", "moments", "seed", "done", "empty"}
    assert isinstance(arrays["params"]["conv/1"]["kernel.a"], np.ndarray)
    assert arrays["moments"]["0"]["nu"]["x"].dtype == ml_dtypes.bfloat16
    assert arrays["empty"].shape == (0, 3)


def test_nothing_saved(population):
    assert population.restore_latest() is None
    assert population.steps() == []


def test_donated_arrays_are_saved_as_they_were(population):
    step = jax.jit(lambda x: x + 1, donate_argnums=0)
    state = jnp.zeros(100_000)
    population.save(1, {"state": state}, {})
    for _ in range(5):
        state = step(state)
    assert not population.restore_latest().arrays["state"].any()


def test_retention(population):
    for step in (1, 2, 3, 9):
        population.save(step, {"a": np.arange(step)}, {})
    population.wait()
    assert population.steps() == [3, 9]


def test_nothing_but_the_kept_stays_on_disk(population, tmp_path):
    for step in (1, 2, 3):
        population.save(step, _tree(), {}, block=True)
    assert sorted(os.listdir(tmp_path / "population")) == ["step_00000002", "step_00000003"]


def test_a_ledger_alone_is_a_checkpoint(population):
    population.save(1, {}, {"a": 1}, block=True)
    restored = population.restore_latest()
    assert restored.arrays == {} and restored.ledger == {"a": 1}


def test_template_mismatch_names_every_array():
    saved = {"a": np.zeros(3), "b": np.zeros(2), "c": np.zeros(1)}
    template = {"a": np.zeros(4), "b": np.zeros(2, np.float32), "d": np.zeros(1)}
    with pytest.raises(CheckpointError) as caught:
        fit_template(saved, template, "it")
    for problem in ("a is float64[3] instead of float64[4]", "b is float64[2] instead of float32[2]",
                    "c is not expected", "d is missing"):  # fmt: skip
        assert problem in str(caught.value)


def _flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "truncated": lambda folder: os.truncate(_arrays_file(folder), 10),
    "one bit": lambda folder: _flip(_arrays_file(folder)),
    "arrays missing": lambda folder: shutil.rmtree(folder / "arrays"),
    "file missing": lambda folder: _arrays_file(folder).unlink(),
    "ledger changed": lambda folder: _flip(folder / "ledger/ledger.json"),
    "ledger missing": lambda folder: (folder / "ledger/ledger.json").unlink(),
    "ledger torn": lambda folder: os.truncate(folder / "ledger/ledger.json", 100),
    "ledger a list": lambda folder: (folder / "ledger/ledger.json").write_text("[]"),
    "ledger deep": lambda folder: (folder / "ledger/ledger.json").write_text("[" * 100_000),
    "ledger a pipe": lambda folder: _make_pipe(folder / "ledger/ledger.json"),
    "file added": lambda folder: (folder / "arrays" / "extra.pkl").write_bytes(b"cos\nsystem\n"),
    "file linked": lambda folder: _link(folder),
    "files swapped": lambda folder: _swap(folder / "arrays" / "_METADATA", _arrays_file(folder)),
    "another's content": lambda folder: _replace(folder, folder.with_name("step_00000001")),
}


def _link(folder):
    file = _arrays_file(folder)
    target = folder.parent / "elsewhere"
    file.rename(target)
    file.symlink_to(target)


def _make_pipe(file):
    file.unlink()
    os.mkfifo(file)


def _swap(file, other):
    content = file.read_bytes()
    file.write_bytes(other.read_bytes())
    other.write_bytes(content)


def _replace(folder, other):
    shutil.rmtree(folder)
    shutil.copytree(other, folder)


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_step_falls_back_to_the_one_before(population, tmp_path, caplog, damage):
    population.save(1, _tree(1.0), {"step": 1})
    population.save(2, _tree(2.0), {"step": 2}, block=True)
    DAMAGES[damage](tmp_path / "population" / "step_00000002")
    with caplog.at_level(logging.WARNING, "hpjax"):
        restored = population.restore_latest()
    assert restored.step == 1 and restored.ledger == {"step": 1}
    _assert_same_bits(fit_template(restored.arrays, _tree(), "it"), _tree(1.0))
    assert [step for step, _ in restored.rejected] == [2] and "step_00000002" in caplog.text


def test_all_damaged_is_an_error(population, tmp_path):
    population.save(1, _tree(), {}, block=True)
    _flip(_arrays_file(tmp_path / "population" / "step_00000001"))
    with pytest.raises(CheckpointError, match=r"no checkpoint in .* can be used \(.* is not what was saved"):
        population.restore_latest()


class _Bomb:
    """Unpickling it makes a file."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return open, (str(self.marker), "w")


@pytest.mark.parametrize("pattern", ["ledger/ledger.json", "arrays/_METADATA", "arrays/**/d/*"])
def test_loading_executes_nothing(population, tmp_path, pattern):
    population.save(1, _tree(), {}, block=True)
    folder, marker = tmp_path / "population" / "step_00000001", tmp_path / "executed"
    bomb = pickle.dumps(np.array([_Bomb(marker)], dtype=object))
    for file in folder.glob(pattern):
        file.write_bytes(bomb)
    if not pattern.startswith("ledger"):  # whoever can write the files can write their hashes, too
        seal_ledger(folder / "ledger/ledger.json", folder / "arrays")
    with pytest.raises(CheckpointError, match="can't be read|is not what was saved"):
        population.restore_latest()
    assert not marker.exists()
    pickle.loads(bomb)
    assert marker.exists()  # the bomb works


def test_leftovers_of_a_cut_off_save_are_removed(population, tmp_path):
    population.save(1, _tree(), {}, block=True)
    folder = tmp_path / "population"
    shutil.copytree(folder / "step_00000001", folder / "step_00000002.orbax-checkpoint-tmp")
    shutil.copytree(folder / "step_00000001", folder / "removed" / "step_00000000")
    (folder / "room").touch()
    with PopulationCheckpoints(folder) as again:
        assert again.restore_latest().step == 1
    assert sorted(os.listdir(folder)) == ["step_00000001"]


SAVE = """
import sys
import numpy as np
from hpjax.store.checkpoints import PopulationCheckpoints
checkpoints = PopulationCheckpoints(sys.argv[1])
restored = checkpoints.restore_latest()
for step in range(restored.step + 1 if restored else 0, 10**6):
    checkpoints.save(step, {"a": np.full(200_000, step)}, {"step": step})
    print(step, flush=True)
"""


def test_killed_while_saving(tmp_path):
    for kill in range(3):
        command = [sys.executable, "-c", SAVE, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            last = [int(process.stdout.readline()) for _ in range(3 + kill)][-1]
            process.kill()  # one save is on its way
        with PopulationCheckpoints(tmp_path) as checkpoints:
            restored = checkpoints.restore_latest()
        assert restored is not None and not restored.rejected and restored.step >= last - 1
        assert restored.ledger == {"step": restored.step} and (restored.arrays["a"] == restored.step).all()


def test_full_disk_is_one_line_and_the_previous_stays(small_disk):
    with PopulationCheckpoints(small_disk / "population") as checkpoints:
        checkpoints.save(1, {"a": np.arange(1000)}, {}, block=True)
        big = {"a": np.random.default_rng(0).normal(size=200_000)}
        checkpoints.save(2, big, {})
        with pytest.raises(
            WorkdirError, match=r"can't write checkpoint .*step_00000002: No space left"
        ) as caught:
            checkpoints.wait()
        assert "\n" not in str(caught.value)
        assert checkpoints.restore_latest().step == 1
        checkpoints.save(3, {"a": np.arange(1000)}, {}, block=True)
        assert checkpoints.restore_latest().step == 3


def test_failure_in_the_background_is_raised_by_the_next_save(small_disk):
    checkpoints = PopulationCheckpoints(small_disk / "population")
    checkpoints.save(1, {"a": np.random.default_rng(0).normal(size=200_000)}, {})
    with pytest.raises(WorkdirError, match="No space left"):
        checkpoints.save(2, {"a": np.zeros(1)}, {})
    checkpoints.save(2, {"a": np.zeros(1)}, {}, block=True)
    checkpoints.close()


def test_directory_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkdirError, match="can't create"):
        PopulationCheckpoints(tmp_path / "file" / "below")


def test_best_trials_are_kept(tmp_path):
    with TrialCheckpoints(tmp_path, keep=2) as trials:
        kept = [
            trials.save(n, {"w": np.full(3, n)}, {"n": n}, score)
            for n, score in enumerate((0.5, 0.7, 0.6, 0.1))
        ]
        trials.wait()
        assert kept == [True, True, True, False] and trials.trials() == [1, 2]
        arrays, metadata = trials.load(2)
        assert metadata == {"n": 2} and arrays["w"].tolist() == [2, 2, 2]
        with pytest.raises(CheckpointError, match="trial 0 has no checkpoint in .*: kept are 1, 2"):
            trials.load(0)
    with TrialCheckpoints(tmp_path, keep=2) as trials:
        assert not trials.would_keep(5, 0.6) and trials.would_keep(5, 0.65)
        trials.save(5, {"w": np.zeros(3)}, {}, 0.9, block=True)
        assert trials.trials() == [1, 5]


def test_low_scores_nan_ties_and_replacing(tmp_path):
    with TrialCheckpoints(tmp_path, keep=2, mode="min") as trials:
        for number, score in ((0, math.nan), (1, 0.5), (2, 0.5), (3, 0.5), (1, 0.4)):
            trials.save(number, {"w": np.full(1, score)}, {}, score)
        trials.wait()
        assert trials.trials() == [1, 2]
        assert trials.load(1)[0]["w"] == 0.4
    with TrialCheckpoints(tmp_path / "none", keep=0) as none:
        assert not none.save(0, {"w": np.zeros(1)}, {}, 1.0)


def test_damaged_trial_is_never_loaded(tmp_path):
    with TrialCheckpoints(tmp_path, keep=2) as trials:
        trials.save(0, {"w": np.arange(5.0)}, {}, 1.0, block=True)
    _flip(_arrays_file(tmp_path / "trial_00000"))
    with pytest.raises(CheckpointError, match="is not what was saved"):
        load_trial_checkpoint(tmp_path, 0)
    (tmp_path / "trial_00000" / "ledger/ledger.json").write_text("{")
    with TrialCheckpoints(tmp_path, keep=1) as trials:
        assert trials.save(1, {"w": np.zeros(1)}, {}, 0.0, block=True) and trials.trials() == [1]


def test_failed_trial_save_evicts_nobody(small_disk):
    with TrialCheckpoints(small_disk / "trials", keep=1) as trials:
        trials.save(0, {"w": np.arange(5.0)}, {}, 0.5, block=True)
        with pytest.raises(WorkdirError, match="No space left"):
            trials.save(1, {"w": np.random.default_rng(0).normal(size=200_000)}, {}, 0.9, block=True)
        assert trials.trials() == [0] and trials.load(0)[0]["w"].tolist() == [0, 1, 2, 3, 4]
        assert trials.save(2, {"w": np.arange(2.0)}, {}, 0.7, block=True) and trials.trials() == [2]


def test_a_full_disk_is_not_memory_that_ran_out(small_disk, monkeypatch):
    """Else the sweep would go on with fewer lanes, whose results differ in the last bits."""
    monkeypatch.delattr(os, "posix_fallocate")  # the disk fills up only now
    noise = np.random.default_rng(0).normal(size=400_000)
    with pytest.raises(WorkdirError, match="No space left on device") as caught:
        Steps(small_disk / "saved", "step", 8, 1).write(1, {"a": noise}, {})
    assert "RESOURCE_EXHAUSTED" in str(caught.value.__cause__)
    assert not is_out_of_memory(caught.value)


@pytest.fixture
def no_more_files():
    """Returns a context in which nothing can be opened: what was saved can't be read for the moment."""

    @contextlib.contextmanager
    def limit():
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)

    return limit


def test_what_cannot_be_read_for_the_moment_is_not_damaged(population, tmp_path, no_more_files):
    population.save(1, _tree(1.0), {})
    population.save(2, _tree(2.0), {}, block=True)
    folder = tmp_path / "population" / "step_00000002"
    reads = (
        population.restore_latest,
        lambda: load_folder(folder),
        lambda: read_ledger(folder),
    )
    for read in (*reads, lambda: ledger._describe(folder / "ledger/ledger.json")):
        with no_more_files(), pytest.raises(WorkdirError, match="can't read .*: Too many open files"):
            read()
    assert population.restore_latest().step == 2 and population.steps() == [1, 2]


def test_whole_files_that_orbax_cannot_read_are_not_passed_over(population, tmp_path):
    population.save(1, _tree(1.0), {})
    population.save(2, _tree(2.0), {}, block=True)
    folder = tmp_path / "population" / "step_00000002"
    (folder / "arrays" / "_METADATA").write_text("of another version")
    seal_ledger(folder / "ledger/ledger.json", folder / "arrays")
    with pytest.raises(Unreadable, match="step_00000002 can't be read"):
        population.restore_latest()
    assert population.steps() == [1, 2]


def test_a_damaged_step_never_comes_back(population, tmp_path):
    """Logs are cut to the step before; one that could be read again would not fit them."""
    population.save(1, _tree(1.0), {})
    population.save(2, _tree(2.0), {}, block=True)
    file = tmp_path / "population" / "step_00000002" / "ledger/ledger.json"
    content = file.read_bytes()
    _flip(file)
    assert population.restore_latest().step == 1 and population.steps() == [1]
    (aside,) = (tmp_path / "population").rglob("step_00000002*")
    (aside / "ledger/ledger.json").write_bytes(content)
    assert population.restore_latest().step == 1
    PopulationCheckpoints(tmp_path / "population").close()
    assert not aside.exists()


def test_a_step_that_a_log_does_not_go_with_is_as_bad_as_a_damaged_one(population):
    population.save(1, {}, {"offset": 1})
    population.save(2, {}, {"offset": 2}, block=True)

    def fits(ledger, most):
        if ledger["offset"] > most:
            raise DamagedLog("the log is damaged")

    with pytest.raises(CheckpointError, match=r"no checkpoint in .* \(the log is damaged\)"):
        population.restore_latest(lambda ledger: fits(ledger, 0))
    assert population.steps() == [1, 2]
    restored = population.restore_latest(lambda ledger: fits(ledger, 1))
    assert restored.step == 1 and restored.rejected == ((2, "the log is damaged"),)
    assert population.steps() == [1]


@pytest.mark.parametrize("when", ["saved", "found again"])
def test_a_single_checkpoint_that_is_lost_is_an_error(tmp_path, when):
    folder, witness = tmp_path / "population", tmp_path / "witness"
    with PopulationCheckpoints(folder, witness=witness if when == "saved" else None) as checkpoints:
        checkpoints.save(1, {}, {}, block=True)
    if when == "found again":  # it was saved, and then the process killed before it could say so
        with PopulationCheckpoints(folder, witness=witness) as checkpoints:
            assert checkpoints.restore_latest().step == 1
    shutil.rmtree(folder)
    with (
        PopulationCheckpoints(folder, witness=witness) as checkpoints,
        pytest.raises(CheckpointError, match=r"no checkpoint in .* can be used \(all are missing\)"),
    ):
        checkpoints.restore_latest()


BOOKKEEPING = ("_CHECKPOINT_METADATA", "commit_success.txt", "ledger/commit_success.txt")


@pytest.mark.parametrize("content", [None, b"", b"[]", b"{", b"\xff", b'{"item_handlers": 3}'])
def test_what_orbax_notes_beside_a_checkpoint_changes_nothing(population, tmp_path, content, caplog):
    """Orbax writes it after the ledger is sealed: no proof covers it, and nothing rests on it."""
    population.save(1, _tree(1.0), {"step": 1}, block=True)
    for name in BOOKKEEPING:
        file = tmp_path / "population" / "step_00000001" / name
        assert file.exists()
        file.unlink() if content is None else file.write_bytes(content)
    with PopulationCheckpoints(tmp_path / "population") as again:
        restored = again.restore_latest()
        _assert_same_bits(fit_template(restored.arrays, _tree(), "it"), _tree(1.0))
        again.save(2, _tree(2.0), {}, block=True)
        again.save(3, _tree(3.0), {}, block=True)
        assert again.steps() == [2, 3]
    assert not caplog.text


def test_checkpoints_of_an_earlier_version_are_refused_in_one_line(tmp_path):
    for name in ("population/step_00000001", "trials/trial_00000"):
        (tmp_path / name / "arrays").mkdir(parents=True)
        (tmp_path / name / "ledger.json").write_text('{"folder": "step_00000001", "ledger": {}}')
        (tmp_path / name / "manifest.json").write_text('{"files": {}}')
    for read in (
        lambda: PopulationCheckpoints(tmp_path / "population").restore_latest(),
        lambda: TrialCheckpoints(tmp_path / "trials", 1),
        lambda: load_trial_checkpoint(tmp_path / "trials", 0),
    ):
        with pytest.raises(Unreadable, match="was written by an earlier version of hpjax") as caught:
            read()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("reserve", [True, False], ids=["told ahead", "met by Orbax"])
def test_a_save_that_fails_leaves_no_more_than_its_error(small_disk, monkeypatch, capfd, caplog, reserve):
    """Without `os.posix_fallocate`, as on macOS, Orbax itself meets the full disk, in many threads."""
    if not reserve:
        monkeypatch.delattr(os, "posix_fallocate")
    noise = {str(i): np.random.default_rng(i).normal(size=4_000) for i in range(40)}
    with PopulationCheckpoints(small_disk / "population") as checkpoints:
        checkpoints.save(1, {"a": np.ones(2)}, {}, block=True)
        for step in range(2, 12):
            with pytest.raises(WorkdirError, match="step_0.*: No space left on device"):
                checkpoints.save(step, noise, {}, block=True)
        assert checkpoints.restore_latest().step == 1
    gc.collect()
    assert not caplog.text and capfd.readouterr() == ("", "")


def test_tracebacks_of_others_are_seen_again_after_a_save(population, caplog):
    population.save(1, _tree(), {}, block=True)
    assert "hpjax" not in sys.unraisablehook.__module__
    for name in ("absl", "asyncio"):
        assert logging.getLogger(name).filter(logging.LogRecord(name, 40, "", 0, "", None, (None,) * 3))
