"""A Python file of the user's own, and what it imports from its folder: what is hashed is what is run."""

import ast
import functools
import hashlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

RUN_NAME = "hpjax_user_"  # begins the names of files that were named themselves
MAIN = ""  # stands for the named file among the names of modules
_OWN = "of the user's own"  # marks folders without an __init__.py that a finder here found
_NEVER_OWN = frozenset({"hpjax", *sys.stdlib_module_names})


class Source(NamedTuple):
    """A file, and what was in it when it was read."""

    file: Path
    content: bytes


@dataclass(frozen=True)
class OwnCode:
    """A file, and the modules beside it that it imports, directly or through each other.

    Attributes:
      path: the file.
      sources: of the modules, by the name they are imported under; the file itself under `MAIN`.
    """

    path: Path
    sources: Mapping[str, Source]

    @functools.cached_property
    def hashes(self) -> dict[str, str]:
        """SHA-256 by name relative to the folder; of the file itself, however it is called, under `MAIN`."""
        folder = self.path.parent
        return {
            source.file.relative_to(folder).as_posix() if name else MAIN: _hash(source.content)
            for name, source in sorted(self.sources.items())
        }

    @functools.cached_property
    def digest(self) -> str:
        """Changes with the content of any of the files."""
        return _hash(repr(self.hashes).encode())


def read_own_code(path: Path) -> OwnCode:
    """Reads a file and what it imports from its folder; runs nothing.

    Raises:
      OSError: One of the files can't be read.
    """
    sources = {MAIN: Source(path, path.read_bytes())}
    waiting = [MAIN]
    while waiting:
        name = waiting.pop()
        for module in _list_imports(name, sources[name]):
            if module not in sources and (file := _find_module(path.parent, module)):
                sources[module] = Source(file, file.read_bytes())
                waiting.append(module)
    return OwnCode(path, sources)


def run_own_code(code: OwnCode, name: str) -> ModuleType:
    """Returns the file as a module of the given name, after running it.

    Modules of its folder come from what was read, not from the disk: neither an edit in between nor Python's
    cache of compiled files, which goes by time and size, gets between what was hashed and what is run.

    Raises:
      BaseException: Whatever the code raises.
    """
    _forget_modules()
    # First, and to stay, for what functions import when they are called: it serves nobody else's imports.
    others = [f for f in sys.meta_path if not (isinstance(f, _Finder) and f.path == code.path)]
    sys.meta_path[:] = [_Finder(code), *others]
    spec = importlib.util.spec_from_file_location(name, code.path, loader=_AsRead(name, code.sources[MAIN]))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


class _AsRead(importlib.machinery.SourceFileLoader):
    """Loads a module from its source as it was read."""

    def __init__(self, name: str, source: Source):
        super().__init__(name, str(source.file))
        self._content = source.content

    def get_code(self, fullname: str):
        return self.source_to_code(self._content, self.path)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the modules beside a file of the user's own, and the folders that they lie in, for them alone."""

    def __init__(self, code: OwnCode):
        self.path, self._sources = code.path, code.sources
        self._files = {str(source.file) for source in code.sources.values()}
        parents = {".".join(parts) for name in code.sources for parts in _beginnings(name)[:-1]}
        self._folders = parents - code.sources.keys()

    def find_spec(self, fullname: str, path: object = None, target: object = None):
        """Returns how a module is loaded; None for one that isn't of the folder."""
        source = self._sources.get(fullname)
        if (source is None and fullname not in self._folders) or _find_importer() not in self._files:
            return None
        folder = str(self.path.parent.joinpath(*fullname.split(".")))
        if source is None:
            spec = importlib.machinery.ModuleSpec(fullname, None, is_package=True)
            spec.submodule_search_locations, spec.loader_state = [folder], _OWN
            return spec
        inside = [folder] if source.file.name == "__init__.py" else None
        return importlib.util.spec_from_file_location(
            fullname, source.file, loader=_AsRead(fullname, source), submodule_search_locations=inside
        )


def _find_importer() -> str | None:
    """Returns the file whose import is under way."""
    frame = sys._getframe(1)
    while frame is not None and str(frame.f_globals.get("__name__")).startswith((__name__, "importlib")):
        frame = frame.f_back
    return frame and frame.f_globals.get("__file__")


def _forget_modules() -> None:
    """Has what came from a folder of the user's own imported anew: there may be others of these names."""
    for name, module in tuple(sys.modules.items()):
        spec = getattr(module, "__dict__", {}).get("__spec__")  # to ask a lazy module would load it
        loader, state = getattr(spec, "loader", None), getattr(spec, "loader_state", None)
        if (isinstance(loader, _AsRead) or state is _OWN) and not name.startswith(RUN_NAME):
            del sys.modules[name]


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _list_imports(name: str, source: Source) -> Iterator[str]:
    """Yields the modules that a source may import, packages before what is in them."""
    try:
        tree = ast.parse(source.content)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return  # running it will say so
    package = name if source.file.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(tree):
        for wanted in _list_names(node, package):
            if wanted and wanted.split(".")[0] not in _NEVER_OWN:
                yield from (".".join(parts) for parts in _beginnings(wanted))


def _list_names(node: ast.AST, package: str) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
    module = ".".join(filter(None, [*above, node.module]))
    return [module, *(f"{module}.{alias.name}" if module else alias.name for alias in node.names)]


def _beginnings(name: str) -> list[list[str]]:
    """Returns `a`, `a.b` and `a.b.c` of `a.b.c`, each as its parts."""
    parts = name.split(".")
    return [parts[:end] for end in range(1, len(parts) + 1)]


def _find_module(folder: Path, name: str) -> Path | None:
    place = folder.joinpath(*name.split("."))
    for file in (place / "__init__.py", place.with_name(f"{place.name}.py")):
        if file.is_file():
            return file
    return None
