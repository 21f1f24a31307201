"""A sweep's folder: one writer at a time, one config, files replaced atomically."""

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hpjax.errors import WorkdirError
from hpjax.store.changes import EXTEND, EXTENDED, compared, may_differ
from hpjax.store.files import check_file, check_folder, describe_os_error, read_file, read_json
from hpjax.store.lock import release_lock, take_lock, writing

Resume = Literal["auto", "never", "must"]

CONFIG_NAME = "config.json"
SUMMARY_NAME = "summary.json"
HISTORY_NAME = "history.jsonl"
WINNER_NAME = "winner.json"
JOURNAL_NAME = "study.journal"
POPULATION, TRIALS = "checkpoints/population", "checkpoints/trials"  # folders of checkpoints
STATES = "checkpoints/states"
LANES = "lanes"  # beside the checkpoints of populations: what workers have written of them
RECORD_NAMES = (HISTORY_NAME, POPULATION, TRIALS, SUMMARY_NAME)
_TEMPORARY = ".hpjax-tmp-"
FILE_NAMES = (
    *(HISTORY_NAME, JOURNAL_NAME, SUMMARY_NAME, "identity.txt", "plan.json"),
    *("trials.csv", "epochs.csv", "settings.csv", "lineage.csv", WINNER_NAME),
)
FOLDER_NAMES = ("checkpoints", POPULATION, f"{POPULATION}/{LANES}", TRIALS, STATES, "figures", "tensorboard")
WITNESS_NAME = ".saved"
_MOST_SHOWN = 200  # characters of a value, in a message
_HIDDEN_NAMES = (CONFIG_NAME, WITNESS_NAME, "mlflow.db")


def sync_folder(path: str | Path) -> None:
    """Makes renames inside a folder durable; a no-op where the file system can't sync folders."""
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def atomic_write(path: str | Path, data: bytes | str) -> None:
    """Replaces a file at once: a reader or a crash sees the old content or the new, never a part.

    Args:
      path: the file; its folder must exist.
      data: the whole content; text is written as UTF-8.

    Raises:
      WorkdirError: the file can't be written (disk full, read-only, no permission, a workdir that isn't
        this process's any more); the old one stays.

    """
    path = Path(path)
    content = data.encode() if isinstance(data, str) else data
    temporary = path.with_name(f".{path.name}{_TEMPORARY}{os.getpid()}")
    with writing(path):
        try:
            with open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
    sync_folder(path.parent)


@dataclass
class Workdir:
    """An open, locked workdir; a context manager that releases the lock.

    Attributes:
      path: the folder.
      resumed: a sweep was there before; its records and checkpoints are to be continued.
      finished: that sweep ran to its end, and is to have no more than it has; nothing is left to do.

    """

    path: Path
    resumed: bool
    finished: bool
    _lock: int
    _config: str

    def __enter__(self) -> "Workdir":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def accept(self) -> None:
        """Writes the config down, once it is known that the sweep goes on with it."""
        if not self.finished and is_finished(self.path):  # first, so that a kill in between loses nothing
            summary = read_json(self.path / SUMMARY_NAME) | {"finished": False}
            atomic_write(self.path / SUMMARY_NAME, json.dumps(summary, indent=2) + "\n")
        if read_file(self.path / CONFIG_NAME) != self._config.encode():
            atomic_write(self.path / CONFIG_NAME, self._config)

    def close(self) -> None:
        """Releases the lock; a second call does nothing."""
        if self._lock >= 0:
            release_lock(self._lock)
            self._lock = -1


def open_workdir(path: str | Path, config: Mapping, resume: Resume = "auto") -> Workdir:
    """Creates a workdir, or opens the sweep in it, and locks it against every other process.

    Args:
      path: the folder; missing parents are created.
      config: the sweep's whole configuration as plain JSON values.
      resume: auto continues a sweep that is there, never refuses one, must insists on one.

    Returns:
      The workdir; `resumed` and `finished` say what was found. The config of a sweep that is there stays
      as it is until it is accepted.

    Raises:
      WorkdirError: another process writes it, it belongs to another config, `resume` forbids what was
        found, the folder can't be created or written, or something else lies where its files belong.

    """
    path = Path(path)
    _create_folder(path)
    _refuse_others_folder(path, config)  # before a lock is left in it
    lock = take_lock(path)
    try:
        _remove_leftovers(path)
        _check_kinds(path)
        resumed = _check_sweep(path, config, resume)
        text = json.dumps(config, indent=2) + "\n"
        if not resumed:
            atomic_write(path / CONFIG_NAME, text)
        finished = resumed and is_finished(path) and not _is_extended(path, config)
        return Workdir(path, resumed, finished, lock, text)
    except BaseException:
        release_lock(lock)
        raise


