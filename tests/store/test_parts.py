"""Lanes in parts: written by others, named by a checkpoint, proved with it, and gone with it."""

import json
import shutil

import numpy as np
import pytest

from hpjax.errors import CheckpointError, WorkdirError
from hpjax.store.checkpoints import PopulationCheckpoints
from hpjax.store.ledger import FILE_NAME, ITEM
from hpjax.store.parts import SavedLanes, begin_parts, read_parts, write_part

LANES = 5


def _lanes(first=0, last=LANES, value=0.0):
    weights = np.arange(first, last, dtype=np.float32)[:, None] + np.full(3, value, np.float32)
    return {
        ".state['kernel']": weights,
        ".best.score": np.arange(first, last),
        ".empty": np.zeros((last - first, 0)),
    }


def _assert_equal(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        np.testing.assert_array_equal(ours[name], array, err_msg=name, strict=True)


@pytest.fixture
def checkpoints(tmp_path):
    with PopulationCheckpoints(tmp_path / "population") as checkpoints:
        yield checkpoints


def _write(checkpoints, value=0.0, cuts=(2,)):
    """Returns five lanes that several workers have written."""
    folder, bounds = checkpoints.begin_parts(), [0, *cuts, LANES]
    parts = [write_part(folder, _lanes(a, b, value)) for a, b in zip(bounds[:-1], bounds[1:], strict=True)]
    return SavedLanes(folder.parent, tuple(parts))


def _save(checkpoints, step, value=0.0):
    saved = _write(checkpoints, value)
    checkpoints.save(step, {"run_0": saved, "run_1": _lanes(value=-value)}, {"a": step}, block=True)
    return saved


@pytest.mark.parametrize("cuts", [(), (2,), (1, 2, 4)])
def test_any_lanes_of_any_parts(checkpoints, cuts):
    saved = _write(checkpoints, cuts=cuts)
    assert saved.num_lanes == LANES
    _assert_equal(saved.load(), _lanes())
    for first in range(LANES):
        for last in range(first + 1, LANES + 1):
            _assert_equal(saved.load(first, last), _lanes(first, last))


def test_a_checkpoint_names_them(checkpoints, tmp_path):
    saved = _save(checkpoints, 1, 7.0)
    restored = checkpoints.restore_latest()
    assert restored.ledger["a"] == 1 and restored.arrays["run_0"] == saved
    _assert_equal(restored.arrays["run_0"].load(), _lanes(value=7.0))
    _assert_equal(restored.arrays["run_1"], _lanes(value=-7.0))
    shutil.move(tmp_path / "population", tmp_path / "moved")  # with the workdir
    with PopulationCheckpoints(tmp_path / "moved") as moved:
        _assert_equal(moved.restore_latest().arrays["run_0"].load(), _lanes(value=7.0))


def test_they_go_with_the_checkpoints_that_need_them(checkpoints, tmp_path):
    saved = [_save(checkpoints, step) for step in (1, 2, 3)]
    kept = {part.folder for lanes in saved[1:] for part in lanes.parts}
    assert {path.name for path in (tmp_path / "population" / "lanes").iterdir()} == kept
    # Lanes that nobody has taken up yet are saved again as they are.
    for step in (4, 5, 6):
        checkpoints.save(step, {"run_0": saved[2]}, {}, block=True)
    _assert_equal(checkpoints.restore_latest().arrays["run_0"].load(), _lanes())
    for step in (7, 8):
        checkpoints.save(step, {"run_0": _lanes()}, {}, block=True)
    assert not list((tmp_path / "population" / "lanes").iterdir())


def test_what_no_checkpoint_names_is_removed_at_the_next_start(checkpoints, tmp_path):
    _write(checkpoints)  # of a process that was killed before its first checkpoint
    with PopulationCheckpoints(tmp_path / "population") as again:
        assert again.restore_latest() is None
        assert not list((tmp_path / "population" / "lanes").iterdir())
        kept = _save(again, 1)
        _write(again)
    with PopulationCheckpoints(tmp_path / "population") as again:
        _assert_equal(again.restore_latest().arrays["run_0"].load(), _lanes())
        assert [path.name for path in (tmp_path / "population" / "lanes").iterdir()] == [kept.parts[0].folder]


def _damage_byte(folder):
    file = max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def _exchange(folder):
    """Puts lanes in place of others', whole as they are."""
    others = write_part(folder.parents[1], _lanes(3, 5))
    shutil.rmtree(folder)
    shutil.move(folder.parents[2] / others.name, folder)


@pytest.mark.parametrize("damage", [_damage_byte, shutil.rmtree, _exchange])
@pytest.mark.parametrize("which", [0, 1])
def test_damaged_lanes_are_a_damaged_checkpoint(checkpoints, tmp_path, damage, which):
    saves = [_save(checkpoints, 1, 1.0), _save(checkpoints, 2)]
    folders = [saved.directory / saved.parts[which].name for saved in saves]
    damage(folders[1])
    restored = checkpoints.restore_latest()
    assert restored.step == 1 and [step for step, _ in restored.rejected] == [2]
    _assert_equal(restored.arrays["run_0"].load(), _lanes(value=1.0))
    damage(folders[0])
    with pytest.raises(CheckpointError, match="no checkpoint in .* can be used"):
        checkpoints.restore_latest()


@pytest.mark.parametrize(
    "parts",
    [
        [{"name": "../../../etc", "lanes": 1}],
        [{"name": f"{'0' * 16}/{'0' * 16}/part_1", "lanes": 0}],
        [{"name": f"{'0' * 16}/{'0' * 16}/part_1"}],
        [3],
        3,
    ],
)
def test_a_ledger_that_says_something_else(tmp_path, parts):
    with pytest.raises(CheckpointError, match="no checkpoint in .* has such parts"):
        read_parts(tmp_path / "lanes", {"parts": {"run_0": parts}})
    with pytest.raises(CheckpointError, match="no checkpoint in .* has such parts"):
        read_parts(tmp_path / "lanes", json.loads(json.dumps({"parts": parts})))


def test_nothing_is_removed_while_a_ledger_cant_be_read(checkpoints, tmp_path):
    saved = _save(checkpoints, 1)
    with PopulationCheckpoints(tmp_path / "population") as again:
        file = tmp_path / "population" / "step_00000001" / ITEM / FILE_NAME
        content = file.read_bytes()
        file.unlink()
        (file.parents[1] / "manifest.json").write_text("{}")  # of an earlier version
        again._remove_parts()
        assert (saved.directory / saved.parts[0].name).is_dir()
        (file.parents[1] / "manifest.json").unlink()
        file.write_bytes(content)
        _assert_equal(again.restore_latest().arrays["run_0"].load(), _lanes())


def test_a_folder_that_is_gone(tmp_path):
    folder = begin_parts(tmp_path / "lanes")
    shutil.rmtree(tmp_path / "lanes")
    with pytest.raises(WorkdirError, match="can't write checkpoint"):
        write_part(folder, _lanes())
    assert not (tmp_path / "lanes").exists()


def test_a_full_disk_is_one_line_and_the_previous_stays(small_disk):
    with PopulationCheckpoints(small_disk / "population") as checkpoints:
        _save(checkpoints, 1)
        with pytest.raises(WorkdirError, match=r"can't write checkpoint .*: No space left") as caught:
            write_part(checkpoints.begin_parts(), {"a": np.random.default_rng(0).normal(size=200_000)})
        assert "\n" not in str(caught.value)
        _assert_equal(checkpoints.restore_latest().arrays["run_0"].load(), _lanes())
        _save(checkpoints, 2)
        assert checkpoints.restore_latest().step == 2
