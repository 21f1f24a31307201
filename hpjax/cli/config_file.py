"""A configuration's file: Python with `get_config()`, YAML or JSON."""

import contextlib
import json
import os
import re
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from hpjax.config.checks import is_mapping
from hpjax.config.parsing import as_mapping
from hpjax.config.user_files import blaming
from hpjax.errors import ConfigError, UsageError, text_of

ALLOWED = (
    "a Python file whose get_config() returns get_default(), changed; or a YAML or JSON file of (some of) its"
    " fields"
)
_NAME = "hpjax_config_file"
_MERGE = "tag:yaml.org,2002:merge"
_EXPONENT = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+")


def find_config_file(name: str) -> str:
    """Returns the path of a configuration's file: one of the user's own, else hpjax's of that name.

    Args:
      name: as it was typed: a path; or `wd`, `wd.py` or `configs/wd.py`, from any folder.
    """
    path = Path(name)
    if (
        os.path.exists(name)
        or path.parent not in (Path("."), Path("configs"))
        or path.suffix not in ("", ".py")
    ):
        return name
    return str(list_configs().get(path.stem, name))


def list_configs() -> dict[str, Path]:
    """Returns hpjax's own configurations by name: those of the checkout, or those that were installed."""
    checkout = Path(__file__).parents[2]
    if (checkout / "pyproject.toml").is_file():
        files = (checkout / "configs").glob("*.py")
    else:
        try:
            installed = metadata.files("hpjax") or ()
        except metadata.PackageNotFoundError:
            return {}
        files = (Path(str(f.locate())) for f in installed if f.match("share/hpjax/configs/*.py"))
    return {file.stem: file for file in sorted(files)}


def load_config_file(name: str) -> dict[str, Any]:
    """Returns what a configuration's file gives, as nested dicts; not yet checked.

    Args:
      name: its path; `FILE.py:TEXT` calls `get_config(TEXT)`.

    Raises:
      HpjaxError: There is no such file, it fails, or it gives something else.
    """
    file, argument = (name, "") if os.path.isfile(name) else name.partition(":")[::2]
    path = Path(file)
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or text_of(error)
        own = f", or one of {', '.join(list_configs())}" if not (path.suffix or path.parent.name) else ""
        raise ConfigError("--config", name, f"{ALLOWED}{own} ({reason})") from error
    read = _READERS.get(path.suffix.lower())
    given = read(name, content) if read else _run_python(name, path.absolute(), content, argument)
    given = {} if given is None and read else as_mapping(given)  # a YAML file of comments alone
    if not is_mapping(given):
        raise ConfigError("--config", name, f"{ALLOWED}; it gives {type(given).__name__}")
    return dict(given.items())


def _run_python(name: str, path: Path, content: bytes, argument: str) -> Any:
    module = ModuleType(_NAME)
    module.__file__ = str(path)
    sys.modules[_NAME] = module  # dataclasses in it look it up
    with blaming(f"--config={name} failed", path), _neighbours(path.parent):
        exec(compile(content, str(path), "exec"), vars(module))
        get_config = getattr(module, "get_config", None)
        if callable(get_config):
            given = get_config(argument) if argument else get_config()
            return as_mapping(given)
    raise ConfigError("--config", name, f"{ALLOWED}; it has no get_config()")


@contextlib.contextmanager
def _neighbours(folder: Path) -> Iterator[None]:
    """Has modules in a folder found, as those beside a script are."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(str(folder))


def _take_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Returns pairs as a dict; raises ValueError where a name stands twice: one value would be lost."""
    names = [name for name, _ in pairs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{', '.join(twice)} stands there twice in one place")
    return dict(pairs)


def _read_json(name: str, content: bytes) -> Any:
    try:
        return json.loads(content, object_pairs_hook=_take_once)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"--config={name} is no JSON: {text_of(error)}") from error


def _read_yaml(name: str, content: bytes) -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        """YAML 1.2 in one point: 1e-4 is a number without a dot, too."""

        def construct_mapping(self, node: Any, deep: bool = False) -> dict:
            keys = [self.construct_object(key, deep=True) for key, _ in node.value if key.tag != _MERGE]
            _take_once([(str(key), None) for key in keys])
            return super().construct_mapping(node, deep)

    Loader.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+.0123456789"))
    try:
        return yaml.load(content, Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UsageError(f"--config={name} is no YAML: {text_of(error)}") from error


_READERS = {".json": _read_json, ".yaml": _read_yaml, ".yml": _read_yaml}
