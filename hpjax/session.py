"""One process's work on a sweep: opens its stores, runs its groups, survives a kill between any two lines.

The checkpoint is the truth: it holds the lanes and, in its ledger, how long the append-only logs (the
history and the study's journal) were at that moment. Going on means cutting the logs to that length.
"""

import contextlib
import dataclasses
import json
import logging
import time
from collections.abc import Callable
from typing import Any

import jax

from hpjax.config import Config
from hpjax.data.dataset import Dataset, load_dataset
from hpjax.errors import HpjaxError, WorkdirError
from hpjax.hyperparameters import HYPERPARAMETERS, apply_hyperparameters, static_key
from hpjax.lanes.capacity import Choice, choose_layout
from hpjax.lanes.engine import Engine, Layout, Stopped, Task
from hpjax.lanes.group import create_program, create_task, evaluate_weights, model_arguments, trial_hparams
from hpjax.lanes.program import Program
from hpjax.loop import GroupRun, Slot
from hpjax.report.progress import Progress
from hpjax.search.objective import create_objective
from hpjax.search.plan import GroupPlan, Plan
from hpjax.search.queue import GroupQueue
from hpjax.search.space import parse_space
from hpjax.search.study import open_study
from hpjax.search.trial import Trial
from hpjax.signals import Signals
from hpjax.store.checkpoints import PopulationCheckpoints, TrialCheckpoints
from hpjax.store.records import open_records
from hpjax.store.resume import restore_population
from hpjax.store.rows import EpochRow, TrialRow
from hpjax.store.tables import find_best
from hpjax.store.trackers import make_trackers
from hpjax.store.workdir import Workdir, atomic_write

log = logging.getLogger("hpjax")

TABLES_SHARE = 0.02  # of the wall time may go into rewriting tables
CHECKPOINT_SHARE = 0.03  # of the wall time may go into saving
MOST_WAITING = 64  # trials asked for together


class Interrupted(HpjaxError):
    """A signal asked the sweep to stop; everything is saved and the same command continues it."""

    def __init__(self, signum: int, workdir: object):
        self.signum = signum
        super().__init__(f"interrupted; the same command continues the sweep in {workdir}")


