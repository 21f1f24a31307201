"""Choices measured on this machine, kept on disk for the next start."""

import functools
import importlib.metadata
import json
import logging
import os
import pathlib
import platform
import re
import tempfile

from hpjax.ops import target

VERSION = 2


def cache_dir() -> pathlib.Path:
    """Returns where hpjax keeps what it measured: `$HPJAX_CACHE`, or `~/.cache/hpjax`."""
    return pathlib.Path(os.path.expanduser(os.environ.get("HPJAX_CACHE") or "~/.cache/hpjax"))


def device_name() -> str:
    """Returns backend and device kind; for a CPU, whose kind says nothing, its model and the cores in use."""
    backend = target.backend()
    kind = f"{_cpu_model()} x{usable_cores()}" if backend == "cpu" else target.device_kind()
    return f"{backend} {kind}"


def usable_cores() -> int:
    """Returns how many cores this process may use; macOS can't say, and there it is how many there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cache_path() -> pathlib.Path:
    """Returns the file of this device, jaxlib and `XLA_FLAGS`: all change which lowering is fastest."""
    name = "-".join(re.sub(r"[^A-Za-z0-9.]+", "_", part) for part in _maker()[:2])
    flags = re.sub(r"[^A-Za-z0-9]+", "_", _maker()[2])[-80:]
    return cache_dir() / f"choices-{name}{'-' if flags else ''}{flags}.json"


def load() -> dict[str, str]:
    """Returns the remembered choice of each key; nothing where the file is missing, stale or corrupt."""
    return {key: entry["choice"] for key, entry in _present().items()}


def measured(key: str) -> dict[str, float]:
    """Returns the milliseconds measured for what `key` chooses from; empty where nothing is known."""
    return dict(_present().get(key, {}).get("milliseconds", {}))


def remember(key: str, choice: str, milliseconds: dict[str, float]) -> None:
    """Adds a measurement to the file, atomically; a folder that can't be written is only logged."""
    path = cache_path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        entries = {**_read(path), key: {"choice": choice, "milliseconds": milliseconds}}
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, suffix=".tmp", delete=False
        ) as file:
            json.dump({"version": VERSION, "maker": _maker(), "entries": entries}, file, indent=1)
        os.replace(file.name, path)
    except OSError as error:
        logging.getLogger(__name__).warning("measurements can't be kept in %s: %s", path, error)


def _present() -> dict[str, dict]:
    path = cache_path()
    try:
        stamp = path.stat().st_mtime_ns
    except OSError:
        return {}
    return _entries(path, stamp)


@functools.lru_cache(maxsize=4)
def _entries(path: pathlib.Path, stamp: int) -> dict[str, dict]:
    del stamp
    return _read(path)


def _read(path: pathlib.Path) -> dict[str, dict]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["version"] != VERSION or content["maker"] != _maker():
            return {}
        return {k: e for k, e in content["entries"].items() if _is_entry(e)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _is_entry(entry: dict) -> bool:
    times = entry["milliseconds"].values()
    return isinstance(entry["choice"], str) and all(isinstance(t, float | int) for t in times)


def _maker() -> list[str]:
    return [importlib.metadata.version("jaxlib"), device_name(), os.environ.get("XLA_FLAGS", "")]


@functools.cache
def _cpu_model() -> str:
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    fields = dict(re.findall(r"^(model name|cpu family|model)\s*: (.*)$", text, re.MULTILINE))
    parts = (
        fields.get("model name", platform.machine()),
        fields.get("cpu family", ""),
        fields.get("model", ""),
    )
    return " ".join(part for part in parts if part)
