"""The host's memory: how this process gets it, keeps it from step to step, and how much is left."""

import contextlib
import ctypes
import os
import platform
import re
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

_BYTES = 1 << 34  # more than any temporary has
# Huge pages; what is freed stays with the process, as the next step takes it again.
_HUGE_PAGES = "glibc.malloc.hugetlb"
_OF_GLIBC = (
    f"{_HUGE_PAGES}=1",
    f"glibc.malloc.mmap_threshold={_BYTES}",
    f"glibc.malloc.trim_threshold={_BYTES}",
)
_OF_JEMALLOC = "thp:always,dirty_decay_ms:-1,muzzy_decay_ms:-1"
_ALL_ARENAS = 4096  # jemalloc's MALLCTL_ARENAS_ALL
_JEMALLOC = "libjemalloc.so.2"
_ACCELERATORS = ("/dev/nvidia0", "/dev/nvidiactl", "/dev/kfd", "/dev/accel0")
_UNLIMITED = "max"


def restart_with_kept_memory() -> None:
    """Restarts this process with an allocator that suits training: on the CPU, under Linux.

    Training would free and fault its big temporaries anew in every step, and its threads would wait for each
    other meanwhile; an allocator reads its settings only when a process starts. jemalloc is taken where it
    is installed, else glibc's malloc. `HPJAX_NO_REEXEC=1` keeps the process as it is.
    """
    environment = kept_memory_environment(os.environ)
    if sys.platform == "linux" and environment is not None:
        os.execve(sys.executable, sys.orig_argv, environment)


def kept_memory_environment(
    environment: Mapping[str, str],
    accelerators: Sequence[str] = _ACCELERATORS,
    folders: Sequence[str] | None = None,
) -> dict[str, str] | None:
    """Returns the environment to restart in, or None where there is no need to.

    Args:
      environment: of the process as it is; an allocator or huge pages chosen in it stay.
      accelerators: files of which one exists where something else than the CPU trains.
      folders: where jemalloc is looked for; None: where libraries usually lie.
    """
    preloaded, tunables = environment.get("LD_PRELOAD", ""), environment.get("GLIBC_TUNABLES", "")
    if environment.get("HPJAX_NO_REEXEC") or "malloc" in preloaded or _HUGE_PAGES in tunables:
        return None
    platforms = environment.get("JAX_PLATFORMS", "")
    if platforms != "cpu" and (platforms or any(Path(device).exists() for device in accelerators)):
        return None
    library = _find_jemalloc(_library_folders() if folders is None else folders)
    if library is None:
        return {**environment, "GLIBC_TUNABLES": ":".join(filter(None, (tunables, *_OF_GLIBC)))}
    return {
        **environment,
        "LD_PRELOAD": ":".join(filter(None, (preloaded, str(library)))),
        "MALLOC_CONF": ",".join(filter(None, (_OF_JEMALLOC, environment.get("MALLOC_CONF", "")))),
    }


def available_bytes() -> int:
    """Returns how much more memory the system would give this process, within its control groups' limits."""
    _give_back()
    with contextlib.suppress(OSError, AttributeError):
        text = Path("/proc/meminfo").read_text()
        return min([_field(text, "MemAvailable:") << 10, *_left_in_groups(_control_groups())])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")


def _give_back() -> None:
    """Has the allocator return what it keeps but nothing uses, so that it counts as available."""
    process = ctypes.CDLL(None)
    with contextlib.suppress(AttributeError):  # not glibc
        process.malloc_trim(0)
    with contextlib.suppress(AttributeError):  # not jemalloc
        process.mallctl(f"arena.{_ALL_ARENAS}.purge".encode(), None, None, None, ctypes.c_size_t(0))


def _control_groups(mount: Path = Path("/sys/fs/cgroup")) -> list[Path]:
    """Returns the folders of this process's control group (version 2) and of those around it."""
    own = re.search(r"^0::/(.*)$", Path("/proc/self/cgroup").read_text(), re.MULTILINE)
    folder = mount / own[1] if own else mount
    return [folder, *(parent for parent in folder.parents if parent.is_relative_to(mount))]


def _left_in_groups(folders: Sequence[Path]) -> Iterator[int]:
    """Yields how many bytes each group that has a limit may still take; cached files give way."""
    for folder in folders:
        with contextlib.suppress(OSError, AttributeError):
            limit = (folder / "memory.max").read_text().strip()
            if limit != _UNLIMITED:
                cached = _field((folder / "memory.stat").read_text(), "inactive_file")
                yield max(0, int(limit) - int((folder / "memory.current").read_text()) + cached)


def _field(text: str, name: str) -> int:
    """Returns the number after a name at the start of a line; AttributeError where there is none."""
    return int(re.search(rf"^{name}\s+(\d+)", text, re.MULTILINE)[1])  # type: ignore[index]


def _library_folders() -> list[str]:
    system = sysconfig.get_config_var("MULTIARCH") or f"{platform.machine()}-linux-gnu"
    own = [f"{prefix}/lib" for prefix in (sys.prefix, sys.base_prefix)]
    return [*own, "/usr/local/lib", f"/usr/lib/{system}", "/usr/lib64", "/usr/lib"]


def _find_jemalloc(folders: Sequence[str]) -> Path | None:
    """Returns the first jemalloc that this Python could have loaded with it."""
    with contextlib.suppress(OSError):
        wanted = _architecture(Path(sys.executable))
        for path in (Path(folder) / _JEMALLOC for folder in folders):
            if path.exists() and _architecture(path) == wanted:
                return path
    return None


def _architecture(path: Path) -> bytes:
    """Returns the word size and the machine of an ELF file."""
    with open(path, "rb") as file:
        head = file.read(20)
    return head[:6] + head[18:20]
