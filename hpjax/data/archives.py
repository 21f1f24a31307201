"""Zip and tar archives, unpacked into the cache: nothing outside of it, no links, and not without end."""

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import stat
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from hpjax.data.cache import cache_dir, temporary_folder
from hpjax.data.listing import list_entries
from hpjax.data.names import is_clutter
from hpjax.errors import DataError

MOST_GROWTH = 100  # times the archive's size that its content may take: photographs take about once
LEAST_LIMIT = 2**30  # bytes that may be unpacked of the smallest archive
MOST_MEMBERS = 5_000_000
_BLOCK = 1 << 20
_NOTE = ".hpjax-unpacked.json"  # written last; hidden, so that no image is looked for in it
_BY_HAND = "unpack it by hand and give the folder"


@dataclass(frozen=True)
class Unpacked:
    """What was unpacked of an archive.

    Attributes:
      folder: where it lies, in the cache.
      left_out: how many entries weren't unpacked, by kind.
    """

    folder: Path
    left_out: Mapping[str, int] = field(default_factory=dict)


class _Member(NamedTuple):
    name: str
    kind: str  # file, folder, or what else it is
    open: Callable[[], IO[bytes]]  # of a file


class _StrictInfo(tarfile.TarInfo):
    """A header that, where it is damaged or missing, isn't taken for the archive's end."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> "tarfile.TarInfo":
        try:
            return super().fromtarfile(tarfile_)
        except (tarfile.InvalidHeaderError, tarfile.EmptyHeaderError) as error:  # type: ignore[attr-defined]
            raise tarfile.ReadError(f"after {tarfile_.offset:,} bytes: {error}") from error


def find_archive(path: Path) -> Path | None:
    """Returns `path` where it is a zip or tar file, or the one in it where a folder holds nothing else."""
    if os.path.isfile(path):
        return path if _is_archive(path) else None
    if not os.path.isdir(path):
        return None
    entries = list_entries(path)
    if len(entries) == 1 and os.path.isfile(entries[0].path) and _is_archive(Path(entries[0].path)):
        return Path(entries[0].path)
    return None


def unpack(archive: Path) -> Unpacked:
    """Returns the content of an archive, from the cache where it has it.

    Links and devices are left in it.

    Raises:
      DataError: It is damaged, encrypted, larger than allowed or names files outside of itself, or the cache
        can't hold it; says what to do.
    """
    try:
        entry = cache_dir() / f"unpacked-{_identify(archive)}"
        if (found := _load(entry)) is not None:
            return found
        shutil.rmtree(entry, ignore_errors=True)  # something of it is missing
        with temporary_folder(entry) as folder:
            left_out, files, size = _unpack_into(folder, archive)
            note = {"archive": str(archive), "files": files, "bytes": size, "left_out": left_out}
            (folder / _NOTE).write_text(json.dumps(note), "utf-8")
            with contextlib.suppress(OSError):  # another process was first, and may be reading it
                folder.rename(entry)
    except DataError:
        raise
    except Exception as error:  # the readers raise nearly anything on damaged archives
        raise DataError(f"archive {archive} can't be unpacked ({_reason(error)}): {_BY_HAND}") from error
    return Unpacked(entry, left_out)


def _is_archive(path: Path) -> bool:
    return _is_tar(path) or zipfile.is_zipfile(path)


def _is_tar(path: Path) -> bool:
    try:
        return tarfile.is_tarfile(path)
    except Exception:  # of a compressed file that is damaged, or can't be read
        return False


def _identify(archive: Path) -> str:
    """Returns what changes when an archive is written to; its name is in it for people."""
    status = os.stat(archive)
    digest = hashlib.sha256(repr((status.st_dev, status.st_ino, status.st_size)).encode())
    digest.update(repr((status.st_mtime_ns, status.st_ctime_ns)).encode())
    name = re.sub(r"[^\w.-]", "_", archive.name, flags=re.ASCII)[:40]
    return f"{digest.hexdigest()[:24]}-{name}"


def _load(entry: Path) -> Unpacked | None:
    """Returns what lies in the cache, or None where something of it is missing."""
    try:
        note = json.loads((entry / _NOTE).read_text("utf-8"))
        files = [os.path.join(folder, name) for folder, _, names in os.walk(entry) for name in names]
        files.remove(str(entry / _NOTE))
        if (len(files), sum(map(os.path.getsize, files))) != (note["files"], note["bytes"]):
            return None
        return Unpacked(entry, note["left_out"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _unpack_into(folder: Path, archive: Path) -> tuple[dict[str, int], int, int]:
    """Returns what was left out, by kind, and how many files of how many bytes were unpacked."""
    limit = _find_limit(folder, archive)
    left_out: Counter[str] = Counter()
    files = size = written = 0
    for number, member in enumerate(_list_members(archive)):
        if number >= MOST_MEMBERS:
            raise DataError(f"archive {archive} holds more than {MOST_MEMBERS:,} names: {_BY_HAND}")
        parts = _check_name(archive, member.name)
        if any(map(is_clutter, parts)) or not parts:
            continue
        if member.kind not in ("file", "folder"):
            left_out[f"{member.kind}s in the archive"] += 1
            continue
        target = folder.joinpath(*parts)
        if member.kind == "folder":
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():  # the last of several is the one that counts
            files, size = files - 1, size - target.stat().st_size
        with member.open() as source, target.open("wb") as copy:
            copied = _copy(source, copy, limit - written, archive)
        files, size, written = files + 1, size + copied, written + copied
    return dict(left_out), files, size


def _find_limit(folder: Path, archive: Path) -> int:
    allowed = max(LEAST_LIMIT, MOST_GROWTH * archive.stat().st_size)
    return min(allowed, shutil.disk_usage(folder).free)


def _copy(source: IO[bytes], copy: IO[bytes], most: int, archive: Path) -> int:
    """Returns how many bytes were copied; what an archive says of itself isn't believed."""
    size = 0
    while block := source.read(_BLOCK):
        size += len(block)
        if size > most:
            raise DataError(
                f"archive {archive} unfolds to more than {MOST_GROWTH} times its size, or than the disk of "
                f"{cache_dir()} has room for: {_BY_HAND}"
            )
        copy.write(block)
    return size


def _check_name(archive: Path, name: str) -> tuple[str, ...]:
    """Returns a member's folders and name.

    Raises:
      DataError: It would lie outside of the archive.
    """
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", name):
        raise DataError(
            f"archive {archive} holds {name!r}: expected names inside of it, without .. and from no root"
        )
    return path.parts


def _list_members(archive: Path) -> Iterator[_Member]:
    if _is_tar(archive):  # asked first: a zip file at the end of a tar file makes both look like one
        with tarfile.open(archive, tarinfo=_StrictInfo) as tarred:
            for info in tarred:
                yield _Member(
                    info.name, _tar_kind(info), lambda i=info: tarred.extractfile(i) or io.BytesIO()
                )
    else:
        with zipfile.ZipFile(archive) as zipped:
            for info in zipped.infolist():
                yield _Member(info.filename, _zip_kind(info), lambda i=info: zipped.open(i))


def _zip_kind(info: zipfile.ZipInfo) -> str:
    if info.filename.endswith(("/", "\\")):
        return "folder"
    mode = info.external_attr >> 16
    return "link" if stat.S_ISLNK(mode) else "file"


def _tar_kind(info: tarfile.TarInfo) -> str:
    if info.issym() or info.islnk():
        return "link"
    if info.isdir():
        return "folder"
    return "file" if info.isreg() else "device"


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__
