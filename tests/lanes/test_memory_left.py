"""What memory is left."""

import os
import pathlib
import subprocess
import sys

import psutil
import pytest

from hpjax.cli import host_memory
from hpjax.lanes import memory_left

ROOT = pathlib.Path(__file__).parents[2]
OF_JEMALLOC = "thp:always,dirty_decay_ms:-1,muzzy_decay_ms:-1"


def test_what_is_kept_counts_as_available():
    found = host_memory._find_jemalloc(host_memory._library_folders())
    if found is None:
        pytest.skip("needs jemalloc")
    code = """
import psutil
from hpjax.lanes.memory_left import available_bytes
resident = lambda: psutil.Process().memory_info().rss
before = resident()
block = bytearray(b"x") * 2**28
del block
kept = resident() - before
available_bytes()
print(kept > 2**27, resident() - before < 2**26)
"""
    settings = {"LD_PRELOAD": str(found), "MALLOC_CONF": OF_JEMALLOC}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, **settings}, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "True True\n", "")


def test_available_memory_counts_what_is_only_cached():
    limits = list(memory_left._left_in_groups(memory_left._control_groups()))
    expected = min([psutil.virtual_memory().available, *limits])
    assert memory_left.available_bytes() == pytest.approx(expected, rel=0.1)


def _write_group(folder, limit, current=700, cached=100):
    folder.mkdir(exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{current}\n")
    (folder / "memory.stat").write_text(f"anon 600\ninactive_file {cached}\n")
    return folder


def test_a_control_groups_limit_counts(tmp_path):
    limited = _write_group(tmp_path / "limited", 1000)
    unlimited = _write_group(tmp_path / "unlimited", "max")
    full = _write_group(tmp_path / "full", 500)
    left = memory_left._left_in_groups([limited, unlimited, full, tmp_path / "missing"])
    assert list(left) == [400, 0]


def test_control_groups_are_those_around_this_process(tmp_path):
    folders = memory_left._control_groups(tmp_path)
    assert folders[-1] == tmp_path
    assert all(parent == folder.parent for folder, parent in zip(folders, folders[1:], strict=False))
