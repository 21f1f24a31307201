"""The allocator that training is restarted with: with and without each library, whatever is installed."""

import os
import pathlib
import platform
import shutil
import subprocess
import sys

import pytest

from hpjax.cli import host_memory
from hpjax.cli.host_memory import kept_memory_environment, running_allocator
from hpjax.errors import ConfigError

ROOT = pathlib.Path(__file__).parents[2]
OF_GLIBC = (
    "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=17179869184:glibc.malloc.trim_threshold=17179869184"
)
OF_JEMALLOC = "thp:always,dirty_decay_ms:-1,muzzy_decay_ms:-1"
OF_MIMALLOC = {"MIMALLOC_PURGE_DELAY": "1000000000", "MIMALLOC_ALLOW_THP": "1"}
OURS = ("HPJAX_NO_REEXEC", "HPJAX_ALLOCATOR", "LD_PRELOAD", "GLIBC_TUNABLES", "MALLOC_CONF", *OF_MIMALLOC)
SHOW = """
import os
from hpjax.cli.host_memory import restart_with_kept_memory as restart, running_allocator
restart()
names = ("LD_PRELOAD", "GLIBC_TUNABLES", "MALLOC_CONF", "MIMALLOC_PURGE_DELAY", "HPJAX_RESTARTED")
print(running_allocator()[0], {name: os.environ[name] for name in names if name in os.environ})
"""

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs Linux with glibc")


@pytest.fixture(scope="module")
def wheel():
    """Returns mimalloc's library, which a dependency installs."""
    found = [pathlib.Path(folder) / "libmimalloc.so.3" for folder in host_memory._library_folders({})]
    return next(path for path in found if path.exists())


@pytest.fixture
def jemalloc(wheel, tmp_path):
    """Returns a folder that has nothing but a library that loads under jemalloc's name."""
    shutil.copy(wheel, tmp_path / "libjemalloc.so.2")
    return str(tmp_path)


@pytest.fixture
def mimalloc(wheel):
    return str(wheel.parent)


def _in_its_own_process(code, **environment):
    clean = {name: value for name, value in os.environ.items() if name not in OURS}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**clean, "JAX_PLATFORMS": "cpu", **environment},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ("environment", "tunables"),
    [
        ({"JAX_PLATFORMS": "cpu"}, OF_GLIBC),
        ({}, OF_GLIBC),
        ({"GLIBC_TUNABLES": "glibc.malloc.check=0"}, f"{OF_GLIBC}:glibc.malloc.check=0"),
    ],
)
def test_huge_pages_are_asked_for_where_no_library_is_installed(environment, tunables):
    expected = {**environment, "GLIBC_TUNABLES": tunables}
    assert kept_memory_environment(environment, accelerators=(), folders=()) == expected


@pytest.mark.parametrize(
    ("environment", "preloaded", "settings"),
    [
        ({}, "{}", OF_JEMALLOC),
        ({"LD_PRELOAD": "/lib/x.so", "MALLOC_CONF": "thp:never"}, "/lib/x.so:{}", f"{OF_JEMALLOC},thp:never"),
    ],
)
def test_jemalloc_is_taken_where_it_is_installed(environment, preloaded, settings, jemalloc):
    changed = kept_memory_environment(environment, accelerators=(), folders=("/missing", jemalloc))
    library = f"{jemalloc}/libjemalloc.so.2"
    assert changed == {**environment, "LD_PRELOAD": preloaded.format(library), "MALLOC_CONF": settings}


@pytest.mark.parametrize(
    "environment",
    [{}, {"MIMALLOC_PURGE_DELAY": "10"}, {"MIMALLOC_ALLOW_THP": "0", "MIMALLOC_VERBOSE": "0"}],
)
def test_mimalloc_is_taken_with_what_the_user_set(environment, mimalloc):
    changed = kept_memory_environment(environment, accelerators=(), folders=(mimalloc,))
    assert changed == {**OF_MIMALLOC, **environment, "LD_PRELOAD": f"{mimalloc}/libmimalloc.so.3"}


def test_the_first_of_the_list_is_taken_unless_one_is_named(mimalloc, jemalloc):
    folders = (mimalloc, jemalloc)
    for allocator in host_memory.ALLOCATORS:
        named = {"HPJAX_ALLOCATOR": allocator.name}
        changed = kept_memory_environment(named, accelerators=(), folders=folders)
        assert changed is not None and changed.get("LD_PRELOAD", "").endswith(allocator.library)
    changed = kept_memory_environment({}, accelerators=(), folders=folders)
    assert changed is not None and changed["LD_PRELOAD"].endswith(host_memory.ALLOCATORS[0].library)


