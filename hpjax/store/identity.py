"""A short name for a sweep that no other has, for services where many sweeps meet."""

import uuid
from pathlib import Path

from hpjax.store.workdir import atomic_write

_FILE = "identity.txt"


def read_identity(workdir: Path) -> str:
    """Returns the workdir's eight hexadecimal digits; drawn when first asked for, kept in `identity.txt`."""
    path = workdir / _FILE
    if not path.exists():
        atomic_write(path, uuid.uuid4().hex[:8] + "\n")
    return path.read_text().strip()
