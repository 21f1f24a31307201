"""What memory is left."""

import os
import pathlib
import subprocess
import sys

import psutil
import pytest

from hpjax.cli import host_memory
from hpjax.errors import ConfigError
from hpjax.lanes import memory_left

ROOT = pathlib.Path(__file__).parents[2]


def _clean_environment():
    ours = ("HPJAX_NO_REEXEC", "HPJAX_ALLOCATOR", "LD_PRELOAD", "GLIBC_TUNABLES", "MALLOC_CONF")
    return {name: value for name, value in os.environ.items() if name not in ours}


@pytest.mark.parametrize("name", [allocator.name for allocator in host_memory.ALLOCATORS])
def test_what_is_kept_counts_as_available(name):
    try:
        choice = {**_clean_environment(), "JAX_PLATFORMS": "cpu", "HPJAX_ALLOCATOR": name}
        environment = host_memory.kept_memory_environment(choice)
    except ConfigError:
        pytest.skip(f"needs {name}")
    code = """
import psutil
from hpjax.cli.host_memory import running_allocator
from hpjax.lanes.memory_left import available_bytes
resident = lambda: psutil.Process().memory_info().rss
before = resident()
block = bytearray(b"x") * 2**28
del block
kept = resident() - before
available_bytes()
print(running_allocator()[0], kept > 2**27, resident() - before < 2**26)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    running = "glibc" if name == "system" else name
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{running} True True\n", "")


def test_available_memory_counts_what_is_only_cached():
    limits = list(memory_left._left_in_groups(memory_left._control_groups()))
    expected = min([psutil.virtual_memory().available, *limits])
    assert memory_left.available_bytes() == pytest.approx(expected, rel=0.1)


def test_memory_that_is_shared_is_not_planned_with_twice():
    alone = memory_left.available_bytes()
    memory_left.share_with(4)
    try:
        mine = memory_left.available_bytes()
    finally:
        memory_left.share_with(1)
    assert mine <= memory_left.total_bytes() / 4 and 0 < mine < alone


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
