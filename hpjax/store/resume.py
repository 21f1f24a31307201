"""Where a sweep goes on: its newest whole checkpoint, and what to say about it."""

import importlib.metadata
import logging
from pathlib import Path

from hpjax.errors import WorkdirError
from hpjax.store.arrays import Nested
from hpjax.store.checkpoints import PopulationCheckpoints
from hpjax.store.workdir import SUMMARY_NAME, read_json

_log = logging.getLogger("hpjax")


def restore_population(checkpoints: PopulationCheckpoints, workdir: Path) -> tuple[Nested, dict]:
    """Returns the arrays and the ledger of the checkpoint to go on from; two empty dicts to begin anew.

    Damaged checkpoints are counted in the ledger's tally; another version of jax is warned of.

    Raises:
      CheckpointError: The sweep has saved checkpoints and none of them is whole.
    """
    restored = checkpoints.restore_latest(expected=_has_saved(workdir))
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


def _has_saved(workdir: Path) -> bool:
    """Whether a checkpoint must be there: each save waits for the one before it."""
    try:
        return read_json(workdir / SUMMARY_NAME).get("saves", 0) >= 2
    except WorkdirError:
        return False