class Session:
    """Stores and study of a sweep, from opening to closing; a context manager.

    Args:
      config: the sweep's.
      workdir: open and locked.
      progress: whether the state of the sweep is shown.
      most_lanes: lanes of one call at most, after memory ran out; 0: as planned.
    """

    def __init__(self, config: Config, workdir: Workdir, progress: bool = False, most_lanes: int = 0):
        self.config, self.workdir, self.most_lanes = config, workdir, most_lanes
        self._stack = contextlib.ExitStack()
        with contextlib.ExitStack() as undo:  # of what was opened, where the rest can't be
            undo.callback(self._stack.close)
            self._open(progress)
            undo.pop_all()

    def _open(self, progress: bool) -> None:
        config, path = self.config, self.workdir.path
        self.space = parse_space(config.sweep.space)
        self.objective = create_objective(config.sweep.metric, config.data.validation_fraction > 0)
        self.checkpoints = self._stack.enter_context(
            PopulationCheckpoints(path / "checkpoints" / "population")
        )
        self.weights = self._stack.enter_context(
            TrialCheckpoints(path / "checkpoints" / "trials", config.checkpoint.keep)
        )
        self._arrays, self._ledger = restore_population(self.checkpoints, path)
        ledger = self._ledger
        self.records = self._stack.enter_context(
            open_records(path, self.space.names, ledger.get("records", 0))
        )
        self.study = open_study(
            config, self.space, self.objective, path / "study.journal", ledger.get("study", 0)
        )
        self.queue = GroupQueue(self._group_of, ledger.get("queue", ()))
        self.trackers = self._stack.enter_context(make_trackers(config.trackers, path))
        self.signals = self._stack.enter_context(Signals())
        self.progress = (
            self._stack.enter_context(Progress(self.study.budget * config.train.epochs)) if progress else None
        )
        self.tally: dict[str, Any] = _empty_tally() | ledger.get("tally", {})
        self.tally["reduced_to_lanes"] = self.most_lanes or self.tally["reduced_to_lanes"]
        self._clock = _Clock()
        self._plans: list[dict] = ledger.get("plans", [])
        self._fingerprints: dict[str, str] = ledger.get("fingerprints", {})
        self._datasets: dict[Any, Dataset] = {}
        self._group = ""
        self._first = Trial(0)
        self._choice = Choice(Layout(1), 1, 0.0, 0.0, 0, {})
        self._clock.refresh("checkpoint")

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def run(self) -> None:
        """Runs every group to its end.

        Raises:
          Interrupted: A signal arrived; everything is saved.
        """
        while (group := self._ledger.get("group") or self.queue.next_group(self.study)) is not None:
            self._run_group(group)
        if not self.tests_each_epoch:
            self._test_winner()
        self.checkpoints.wait()

    def plan(self) -> Plan:
        """Returns the plan of the groups that are known before anything is trained."""
        while (group := self.queue.next_group(self.study)) is not None:
            self._group, self._first = group, self._look_ahead(group)
            config = apply_hyperparameters(self.config, self._first.hyperparameters)
            dataset = self.dataset(config)
            task = create_task(config, dataset, self.tests_each_epoch)
            self._choose(config, create_program(config, dataset), task)
            if self.config.sweep.sampler != "grid":
                break
            while self.queue.take(group, self.study) is not None:
                pass
        return self._plan

    @property
    def _plan(self) -> Plan:
        return Plan(tuple(GroupPlan(**p) for p in self._plans), self.study.budget)

    def dataset(self, config: Config) -> Dataset:
        """Returns a group's data set; loaded once.

        Raises:
          WorkdirError: It isn't the data set that the sweep began with.
        """
        if config.data not in self._datasets:
            dataset = load_dataset(config.data, config.seed)
            key = f"{config.data.name}:{config.data.image_size}"
            if self._fingerprints.setdefault(key, dataset.fingerprint) != dataset.fingerprint:
                was = f"{self.workdir.path} was begun on other images of {dataset.name}"
                raise WorkdirError(f"{was}: restore them, or choose another workdir")
            self._datasets[config.data] = dataset
        return self._datasets[config.data]

    # What the loop asks for: see hpjax.loop.Host.

    def next_trial(self) -> Trial | None:
        """Returns the group's next trial, or None."""
        return self.queue.take(self._group, self.study)

    def start(self, trial: Trial, epoch_offset: int) -> None:
        """Records that a trial was admitted at the group's epoch `epoch_offset`."""
        optimizer = apply_hyperparameters(self.config, trial.hyperparameters).optimizer
        always = {"learning_rate": optimizer.learning_rate, "weight_decay": optimizer.weight_decay}
        self.records.start_trial(
            trial.number,
            {**always, **trial.hyperparameters},
            trial.seed,
            trial.setting,
            trial.seed_index,
            self.tally["groups"],
            epoch_offset,
        )

    def record(self, trial: Trial, row: EpochRow, value: float) -> bool:
        """Records an epoch everywhere; returns whether the trial is to be pruned."""
        self.records.add_epoch(row)
        self.trackers.log_epoch(trial.number, row.epoch, _scalars(row))
        self.tally["epochs"] += 1
        return value == value and self.study.report(trial, row.epoch, value)

    def finish(self, slot: Slot, status: str, message: str, weights: Callable[[], dict]) -> None:
        """Ends a trial everywhere; its weights are kept if it is among the best."""
        trial = slot.trial
        if slot.best > float("-inf") and self.weights.would_keep(trial.number, slot.best):
            self.weights.save(trial.number, weights(), self._metadata(slot), slot.best)
        else:
            self.weights.forget(trial.number)
        best = slot.best if self.objective.maximize else -slot.best
        self.study.tell(trial, status, best if status == "complete" else None)
        self.records.finish_trial(trial.number, status, message)
        hyperparameters = {**trial.hyperparameters, "seed": trial.seed}
        self.trackers.log_hparams(trial.number, hyperparameters, {self.objective.name: best})
        self._note_best(trial, slot.best)

    def boundary(self, run: GroupRun) -> None:
        """Shows progress, writes tables and checkpoints; all lanes are between two epochs."""
        self._show(run)
        self._clock.every(TABLES_SHARE, "tables", self.write_tables)
        stopping = bool(self.signals.received)
        every = self.config.checkpoint.every_epochs
        if stopping or (every and run.epoch % every == 0 and self._minutes_passed()):
            save = lambda: self.save(run, block=stopping)  # noqa: E731
            save() if stopping else self._clock.every(CHECKPOINT_SHARE, "checkpoint", save)
        if stopping:
            raise Interrupted(self.signals.received, self.workdir.path)

    def save(self, run: GroupRun | None, block: bool = False) -> None:
        """Saves the lanes of `run` (None: between two groups) and where the logs stand."""
        self.weights.wait()
        self.tally["saves"] += 1
        arrays = run.engine.snapshot() if run else {"none": jax.numpy.zeros(1)}
        ledger = {
            "records": self.records.offset(),
            "study": self.study.offset(),
            "queue": self.queue.to_list(),
            "tally": dict(self.tally),
            "fingerprints": self._fingerprints,
            "plans": self._plans,
            "group": self._group if run else None,
            "first": vars(self._first) if run else None,
            "layout": vars(self._choice.layout) if run else None,
            "run": run.ledger() if run else None,
            "jax": jax.__version__,
        }
        self.checkpoints.save(self.tally["saves"], arrays, ledger, block)

    def write_tables(self, finished: bool = False, **summary: Any) -> None:
        """Writes every table and the summary."""
        entries = {"objective": self.objective.name, **self.tally, **summary}
        self.records.write_tables(self.table_metric, finished, entries)

    @property
    def lanes_per_call(self) -> int:
        """How many lanes one call of the present program advances."""
        return self._choice.layout.lanes_per_shard

    @property
    def table_metric(self) -> str:
        """The column that ranks trials; for a function of the user's own, the accuracy selected on."""
        if ":" not in self.objective.name:
            return self.objective.name
        return "validation_accuracy" if self.config.data.validation_fraction > 0 else "test_accuracy"

    @property
    def tests_each_epoch(self) -> bool:
        """Whether the test split is evaluated each epoch; else it is read once, for the winner."""
        return self.config.data.validation_fraction == 0

    def _run_group(self, group: str) -> None:
        self._group = group
        first = self._ledger.get("first")
        self._first = Trial(**first) if first else self._look_ahead(group)
        config = apply_hyperparameters(self.config, self._first.hyperparameters)
        dataset = self.dataset(config)
        program = create_program(config, dataset)
        run = self._open_group(config, dataset, program)
        self._ledger, self._arrays = {}, {}
        try:
            run.run()
        except Stopped:
            self.checkpoints.wait()
            raise Interrupted(self.signals.received, self.workdir.path) from None
        self._close_group(run, program)

    def _test_winner(self) -> None:
        """Reads the test split once, for the trial that was selected on validation."""
        best = find_best(self.records.trials(), self.table_metric)
        if best is None or best.final_test_loss is not None or best.trial not in self.weights.trials():
            return
        config = apply_hyperparameters(self.config, self._searched(best))
        dataset = self.dataset(config)
        weights, _ = self.weights.load(best.trial)
        sums = evaluate_weights(config, dataset, weights, best.seed)
        self.records.set_test(best.trial, float(sums.loss / sums.count), float(sums.correct / sums.count))

    def _searched(self, trial: TrialRow) -> dict[str, Any]:
        return {name: value for name, value in trial.hyperparameters.items() if name in self.space.names}

    def _look_ahead(self, group: str) -> Trial:
        if self.config.sweep.sampler == "grid":
            self.queue.look_ahead(self.study, MOST_WAITING)
        return self.queue.peek(group)[0]

    def _open_group(self, config: Config, dataset: Dataset, program: Program) -> GroupRun:
        task = create_task(config, dataset, self.tests_each_epoch)
        hparams = trial_hparams(config, self._first.seed)
        saved = self._ledger.get("run")
        if saved:
            layout = self._limit(Layout(**self._ledger["layout"]))
            self._choice = Choice(layout, len(saved["slots"]), 0.0, 0.0, 0, {})
            self._plans[-1] |= {"lanes_per_call": layout.lanes_per_shard}
            self._write_plan()
        else:
            self._choose(config, program, task)
            self._write_plan()
            log.info("%s", self._plan)
        engine = Engine(program, task, hparams, self._choice.num_lanes, self._choice.layout, self._stop_now)
        run = GroupRun(config, engine, self.objective, tuple(task.evaluated), self)
        if saved:
            run.resume(saved, self._arrays)
        return run

    def _choose(self, config: Config, program: Program, task: Task) -> None:
        lanes, hparams, wanted = self.config.lanes, trial_hparams(config, self._first.seed), self._wanted()
        asked = min(lanes.count or wanted, self.most_lanes or wanted)
        self._choice = dataclasses.replace(self._choice, layout=Layout(asked))
        if self.most_lanes:  # what may not fit isn't measured
            lanes = dataclasses.replace(lanes, count=asked, strategy="fused")
        self._choice = choose_layout(
            program, task, hparams, wanted, lanes.count, lanes.strategy, lanes.devices
        )
        self._plans.append(dataclasses.asdict(self._plan_group(config, task)))

    def _limit(self, layout: Layout) -> Layout:
        """Returns the layout with no more lanes a call than fit and than the config, now, asks for."""
        limits = (layout.lanes_per_shard, self.most_lanes, self.config.lanes.count)
        most = 1 if self.config.lanes.strategy == "sequential" else min(n for n in limits if n)
        return dataclasses.replace(layout, lanes_per_shard=most)

    def _write_plan(self) -> None:
        text = json.dumps(self._plan.to_dict(), indent=2) + "\n"
        atomic_write(self.workdir.path / "plan.json", text)

    def _plan_group(self, config: Config, task: Task) -> GroupPlan:
        swept = self._first.hyperparameters
        static = {name: value for name, value in swept.items() if not HYPERPARAMETERS[name].dynamic}
        grid = self.config.sweep.sampler == "grid"
        choice = self._choice
        return GroupPlan(
            static,
            len(self.queue.peek(self._group)) if grid else None,
            choice.num_lanes,
            choice.layout.lanes_per_shard,
            choice.layout.devices,
            task.steps_per_epoch,
            config.train.epochs,
            choice.memory_bytes,
            choice.lane_step_seconds.get(choice.layout.lanes_per_shard, 0.0),
            choice.speedup,
        )

    def _wanted(self) -> int:
        if self.config.sweep.sampler == "grid":
            return len(self.queue.peek(self._group))
        return min(self.study.budget - self.study.asked + len(self.queue.peek(self._group)), MOST_WAITING)

    def _close_group(self, run: GroupRun, program: Program) -> None:
        self.tally["groups"] += 1
        self.tally["lane_epochs"] += run.lane_epochs
        self.tally["busy_lane_epochs"] += run.busy_lane_epochs
        self.tally["traces"] += program.traces["train", run.engine.num_lanes]
        self._group = ""
        self.save(None)
        self._clock.refresh("checkpoint")

    def _group_of(self, trial: Trial) -> str:
        return static_key(apply_hyperparameters(self.config, trial.hyperparameters))

    def _metadata(self, slot: Slot) -> dict:
        config = apply_hyperparameters(self.config, slot.trial.hyperparameters)
        dataset = self.dataset(config)
        model = model_arguments(config, dataset)
        return {"trial": vars(slot.trial), "epoch": slot.epoch, "model": model, "classes": dataset.classes}

    def _note_best(self, trial: Trial, score: float) -> None:
        if self.tally["best_score"] is None or score > self.tally["best_score"]:
            self.tally["best_score"], self.tally["best_trial"] = score, trial.number

    def _minutes_passed(self) -> bool:
        return self._clock.since("checkpoint") >= 60 * self.config.checkpoint.every_minutes

    def _stop_now(self) -> bool:
        """Whether to leave an epoch unfinished: only where the last boundary was saved."""
        return bool(self.signals.received) and self._clock.fresh("checkpoint")

    def _show(self, run: GroupRun) -> None:
        self._clock.age()
        if self.progress is not None:
            best = self.tally["best_trial"]
            text = (
                ""
                if best is None
                else f"trial {best}, {self.objective.name} {abs(self.tally['best_score']):.3f}"
            )
            rate = run.images_per_second
            self.progress.update(self.tally["epochs"], len(run.busy), rate, text, f"epoch {run.epoch}")


