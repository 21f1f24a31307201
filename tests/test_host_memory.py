"""The allocator that training is restarted with, and what memory is left."""

import ctypes.util
import os
import pathlib
import shutil
import subprocess
import sys

import psutil
import pytest

from hpjax import host_memory
from hpjax.host_memory import kept_memory_environment

ROOT = pathlib.Path(__file__).parents[1]
OF_GLIBC = (
    "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=17179869184:glibc.malloc.trim_threshold=17179869184"
)
OF_JEMALLOC = "thp:always,dirty_decay_ms:-1,muzzy_decay_ms:-1"


@pytest.fixture
def with_jemalloc(tmp_path):
    """Returns a folder that has a library of this machine under jemalloc's name."""
    shutil.copy(sys.executable, tmp_path / "libjemalloc.so.2")
    return tmp_path


@pytest.mark.parametrize(
    ("environment", "tunables"),
    [
        ({"JAX_PLATFORMS": "cpu"}, OF_GLIBC),
        ({}, OF_GLIBC),
        ({"GLIBC_TUNABLES": "glibc.malloc.check=0"}, f"glibc.malloc.check=0:{OF_GLIBC}"),
    ],
)
def test_huge_pages_are_asked_for_on_the_cpu(environment, tunables):
    expected = {**environment, "GLIBC_TUNABLES": tunables}
    assert kept_memory_environment(environment, accelerators=(), folders=()) == expected


@pytest.mark.parametrize(
    ("environment", "preloaded", "settings"),
    [
        ({}, "{}", OF_JEMALLOC),
        ({"LD_PRELOAD": "/lib/x.so", "MALLOC_CONF": "thp:never"}, "/lib/x.so:{}", f"{OF_JEMALLOC},thp:never"),
    ],
)
def test_jemalloc_is_taken_where_it_is_installed(environment, preloaded, settings, with_jemalloc):
    library = with_jemalloc / "libjemalloc.so.2"
    changed = kept_memory_environment(environment, accelerators=(), folders=("/missing", str(with_jemalloc)))
    assert changed == {**environment, "LD_PRELOAD": preloaded.format(library), "MALLOC_CONF": settings}


def test_a_library_of_another_machine_is_left_alone(with_jemalloc):
    library = with_jemalloc / "libjemalloc.so.2"
    content = bytearray(library.read_bytes())
    content[18:20] = b"\xff\xff"
    library.write_bytes(content)
    changed = kept_memory_environment({}, accelerators=(), folders=(str(with_jemalloc),))
    assert changed == {"GLIBC_TUNABLES": OF_GLIBC}


@pytest.mark.parametrize(
    "environment",
    [
        {"HPJAX_NO_REEXEC": "1"},
        {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"},
        {"LD_PRELOAD": "/usr/lib/libtcmalloc.so.4"},
        {"JAX_PLATFORMS": "cuda"},
    ],
)
def test_a_process_stays_as_it_is(environment, with_jemalloc):
    assert kept_memory_environment(environment, accelerators=(), folders=(str(with_jemalloc),)) is None


def test_a_process_with_an_accelerator_stays_as_it_is(tmp_path):
    assert kept_memory_environment({}, accelerators=(str(tmp_path),)) is None
    assert kept_memory_environment({"JAX_PLATFORMS": "cpu"}, accelerators=(str(tmp_path),)) is not None


def test_the_restarted_process_has_the_allocator():
    code = (
        "from hpjax.host_memory import restart_with_kept_memory as restart; restart(); "
        "print(open('/proc/self/maps').read(), open('/proc/self/environ').read())"
    )
    kept = ("HPJAX_NO_REEXEC", "LD_PRELOAD", "GLIBC_TUNABLES", "MALLOC_CONF")
    environment = {name: value for name, value in os.environ.items() if name not in kept}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**environment, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    found = host_memory._find_jemalloc(host_memory._library_folders())
    assert (done.returncode, done.stderr) == (0, "")
    assert (str(found.resolve()) if found else OF_GLIBC) in done.stdout


def test_what_is_kept_counts_as_available():
    found = host_memory._find_jemalloc(host_memory._library_folders())
    if found is None:
        pytest.skip("needs jemalloc")
    code = """
import psutil
from hpjax import host_memory
resident = lambda: psutil.Process().memory_info().rss
before = resident()
block = bytearray(b"x") * 2**28
del block
kept = resident() - before
host_memory.available_bytes()
print(kept > 2**27, resident() - before < 2**26)
"""
    settings = {"LD_PRELOAD": str(found), "MALLOC_CONF": OF_JEMALLOC}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, **settings}, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "True True\n", "")


def test_jemalloc_is_found_wherever_the_loader_finds_it():
    if ctypes.util.find_library("jemalloc") != "libjemalloc.so.2":
        pytest.skip("needs jemalloc")
    assert host_memory._find_jemalloc(host_memory._library_folders()) is not None


def test_available_memory_counts_what_is_only_cached():
    limits = list(host_memory._left_in_groups(host_memory._control_groups()))
    expected = min([psutil.virtual_memory().available, *limits])
    assert host_memory.available_bytes() == pytest.approx(expected, rel=0.1)


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
    left = host_memory._left_in_groups([limited, unlimited, full, tmp_path / "missing"])
    assert list(left) == [400, 0]


def test_control_groups_are_those_around_this_process(tmp_path):
    folders = host_memory._control_groups(tmp_path)
    assert folders[-1] == tmp_path
    assert all(parent == folder.parent for folder, parent in zip(folders, folders[1:], strict=False))
