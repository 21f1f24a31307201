"""A workdir's lock: one process writes it, and only while it still lies where it was locked.

Locks are those of `fcntl`, which Linux and macOS have, and Windows has not.
"""

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from hpjax.errors import WorkdirError
from hpjax.store.files import describe_os_error, open_file

LOCK_NAME = ".lock"

_BEGIN = b'{"pid": '

_held: dict[int, Path] = {}  # the workdirs of this process by their locks' descriptors


def _close_inherited_locks() -> None:
    # A forked data worker that outlives its parent would otherwise keep the parent's lock.
    for fd in _held:
        with contextlib.suppress(OSError):
            os.close(fd)
    _held.clear()


os.register_at_fork(after_in_child=_close_inherited_locks)


def take_lock(path: Path) -> int:
    """Locks a workdir; returns the lock's descriptor.

    Raises:
      WorkdirError: another process has it, or the lock can't be written.

    """
    file = path / LOCK_NAME
    if file.is_symlink():  # what it leads to isn't ours to empty
        raise WorkdirError(f"{file} is a link: remove it, or choose another workdir")
    try:
        fd = open_file(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW)
    except OSError as error:
        raise WorkdirError(describe_os_error("write", file, error)) from error
    try:
        # The kernel drops the lock with its process, however that dies: no stale lock to judge.
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _check_ours(file, fd)
        os.ftruncate(fd, 0)
        os.write(fd, json.dumps(_describe_process()).encode())
    except OSError as error:
        holder = os.pread(fd, 4096, 0)
        os.close(fd)
        if isinstance(error, BlockingIOError):
            raise WorkdirError(_describe_holder(path, holder)) from error
        raise WorkdirError(describe_os_error("lock", file, error)) from error
    except WorkdirError:
        os.close(fd)
        raise
    _held[fd] = Path(os.path.abspath(path))
    return fd


def _check_ours(file: Path, fd: int) -> None:
    """Raises WorkdirError where a lock's content was not written here."""
    content = os.pread(fd, 4096, 0)
    # A process that was killed as it wrote its name leaves a part of it.
    if content and not (content.startswith(_BEGIN) or _BEGIN.startswith(content)):
        raise WorkdirError(f"{file} is another program's: choose another workdir")


def release_lock(fd: int) -> None:
    """Gives a workdir back."""
    _held.pop(fd, None)
    with contextlib.suppress(OSError):
        os.ftruncate(fd, 0)
        fcntl.flock(fd, fcntl.LOCK_UN)  # closing alone leaves it to children that are being forked just now
    os.close(fd)


def check_held(path: str | Path) -> None:
    """Checks, before something in a workdir of this process is written, that it still is that workdir.

    Raises:
      WorkdirError: it was removed, moved or replaced: what is there now belongs to others.

    """
    inside = Path(os.path.abspath(path))
    for fd, workdir in tuple(_held.items()):
        if inside.is_relative_to(workdir) and not _is_same(workdir / LOCK_NAME, fd):
            raise WorkdirError(
                f"workdir {workdir} was removed, moved or replaced while the sweep ran: nothing more is "
                "written there; where it is moved back, the same command goes on"
            )


def is_held(path: str | Path) -> bool:
    """Returns False where something in a workdir of this process doesn't belong to it any more."""
    try:
        check_held(path)
    except WorkdirError:
        return False
    return True


@contextlib.contextmanager
def writing(path: str | Path, action: str = "write") -> Iterator[None]:
    """Says in one line why something in a workdir can't be written.

    Raises:
      WorkdirError: the workdir isn't this process's any more, before or while it is written; or the disk
        refuses.

    """
    check_held(path)
    try:
        yield
    except OSError as error:
        check_held(path)  # a workdir that goes away fails what is being written, in whatever way
        raise WorkdirError(describe_os_error(action, path, error)) from error
    except Exception:
        check_held(path)
        raise


def _is_same(file: Path, fd: int) -> bool:
    try:
        return os.path.samestat(os.stat(file), os.fstat(fd))
    except OSError:
        return False


def _describe_process() -> dict:
    start = time.strftime("%Y-%m-%d %H:%M:%S%z")
    return {"pid": os.getpid(), "host": socket.gethostname(), "start": start}


def _describe_holder(path: Path, content: bytes) -> str:
    try:
        holder = json.loads(content)
        who = f"process {holder['pid']} on {holder['host']} (since {holder['start']})"
    except (ValueError, KeyError, TypeError):
        who = "another process"  # it holds the lock but hasn't written its name yet
    return f"workdir {path} is in use by {who}: wait for it, stop it, or choose another workdir"
