"""All groups of a sweep: which of them run when, on which workers, and when they are saved.

Groups follow each other, each with all workers. Where there are several workers, and nothing that is asked
for depends on what came before, groups run side by side instead, each with workers of its own: only their
epochs do, in threads; what they give is written down here, by one thread, as it comes. To be saved, each
waits at the end of its epoch for the others: a checkpoint holds all of them between two epochs, and where the
logs stand.
"""

import concurrent.futures
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from hpjax.lanes.engine import Stopped
from hpjax.search.queue import LOOKAHEAD, may_be_side_by_side
from hpjax.sweep.events import Upkeep
from hpjax.sweep.groups import Opener, OpenGroup
from hpjax.sweep.judging import judge_winner
from hpjax.sweep.preflight import check_groups
from hpjax.sweep.protocol import Order, combine
from hpjax.sweep.selection import forget_kept, read_test, select_winner
from hpjax.sweep.session import Interrupted, RunState, Session
from hpjax.sweep.workers import WorkersLost, deal

Waiting = tuple[str, RunState | None, int]  # a group, where a checkpoint found it, trials that wait

MOST_THREADS = 1024  # one for each group that runs
_ORDERS = list(Order)  # the stronger one comes later


def run_groups(session: Session) -> None:
    """Runs every group to its end, those that a checkpoint found running first.

    Raises:
      Interrupted: A signal arrived; everything is saved.
    """
    if not session.tally.saves:  # begins, or begins anew after it ended before its first checkpoint
        with session.interruptible():
            idle = check_groups(session.spec.config, session.datasets.load)
            session.tally.without_effect = idle
    with Scheduler(session) as scheduler:
        scheduler.run()
        select_winner(session)
        scheduler.run()
    with session.interruptible():
        read_test(session)
        judge_winner(session)
    forget_kept(session)
    session.stores.checkpoints.wait()


