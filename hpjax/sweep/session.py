"""What one process opens to work on a sweep, and what it saves: plain stores, and a tally.

The checkpoint is the truth: it holds the lanes and, in its ledger, how long the append-only logs (the
history and the study's journal) were at that moment. Going on means cutting the logs to that length.
"""

import contextlib
import dataclasses
import heapq
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import jax

from hpjax.config.fields import Config
from hpjax.config.hyperparameters import apply_hyperparameters
from hpjax.config.parsing import MAX_SEED, to_dict
from hpjax.errors import CheckpointError, HpjaxError
from hpjax.lanes.engine import Layout
from hpjax.lanes.program import Program
from hpjax.report.page import PAGE_NAME, PageSource, write_page
from hpjax.report.progress import Progress
from hpjax.report.style import leaving_out
from hpjax.search.opening import open_study
from hpjax.search.pbt import check_population
from hpjax.search.plan import GroupPlan, Plan
from hpjax.search.queue import Queue, create_queue, make_group_key, may_be_side_by_side
from hpjax.search.space import count_static
from hpjax.search.study import Study
from hpjax.search.trial import Trial
from hpjax.store.changes import WEIGHTS
from hpjax.store.checkpoints import POPULATIONS_KEPT, PopulationCheckpoints
from hpjax.store.files import read_json
from hpjax.store.kept import KeptWeights, most_kept
from hpjax.store.parts import SavedLanes
from hpjax.store.records import Records, load_trials, open_records
from hpjax.store.resume import restore_population
from hpjax.store.rows import TrialRow
from hpjax.store.states import KeptStates
from hpjax.store.trackers import Trackers, make_trackers
from hpjax.store.typed import is_dict_of, read_as
from hpjax.store.workdir import JOURNAL_NAME, STATES, SUMMARY_NAME, WITNESS_NAME, Workdir
from hpjax.sweep.datasets import Datasets
from hpjax.sweep.extension import check_extension, find_stages
from hpjax.sweep.inputs import Inputs, check_files, hash_files, parse_inputs
from hpjax.sweep.leader import Leader
from hpjax.sweep.ledgers import Tally, list_runs, name_arrays, parse_layout
from hpjax.sweep.pacing import Pace
from hpjax.sweep.signals import Signals
from hpjax.sweep.spec import create_spec
from hpjax.sweep.surroundings import describe_surroundings
from hpjax.sweep.workers import Arrays, Here, LaneLimit, Workers


class Interrupted(HpjaxError):
    """A signal asked the sweep to stop; everything is saved and the same command continues it."""

    def __init__(self, signum: int, workdir: object):
        self.signum = signum
        super().__init__(f"interrupted; the same command continues the sweep in {workdir}")


NO_LIMIT, HERE = LaneLimit(), Here()


@dataclass(frozen=True)
class Stores:
    """Everything on disk that a sweep writes to, and what waits to be run."""

    study: Study
    records: Records
    weights: KeptWeights
    trackers: Trackers
    states: KeptStates
    queue: Queue
    checkpoints: PopulationCheckpoints


