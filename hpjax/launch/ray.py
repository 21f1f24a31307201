"""Workers as actors of a Ray cluster: one per GPU, or some on the processors of each node.

The process that was started stays what it is without them: it alone asks the study, writes the workdir and
knows the trials. A worker has an engine, does as it is told and keeps nothing: where one is lost, the sweep
goes on from its last checkpoint with those that are left, and with the lost one again once Ray has restarted
it, perhaps on another node.
"""

import dataclasses
import logging
import math
import os
import secrets
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

import hpjax
from hpjax.cli.host_memory import kept_memory_environment
from hpjax.errors import DeviceError, UsageError
from hpjax.lanes.capacity import Choice
from hpjax.lanes.engine import Layout, Stopped
from hpjax.lanes.program import Program
from hpjax.lanes.task import Task
from hpjax.launch.lanes import SpreadLanes
from hpjax.launch.worker import LanesGone, Shared, Worker
from hpjax.store.parts import SavedLanes
from hpjax.sweep.workers import Arrays, Asked, Crew, Device, LaneLimit, Lanes, Work, WorkersLost

log = logging.getLogger("hpjax")

POLL = 0.5  # seconds between two looks at signals and workers while an answer is awaited
PING = 10.0  # seconds at most after which a worker that is at work is asked whether it is alive
START = 120.0  # seconds that workers are waited for at first
LONGEST = 86400.0  # seconds of a deadline
MOST_BUSY = 600.0  # seconds that a worker which answers pings is waited for
MOST_IDLE = 5.0  # deadlines for which a worker may have nothing to do: large arrays may be on their way to it