class Scheduler:
    """Runs groups; a context manager that leaves none running.

    Args:
      session: the sweep's.
    """

    def __init__(self, session: Session):
        self._session, self._upkeep = session, Upkeep(session)
        self._open: list[OpenGroup] = []
        self._order = Order.GO_ON
        self._abandoned = threading.Event()
        self._opener = Opener(session, self._upkeep, self._should_stop)
        several = session.workers.size > 1
        self._side_by_side = several and may_be_side_by_side(session.spec.config)
        self._threads = ThreadPoolExecutor(MOST_THREADS) if self._side_by_side else None

    def __enter__(self) -> "Scheduler":
        return self

    def __exit__(self, *error: Any) -> None:
        self._abandoned.set()  # groups that are open now are so because something failed, or is to stop
        if self._threads is not None:
            self._threads.shutdown()
        for group in self._open:
            self._session.workers.take_back(group.crew)

    def run(self) -> None:
        """Runs until no trial waits.

        Raises:
          Interrupted: A signal arrived; everything is saved.
        """
        try:
            while self._begin_epochs():
                if (group := self._next_ended()) is not None:
                    self._end_epoch(group)
        except Stopped:
            session = self._session
            session.stores.checkpoints.wait()
            session.write_tables()  # as new as the history: an epoch that was left unfinished is in neither
            raise Interrupted(session.signals.received, session.workdir.path) from None

    def _begin_epochs(self) -> bool:
        """Has every group train that may; returns whether there is one."""
        self._listen()
        if self._order is not Order.GO_ON:
            if any(group.epoch is not None for group in self._open):
                return True  # the others wait
            self._save()
        self._enlarge()
        for group in self._open:
            self._train(group)
        self._open_groups()
        return bool(self._open)

    def _listen(self) -> None:
        """Notes what others than the groups ask for."""
        if self._open and self._session.signals.received:
            self._order = Order.STOP
        elif self._order is Order.GO_ON and self._open and self._session.workers.are_leaving():
            self._order = Order.SAVE

    def _train(self, group: OpenGroup) -> None:
        """Begins an epoch, unless one is under way or the sweep is to stop."""
        if group.epoch is None and not self._session.signals.received:
            group.epoch = self._submit(group.run.run_epoch)

    def _submit(self, function: Callable[[], Any]) -> Future:
        if self._threads is not None:
            return self._threads.submit(function)
        done: Future = Future()
        done.set_result(function())
        return done

    def _next_ended(self) -> OpenGroup | None:
        """Waits for the end of an epoch; returns a group that ended one, or None where none runs one."""
        epochs = [group.epoch for group in self._open if group.epoch is not None]
        ended = concurrent.futures.wait(epochs, return_when=FIRST_COMPLETED).done
        group = next((group for group in self._open if group.epoch in ended), None)
        if group is not None:  # else the first ones, of short epochs, would leave the others no turn
            self._open.remove(group)
            self._open.append(group)
        return group

    def _end_epoch(self, group: OpenGroup) -> None:
        session, run, epoch = self._session, group.run, group.epoch
        assert epoch is not None
        session.lanes_in_use, group.epoch = group.in_use, None
        result = epoch.result()
        if self._side_by_side:
            # From here on no epoch is left unfinished; where one may have been, this one isn't recorded.
            was_saved = session.pace.fresh("checkpoint")
            session.pace.age()
            if session.signals.received and was_saved:
                raise Stopped
        run.end_epoch(*result)
        statuses = [other.run.status() for other in self._open]
        order = self._upkeep.boundary(combine(statuses, newest=run.status()))
        self._order = max(order, self._order, key=_ORDERS.index)
        group.idle_since = time.monotonic()
        if not any(run.slots):
            self._close(group)

    def _close(self, group: OpenGroup) -> None:
        self._open.remove(group)
        self._opener.close(group)
        if not self._open and self._order is Order.GO_ON:
            self._session.save()
            self._session.pace.refresh("checkpoint")

    def _save(self) -> None:
        """Saves all groups, which are between two epochs.

        Raises:
          Stopped: The sweep is to stop.
          WorkersLost: One of them is about to be.
        """
        last, leaving = self._order is Order.STOP, self._session.workers.are_leaving()
        now, size = time.monotonic(), self._session.workers.size
        waited = sum(group.crew.size * (now - group.idle_since) for group in self._open) / size
        self._session.pace.begin("checkpoint", ago=waited)  # what it costs: fetching the lanes, too
        checkpoints, elsewhere = self._session.stores.checkpoints, self._session.workers.are_elsewhere
        folder = checkpoints.begin_parts() if elsewhere else None
        try:
            self._upkeep.save(self._list_states(folder), block=last or leaving)
        except BaseException:
            if folder is not None:
                checkpoints.abandon_parts()
            raise
        self._order = Order.GO_ON
        if last:
            raise Stopped
        if leaving:
            raise WorkersLost("a worker's node is about to end; all lanes are saved")

    def _list_states(self, folder: Path | None) -> list[RunState]:
        """Returns what all groups go on from; those elsewhere save their lanes at the same time."""
        states = [self._submit(partial(group.state, folder)) for group in self._open]
        concurrent.futures.wait(states)  # for all: nobody writes any more where one has failed
        for lost in (state.exception() for state in states):
            if isinstance(lost, WorkersLost):  # rather than what else has failed: the sweep goes on
                raise lost
        return [state.result() for state in states]

    def _enlarge(self) -> None:
        """Has workers that no group waits for train trials of one that runs, and is between two epochs."""
        session, workers = self._session, self._session.workers
        # After memory ran out, lanes that are spread in another way might be too many again.
        if not self._side_by_side or session.signals.received or any(session.limit):
            return
        count = session.stores.queue.count_waiting
        ready = [group for group in self._open if group.epoch is None and count(group.group.key)]
        if not ready or self._list_waiting():
            return
        workers.welcome()
        group = max(ready, key=lambda group: count(group.group.key))
        size, room = group.crew.size, self._room()
        more = min(room, self._opener.count_lanes(group, size + room) - size)
        if more > 0:  # a worker without a lane is of no use
            self._opener.enlarge(group, workers.lend(more))

    def _room(self) -> int:
        """Returns how many workers have no group."""
        return self._session.workers.size - sum(group.crew.size for group in self._open)

    def _open_groups(self) -> None:
        """Opens groups as long as there are trials, and workers that have no group."""
        session, workers = self._session, self._session.workers
        while not self._open or (self._side_by_side and not session.signals.received):
            waiting = self._list_waiting()
            if waiting:
                workers.welcome()
            room = self._room()
            if not (waiting and room):
                return
            key, found, _ = waiting[0]
            crew = workers.lend(self._share(waiting, room))
            if found is not None:
                session.found.pop(0)
            try:
                # Measuring may take a minute; where others run, they are saved before the sweep stops.
                with nullcontext() if self._open else session.interruptible():
                    group = self._opener.open(key, found, crew, self._open)
            except BaseException:
                workers.take_back(crew)
                raise
            self._open.append(group)
            if any(group.run.slots):
                self._train(group)  # while the next one is opened
            else:  # its trials are elsewhere by now
                self._close(group)

    def _share(self, waiting: Sequence[Waiting], room: int) -> int:
        """Returns how many workers the first group that waits is to have.

        One that a checkpoint found gets as many as it had, if all of them can: its trials are under way.
        """
        if not self._side_by_side:
            return room
        had = [self._session.plans[run.group.number].workers for run in self._session.found]
        if had and sum(had) <= room:
            return had[0]
        return deal([trials for *_, trials in waiting], room)[0]

    def _list_waiting(self) -> list[Waiting]:
        """Returns the groups that may be opened, where a checkpoint found them, and how many trials wait."""
        found, queue = self._session.found, self._session.stores.queue
        waiting: list[Waiting] = []
        for run in found:
            busy = sum(slot is not None for slot in run.ledger["slots"])
            waiting.append((run.group.key, run, busy + queue.count_waiting(run.group.key)))
        if not self._side_by_side:
            key = None if found else queue.next_group()
            return waiting if key is None else [(key, None, queue.count_waiting(key))]
        queue.look_ahead(LOOKAHEAD * self._session.workers.size)
        taken = {group.group.key for group in self._open} | {run.group.key for run in found}
        waiting += [(key, None, queue.count_waiting(key)) for key in queue.groups() if key not in taken]
        return waiting

    def _should_stop(self) -> bool:
        """Whether epochs are left unfinished; asked by the threads in which they run."""
        return self._abandoned.is_set() or self._upkeep.stop_now()