@pytest.mark.parametrize(
    ("name", "allowed"), [("ptmalloc", "jemalloc | mimalloc"), ("jemalloc", "installed")]
)
def test_a_named_allocator_that_is_not_there_is_refused(name, allowed, mimalloc):
    with pytest.raises(ConfigError, match=f"HPJAX_ALLOCATOR='{name}' .*{allowed}"):
        kept_memory_environment({"HPJAX_ALLOCATOR": name}, accelerators=(), folders=(mimalloc,))


@pytest.mark.parametrize("kind", ["of_another_machine", "cut_off", "text", "without_what_it_needs"])
def test_a_library_that_cannot_be_loaded_is_left_alone(kind, wheel, tmp_path):
    content = bytearray(wheel.read_bytes())
    if kind == "of_another_machine":
        content[18:20] = b"\xff\xff"
    elif kind == "without_what_it_needs":
        content = content.replace(b"\0libc.so.6\0", b"\0libz.so.6\0")
    damaged = {"cut_off": content[:4096], "text": b"INPUT(libm.so)"}.get(kind, content)
    (tmp_path / "libmimalloc.so.3").write_bytes(damaged)
    changed = kept_memory_environment({}, accelerators=(), folders=(str(tmp_path),))
    assert changed == {"GLIBC_TUNABLES": OF_GLIBC}


@pytest.mark.parametrize(
    "environment",
    [
        {"HPJAX_NO_REEXEC": "1"},
        {"HPJAX_ALLOCATOR": "none"},
        {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"},
        {"LD_PRELOAD": "/usr/lib/libtcmalloc.so.4"},
        {"JAX_PLATFORMS": "cuda"},
    ],
)
def test_a_process_stays_as_it_is(environment, jemalloc):
    assert kept_memory_environment(environment, accelerators=(), folders=(jemalloc,)) is None


@pytest.mark.parametrize(("system", "libc"), [("darwin", ""), ("linux", "musl")])
def test_a_process_stays_as_it_is_where_nothing_fits(system, libc, monkeypatch):
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(platform, "libc_ver", lambda: (libc, ""))
    assert kept_memory_environment({}, accelerators=(), folders=()) is None


def test_a_process_with_an_accelerator_stays_as_it_is(tmp_path):
    assert kept_memory_environment({}, accelerators=(str(tmp_path),)) is None
    assert kept_memory_environment({"JAX_PLATFORMS": "cpu"}, accelerators=(str(tmp_path),)) is not None


@pytest.mark.parametrize(
    ("choice", "running"), [("mimalloc", "mimalloc"), ("system", "glibc"), ("none", "glibc")]
)
def test_the_restarted_process_has_the_allocator_and_its_children_do_not(choice, running):
    done = _in_its_own_process(SHOW, HPJAX_ALLOCATOR=choice)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", f"{running} {{}}\n")


def test_the_restarted_process_has_one_of_the_allocators_unless_told():
    done = _in_its_own_process(SHOW)
    names = {allocator.name for allocator in host_memory.ALLOCATORS if allocator.library}
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.split()[0] in names


def test_the_c_library_keeps_memory_after_a_restart():
    code = (
        "from hpjax.cli.host_memory import restart_with_kept_memory as restart; restart(); "
        "print(open('/proc/self/environ').read())"
    )
    done = _in_its_own_process(code, HPJAX_ALLOCATOR="system")
    # The loader ends each setting of its own copy with a zero.
    assert f"GLIBC_TUNABLES={OF_GLIBC}" in done.stdout.replace("\0glibc", ":glibc")


def test_what_was_preloaded_is_there_again_after_the_restart():
    before = {"LD_PRELOAD": "libm.so.6", "MALLOC_CONF": "x:y", "MIMALLOC_PURGE_DELAY": "10"}
    done = _in_its_own_process(SHOW, HPJAX_ALLOCATOR="mimalloc", **before)
    assert (done.stdout, done.stderr) == (f"mimalloc {before}\n", "")


def test_a_process_that_cannot_be_restarted_goes_on():
    # No environment may have an entry of more than 128 KiB: the kernel refuses the restart.
    code = f"import os\nos.environ['LARGE'] = 'x' * 2**18\n{SHOW}"
    done = _in_its_own_process(code)
    assert (done.returncode, done.stdout) == (0, "glibc {}\n")
    expected = "hpjax: goes on without a faster allocator: no restart (Argument list too long)\n"
    assert done.stderr == expected


def test_versions_are_read():
    assert running_allocator()[1].split(".") >= ["2"]
    assert host_memory._mimalloc_version(30403) == "3.4.3"
    assert host_memory._mimalloc_version(212) == "2.1.2"
