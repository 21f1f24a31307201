"""How much memory the host has left for this process."""

import contextlib
import ctypes
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

_ALL_ARENAS = 4096  # jemalloc's MALLCTL_ARENAS_ALL
_UNLIMITED = "max"
_PAGE = os.sysconf("SC_PAGE_SIZE")
_sharers = 1  # processes that have equal parts of what there is


def share_with(processes: int) -> None:
    """Has this process take one of so many equal parts of the memory that there is; others have the rest."""
    global _sharers
    _sharers = processes


def available_bytes() -> int:
    """Returns how much more memory the system would give this process, within its limits and its part."""
    _give_back()
    with contextlib.suppress(OSError, AttributeError):
        text = Path("/proc/meminfo").read_text(encoding="utf-8")
        left = min([_field(text, "MemAvailable:") << 10, *_left_in_groups(_control_groups())])
        return left if _sharers == 1 else max(0, min(left, total_bytes() // _sharers - _taken()))
    return _PAGE * os.sysconf("SC_AVPHYS_PAGES") // _sharers


def _taken() -> int:
    """Returns how much memory this process has."""
    return _PAGE * int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])


def total_bytes() -> int:
    """Returns how much memory this process could have: the machine's, within its control groups' limits."""
    machine = _PAGE * os.sysconf("SC_PHYS_PAGES")
    limits = []
    with contextlib.suppress(OSError, AttributeError):
        limits = [limit for limit in map(_limit_of, _control_groups()) if limit is not None]
    return min([machine, *limits])


def _limit_of(group: Path) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        return int((group / "memory.max").read_text())  # the word "max" where there is none
    return None


def _give_back() -> None:
    """Has the allocator return what it keeps but nothing uses, so that it counts as available."""
    process = ctypes.CDLL(None)
    with contextlib.suppress(AttributeError):  # not glibc
        process.malloc_trim(0)
    with contextlib.suppress(AttributeError):  # not mimalloc
        process.mi_collect(ctypes.c_bool(True))
    with contextlib.suppress(AttributeError):  # not jemalloc
        process.mallctl(f"arena.{_ALL_ARENAS}.purge".encode(), None, None, None, ctypes.c_size_t(0))


def _control_groups(mount: Path = Path("/sys/fs/cgroup")) -> list[Path]:
    """Returns the folders of this process's control group (version 2) and of those around it."""
    own = re.search(r"^0::/(.*)$", Path("/proc/self/cgroup").read_text(encoding="utf-8"), re.MULTILINE)
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
