"""A short name for a sweep that no other has, for services where many sweeps meet."""

import re
import uuid
from pathlib import Path

from hpjax.errors import WorkdirError
from hpjax.store.files import check_file, read_file
from hpjax.store.workdir import atomic_write

_FILE = "identity.txt"


def read_identity(workdir: Path) -> str:
    """Returns the workdir's eight hexadecimal digits; drawn when first asked for, kept in `identity.txt`."""
    path = workdir / _FILE
    if not check_file(path):
        atomic_write(path, uuid.uuid4().hex[:8] + "\n")
    identity = read_file(path).decode(errors="replace").strip()
    if not re.fullmatch("[0-9a-f]{8}", identity):  # it becomes a part of names and addresses
        raise WorkdirError(f"{path} is damaged: restore it, or remove it, and the sweep gets another name")
    return identity
