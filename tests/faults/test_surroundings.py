"""A full or read-only disk, lost permission, a second writer: one line, and nothing is lost."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from sweeps import assert_same_sweep, count_bytes, in_a_step, while_starting

from hpjax.store.steps import load_folder

pytestmark = pytest.mark.slow


INODES = 60  # files and folders in the small file system, in which a save needs about 30
SAVES = f"""
import itertools, os, sys
from pathlib import Path
import numpy as np
from hpjax.cli.command import run_command
from hpjax.store.steps import Steps

disk, numbers = Path(sys.argv[1]), itertools.count()
arrays = {{"a": np.ones((300, 300), np.float32), "b": {{"c": np.ones(3)}}}}
steps = Steps(disk / "saved", "step", 8, 1, max_to_keep=1)
for spare in range({INODES} - 2, -1, -1):
    while os.statvfs(disk).f_favail > spare:
        (disk / f"filler{{next(numbers)}}").touch()
    print(run_command(lambda: steps.write(next(numbers), arrays, {{}})))
"""


@pytest.fixture
def disk(tmp_path, request):
    """Mounts a file system of its own, of 192 MiB and any number of files; skips where none can be."""
    folder = tmp_path / "disk"
    folder.mkdir()
    options = f"size=192m,nr_inodes={getattr(request, 'param', 0)}"
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    able = os.geteuid() == 0 and shutil.which("mount") and shutil.which("umount")
    if not able or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a small file system can't be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def _bound_by_permissions() -> list[str]:
    """Returns the start of a command that permissions bind: root has to give up two capabilities."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("root is not bound by permissions, and setpriv is missing")
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]


def _remount(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(disk)], check=True)


def _fill(disk: Path) -> Path:
    filler = disk / "filler"
    with open(filler, "wb", buffering=0) as file:
        try:
            while file.write(bytes(1 << 20)):
                pass
        except OSError:
            return filler
    raise AssertionError


def _assert_one_line(status: int, text: str, *expected: str) -> None:
    assert status == 2, text
    assert "Traceback" not in text
    last = text.splitlines()[-1]
    assert last.startswith("hpjax: error: "), text
    assert sum(line.startswith("hpjax: error: ") for line in text.splitlines()) == 1
    for part in expected:
        assert part in last


@pytest.mark.landing
def test_full_and_read_only_disk(searches, uninterrupted_search, disk, rng, counted):
    workdir = disk / "sweep"
    sweep = searches.start(workdir)
    assert sweep.wait_for(in_a_step(workdir, rng))
    filler = _fill(disk)
    _assert_one_line(*sweep.end(), str(workdir), "No space left on device")
    _assert_one_line(*searches.start(workdir).end(), str(workdir), "No space left on device")
    filler.unlink()
    _remount(disk, "ro")
    _assert_one_line(*searches.start(workdir).end(), str(workdir), "Read-only file system")
    _remount(disk, "rw")
    searches.finish(workdir)
    assert_same_sweep(workdir, uninterrupted_search)
    counted["bytes compared after disk faults"] += count_bytes(workdir)


@pytest.mark.parametrize("disk", [INODES], indirect=True)
def test_a_save_is_one_line_or_whole_wherever_it_fails(disk):
    command = [sys.executable, "-c", SAVES, str(disk)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    statuses, lines = done.stdout.split(), done.stderr.splitlines()
    assert set(statuses) == {"0", "2"} and len(statuses) == INODES - 1
    assert len(lines) == statuses.count("2"), done.stderr
    for line in lines:
        assert line.startswith("hpjax: error: can't write ") and line.endswith(": No space left on device")
    saved = list((disk / "saved").glob("step_*"))
    assert len(saved) in (
        1,
        2,
    )  # the one before stays where not even a folder for what is removed can be made
    for folder in saved:
        assert load_folder(folder)[0]["b"]["c"].sum() == 3


@pytest.mark.landing
def test_lost_permission_and_a_second_writer(searches, uninterrupted_search, tmp_path, rng, counted):
    workdir, bound = tmp_path / "sweep", _bound_by_permissions()
    first = searches.start(workdir, prefix=bound)
    assert first.wait_for(while_starting(workdir, rng))
    second = searches.start(workdir)
    _assert_one_line(*second.end(), f"process {first.process.pid} on {socket.gethostname()}")
    assert first.wait_for(in_a_step(workdir, rng))
    folders = [workdir, *(path for path in workdir.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    _assert_one_line(*first.end(), str(workdir), "Permission denied")
    for folder in folders:
        if folder.exists():
            folder.chmod(0o755)
    searches.finish(workdir)
    assert_same_sweep(workdir, uninterrupted_search)
    counted["bytes compared after disk faults"] += count_bytes(workdir)


@pytest.mark.parametrize(
    "change",
    ["replaced", *(pytest.param(change, marks=pytest.mark.landing) for change in ("removed", "moved"))],
)
def test_a_workdir_that_goes_away_is_not_written_any_more(searches, tmp_path, rng, change):
    workdir = tmp_path / "sweep"
    sweep = searches.start(workdir)
    assert sweep.wait_for(in_a_step(workdir, rng))
    workdir.rename(tmp_path / "moved")
    if change == "removed":
        shutil.rmtree(tmp_path / "moved")
    if change == "replaced":
        workdir.mkdir()
        for name in (".lock", "history.jsonl", "study.journal"):
            (workdir / name).write_text("another's")
    _assert_one_line(*sweep.end(), f"workdir {workdir} was removed, moved or replaced")
    there = {file.name: file.read_text() for file in workdir.rglob("*") if file.is_file()}
    assert set(there.values()) <= {"another's"}
