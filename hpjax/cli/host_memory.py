"""The allocator that a process trains with: it keeps memory from step to step."""

import ctypes
import json
import os
import platform
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hpjax.errors import ConfigError

CHOICE = "HPJAX_ALLOCATOR"
FAST = ("mimalloc", "jemalloc", "tcmalloc")  # a process that has one of these needs no other
_ACCELERATORS = ("/dev/nvidia0", "/dev/nvidiactl", "/dev/kfd", "/dev/accel0")
# What the restart has changed, for the restarted process to undo.
_BEFORE = "HPJAX_RESTARTED"


@dataclass(frozen=True)
class Allocator:
    """An allocator and its settings for training: what is freed stays with the process, in huge pages.

    Attributes:
      name: as in `HPJAX_ALLOCATOR`.
      library: the file that is preloaded; none for the C library's own.
      settings: environment variables of one value; the user's own stay.
      options: an environment variable that is a list, its separator and ours of its entries.
    """

    name: str
    library: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)
    options: tuple[str, str, tuple[str, ...]] | None = None

    def join_options(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Returns the list of options, together with the user's, which count where both name one."""
        if self.options is None:
            return {}
        name, separator, ours = self.options
        return {name: separator.join(filter(None, (*ours, environment.get(name, ""))))}


_THRESHOLD = 1 << 34  # more than any temporary has
# The first that can be loaded is taken. mimalloc comes with the installation, so that machines differ less;
# jemalloc is no faster (benchmarks/allocators.py measures the order and the settings).
ALLOCATORS = (
    # Not -1, which is for ever: `available_bytes` couldn't have it given back either.
    Allocator(
        "mimalloc", "libmimalloc.so.3", {"MIMALLOC_PURGE_DELAY": "1000000000", "MIMALLOC_ALLOW_THP": "1"}
    ),
    Allocator(
        "jemalloc",
        "libjemalloc.so.2",
        options=("MALLOC_CONF", ",", ("thp:always", "dirty_decay_ms:-1", "muzzy_decay_ms:-1")),
    ),
    Allocator(
        "system",
        options=(
            "GLIBC_TUNABLES",
            ":",
            (
                "glibc.malloc.hugetlb=1",
                f"glibc.malloc.mmap_threshold={_THRESHOLD}",
                f"glibc.malloc.trim_threshold={_THRESHOLD}",
            ),
        ),
    ),
)
_CHOICES = (*(allocator.name for allocator in ALLOCATORS), "none")


def restart_with_kept_memory() -> None:
    """Restarts this process with an allocator that suits training: on the CPU, under Linux, once.

    Training would free and fault its big temporaries anew in every step, and its threads would wait for each
    other meanwhile; an allocator is loaded and reads its settings only when a process starts. Children of the
    restarted process have the environment that was there before: what a data worker or a tool frees is
    better given back.

    Raises:
      ConfigError: `HPJAX_ALLOCATOR` names none that could be taken.
    """
    if is_settled():
        return
    environment = kept_memory_environment(os.environ)
    if environment is None:
        return
    changed = [name for name, value in environment.items() if os.environ.get(name) != value]
    before = json.dumps({name: os.environ.get(name) for name in changed})
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    try:
        os.execve(sys.executable, sys.orig_argv, {**environment, _BEFORE: before})
    except OSError as error:
        _State.settled = True
        print(f"hpjax: goes on without a faster allocator: no restart ({error.strerror})", file=sys.stderr)


def is_settled() -> bool:
    """Returns whether this process was restarted, or couldn't be; undoes what the restart has set in it."""
    before = os.environ.pop(_BEFORE, None)
    if before is not None:
        _State.settled = True
        for name, value in json.loads(before).items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
    return _State.settled


class _State:
    settled = False


def kept_memory_environment(
    environment: Mapping[str, str],
    accelerators: Sequence[str] = _ACCELERATORS,
    folders: Sequence[str] | None = None,
) -> dict[str, str] | None:
    """Returns the environment to restart in, or None where there is no need to.

    Args:
      environment: of the process as it is; an allocator or huge pages chosen in it stay. `HPJAX_ALLOCATOR`
        in it is `jemalloc`, `mimalloc`, `system` or `none`; otherwise the first of `ALLOCATORS` that loads.
      accelerators: files of which one exists where something else than the CPU trains.
      folders: where libraries are looked for; None: where they usually lie.

    Raises:
      ConfigError: `HPJAX_ALLOCATOR` is none of them, or is not installed.
    """
    choice = environment.get(CHOICE, "")
    if choice not in ("", *_CHOICES):
        raise ConfigError(CHOICE, choice, " | ".join(_CHOICES))
    if environment.get("HPJAX_NO_REEXEC") or choice == "none" or _has_allocator(environment):
        return None
    platforms = environment.get("JAX_PLATFORMS", "")
    if platforms != "cpu" and (platforms or any(Path(device).exists() for device in accelerators)):
        return None
    if sys.platform != "linux":
        return None
    for allocator in ALLOCATORS:
        if choice in ("", allocator.name):
            for changed in _environments(allocator, environment, folders):
                return changed
    if choice:
        raise ConfigError(CHOICE, choice, "one that is installed and can be loaded")
    return None


def running_allocator() -> tuple[str, str]:
    """Returns the name and the version of what this process gets its memory from."""
    process = ctypes.CDLL(None)
    if hasattr(process, "mi_version"):
        return "mimalloc", _mimalloc_version(process.mi_version())
    if hasattr(process, "mallctl"):
        text, size = ctypes.c_char_p(), ctypes.c_size_t(ctypes.sizeof(ctypes.c_char_p))
        process.mallctl(b"version", ctypes.byref(text), ctypes.byref(size), None, ctypes.c_size_t(0))
        return "jemalloc", (text.value or b"").decode().partition("-")[0]
    if hasattr(process, "tc_version"):
        return "tcmalloc", ""
    name, version = platform.libc_ver()
    return name or "system", version


def _mimalloc_version(number: int) -> str:
    """Returns 30403 as 3.4.3, and 212, as it was written before version 3, as 2.1.2."""
    base = 100 if number >= 10000 else 10
    return f"{number // base**2}.{number // base % base}.{number % base}"


def _has_allocator(environment: Mapping[str, str]) -> bool:
    tunables = environment.get("GLIBC_TUNABLES", "")
    return "malloc" in environment.get("LD_PRELOAD", "") or "glibc.malloc.hugetlb" in tunables


def _environments(
    allocator: Allocator, environment: Mapping[str, str], folders: Sequence[str] | None
) -> Iterator[dict[str, str]]:
    """Yields the environment with each of the allocator's libraries that a process can be started with."""
    changed = {**allocator.settings, **environment, **allocator.join_options(environment)}
    if not allocator.library:
        if platform.libc_ver()[0] == "glibc":  # no other reads its options
            yield changed
        return
    for folder in _library_folders(environment) if folders is None else folders:
        library = Path(folder) / allocator.library
        if library.exists():
            preloaded = ":".join(filter(None, (environment.get("LD_PRELOAD", ""), str(library))))
            if _is_loaded(library, with_it := {**changed, "LD_PRELOAD": preloaded}):
                yield with_it


def _library_folders(environment: Mapping[str, str]) -> list[str]:
    """Returns where the user, the wheel of a dependency and the system have libraries."""
    named = filter(None, environment.get("LD_LIBRARY_PATH", "").split(":"))
    system = sysconfig.get_config_var("MULTIARCH") or f"{platform.machine()}-linux-gnu"
    wheels = [f"{folder}/cmeel.prefix/lib" for folder in sys.path if folder]
    own = [f"{prefix}/lib" for prefix in (sys.prefix, sys.base_prefix)]
    return [*named, *wheels, *own, "/usr/local/lib", f"/usr/lib/{system}", "/usr/lib64", "/usr/lib"]


# The library of another machine, another C library, or without what it needs in turn is warned of by the
# loader in every process from then on, or ends it: only a process that was started with it knows.
_IS_LOADED = "import sys; sys.exit(sys.argv[1] not in open('/proc/self/maps', errors='replace').read())"


def _is_loaded(library: Path, environment: Mapping[str, str]) -> bool:
    command = [sys.executable, "-S", "-c", _IS_LOADED, str(library.resolve())]
    try:
        done = subprocess.run(
            command, env={**environment, "LD_BIND_NOW": "1"}, capture_output=True, timeout=60
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0
