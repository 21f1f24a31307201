"""Where a sweep goes on: its newest whole checkpoint that the logs go with, and what to say about it."""

import importlib.metadata
import logging
from pathlib import Path
from typing import Any

from hpjax.store.arrays import Nested
from hpjax.store.checkpoints import PopulationCheckpoints
from hpjax.store.marks import read_marked
from hpjax.store.workdir import HISTORY_NAME, JOURNAL_NAME

LOGS = {"records": HISTORY_NAME, "study": JOURNAL_NAME}  # by the key of their marks in a ledger
_log = logging.getLogger("hpjax")


def restore_population(checkpoints: PopulationCheckpoints, workdir: Path) -> tuple[Nested, dict]:
    """Returns the arrays and the ledger of the checkpoint to go on from; two empty dicts to begin anew.

    Damaged checkpoints are counted in the ledger's `passed_over`; another version of jax is warned of.

    Raises:
      CheckpointError: The sweep has saved checkpoints, and none of them is whole and goes with the logs.
    """
    restored = checkpoints.restore_latest(fits=lambda ledger: _check_logs(workdir, ledger))
    if restored is None:
        return {}, {}
    ledger = restored.ledger
    ledger["passed_over"] = len(restored.rejected)
    now, then = importlib.metadata.version("jax"), ledger.get("jax", "")
    if then and then != now:
        _log.warning(
            "the sweep was begun with jax %s, this is jax %s: results may differ slightly", then, now
        )
    return restored.arrays, ledger


def _check_logs(workdir: Path, ledger: dict[str, Any]) -> None:
    for key, name in LOGS.items():
        read_marked(workdir / name, ledger.get(key))
