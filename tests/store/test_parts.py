"""Lanes in parts: written by others, named by a checkpoint, proved with it, and gone with it."""

import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from hpjax.errors import CheckpointError, WorkdirError
from hpjax.store.checkpoints import PopulationCheckpoints
from hpjax.store.ledger import FILE_NAME, ITEM
from hpjax.store.parts import SavedLanes, begin_parts, can_read_parts, can_write_parts, read_parts, write_part
from hpjax.store.steps import Steps

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
    return SavedLanes(folder, tuple(parts))


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
    kept = {lanes.folder.name for lanes in saved[1:]}
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
        assert [path.name for path in (tmp_path / "population" / "lanes").iterdir()] == [kept.folder.name]


def _damage_byte(folder):
    file = max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def _exchange(folder):
    """Puts lanes in place of others', whole as they are."""
    others = write_part(folder.parents[1], _lanes(3, 5))
    shutil.rmtree(folder)
    shutil.move(folder.parents[1] / others.name, folder)


@pytest.mark.parametrize("damage", [_damage_byte, shutil.rmtree, _exchange])
@pytest.mark.parametrize("which", [0, 1])
def test_damaged_lanes_are_a_damaged_checkpoint(checkpoints, tmp_path, damage, which):
    saves = [_save(checkpoints, 1, 1.0), _save(checkpoints, 2)]
    folders = [saved.folder / saved.parts[which].name for saved in saves]
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
        {"folder": "0" * 16, "parts": [{"name": "../../../etc", "lanes": 1}]},
        {"folder": "0" * 16, "parts": [{"name": f"{'0' * 16}/part_1", "lanes": 0}]},
        {"folder": "0" * 16, "parts": [{"name": f"{'0' * 16}/part_1"}]},
        {"folder": "../lanes", "parts": [{"name": f"{'0' * 16}/part_1", "lanes": 1}]},
        {"folder": 3, "parts": [{"name": f"{'0' * 16}/part_1", "lanes": 1}]},
        {"folder": "0" * 16, "parts": []},
        {"folder": "0" * 16},
        [3],
        3,
    ],
)
def test_a_ledger_that_says_something_else(tmp_path, parts):
    with pytest.raises(CheckpointError, match="no checkpoint in .* has such parts"):
        read_parts(tmp_path / "lanes", {"parts": {"run_0": parts}})
    with pytest.raises(CheckpointError, match="no checkpoint in .* has such parts"):
        read_parts(tmp_path / "lanes", json.loads(json.dumps({"parts": parts})))


@pytest.mark.parametrize("damage", ["older version", "unreadable", "damaged"])
def test_nothing_is_removed_while_a_ledger_cant_be_read(checkpoints, tmp_path, damage):
    """It may be put right, and need its parts."""
    saved = [_save(checkpoints, step, step) for step in (1, 2)]
    file = tmp_path / "population" / "step_00000001" / ITEM / FILE_NAME
    kept = file.rename(tmp_path / "kept")
    if damage == "older version":
        (file.parents[1] / "manifest.json").write_text("{}")
    elif damage == "unreadable":
        file.mkdir()
    with PopulationCheckpoints(tmp_path / "population") as again:
        assert again.restore_latest().step == 2
    shutil.rmtree(tmp_path / "population" / "step_00000002")
    (file.parents[1] / "manifest.json").unlink(missing_ok=True)
    if file.is_dir():
        file.rmdir()
    kept.rename(file)
    with PopulationCheckpoints(tmp_path / "population") as again:
        assert again.restore_latest().step == 1
        _assert_equal(saved[0].load(), _lanes(value=1))


def test_what_was_just_written_is_known_without_reading_it(checkpoints, monkeypatch):
    def fail(folder):
        raise CheckpointError("a bad moment of a file server")

    monkeypatch.setattr("hpjax.store.checkpoints.read_ledger", fail)
    saved = [_save(checkpoints, step) for step in (1, 2, 3)]
    assert not saved[0].folder.exists() and saved[1].folder.exists()
    monkeypatch.undo()
    _assert_equal(checkpoints.restore_latest().arrays["run_0"].load(), _lanes())


def test_a_disk_that_wont_list_parts_fails_no_checkpoint(checkpoints, tmp_path, monkeypatch):
    _save(checkpoints, 1)

    def fail(path):
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(Path, "iterdir", fail)
    _save(checkpoints, 2)
    assert checkpoints.restore_latest().step == 2


