"""Numbered checkpoints in one directory, written and kept by Orbax, proved by hashes of our own.

Orbax's `CheckpointManager` writes to a temporary folder, renames it when it is whole, and removes what is
kept no longer. Its asynchronous saves are not used: they wait for each other, so trials that end together
would hold up training, and Orbax logs the traceback of one that fails. `BackgroundWriter` calls it instead.
"""

import contextlib
import functools
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from hpjax.errors import CheckpointError, WorkdirError
from hpjax.store.arrays import Nested, nest, walk
from hpjax.store.background import BackgroundWriter
from hpjax.store.files import check_folder, describe_os_error, is_folder
from hpjax.store.ledger import (
    ARRAYS,
    FILE_NAME,
    ITEM,
    Content,
    Unreadable,
    check_files,
    read_ledger,
    seal_ledger,
)
from hpjax.store.lock import check_held, is_held, writing
from hpjax.store.quiet import one_line_failures
from hpjax.store.workdir import sync_folder

if TYPE_CHECKING:
    import orbax.checkpoint as ocp

_REMOVED = "removed"  # where Orbax moves what is kept no longer, so that no part of it can pass for a whole
_ROOM = "room"
_OVERHEAD = 1 << 18  # bytes that Orbax and the file system need besides the arrays


class Steps:
    """Checkpoints under numbers, written in the background; opened by the process that holds the workdir.

    Args:
      directory: created if missing; leftovers of saves that were cut off are removed.
      prefix: of the folders' names.
      digits: of the numbers in them, at least.
      limit: saves, and so copies of arrays in memory, that may be under way.
      retention: which checkpoints stay, as options of Orbax's `CheckpointManager`.

    Raises:
      WorkdirError: the directory can't be created.

    """

    def __init__(self, directory: str | Path, prefix: str, digits: int, limit: int, **retention: Any):
        self.directory, self._prefix, self._digits = Path(directory), prefix, digits
        self._retention = retention
        self._writer = BackgroundWriter(limit)
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WorkdirError(describe_os_error("create", directory, error)) from error
        self._remove_leftovers()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def folder(self, number: int) -> Path:
        """Returns where a checkpoint lies."""
        return self.directory / f"{self._prefix}_{number:0{self._digits}d}"

    def numbers(self) -> list[int]:
        """Returns the checkpoints on disk, in order; not yet verified."""
        return list_numbers(self.directory, self._prefix)

    def wait(self) -> None:
        """Returns when every save is on disk; raises `WorkdirError` if one failed."""
        self._writer.wait()

    def close(self) -> None:
        """Waits for the last save; raises `WorkdirError` if it failed."""
        self._writer.close()

    def write(self, number: int, arrays: Nested, ledger: Mapping) -> None:
        """Writes a checkpoint that appears at once, whole, or not at all; then removes what isn't kept.

        Raises:
          WorkdirError: the disk is full, read-only or refuses, or the workdir isn't this process's any more;
            the other checkpoints stay valid.

        """
        folder = self.folder(number)
        with writing(folder, "write checkpoint"):
            try:
                self._reserve(arrays)
                with one_line_failures():
                    self._write(number, arrays, ledger)
                check_held(folder)
                sync_folder(self.directory)
            except (WorkdirError, MemoryError, OSError):
                raise
            except Exception as error:  # Orbax and TensorStore report a full disk as ValueError and others
                raise WorkdirError(f"can't write checkpoint {folder}: {_explain(error)}") from error
            finally:
                self._remove_leftovers(folder.name)

    def set_aside(self, number: int) -> None:
        """Moves a checkpoint, at once, to where it is found no more; the next save or start removes it.

        Raises:
          WorkdirError: the disk refuses.

        """
        folder = self.folder(number)
        with writing(folder, "move"):
            self._remove_leftovers()
            if os.path.lexists(folder) and not folder.is_dir():
                os.unlink(folder)  # a file, a pipe, a link to nothing: Orbax sees none of them
            else:
                self._manager.delete(number)
        sync_folder(self.directory)

    @functools.cached_property
    def _manager(self) -> "ocp.CheckpointManager":
        import orbax.checkpoint as ocp

        options = ocp.CheckpointManagerOptions(
            step_prefix=self._prefix,
            step_format_fixed_length=self._digits,
            todelete_subdir=_REMOVED,
            enable_async_checkpointing=False,
            lightweight_initialize=True,  # reads nothing of checkpoints that may be damaged
            **self._retention,
        )
        registry = ocp.handlers.DefaultCheckpointHandlerRegistry()
        registry.add(ARRAYS, ocp.args.PyTreeSave)
        registry.add(ITEM, ocp.args.JsonSave, _create_sealing_handler())  # finalized after the arrays
        return ocp.CheckpointManager(self.directory.absolute(), options=options, handler_registry=registry)

    def _write(self, number: int, arrays: Nested, ledger: Mapping) -> None:
        import orbax.checkpoint as ocp

        leaves = list(walk(arrays))
        # Orbax refuses arrays without elements: the ledger keeps their shapes.
        filled = nest((path, leaf) for path, leaf in leaves if leaf.size)
        empty = {"/".join(path): [leaf.shape, leaf.dtype.name] for path, leaf in leaves if not leaf.size}
        content = {"folder": self.folder(number).name, "ledger": ledger, "empty": empty}
        items: dict[str, Any] = {ITEM: ocp.args.JsonSave(content)}
        if filled:
            items[ARRAYS] = ocp.args.PyTreeSave(filled)
        if number in self._manager.all_steps() or os.path.lexists(self.folder(number)):
            self.set_aside(number)
        self._manager.save(number, args=ocp.args.Composite(**items), force=True)

    def _reserve(self, arrays: Nested) -> None:
        """Raises OSError where the disk has no room, before Orbax fills it; some systems can't tell."""
        if hasattr(os, "posix_fallocate"):  # macOS has none
            with open(self.directory / _ROOM, "wb") as stream:
                needed = sum(leaf.nbytes for _, leaf in walk(arrays)) + _OVERHEAD
                os.posix_fallocate(stream.fileno(), 0, needed)
            self._remove_leftovers()

    def _remove_leftovers(self, name: str = "") -> None:
        """Removes what saves that failed have left.

        In what has replaced the workdir, where Orbax makes anew the folders that it writes into, this is only
        what the save of checkpoint `name` began; it got no further, since its ledger is sealed last.
        """
        leftovers, which = [self.directory / _REMOVED, self.directory / _ROOM], f"{self._prefix}_*"
        if not is_held(self.directory):
            leftovers, which = [], name or "none"
        for path in [*leftovers, *self.directory.glob(f"{which}.orbax-checkpoint-tmp*")]:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    path.unlink()


