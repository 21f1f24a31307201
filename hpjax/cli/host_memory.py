"""The allocator that a process trains with: it keeps memory from step to step."""

import contextlib
import os
import platform
import sys
import sysconfig
from collections.abc import Mapping, Sequence
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
_JEMALLOC = "libjemalloc.so.2"
_ACCELERATORS = ("/dev/nvidia0", "/dev/nvidiactl", "/dev/kfd", "/dev/accel0")


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
