"""Where a sweep goes on: its newest whole checkpoint, and what to say about it."""

import importlib.metadata
import logging
from pathlib import Path

from hpjax.store.arrays import Nested
from hpjax.store.checkpoints import PopulationCheckpoints
from hpjax.store.workdir import atomic_write

_MARK = ".saved"
_log = logging.getLogger("hpjax")


def restore_population(checkpoints: PopulationCheckpoints, workdir: Path) -> tuple[Nested, dict]:
    """Returns the arrays and the ledger of the checkpoint to go on from; two empty dicts to begin anew.

    Damaged checkpoints are counted in the ledger's tally; another version of jax is warned of.

    Raises:
      CheckpointError: The sweep has saved checkpoints and none of them is whole.
    """
    restored = checkpoints.restore_latest(expected=(workdir / _MARK).exists())
    if restored is None:
        return {}, {}
    ledger = restored.ledger
    tally = ledger.setdefault("tally", {})
    tally["damaged_checkpoints"] = tally.get("damaged_checkpoints", 0) + len(restored.rejected)
    now, then = importlib.metadata.version("jax"), ledger.get("jax", "")
    if then and then != now:
        _log.warning(
            "the sweep was begun with jax %s, this is jax %s: results may differ slightly", then, now
        )
    return restored.arrays, ledger


def mark_saved(workdir: Path) -> None:
    """Notes that a checkpoint is on disk, so that its loss doesn't look like a new sweep."""
    if not (workdir / _MARK).exists():
        atomic_write(workdir / _MARK, "checkpoints were saved: without one the sweep isn't begun anew\n")
