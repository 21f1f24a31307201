"""Files of a workdir are opened where they are files: a pipe would wait for ever, a device never end."""

import errno
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hpjax.errors import WorkdirError

MOST_BYTES = 1 << 28  # of a JSON file; those that are written here take a few megabytes
DEEPEST = 64  # levels of JSON; what is written here has a dozen

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class WrongKind(WorkdirError):
    """Where a file or a folder belongs lies something else."""


def describe_os_error(action: str, path: str | Path, error: OSError) -> str:
    """Returns one line naming what failed, where and why, e.g. `can't write a/b: No space left on device`."""
    return f"can't {action} {path}: {error.strerror or error}"


def allowed_mode(mode: int) -> int:
    """Returns the permissions that a new file or folder gets where `mode` is asked for."""
    mask = os.umask(0)
    os.umask(mask)
    return mode & ~mask


def check_file(path: str | Path) -> bool:
    """Returns whether a file is there: a regular one, or a link to one.

    Raises:
      WrongKind: something else is there, which is opened by nobody.
      WorkdirError: it can't be told now.

    """
    mode = _find_mode(path)
    if mode is not None and not stat.S_ISREG(mode):
        raise _refuse(path, _KINDS.get(stat.S_IFMT(mode), "something else"), "a file")
    return mode is not None


def check_folder(path: str | Path) -> bool:
    """Returns whether a folder is there, or a link to one.

    Raises:
      WrongKind: something else is there.
      WorkdirError: it can't be told now.

    """
    mode = _find_mode(path)
    if mode is not None and not stat.S_ISDIR(mode):
        raise _refuse(path, _KINDS.get(stat.S_IFMT(mode), "a file"), "a folder")
    return mode is not None


def is_file(path: str | Path) -> bool:
    """Returns whether a regular file is there, or a link to one.

    Raises:
      WorkdirError: it can't be told now: `Path.is_file` would say no, or raise, by the version of Python.

    """
    return _has_mode(path, stat.S_ISREG)


def is_folder(path: str | Path) -> bool:
    """Returns whether a folder is there, or a link to one; raises WorkdirError as `is_file` does."""
    return _has_mode(path, stat.S_ISDIR)


def open_file(path: str | Path, flags: int = os.O_RDONLY) -> int:
    """Returns the descriptor of a regular file, as `os.open` does; never waits.

    Raises:
      OSError: it can't be opened.
      WrongKind: it is no regular file.

    """
    check_file(path)  # first: to open a device may already do something
    fd = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK, 0o644)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise _refuse(path, "no file any more", "a file")
    return fd


def read_file(path: str | Path, most: int = MOST_BYTES) -> bytes:
    """Returns a file's content.

    Raises:
      WorkdirError: it is missing, no regular file, larger than `most` bytes, or can't be read now.

    """
    try:
        with open(open_file(path), "rb") as file:
            if (size := os.fstat(file.fileno()).st_size) > most:
                raise WorkdirError(
                    f"{path} is damaged: {size:,} bytes, at most {most:,} were written: "
                    "restore it or choose another workdir"
                )
            return file.read()
    except OSError as error:
        raise WorkdirError(describe_os_error("read", path, error)) from error


def parse_json(content: bytes | str) -> Any:
    """Returns the value that JSON describes, no deeper than what recursion can go through.

    Raises:
      ValueError: it is no JSON, or nested too deeply.

    """
    try:
        value = json.loads(content)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    level = [value]
    for _ in range(DEEPEST):
        nested = [node for node in level if type(node) in (dict, list)]
        if not nested:
            return value
        level = [item for node in nested for item in (node.values() if type(node) is dict else node)]
    raise ValueError("nested too deeply")


def read_json(path: Path) -> dict[str, Any]:
    """Returns a JSON file's object.

    Raises:
      WorkdirError: the file can't be read or isn't a JSON object.

    """
    try:
        value = parse_json(read_file(path))
    except ValueError as error:
        raise WorkdirError(f"{path} is damaged ({error}): restore it or choose another workdir") from error
    if not isinstance(value, dict):
        raise WorkdirError(f"{path} is damaged (not a JSON object): restore it or choose another workdir")
    return value


def _has_mode(path: str | Path, is_kind: Callable[[int], bool]) -> bool:
    try:
        return is_kind(_find_mode(path) or 0)
    except WrongKind:  # a link to nothing
        return False


def _find_mode(path: str | Path) -> int | None:
    try:
        return os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        if os.path.islink(path):
            raise _refuse(path, "a link to nothing", "what is to be there") from None
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _refuse(path, "a link to itself", "what is to be there") from None
        raise WorkdirError(describe_os_error("read", path, error)) from error
    except ValueError as error:  # a name with a null
        raise WorkdirError(f"can't read {path}: {error}") from error


def _refuse(path: str | Path, found: str, expected: str) -> WrongKind:
    return WrongKind(f"{path} is {found}, not {expected}: remove it, or choose another workdir")