class RayWorkers:
    """The workers of a cluster; a context manager that lets go of them.

    Args:
      address: of the cluster; empty: one is started on this machine, and ends with this process.
      count: how many workers; 0: one per GPU of the cluster, or one per node where it has none.
      deadline: seconds that a worker may stay silent before it counts as lost; a day at most.

    Raises:
      UsageError: Ray isn't installed.
      DeviceError: There is no cluster at the address, or it has no room for a single worker.
    """

    def __init__(self, address: str = "", count: int = 0, deadline: float = 60.0):
        self._ray, self._is_own = _connect(address)
        _leave_gpus()
        self._deadline, self._refused = min(deadline, LONGEST), ""
        self._given: tuple[str, Any] = ("", None)
        self._pings: dict[Any, tuple[Any, float]] = {}
        self._idle: dict[Any, float] = {}  # since when those have nothing to do that were asked for something
        self._lent: set[Any] = set()  # those that have a group
        self._nodes: dict[Any, str] = {}  # where those are that work
        self._met: set[Any] = set()  # those that have ever been there
        self._asked = -math.inf  # when the cluster was asked last which nodes are to end
        self._leaving: set[str] = set()  # what it said
        self._missing: dict[Any, Any] = {}  # what those will answer that aren't there yet
        try:
            self._working: dict[Any, Device] = {}
            self._actors = self._start(count)
            self._working = self._wait_for(START)
            if not self._working:
                why = self._refused or "the cluster has no room for one"
                raise DeviceError(f"no worker started within {START:.0f} s: {why}")
            if self.size < len(self._actors):
                log.warning("%d of %d workers are there", self.size, len(self._actors))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "RayWorkers":
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the workers, and of the cluster if it was reached for them alone."""
        for actor in getattr(self, "_actors", ()):
            self._ray.kill(actor)
        if self._is_own:
            self._ray.shutdown()

    @property
    def are_elsewhere(self) -> bool:
        """True: they are other processes."""
        return True

    @property
    def size(self) -> int:
        """How many work."""
        return len(self._working)

    def describe(self) -> Device:
        """Returns what the first of them trains on."""
        return next(iter(self._working.values()))

    def welcome(self) -> None:
        """Takes in those that have come since."""
        come = self._list_come()
        if come:
            self._working |= self._meet(come, self._deadline)

    def lend(self, num: int) -> "RayCrew":
        """Returns so many that have no group, for one."""
        actors = [actor for actor in self._working if actor not in self._lent][:num]
        self._lent.update(actors)
        return RayCrew(self, {actor: self._working[actor] for actor in actors})

    def take_back(self, crew: Crew) -> None:
        """A group is at its end: those that it had may have another one."""
        assert isinstance(crew, RayCrew)
        self._lent.difference_update(crew.actors)

    def are_leaving(self) -> bool:
        """Returns whether a worker's node is to end soon, as its cluster has been told."""
        if time.monotonic() - self._asked >= POLL:
            self._leaving = _list_draining(self._ray)
            self._asked = time.monotonic()
        return any(self._nodes[actor] in self._leaving for actor in self._working)

    def recover(self) -> None:
        """Waits for those that Ray restarts, a while for all, and then until there is one."""
        self._pings.clear()
        self._idle.clear()
        self._lent.clear()
        self._leaving = _list_draining(self._ray)
        for actor in [actor for actor in self._working if self._nodes[actor] in self._leaving]:
            self._ray.kill(actor, no_restart=False)  # to be started on another node
        self._working = self._wait_for(self._deadline)
        if not self._working:
            log.warning("no worker is left: waiting for Ray to start one")
        while not self._working:
            time.sleep(POLL)
            self._working = self._wait_for(self._deadline)
        log.warning("%d of %d workers are there", self.size, len(self._actors))

    def ask(
        self, calls: Sequence[tuple[Any, str, tuple]], should_stop: Any = None, to_the_end: bool = False
    ) -> list[Any]:
        """Returns what the workers answer, in the order of the calls; they work side by side.

        Args:
          calls: worker, method and arguments of each.
          should_stop: asked from time to time.
          to_the_end: where one fails, the others are waited for: what they do can't be stopped.

        Raises:
          WorkersLost: One of them died, or was silent for longer than the deadline.
          Stopped: `should_stop()` turned true; the answers are left behind.
        """
        errors, answers, waiting, failed = self._ray.exceptions, {}, {}, []
        try:
            futures = [getattr(actor, name).remote(*args) for actor, name, args in calls]
            waiting = {future: actor for future, (actor, *_) in zip(futures, calls, strict=True)}
            while waiting:
                done, _ = self._ray.wait(list(waiting), num_returns=len(waiting), timeout=POLL)
                for future in done:
                    actor = waiting.pop(future)
                    self._pings.pop(actor, None)
                    self._idle.pop(actor, None)
                    try:
                        answers[future] = self._ray.get(future)
                    except errors.RayTaskError as error:
                        failed.append(error)
                if failed and not (to_the_end and waiting):  # else a failure is told before all have answered
                    raise failed[0]
                if waiting and should_stop is not None and should_stop():
                    raise Stopped
                self._check_alive(set(waiting.values()))
            return [answers[future] for future in futures]
        except errors.RayTaskError as error:
            if isinstance(error.cause, LanesGone):
                raise WorkersLost("a worker was lost and started again") from error
            raise error.cause from error
        except errors.RayError as error:
            raise WorkersLost(f"a worker was lost ({_first_line(error)})") from error
        finally:
            for actor in set(waiting.values()):  # nobody waits for these any more
                actor.stop.remote()

    def _check_alive(self, actors: set[Any]) -> None:
        """Raises WorkersLost where a worker hasn't answered for longer than the deadline; it is restarted."""
        now = time.monotonic()
        for actor in actors:
            future, sent = self._pings.setdefault(actor, (None, now))
            if future is None and now - sent > min(PING, self._deadline / 2):
                self._pings[actor] = (actor.ping.remote(), now)
            elif future is not None and self._ray.wait([future], timeout=0)[0]:
                self._pings[actor] = (None, now)
                if self._ray.get(future):
                    self._idle.pop(actor, None)
                elif now - self._idle.setdefault(actor, now) > MOST_IDLE * self._deadline:
                    self._ray.kill(actor, no_restart=False)
                    raise WorkersLost("a worker never got what it was asked for")
            elif future is not None and now - sent > self._deadline:
                self._ray.kill(actor, no_restart=False)
                raise WorkersLost(f"a worker was silent for {self._deadline:.0f} s")

    def send(self, work: Work) -> Work:
        """Returns the work with arrays that were given once for all workers."""
        if work.given is None:
            return work
        if self._given[0] != work.sweep:
            self._given = (work.sweep, self._ray.put(work.given))
        return dataclasses.replace(work, given=Shared(self._given[1]))

    def _start(self, count: int) -> list[Any]:
        gpus = int(self._ray.cluster_resources().get("GPU", 0))
        alive = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        nodes = [resources for resources in alive if resources.get("CPU", 0) >= 1]  # a head may offer none
        workers = count or gpus or len(nodes)
        per_node = -(-workers // max(1, len(nodes)))
        cores = min((int(resources["CPU"]) for resources in nodes), default=0)
        needs = {"num_gpus": 1, "num_cpus": 1} if gpus else {"num_cpus": max(1, cores // per_node)}
        options = {
            **needs,
            "max_restarts": -1,
            "scheduling_strategy": "SPREAD",
            "runtime_env": {"env_vars": _environment(bool(gpus))},
        }
        self._has_gpus = bool(gpus)
        actor = self._ray.remote(concurrency_groups={"aside": 1})(_actor_class(self._ray)).options(**options)
        return [actor.remote() for _ in range(max(1, workers))]  # one that finds no room is told of

    def _list_come(self) -> list[Any]:
        """Returns the workers that were missing and are there."""
        come = []
        for actor, future in list(self._missing.items()):
            if self._ray.wait([future], timeout=0)[0]:
                try:
                    self._ray.get(future)
                    come.append(actor)
                except self._ray.exceptions.RayError:  # told at once while Ray restarts it
                    self._missing[actor] = actor.locate.remote(os.getcwd())
        return come

    def _wait_for(self, seconds: float) -> dict[Any, Device]:
        """Returns the workers that answer in time, and what they train on."""
        self._nodes.clear()
        return self._meet(self._actors, seconds)

    def _meet(self, actors: Sequence[Any], seconds: float) -> dict[Any, Device]:
        """Returns what those train on that answer in time; others have been met before, or are missing."""
        folder = os.getcwd()
        located = self._answers("locate", {actor: (folder,) for actor in actors}, seconds)
        self._missing |= {a: a.locate.remote(folder) for a in actors if a not in located}
        self._missing = {a: future for a, future in self._missing.items() if a not in located}
        for _, version in located.values():
            if version != hpjax.__version__:
                raise DeviceError(f"a worker has hpjax {version}, this process {hpjax.__version__}")
        seen = Counter(self._nodes.values())
        self._nodes |= {actor: node for actor, (node, _) in located.items()}
        self._met.update(located)
        on_node = Counter(self._nodes.values())
        parts = {}
        for actor, (node, _) in located.items():
            if self._has_gpus:
                break  # cores only feed them: all may use all of them
            parts[actor] = seen[node], on_node[node]
            seen[node] += 1
        self._answers("keep_to", parts, seconds)
        ready = self._answers("describe", {actor: () for actor in located}, seconds)
        kinds = {repr(device.machine) for device in ready.values()}
        if len(kinds) > 1:
            log.warning("workers differ (%s): so do the last bits of what they give", "; ".join(kinds))
        return {actor: ready[actor] for actor in actors if actor in ready}

    def _answers(self, name: str, calls: Mapping[Any, tuple], seconds: float) -> dict[Any, Any]:
        """Returns what a method gives of those that answer in time, or are busy but alive, by worker.

        Args:
          name: of the method.
          calls: its arguments, by worker.
          seconds: to wait; one that Ray restarts meanwhile is asked again.
        """
        found: dict[Any, Any] = {}
        waiting = {actor: getattr(actor, name).remote(*args) for actor, args in calls.items()}
        begun = time.monotonic()
        until = begun + seconds
        while waiting and time.monotonic() < begun + MOST_BUSY:
            done, _ = self._ray.wait(list(waiting.values()), num_returns=len(waiting), timeout=POLL)
            restarting = []
            for actor in [actor for actor, future in waiting.items() if future in done]:
                try:
                    found[actor] = self._ray.get(waiting.pop(actor))
                except self._ray.exceptions.RayError as error:
                    self._refused = _first_line(error)
                    if isinstance(error, self._ray.exceptions.ActorUnavailableError):
                        restarting.append(actor)
            if time.monotonic() < until:
                if restarting:
                    time.sleep(POLL)  # that it is away is told at once
                waiting |= {actor: getattr(actor, name).remote(*calls[actor]) for actor in restarting}
                continue
            # One that was told to stop may still compile; one that is to be started has no ping either. Those
            # that aren't taken for working now are asked, too: else one that lost a call would never be back.
            pings = {actor: actor.ping.remote() for actor in waiting if actor in self._met}
            asked = list(pings.values())
            alive = self._ray.wait(asked, num_returns=len(asked), timeout=PING)[0] if asked else []
            waiting = {actor: waiting[actor] for actor, ping in pings.items() if ping in alive}
            for actor in waiting:
                if self._is_lost(waiting[actor], pings[actor]):
                    self._ray.kill(actor, no_restart=False)
                    waiting[actor] = getattr(actor, name).remote(*calls[actor])
            until = time.monotonic() + seconds
        return found

    def _is_lost(self, call: Any, ping: Any) -> bool:
        """Returns whether a worker that answered a ping does nothing, and still doesn't answer a call.

        Calls of a worker are delivered in their order: one that is lost with a node holds up those after it.
        """
        try:
            return not self._ray.get(ping) and not self._ray.wait([call], timeout=0)[0]
        except self._ray.exceptions.RayError:
            return False  # it is being restarted: the call will say so


class RayCrew:
    """Some of the workers, for a group of their own; see `hpjax.sweep.workers.Crew`.

    Args:
      workers: all of them.
      devices: what each of these trains on.
    """

    def __init__(self, workers: RayWorkers, devices: dict[Any, Device]):
        self._workers, self._devices, self.actors = workers, devices, list(devices)

    @property
    def size(self) -> int:
        """How many they are."""
        return len(self.actors)

    def available_bytes(self) -> int:
        """Returns how much memory the first of them has left."""
        return self._workers.ask([(self.actors[0], "available_bytes", ())])[0]

    def choose_layout(
        self, work: Work, program: Program, task: Task, asked: Asked, limit: LaneLimit
    ) -> Choice:
        """Returns what the first of them has measured."""
        del program, task
        first, arguments = self.actors[0], (self._workers.send(work), asked, limit)
        (choice,) = self._workers.ask([(first, "choose_layout", arguments)])
        # What is decided later by its times is remembered here, and is true of such a device alone.
        key = choice.key and f"{choice.key} on {self._devices[first].machine['processor']}"
        return dataclasses.replace(choice, key=key)

    def create_lanes(
        self,
        work: Work,
        program: Program,
        task: Task,
        num_lanes: int,
        layout: Layout,
        should_stop: Callable[[], bool],
    ) -> SpreadLanes:
        """Returns lanes that are spread evenly over all of them."""
        actors, work = self.actors[:num_lanes], self._workers.send(work)
        return SpreadLanes(self._workers, actors, work, program, task, num_lanes, layout, should_stop)

    def join(self, crew: Crew) -> None:
        """Takes in the workers of another one."""
        assert isinstance(crew, RayCrew)
        self._devices |= crew._devices
        self.actors += crew.actors

    def spread(self, lanes: Lanes, num_lanes: int) -> None:
        """Spreads lanes over all of them; those beyond the ones that there are, are idle."""
        assert isinstance(lanes, SpreadLanes)
        lanes.take_in([actor for actor in self.actors if actor not in lanes.workers], num_lanes)

    def save(self, lanes: Lanes, folder: Path | None) -> Arrays | SavedLanes:
        """Has each write its lanes into a folder of the workdir; returns them where one doesn't see it."""
        assert isinstance(lanes, SpreadLanes) and folder is not None
        parts = lanes.write(folder.absolute())
        return lanes.snapshot() if parts is None else SavedLanes(folder, parts)

    def restore(self, lanes: Lanes, saved: Arrays | SavedLanes) -> None:
        """Puts back what `save` returned; each reads its own lanes from the workdir where all see it."""
        assert isinstance(lanes, SpreadLanes)
        if not isinstance(saved, SavedLanes):
            lanes.restore(saved)
            return
        there = dataclasses.replace(saved, folder=saved.folder.absolute())
        if all(self._workers.ask([(actor, "can_read", (str(there.folder),)) for actor in self.actors])):
            lanes.read(there)
        else:
            log.warning("a worker can't read %s: the lanes pass through this process", there.folder)
            lanes.restore(saved.load())


def _list_draining(ray: Any) -> set[str]:
    """Returns the nodes that take no more work, since they are to end: preempted, or stopped by their owner.

    The function is Ray's own, and the one that its training library asks; there is no public one.
    """
    try:
        return set(ray._private.state.state.get_draining_nodes())
    except (AttributeError, ray.exceptions.RayError):  # of a version without it, or while the head is away
        return set()


def _leave_gpus() -> None:
    """Keeps this process on its CPU: it trains nothing, and a worker needs all of a GPU's memory."""
    jax.config.update("jax_platforms", "cpu")
    if jax.default_backend() != "cpu":
        log.warning("this process uses a GPU already; make workers before anything is computed")


def _connect(address: str) -> tuple[Any, bool]:
    """Returns the module, connected to a cluster, and whether it wasn't before.

    Raises:
      UsageError: It isn't installed.
      DeviceError: There is no cluster at the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to its makers
    if address:
        _check_reachable(address)
    else:  # of this cluster alone; Ray would write one into the home
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    try:
        import ray
    except ImportError as error:
        raise UsageError("--launcher=ray needs Ray: pip install 'hpjax[ray]'") from error
    if ray.is_initialized():
        return ray, False
    # Ray takes SIGTERM for itself.
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address:
            ray.init(address=address, **quiet)
        else:
            ray.init(address="local", include_dashboard=False, **quiet)
    except Exception as error:  # Ray's own are of many classes
        token = "" if os.environ.get("RAY_AUTH_MODE") else " (one with tokens needs RAY_AUTH_MODE=token)"
        place = address or "this machine"
        raise DeviceError(f"no Ray cluster at {place}: {_first_line(error)}{token}") from error
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                signal.signal(number, handler)
    return ray, True


def _check_reachable(address: str) -> None:
    """Raises DeviceError where nothing listens at `HOST:PORT`; Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except (OSError, OverflowError) as error:
            raise DeviceError(f"no Ray cluster at {address}: {error}") from error


def _actor_class(ray: Any) -> type:
    """Returns the class of actors; one thread answers pings while the other trains."""

    class Actor(Worker):
        ping = ray.method(concurrency_group="aside")(Worker.ping)
        stop = ray.method(concurrency_group="aside")(Worker.stop)

    return Actor


def _environment(has_gpus: bool) -> dict[str, str]:
    """Returns the variables that a worker's process starts with: its devices, allocator and cache."""
    kept = kept_memory_environment(os.environ) or {}
    own = {name: value for name, value in kept.items() if os.environ.get(name) != value}
    own |= {name: value for name, value in os.environ.items() if name.startswith("HPJAX_")}
    return {**own, "JAX_PLATFORMS": "" if has_gpus else "cpu"}


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
