"""What runs in a worker's process: it has an engine, does as it is told and keeps nothing.

Ray makes an actor of it; nothing but where it is, and arrays in the object store, is of Ray here.
"""

import contextlib
import dataclasses
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

import hpjax
from hpjax.config.fields import Config
from hpjax.config.user_files import keep_own_code
from hpjax.data.dataset import Dataset
from hpjax.errors import HpjaxError, WorkdirError
from hpjax.lanes.capacity import Choice
from hpjax.lanes.engine import Engine, Layout, Stopped
from hpjax.lanes.exhaustion import is_out_of_memory
from hpjax.lanes.group import create_program, create_task
from hpjax.lanes.memory_left import share_with
from hpjax.lanes.program import Program
from hpjax.lanes.task import Task
from hpjax.ops.compiler import use_compilation_cache
from hpjax.store.parts import Part, SavedLanes, can_read_parts, can_write_parts, write_part
from hpjax.sweep.datasets import Datasets
from hpjax.sweep.inputs import hash_files
from hpjax.sweep.preflight import blaming_models
from hpjax.sweep.workers import Asked, Device, Here, LaneLimit, Work, find_or_create


class LanesGone(Exception):
    """A worker was restarted since it was given lanes."""


@dataclasses.dataclass(frozen=True)
class Shared:
    """Arrays that lie in the cluster's object store."""

    reference: Any

    def fetch(self) -> Any:
        """Returns them."""
        import ray

        return ray.get(self.reference)


class Worker:
    """What runs in a worker's process; every method returns plain values and arrays of the host."""

    def __init__(self) -> None:
        self._sweep = ""  # what its data sets and programs belong to
        self._datasets: Datasets | None = None
        self._cores: list[int] = []  # that it keeps to
        self._programs: dict[str, Program] = {}
        self._engine: Engine | None = None
        self._config = Config()
        self._stop = threading.Event()  # what it does is wanted no more
        self._calls = 0  # under way; those aside don't count

    def locate(self, folder: str) -> tuple[str, str]:
        """Returns its node, and the version of hpjax there.

        Args:
          folder: what relative paths start from, if there is such a folder here.
        """
        import ray

        self._stop.clear()
        with contextlib.suppress(OSError):
            os.chdir(folder)
        return ray.get_runtime_context().get_node_id(), hpjax.__version__

    def keep_to(self, part: int, parts: int) -> None:
        """Uses only one of so many equal parts of its cores and memory: others have the rest.

        The cores for good: XLA's threads are those of the cores that there are when it is first used.
        """
        share_with(parts)
        if hasattr(os, "sched_setaffinity") and not self._cores:
            cores = sorted(os.sched_getaffinity(0))
            each = max(1, len(cores) // parts)
            first = part * each % len(cores)
            self._cores = cores[first : first + each]
            os.sched_setaffinity(0, self._cores)

    def describe(self) -> Device:
        """Returns what it trains on."""
        with self._at_work():
            use_compilation_cache()
            return Here().describe()

    def available_bytes(self) -> int:
        """Returns how much memory it has left."""
        return Here().available_bytes()

    def ping(self) -> bool:
        """Answers while another method runs; returns whether one does that may take long."""
        return self._calls > 0

    def stop(self) -> None:
        """Has another method that runs end soon: nobody waits for its answer."""
        self._stop.set()

    def choose_layout(self, work: Work, asked: Asked, limit: LaneLimit) -> Choice:
        """Returns how it is to train its lanes."""
        self._engine = None  # what is left of the group before would take room
        with self._at_work(), self._open(work) as (program, task):
            return Here().choose_layout(work, program, task, asked, limit)

    def create_lanes(self, work: Work, num_lanes: int, layout: Layout) -> None:
        """Makes lanes; those that it had are gone."""
        with self._at_work(), self._open(work) as (program, task):
            self._stop.clear()
            self._engine = None  # before there are others
            self._engine = Here().create_lanes(work, program, task, num_lanes, layout, self._stop.is_set)
            self._engine.program.traces.clear()  # those of lanes before are counted

    def drop_lanes(self) -> None:
        """Lets go of its lanes."""
        self._engine = None

    def call(self, name: str, *args: Any) -> Any:
        """Returns what a method, or property, of the engine gives."""
        if self._engine is None:
            raise LanesGone
        with self._at_work(), _picklable(), blaming_models(self._config):
            found = getattr(self._engine, name)
            return jax.device_get(found(*args) if callable(found) else found)

    def can_write(self, folder: str) -> bool:
        """Returns whether it can write its lanes into a folder of the workdir."""
        with self._at_work():  # a file server that hangs is no call that was lost
            return can_write_parts(Path(folder))

    def can_read(self, folder: str) -> bool:
        """Returns whether it can read lanes in a folder of the workdir."""
        with self._at_work():
            return can_read_parts(Path(folder))

    def write_lanes(self, folder: str) -> Part:
        """Writes its lanes into a folder of the workdir; returns when they are on disk."""
        arrays = self.call("snapshot")
        with self._at_work(), _picklable():
            return write_part(Path(folder), arrays)

    def restore_lanes(self, saved: SavedLanes, first: int, last: int) -> None:
        """Has its lanes go on from lanes `first` to before `last` of the saved ones."""
        with self._at_work(), _picklable():
            arrays = saved.load(first, last)
        self.call("restore", arrays)

    @contextlib.contextmanager
    def _at_work(self) -> Iterator[None]:
        self._calls += 1
        try:
            yield
        finally:
            self._calls -= 1

    @contextlib.contextmanager
    def _open(self, work: Work) -> Iterator[tuple[Program, Task]]:
        """Enters what a group is compiled for, of the same code, weights and images as the sweep's."""
        with _picklable(), keep_own_code(work.code), blaming_models(work.config):
            if work.sweep != self._sweep:
                self._sweep, self._config, self._datasets = work.sweep, work.config, None
                self._programs.clear()
            config, dataset = work.of_trial, self._load(work)
            program = find_or_create(self._programs, work.key, lambda: create_program(config, dataset))
            # Not kept: with it go its images, also from the device.
            yield program, create_task(config, dataset, work.tests_each_epoch)

    def _load(self, work: Work) -> Dataset:
        if self._datasets is None:
            if hash_files(work.config) != work.files:
                raise WorkdirError(
                    "a worker has other weights than the sweep: files that the config names must be the "
                    "same, under the same path, on every node"
                )
            given = work.given.fetch() if isinstance(work.given, Shared) else work.given
            self._datasets = Datasets(work.config, Path("the sweep"), {}, given)
        self._datasets.fingerprints.update(work.fingerprints)
        self._datasets.keep_only([work.of_trial])
        return self._datasets.load(work.of_trial)


@contextlib.contextmanager
def _picklable() -> Iterator[None]:
    """Has errors be such as another process can read, memory that ran out among them."""
    try:
        yield
    except (HpjaxError, Stopped):
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise MemoryError(str(error)) from None
        raise RuntimeError(f"in a worker: {type(error).__name__}: {error}") from error