class _Clock:
    """Spaces out work so that it takes at most a share of the wall time."""

    def __init__(self):
        self._last: dict[str, float] = {}
        self._cost: dict[str, float] = {}
        self._fresh: set[str] = set()
        self._start = time.monotonic()

    def every(self, share: float, name: str, work: Callable[[], None]) -> None:
        """Does the work unless it was done too recently for its cost."""
        if self.since(name) < self._cost.get(name, 0.0) / share:
            return
        begin = time.monotonic()
        work()
        self._last[name] = time.monotonic()
        self._cost[name] = self._last[name] - begin
        self._fresh.add(name)

    def since(self, name: str) -> float:
        """Returns the seconds since the work was last done, or since the start."""
        return time.monotonic() - self._last.get(name, self._start)

    def age(self) -> None:
        """Says that a new boundary has come: nothing that was done before is up to date."""
        self._fresh.clear()

    def refresh(self, name: str) -> None:
        """Says that nothing has happened since the work was done."""
        self._fresh.add(name)

    def fresh(self, name: str) -> bool:
        """Returns whether the work was done at the last boundary."""
        return name in self._fresh


def _empty_tally() -> dict[str, Any]:
    names = ("saves", "epochs", "groups", "lane_epochs", "busy_lane_epochs", "traces")
    counts = dict.fromkeys((*names, "damaged_checkpoints", "reduced_to_lanes"), 0)
    return {**counts, "best_trial": None, "best_score": None}


def _scalars(row: EpochRow) -> dict[str, float | None]:
    names = (
        "train_loss",
        "test_loss",
        "test_accuracy",
        "validation_loss",
        "validation_accuracy",
        "epoch_seconds",
    )
    return {name: getattr(row, name) for name in names}
