"""Where, when and with what a result was made."""

import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from hpjax.cli.host_memory import kept_memory_environment

ROOT = pathlib.Path(__file__).parents[2]
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "torch")


def _without_folders(argument: str) -> str:
    """Returns `--out=/of/this/machine/FILE` as `--out=FILE`."""
    name, equals, value = argument.rpartition("=")
    return name + equals + (os.path.basename(value.rstrip("/")) if os.path.isabs(value) else value)


def describe_run(benchmark: str, device: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Returns what every result file says about itself.

    Args:
      benchmark: the script's name.
      device: as `name_device` gives it.
      settings: the flags' values.
    """
    return {
        "benchmark": benchmark,
        "argv": [os.path.basename(sys.argv[0]), *map(_without_folders, sys.argv[1:])],
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": device,
        "cores": len(os.sched_getaffinity(0)),
        "platform": f"{platform.system()} {platform.machine()}",
        "allocator": name_allocator(kept_memory_environment(os.environ) or os.environ),
        "versions": {"python": platform.python_version(), **_versions()},
        "settings": settings,
    }


def name_allocator(environment: Mapping[str, str]) -> str:
    """Returns the name and version of what a process in this environment gets its memory from."""
    code = "from hpjax.cli.host_memory import running_allocator; print(*running_allocator())"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True, check=True
    )
    huge = "glibc.malloc.hugetlb=1" in environment.get("GLIBC_TUNABLES", "")
    return done.stdout.strip() + (" with huge pages" if huge else "")


def write_json(path: str, content: dict[str, Any]) -> None:
    """Writes a result, and the folders to it; nothing where `path` is empty."""
    if path:
        pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
        pathlib.Path(path).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def name_device(kind: str) -> str:
    """Returns a device's name from jax's `device_kind`, which says nothing of a CPU."""
    return cpu_name() if kind == "cpu" else kind


def gpu_name() -> str:
    """Returns the first NVIDIA GPU's name, without waking it by a framework."""
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0].strip()


def cpu_name() -> str:
    """Returns the CPU's model, family and number, as /proc/cpuinfo has them, and how many cores are used."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            text = file.read()
    except OSError:
        text = ""
    fields = dict(re.findall(r"^(model name|cpu family|model)\s*: (.*)$", text, re.MULTILINE))
    name = fields.get("model name", platform.machine())
    family = f" family {fields['cpu family']} model {fields['model']}" if "cpu family" in fields else ""
    return f"{name}{family}, {len(os.sched_getaffinity(0))} cores"


def _versions() -> dict[str, str]:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = ""
    return versions
