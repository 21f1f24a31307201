"""What a way to train looks like to the benchmark, and which ways there are."""

import importlib
from typing import Any, NamedTuple, Protocol

from systems.workload import Workload


class Unavailable(Exception):
    """The system can't run here; the message says why."""


class Epoch(NamedTuple):
    """What an epoch of all trials gave."""

    seconds: float
    losses: list[float]  # each trial's mean over the epoch, in nats


class System(Protocol):
    """Trials of a workload, ready to be trained."""

    detail: dict[str, Any]  # what the system chose for itself

    def run_epoch(self, epoch: int) -> Epoch:
        """Trains every trial for an epoch, its examples in an order of its own; waits for the end."""
        ...


# Each module has `create(workload, name) -> System`.
MODULES = {
    "auto_out_of_step": "systems.lanes",
    "fused": "systems.lanes",
    "sequential": "systems.lanes",
    "threads": "systems.lanes",
    "auto": "systems.lanes",
    "vmap": "systems.plain_vmap",
    "torch": "systems.torch_loop",
    "torch_plain": "systems.torch_loop",
    "torch_compile": "systems.torch_loop",
    "torch_func": "systems.torch_func",
    "ceilings": "systems.ceilings",
}
OF_HPJAX = ("fused", "sequential", "threads", "auto")


def create_system(name: str, workload: Workload) -> System:
    """Returns the system `name`, not yet compiled.

    Raises:
      Unavailable: It needs what this machine lacks.
    """
    try:
        return importlib.import_module(MODULES[name]).create(workload, name)
    except ImportError as error:
        raise Unavailable(f"{type(error).__name__}: {error}") from error
