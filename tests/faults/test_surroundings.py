"""A full or read-only disk, lost permission, a second writer: one line, and nothing is lost."""

import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from sweeps import assert_same_sweep, count_bytes, in_a_step, while_starting

pytestmark = pytest.mark.slow


@pytest.fixture
def disk(tmp_path):
    """Mounts a file system of 192 MiB of its own; skips where none can be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=192m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
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