def list_numbers(directory: Path, prefix: str) -> list[int]:
    """Returns the checkpoints of a directory, in order; not verified.

    Raises:
      WorkdirError: the directory can't be read now: what can't be seen isn't gone.

    """
    try:
        names = os.listdir(directory) if check_folder(directory) else []
    except OSError as error:
        raise WorkdirError(describe_os_error("read", directory, error)) from error
    return sorted(int(found[1]) for name in names if (found := re.fullmatch(rf"{prefix}_(\d+)", name)))


def load_folder(folder: Path) -> tuple[Nested, dict[str, Any]]:
    """Returns a checkpoint's arrays as nested dicts of numpy, and its ledger, after checking every byte.

    Nothing in the folder is ever executed: it is JSON and numbers, never a pickle.

    Raises:
      CheckpointError: the checkpoint is missing, torn, truncated or changed.
      Unreadable: it is whole, but written by another version of Orbax, or this is a bad moment.
      WorkdirError: a file can't be read now.

    """
    content = read_proved(folder)
    nested = _load_arrays(folder / ARRAYS) if is_folder(folder / ARRAYS) else {}
    empty = content.empty.items()
    empty = [(tuple(name.split("/")), np.zeros(shape, dtype)) for name, (shape, dtype) in empty]
    return nest([*walk(nested), *empty]), content.ledger


def read_proved(folder: Path) -> Content:
    """Returns what a checkpoint's ledger says, after checking every byte; raises as `load_folder` does."""
    if not is_folder(folder):
        raise CheckpointError(f"there is no checkpoint {folder}")
    content = read_ledger(folder)
    check_files(folder, content.files)
    return content


def import_writer() -> None:
    """Imports Orbax ahead of the first save; that takes a second."""
    import orbax.checkpoint  # noqa: F401


def _create_sealing_handler() -> "ocp.JsonCheckpointHandler":
    import orbax.checkpoint as ocp

    class SealingHandler(ocp.JsonCheckpointHandler):
        """Writes a ledger, and seals it once all else of the checkpoint is on disk."""

        def finalize(self, directory: Any) -> None:
            file = Path(directory) / FILE_NAME
            seal_ledger(file, file.parents[1] / ARRAYS)

    return SealingHandler(FILE_NAME)


def _load_arrays(folder: Path) -> Nested:
    import orbax.checkpoint as ocp

    try:
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
            return checkpointer.restore(folder.absolute())
    except MemoryError:
        raise
    except Exception as error:  # of whole files: another version of Orbax wrote them, or it is a bad moment
        raise Unreadable(f"checkpoint {folder.parent} can't be read: {_explain(error)}") from error


def _explain(error: Exception) -> str:
    code = re.search(r"os[ _]error(?:_code)?\W*(\d+)", str(error), re.IGNORECASE)
    if code:
        return os.strerror(int(code[1]))
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
