"""Code of the user's own, named `FILE.py:NAME` in a configuration."""

import contextlib
import hashlib
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from hpjax.config.own_code import RUN_NAME, OwnCode, read_own_code, run_own_code
from hpjax.errors import ConfigError, UserCodeError

_kept: dict[Path, OwnCode] | None = None
_modules: dict[tuple[Path, str], ModuleType] = {}


@contextlib.contextmanager
def keep_own_code() -> Iterator[None]:
    """While it lasts, a file counts as it was when it was first read: no run mixes two states of it."""
    global _kept
    before, _kept = _kept, {} if _kept is None else _kept
    try:
        yield
    finally:
        _kept = before


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
    return isinstance(name, str) and name.rpartition(":")[0].endswith(".py")


def absolute_name(name: str) -> str:
    """Returns `FILE.py:NAME` so that it means the same in any folder; another name as it is."""
    file, _, attribute = name.rpartition(":")
    return f"{Path(file).expanduser().resolve()}:{attribute}" if file.endswith(".py") else name


def describe_failure(error: BaseException, path: Path) -> str:
    """Returns what the code in `path` raised, and where in it, in one line."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    if isinstance(error, SyntaxError):
        lines = [error.lineno]
    place = f"line {lines[-1]}: " if lines else ""
    return f"{place}{type(error).__name__}: {error}".removesuffix(": ")


def _find_file(key: str, name: str, file: str) -> Path:
    try:
        path = Path(file).expanduser().resolve()
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
        try:
            _modules[key] = run_own_code(code, name)
        except (Exception, SystemExit) as error:
            failure = describe_failure(error, code.path)
            raise UserCodeError(f"{code.path} can't be imported: {failure}") from error
    return _modules[key]