@pytest.mark.parametrize("below", [0, 1])
def test_a_part_that_cant_be_looked_at_is_no_damaged_one(checkpoints, monkeypatch, below):
    saved = _save(checkpoints, 1)
    stat, part = os.stat, str(saved.folder / saved.parts[0].name)

    def fail(path, **named):
        if str(path).startswith(part) and str(path).count("/") >= part.count("/") + below:
            raise OSError(errno.ESTALE, "Stale file handle")
        return stat(path, **named)

    monkeypatch.setattr(os, "stat", fail)
    with pytest.raises(WorkdirError, match="Stale file handle"):
        checkpoints.restore_latest()
    monkeypatch.undo()
    assert checkpoints.restore_latest().step == 1


def test_nothing_else_is_ever_removed(checkpoints, tmp_path):
    """The folder may be a link to a larger disk, on which others keep theirs."""
    disk = tmp_path / "disk"
    (disk / "thesis").mkdir(parents=True)
    (tmp_path / "population" / "lanes").symlink_to(disk)
    (tmp_path / "population" / "lanes" / "backup").mkdir()
    for step in (1, 2, 3):
        _save(checkpoints, step)
    assert {path.name for path in disk.iterdir()} > {"thesis", "backup"} and len(list(disk.iterdir())) == 4
    _assert_equal(checkpoints.restore_latest().arrays["run_0"].load(), _lanes())


@pytest.mark.parametrize("stray", ["step_00000000", "step_7"])
def test_what_is_no_checkpoint_needs_no_parts(checkpoints, tmp_path, stray):
    if stray == "step_7":
        (tmp_path / "population" / stray).mkdir()
    else:
        (tmp_path / "population" / stray).write_text("")
    for step in (1, 2, 3, 4):
        _save(checkpoints, step)
    assert len(list((tmp_path / "population" / "lanes").iterdir())) == 2


def test_a_checkpoint_that_cant_be_written_leaves_no_parts(checkpoints, tmp_path, monkeypatch):
    first, write = _save(checkpoints, 1), PopulationCheckpoints.write

    def fail(steps, number, arrays, ledger):
        raise WorkdirError("can't write checkpoint: No space left on device")

    saved = _write(checkpoints)
    monkeypatch.setattr(PopulationCheckpoints, "write", fail)
    with pytest.raises(WorkdirError, match="No space left"):
        checkpoints.save(2, {"run_0": saved}, {}, block=True)
    assert list((tmp_path / "population" / "lanes").iterdir()) == [first.folder]
    monkeypatch.setattr(PopulationCheckpoints, "write", write)
    _save(checkpoints, 2)


def test_of_several_that_write_one_finds_the_workdir_gone(tmp_path, monkeypatch):
    """What others have written isn't its to remove, nor anything where that can't be told."""
    folder = begin_parts(tmp_path / "lanes")
    others, stat = write_part(folder, _lanes()), os.stat

    def fail(path, **named):
        if Path(path) == folder:
            raise OSError(errno.ESTALE, "Stale file handle")
        return stat(path, **named)

    monkeypatch.setattr(os, "stat", fail)
    write_part(folder, _lanes())
    monkeypatch.undo()
    _assert_equal(SavedLanes(folder, (others,)).load(), _lanes())


def test_who_cant_write_or_is_another_user_passes_lanes_on(tmp_path, monkeypatch):
    folder = begin_parts(tmp_path / "lanes")
    elsewhere = tmp_path / "elsewhere"
    assert can_write_parts(folder) and not can_write_parts(elsewhere) and not can_read_parts(elsewhere)
    monkeypatch.setattr(os, "geteuid", lambda: os.stat(folder).st_uid + 1)
    assert not can_write_parts(folder)  # else the workdir's process could never remove them
    assert can_read_parts(folder)


def test_what_was_begun_and_isnt_saved_is_removed(checkpoints, tmp_path):
    saved = _save(checkpoints, 1)
    _write(checkpoints)
    checkpoints.abandon_parts()
    assert list((tmp_path / "population" / "lanes").iterdir()) == [saved.folder]


def test_a_workdir_that_is_moved_while_a_part_is_written(tmp_path, monkeypatch):
    folder, moved = begin_parts(_make(tmp_path / "runs" / "w" / "checkpoints" / "population") / "lanes"), []
    write = Steps._write

    def move(steps, *arguments):
        moved.append(shutil.move(tmp_path / "runs" / "w", tmp_path / "moved"))
        return write(steps, *arguments)

    monkeypatch.setattr(Steps, "_write", move)
    with pytest.raises(WorkdirError, match="was removed, moved or replaced"):
        write_part(folder, _lanes())
    assert moved and list((tmp_path / "runs").iterdir()) == []


def _make(folder):
    folder.mkdir(parents=True)
    return folder


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