@dataclass(frozen=True)
class Group:
    """Trials that share a program.

    Attributes:
      number: how many were begun before it; its plan is that one of the sweep's.
      key: what they have in common; see `hpjax.config.hyperparameters.static_key`.
      first: one of them.
      layout: how their lanes lie on the devices.
    """

    number: int
    key: str
    first: Trial
    layout: Layout

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON values, for a ledger."""
        entries = {"number": self.number, "key": self.key}
        return {**entries, "first": vars(self.first), "layout": vars(self.layout)}


@dataclass(frozen=True)
class RunState:
    """A group's run between two epochs.

    Attributes:
      group: the group.
      ledger: what `GroupRun.resume` takes.
      lanes: what `Crew.restore` takes.
    """

    group: Group
    ledger: dict
    lanes: Arrays | SavedLanes


class Session:
    """Stores of a sweep, from opening to closing; a context manager.

    Attributes:
      spec: what is run.
      files: hashes of the code and the weights that shape its results.
      workdir: open and locked.
      limit: lanes of a device at most, after memory ran out.
      data: arrays that were given in a call, if any.
      workers: who trains.
      name: tells it from others that they train for.
      lanes_in_use: those of the group that runs, or failed last; with fewer it would need less memory.
      stores: what is written to.
      tally: what is counted.
      leader: which trial ranks first so far.
      datasets: what is learned.
      plans: of the groups that were begun so far, by their numbers.
      programs: of groups, the longest unused first.
      pace: spaces out side work.
      signals: whether the sweep is to stop.
      progress: shows the state of the sweep; None: nothing is shown.
      found: the runs that a checkpoint found under way and that aren't taken up yet.
      stages: what the sweep had up to that checkpoint; nothing before the first one.
    """

    def __init__(
        self,
        config: Config,
        workdir: Workdir,
        progress: bool = False,
        limit: LaneLimit = NO_LIMIT,
        data: Any = None,
        workers: Workers = HERE,
    ):
        self.files = hash_files(config)  # before any of it is run
        self.spec, self.workdir, self.limit, self.data = create_spec(config), workdir, limit, data
        self.workers, self.name = workers, uuid.uuid4().hex
        self.lanes_in_use = LaneLimit(1, 1)
        self._opened = time.monotonic()
        self._noted = self._opened  # when the tally's wall time was brought up to date
        self.pace, self.leader = Pace(), Leader()
        self.programs: dict[str, Program] = {}
        with contextlib.ExitStack() as stack:
            self._open(stack)
            self.signals = stack.enter_context(Signals())
            total = self.num_trials * config.train.epochs
            self.progress = stack.enter_context(Progress(total)) if progress else None
            self._stack = stack.pop_all()

    def _open(self, stack: contextlib.ExitStack) -> None:
        spec, config, path = self.spec, self.spec.config, self.workdir.path
        folder = path / "checkpoints"
        population = PopulationCheckpoints(folder / "population", witness=path / WITNESS_NAME)
        checkpoints = stack.enter_context(population)
        kept = (config.checkpoint.keep, config.sweep.seeds, spec.keeps_winner)
        weights = stack.enter_context(KeptWeights(folder / "trials", *kept))
        ledger = self._restore(checkpoints)
        states = KeptStates(path / STATES, config.train.epochs, config.checkpoint.states)
        stack.enter_context(states)
        records = stack.enter_context(open_records(path, spec.space.names, ledger.get("records")))
        stages, mark = self.stages, ledger.get("study")
        study = open_study(config, spec.space, spec.objective, path / JOURNAL_NAME, mark, stages)
        past = records.trials()
        check_population(config, spec.space, study.budget)
        queue = create_queue(config, study, ledger.get("queue", ()), [trial.trial for trial in past])
        trackers = stack.enter_context(make_trackers(config.trackers, path))
        self.stores = Stores(study, records, weights, trackers, states, queue, checkpoints)
        self._reopen(past)
        going_on = {trial["number"] for trial in queue.to_list()}
        for trial in past:
            score = spec.score(spec.ranking.value(trial))
            if trial.status == "running" or trial.trial in going_on:
                self.leader.update(trial.trial, score)
            else:
                self.leader.finish(trial.trial, score)
                weights.recall(trial.trial, trial.setting, score)

    def _reopen(self, past: Sequence[TrialRow]) -> None:
        """Lets trials that are complete wait for a lane where they are to have more epochs now."""
        epochs, stores = self.spec.config.train.epochs, self.stores
        if not self.stages or (before := self.stages[-1].epochs) == epochs:
            return
        waiting = {trial["number"] for trial in stores.queue.to_list()}
        ended = [trial for trial in past if trial.status != "running" and trial.trial not in waiting]
        complete = [trial for trial in ended if trial.status == "complete"]
        self.tally.fewer_epochs += (len(ended) - len(complete)) * (epochs - before)
        stores.study.reopen({trial.trial for trial in complete})
        for row in complete:
            stores.queue.add(stores.study.recall(row.trial))

    def _restore(self, checkpoints: PopulationCheckpoints) -> dict[str, Any]:
        arrays, ledger = restore_population(checkpoints, self.workdir.path)
        path, config = self.workdir.path, self.spec.config

        def read_past() -> list[TrialRow]:
            return load_trials(path, ledger.get("records"))

        try:
            self._take_up(ledger, arrays)
            self.stages = find_stages(ledger, config, read_past)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise CheckpointError(
                f"the ledger in {checkpoints.directory} isn't one that this version of hpjax writes "
                f"({error}): restore it, or choose another workdir"
            ) from error
        if begun := parse_inputs(ledger):
            check_files(path, begun.files, self.files, config)
        self.datasets.check()
        if self.stages:
            check_extension(self.spec, path, self.stages[-1], read_past)
        self.workdir.accept()
        return ledger

    def _take_up(self, ledger: dict[str, Any], arrays: dict[str, Any]) -> None:
        """Takes what a ledger says, after checking every type: it is JSON from a disk."""
        self.tally = read_as(Tally, ledger.get("tally", {}))
        if self.tally.saves < 0:
            raise ValueError(f"saves can't be {self.tally.saves}")
        self.tally.damaged_checkpoints += ledger.get("passed_over", 0)
        self.tally.reduced_to_lanes = self.limit.at_once or self.tally.reduced_to_lanes
        self.pace.refresh("checkpoint")
        self.plans = [read_as(GroupPlan, plan) for plan in ledger.get("plans", [])]
        if not is_dict_of(str, fingerprints := ledger.get("fingerprints", {})):
            raise ValueError("fingerprints are no texts by name")
        self.datasets = Datasets(self.spec.config, self.workdir.path, fingerprints, self.data)
        entries = list_runs(ledger, arrays)
        slots = [slot for entry, _ in entries for slot in entry["ledger"]["slots"]]
        for trial in [*ledger.get("queue", ()), *(slot["trial"] for slot in slots if slot)]:
            self._parse_trial(trial)
        self.found = [
            RunState(self._parse_group(entry["group"]), entry["ledger"], lanes) for entry, lanes in entries
        ]

    def _parse_group(self, entry: dict[str, Any]) -> Group:
        """Returns the group that `Group.to_dict` described, under the key that it has now.

        Where a file of the user's has moved, the key is another one.
        """
        first, number = self._parse_trial(entry["first"]), entry.get("number", self.tally.groups)
        if not (isinstance(number, int) and 0 <= number < len(self.plans)):
            raise ValueError(f"there is no plan of group {number}")
        key = make_group_key(self.spec.config, self.spec.space)(first.hyperparameters)
        return Group(number, key, first, parse_layout(entry["layout"]))

    def _parse_trial(self, values: Any) -> Trial:
        trial = read_as(Trial, values)
        apply_hyperparameters(self.spec.config, trial.hyperparameters)
        if not 0 <= trial.seed <= MAX_SEED:
            raise ValueError(f"a seed can't be {trial.seed}")
        return trial

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Has a signal end the sweep at once: for what the same command does again, and nothing else is on.

        Raises:
          Interrupted: A signal arrived.
        """
        try:
            with self.signals.at_once():
                yield
        except KeyboardInterrupt as error:  # another library's, perhaps, in place of a `Signalled`
            signum = getattr(error, "signum", self.signals.received)
            if not signum:
                raise
            raise Interrupted(signum, self.workdir.path) from None

    def save(self, runs: Sequence[RunState] = (), block: bool = False) -> None:
        """Saves the lanes of all runs under way (none: between two groups) and where the logs stand."""
        stores, tally = self.stores, self.tally
        stores.weights.wait()
        stores.states.wait()
        self._note_time()
        tally.saves += 1
        runs = [*runs, *self.found]
        ledger = {
            "records": stores.records.mark(),
            "study": stores.study.mark(),
            "queue": stores.queue.to_list(),
            "tally": dataclasses.asdict(tally),
            "fingerprints": self.datasets.fingerprints,
            "files": self.files,
            "plans": [dataclasses.asdict(plan) for plan in self.plans],
            "stages": [dataclasses.asdict(stage) for stage in stores.study.stages],
            "runs": [{"group": run.group.to_dict(), "ledger": run.ledger} for run in runs],
            "jax": jax.__version__,
        }
        stores.checkpoints.save(tally.saves, name_arrays([run.lanes for run in runs]), ledger, block)

    def begin_setup(self) -> float:
        """Returns when the next group's setup began: that of the first one, as the session was opened."""
        return time.monotonic() if self.plans else self._opened

    def _note_time(self) -> None:
        now = time.monotonic()
        self.tally.wall_seconds += now - self._noted
        self._noted = now

    def check_weights(self) -> None:
        """Raises WorkdirError where the pretrained weights have changed since the sweep began."""
        if WEIGHTS in self.files:
            config = self.spec.config
            check_files(self.workdir.path, self.files, hash_files(config), config)

    def write_tables(self, finished: bool = False, more: Mapping[str, Any] = MappingProxyType({})) -> None:
        """Writes every table and the summary; `more` are further entries of it."""
        self._note_time()
        shares = {"utilisation": self.tally.utilisation, "layouts": [plan.layout() for plan in self.plans]}
        shares |= {"planned_seconds": self.plan.total_seconds}
        swept = {"objective": self.spec.objective.name, "swept": list(self.spec.space.names)}
        inputs = Inputs(self.datasets.fingerprints, self.files)._asdict()
        made = {"inputs": inputs, "machine": self.workers.describe().machine}
        made |= {"made_with": {**describe_surroundings(), "device": self._name_device()}}
        known = {**swept, **self.datasets.describe(), **dataclasses.asdict(self.tally), **shares, **made}
        self.stores.records.write_tables(self.spec.ranking, finished, {**known, **more})

    def _name_device(self) -> str:
        name, size = self.workers.describe().name, self.workers.size
        return name if size == 1 else f"{size} workers, each {name}"

    def write_page(self) -> None:
        """Writes the page that shows the tables; where that fails, a line says so."""
        path, log = self.workdir.path, self.stores.records
        rows = log.trials(), log.epochs(), log.copies(), log.occupancy
        with leaving_out(PAGE_NAME):
            write_page(PageSource(path, to_dict(self.spec.config), read_json(path / SUMMARY_NAME), *rows))

    @property
    def plan(self) -> Plan:
        """The plan of the groups that were opened so far."""
        groups, sweep, spec = tuple(self.plans), self.spec.config.sweep, self.spec
        workers = self.workers.size if may_be_side_by_side(spec.config) else 1
        populations = sum(heapq.nlargest(workers, (g.population_bytes for g in groups)))
        weights = max((g.weights_bytes for g in groups), default=0)
        lanes = sum(heapq.nlargest(workers, (g.lanes for g in groups)))
        kept = spec.config.checkpoint.keep
        kept = most_kept(kept, sweep.seeds, sweep.final_seeds, lanes, spec.keeps_winner)
        states = max((g.population_bytes // g.lanes for g in groups), default=0)
        states *= self.num_trials if spec.config.checkpoint.states else 0
        # One more of each while a new one is written and the one that it replaces is still there.
        disk = (POPULATIONS_KEPT + 1) * populations + (kept + 1) * weights + states
        return Plan(groups, self.num_trials, disk, count_static(spec.space), workers)

    @property
    def num_trials(self) -> int:
        """How many trials there will be, the winner's further seeds included."""
        return self.stores.study.budget + self.spec.config.sweep.final_seeds
