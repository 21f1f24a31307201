"""Checkpoints: exact round trips, verified bytes, bounded number, clear errors. Real Orbax, real disks."""

import contextlib
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
from hpjax.store import arrays, manifest
from hpjax.store.checkpoints import PopulationCheckpoints, TrialCheckpoints, load_trial_checkpoint
from hpjax.store.manifest import write_manifest


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
    restored = population.restore_latest(_tree())
    assert (restored.step, restored.ledger, restored.rejected) == (3, {"offset": 12, "names": ["a"]}, ())
    _assert_same_bits(restored.arrays, _tree())


def test_population_without_template_is_nested_numpy(population):
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


def test_retention_and_stale_future(population):
    for step in (1, 2, 3, 9):
        population.save(step, {"a": np.arange(step)}, {})
    population.wait()
    assert population.steps() == [3, 9]
    population.save(4, {"a": np.arange(4)}, {}, block=True)  # a resumed run, whose step 9 was rejected
    assert population.steps() == [3, 4]


def test_template_mismatch_names_every_array(population):
    population.save(1, {"a": np.zeros(3), "b": np.zeros(2), "c": np.zeros(1)}, {})
    template = {"a": np.zeros(4), "b": np.zeros(2, np.float32), "d": np.zeros(1)}
    with pytest.raises(CheckpointError) as caught:
        population.restore_latest(template)
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
    "ledger changed": lambda folder: _flip(folder / "ledger.json"),
    "manifest missing": lambda folder: (folder / "manifest.json").unlink(),
    "manifest torn": lambda folder: os.truncate(folder / "manifest.json", 100),
    "manifest changed": lambda folder: _flip(folder / "manifest.json"),
    "manifest a list": lambda folder: (folder / "manifest.json").write_text("[]"),
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
        restored = population.restore_latest(_tree())
    assert restored.step == 1 and restored.ledger == {"step": 1}
    _assert_same_bits(restored.arrays, _tree(1.0))
    assert [step for step, _ in restored.rejected] == [2] and "step_00000002" in caplog.text


def test_all_damaged_is_an_error(population, tmp_path):
    population.save(1, _tree(), {}, block=True)
    _flip(_arrays_file(tmp_path / "population" / "step_00000001"))
    with pytest.raises(CheckpointError, match=r"no checkpoint in .* can be used \(.* is not what was saved"):
        population.restore_latest()


def test_all_missing_is_an_error_where_some_are_expected(population):
    with pytest.raises(CheckpointError, match=r"no checkpoint in .* can be used \(all are missing\)"):
        population.restore_latest(expected=True)


class _Bomb:
    """Unpickling it makes a file."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return open, (str(self.marker), "w")


@pytest.mark.parametrize("pattern", ["ledger.json", "arrays/_METADATA", "arrays/**/d/*"])
def test_loading_executes_nothing(population, tmp_path, pattern):
    population.save(1, _tree(), {}, block=True)
    folder, marker = tmp_path / "population" / "step_00000001", tmp_path / "executed"
    bomb = pickle.dumps(np.array([_Bomb(marker)], dtype=object))
    for file in folder.glob(pattern):
        file.write_bytes(bomb)
    write_manifest(folder)  # whoever can write the files can write their hashes, too
    with pytest.raises(CheckpointError, match="can't be read"):
        population.restore_latest()
    assert not marker.exists()
    pickle.loads(bomb)
    assert marker.exists()  # the bomb works


def test_leftovers_of_a_cut_off_save_are_removed(population, tmp_path):
    population.save(1, _tree(), {}, block=True)
    folder = tmp_path / "population"
    shutil.copytree(folder / "step_00000001", folder / "step_00000002.tmp")
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
    (tmp_path / "trial_00000" / "ledger.json").write_text("{")
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
    monkeypatch.setattr(arrays, "_reserve", lambda *_: None)  # the disk fills up only now
    noise = np.random.default_rng(0).normal(size=400_000)
    with pytest.raises(WorkdirError, match="No space left on device") as caught:
        arrays.save_folder(small_disk / "saved", {"a": noise}, {})
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
        lambda: arrays.load_folder(folder),
        lambda: arrays.read_ledger(folder),
    )
    for read in (*reads, lambda: manifest._describe(folder / "ledger.json")):
        with no_more_files(), pytest.raises(WorkdirError, match="can't read .*: Too many open files"):
            read()
    assert population.restore_latest().step == 2 and population.steps() == [1, 2]


def test_whole_files_that_orbax_cannot_read_are_not_passed_over(population, tmp_path):
    population.save(1, _tree(1.0), {})
    population.save(2, _tree(2.0), {}, block=True)
    folder = tmp_path / "population" / "step_00000002"
    (folder / "arrays" / "_METADATA").write_text("of another version")
    manifest.write_manifest(folder)
    with pytest.raises(arrays.Unreadable, match="step_00000002 can't be read"):
        population.restore_latest()
    assert population.steps() == [1, 2]


def test_a_damaged_step_never_comes_back(population, tmp_path):
    """Logs are cut to the step before; one that could be read again would not fit them."""
    population.save(1, _tree(1.0), {})
    population.save(2, _tree(2.0), {}, block=True)
    file = tmp_path / "population" / "step_00000002" / "ledger.json"
    content = file.read_bytes()
    _flip(file)
    assert population.restore_latest().step == 1 and population.steps() == [1]
    (aside,) = (tmp_path / "population").glob("step_00000002*")
    (aside / "ledger.json").write_bytes(content)
    assert population.restore_latest().step == 1
    PopulationCheckpoints(tmp_path / "population").close()
    assert not aside.exists()
