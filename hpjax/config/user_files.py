"""Code of the user's own, named `FILE.py:NAME` in a configuration."""

import contextlib
import hashlib
import signal
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from hpjax.config.own_code import RUN_NAME, OwnCode, read_own_code, run_own_code
from hpjax.config.paths import expand_path
from hpjax.errors import ConfigError, HpjaxError, Signalled, UserCodeError, text_of

_kept: dict[Path, OwnCode] | None = None
_modules: dict[tuple[Path, str], ModuleType] = {}


@contextlib.contextmanager
def keep_own_code(known: Mapping[Path, OwnCode] | None = None) -> Iterator[None]:
    """While it lasts, a file counts as it was when it was first read: no run mixes two states of it.

    Args:
      known: files as they were read by another process, from its `kept_code`; None: those of this one.
    """
    global _kept
    before, _kept = _kept, dict(known) if known is not None else {} if _kept is None else _kept
    try:
        yield
    finally:
        _kept = before


def kept_code() -> dict[Path, OwnCode]:
    """Returns the files that were read since `keep_own_code` was entered."""
    return dict(_kept or {})


def load_from_file(key: str, name: str, form: str) -> tuple[Path, Any]:
    """Returns the file of `FILE.py:NAME` and what it defines under that name; None where it doesn't.

    Args:
      key: of the configuration, for messages.
      name: its value.
      form: what is allowed, for messages, e.g. `FILE.py:CLASS`.

    Raises:
      ConfigError: The value has another form, or there is no such file.
      UserCodeError: The file can't be imported.
    """
    file, _, attribute = name.rpartition(":")
    if not file.endswith(".py"):
        raise ConfigError(key, name, form)
    code = read_code(key, name)
    return code.path, getattr(_load_module(code), attribute, None)


def read_code(key: str, name: str) -> OwnCode:
    """Returns the file of `FILE.py:NAME` and what it imports from its folder, without running any of it.

    Args:
      key: of the configuration, for messages.
      name: its value.

    Raises:
      ConfigError: There is no such file.
      UserCodeError: It, or a file that it imports, can't be read.
    """
    path = _find_file(key, name, name.rpartition(":")[0])
    if _kept is not None and path in _kept:
        return _kept[path]
    try:
        code = read_own_code(path)
    except OSError as error:
        raise UserCodeError(f"{error.filename or path} can't be read: {error.strerror or error}") from error
    if _kept is not None:
        _kept[path] = code
    return code


def is_own(name: object) -> bool:
    """Returns whether a value has the form `FILE.py:NAME`."""
    if not isinstance(name, str) or name.startswith("tfds:"):  # a data set's name may be anything
        return False
    return name.rpartition(":")[0].endswith(".py")


def absolute_name(name: str) -> str:
    """Returns `FILE.py:NAME` so that it means the same in any folder; another name as it is."""
    file, _, attribute = name.rpartition(":")
    return f"{Path(expand_path(file)).resolve()}:{attribute}" if file.endswith(".py") else name


@contextlib.contextmanager
def blaming(what: str, path: Path) -> Iterator[None]:
    """Says in one line what code of the user's own raises: an exception, `sys.exit`, or anything else.

    Args:
      what: what failed, e.g. `model.name='net.py:Net' failed`.
      path: the file of the code.
    """
    try:
        yield
    except BaseException as error:
        if isinstance(error, HpjaxError) or is_interruption(error):
            raise
        raise UserCodeError(f"{what}: {describe_failure(error, path)}") from error


def is_interruption(error: BaseException) -> bool:
    """Returns whether a person or the system wants the process to end, and not just the code that runs."""
    if isinstance(error, KeyboardInterrupt) and not isinstance(error, Signalled):
        # A command's own handler raises `Signalled`; Python's can't be told from the user's code.
        return signal.getsignal(signal.SIGINT) is signal.default_int_handler
    return isinstance(error, Signalled)


def describe_failure(error: BaseException, path: Path) -> str:
    """Returns what the code in `path` raised, and where in it, in one line."""
    lines = failing_lines(error, path)
    place = f"line {lines[-1]}: " if lines else ""
    return f"{place}{type(error).__name__}: {text_of(error)}".removesuffix(": ")


def failing_lines(error: BaseException, path: Path) -> list[int | None]:
    """Returns the lines of the file `path` that an error passed through, the innermost last."""
    if isinstance(error, SyntaxError):
        return [error.lineno]
    frames = traceback.walk_tb(error.__traceback__)
    return [line for frame, line in frames if Path(frame.f_code.co_filename).absolute() == path.absolute()]


def _find_file(key: str, name: str, file: str) -> Path:
    try:
        path = Path(expand_path(file)).resolve()
        if path.is_file():
            return path
    except (OSError, RuntimeError, ValueError):  # too long, links in a circle, no such user, a null
        path = Path(file)
    raise ConfigError(key, name, f"a Python file that exists before the colon; {path} doesn't")


def _load_module(code: OwnCode) -> ModuleType:
    # Cached, since two loads of one file would give two classes, and so two graphs that don't compare equal.
    key = code.path, code.digest
    if key not in _modules:
        name = f"{RUN_NAME}{code.path.stem}_{hashlib.sha256(repr(key).encode()).hexdigest()[:12]}"
        with blaming(f"{code.path} can't be imported", code.path):
            _modules[key] = run_own_code(code, name)
    return _modules[key]
