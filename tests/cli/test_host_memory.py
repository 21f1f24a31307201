"""The allocator that training is restarted with."""

import ctypes.util
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from hpjax.cli import host_memory
from hpjax.cli.host_memory import kept_memory_environment

ROOT = pathlib.Path(__file__).parents[2]
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
        "from hpjax.cli.host_memory import restart_with_kept_memory as restart; restart(); "
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


def test_jemalloc_is_found_wherever_the_loader_finds_it():
    if ctypes.util.find_library("jemalloc") != "libjemalloc.so.2":
        pytest.skip("needs jemalloc")
    assert host_memory._find_jemalloc(host_memory._library_folders()) is not None