def is_finished(path: str | Path) -> bool:
    """Returns whether the sweep in a workdir says that it ran to its end."""
    try:
        return read_json(Path(path) / SUMMARY_NAME).get("finished") is True
    except WorkdirError:
        return False  # the summary is rebuilt from the records by a run that finds nothing left to do


def _create_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        kind = "a file" if path.is_file() else "no folder" if path.exists() else "a link that leads nowhere"
        raise WorkdirError(f"workdir {path} is {kind}: choose a folder") from error
    except NotADirectoryError as error:
        raise WorkdirError(f"workdir {path} lies under a file: choose another folder") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise WorkdirError(f"can't create workdir {path}: {reason}") from error


def _check_kinds(path: Path) -> None:
    """Raises WorkdirError where a pipe, a folder or a link to nothing lies in a file's place."""
    for name in (*FILE_NAMES, *_HIDDEN_NAMES):
        check_file(path / name)
    for name in FOLDER_NAMES:
        check_folder(path / name)
    for name in ("figures", "tensorboard"):
        for folder, _, files in os.walk(path / name):
            for file in files:
                check_file(os.path.join(folder, file))


def _remove_leftovers(path: Path) -> None:
    for leftover in path.glob(f".*{_TEMPORARY}*"):
        with contextlib.suppress(OSError):
            leftover.unlink()


def _check_sweep(path: Path, config: Mapping, resume: Resume) -> bool:
    config_file = path / CONFIG_NAME
    # Without records it is a start that was refused or killed before anything happened, if it is ours.
    begun = _find_records(path) or (config_file.exists() and read_json(config_file).keys() != config.keys())
    if not begun:
        if resume == "must":
            raise WorkdirError(f"workdir {path} holds no sweep to resume: check the path, or use resume=auto")
        return False
    if resume == "never":
        raise WorkdirError(
            f"workdir {path} already holds a sweep: choose another workdir, or use resume=auto"
        )
    _check_same_config(path, config)
    return True


def _refuse_others_folder(path: Path, config: Mapping) -> None:
    if os.path.lexists(path / CONFIG_NAME):
        _refuse_others_config(path, config)
        return
    try:
        names = sorted(os.listdir(path))
    except OSError as error:
        raise WorkdirError(describe_os_error("read", path, error)) from error
    own = [name for name in names if name in (*FILE_NAMES, *FOLDER_NAMES)]
    if found := own or [name for name in names if not (name.startswith(".") or name == "lost+found")]:
        listed = ", ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")
        lost = ", which a sweep would overwrite," if own else ""
        raise WorkdirError(
            f"workdir {path} holds {listed}{lost} but no {CONFIG_NAME}: choose a new or an empty folder"
        )


def _refuse_others_config(path: Path, config: Mapping) -> None:
    try:
        names = read_json(path / CONFIG_NAME).keys()
    except WorkdirError:
        return  # what can't be read is named when the sweep is looked for
    if not names & config.keys() and not _find_records(path):
        raise WorkdirError(
            f"workdir {path} holds a {CONFIG_NAME} of another program: choose a new or an empty folder"
        )


def _find_records(path: Path) -> list[str]:
    """Returns what of value lies in a workdir: files with content, folders with something in them."""
    return [name for name in RECORD_NAMES if (path / name).exists() and _has_content(path / name)]


def _has_content(path: Path) -> bool:
    return any(path.iterdir()) if path.is_dir() else path.stat().st_size > 0


def _check_same_config(path: Path, config: Mapping) -> None:
    old = _flatten(read_json(path / CONFIG_NAME))
    new = _flatten(json.loads(json.dumps(config)))
    keys = sorted(
        key
        for key in old.keys() | new.keys()
        if compared(key, old.get(key, ...)) != compared(key, new.get(key, ...))
    )
    if keys := [key for key in keys if not may_differ(key, old, new)]:
        changes = "; ".join(f"{key}: {_show(old, key)} there, {_show(new, key)} now" for key in keys)
        cure = "use that config or choose another workdir"
        if all(may_differ(key, old, {**new, EXTEND: True}) for key in keys):
            cure = f"add --config.{EXTEND}=True to go on with it, {cure}"
        raise WorkdirError(f"workdir {path} holds a sweep of another config ({changes}): {cure}")


def _is_extended(path: Path, config: Mapping) -> bool:
    """Returns whether a sweep is to have more than it had: all else was found to be equal."""
    old, new = _flatten(read_json(path / CONFIG_NAME)), _flatten(config)
    return any(old.get(key) != new.get(key) for key in EXTENDED)


def _flatten(value: Mapping, prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            flat |= _flatten(item, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = item
    return flat


def _show(flat: Mapping[str, object], key: str) -> str:
    text = json.dumps(flat[key]) if key in flat else "nothing"
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"
