"""What one process opens to work on a sweep, and what it saves: stores, study, data sets.

The checkpoint is the truth: it holds the lanes and, in its ledger, how long the append-only logs (the
history and the study's journal) were at that moment. Going on means cutting the logs to that length.
"""

import contextlib
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

from hpjax.config.fields import Config
from hpjax.config.hyperparameters import apply_hyperparameters, static_key
from hpjax.data.dataset import Dataset, load_dataset
from hpjax.errors import HpjaxError, WorkdirError
from hpjax.lanes.engine import Layout
from hpjax.lanes.program import Program
from hpjax.report.progress import Progress
from hpjax.search.objective import create_objective
from hpjax.search.pbt import check_population
from hpjax.search.plan import GroupPlan, Plan
from hpjax.search.queue import GroupQueue, most_unfinished
from hpjax.search.space import count_static, parse_space
from hpjax.search.study import open_study
from hpjax.search.trial import Trial
from hpjax.store.checkpoints import (
    POPULATIONS_KEPT,
    WITNESS_NAME,
    PopulationCheckpoints,
    TrialCheckpoints,
)
from hpjax.store.records import open_records
from hpjax.store.resume import restore_population
from hpjax.store.rows import OBJECTIVE
from hpjax.store.settings import SettingRow, summarize_settings
from hpjax.store.trackers import make_trackers
from hpjax.store.workdir import JOURNAL_NAME, Workdir
from hpjax.sweep.loop import GroupRun
from hpjax.sweep.pacing import Pace
from hpjax.sweep.signals import Signals


class Interrupted(HpjaxError):
    """A signal asked the sweep to stop; everything is saved and the same command continues it."""

    def __init__(self, signum: int, workdir: object):
        self.signum = signum
        super().__init__(f"interrupted; the same command continues the sweep in {workdir}")


@dataclass(frozen=True)
class Group:
    """Trials that share a program.

    Attributes:
      key: what they have in common; see `hpjax.config.hyperparameters.static_key`.
      first: one of them.
      layout: how their lanes lie on the devices.
    """

    key: str
    first: Trial
    layout: Layout


@dataclass(frozen=True)
class Saved:
    """A group that a checkpoint found running.

    Attributes:
      group: the group.
      run: what `GroupRun.resume` takes.
      arrays: its lanes.
    """

    group: Group
    run: dict
    arrays: dict[str, np.ndarray]


class Lanes(NamedTuple):
    """Lanes of one device; as a limit, 0 leaves it as planned."""

    at_once: int = 0  # that the calls under way advance, with all that a step needs
    resident: int = 0  # whose state is in its memory


class Session:
    """Stores and study of a sweep, from opening to closing; a context manager.

    Args:
      config: the sweep's.
      workdir: open and locked.
      progress: whether the state of the sweep is shown.
      most: lanes of a device at most, after memory ran out.
    """

    def __init__(self, config: Config, workdir: Workdir, progress: bool = False, most: Lanes | None = None):
        self.config, self.workdir, self.most = config, workdir, most or Lanes()
        self.lanes = Lanes(1, 1)  # in use now; fewer would take less memory
        self.space = parse_space(config.sweep.space)
        self.objective = create_objective(config.sweep.metric, config.data.validation_fraction > 0)
        self.pace = Pace()
        self.programs: dict[str, Program] = {}  # of groups, the longest unused first
        self._datasets: dict[Any, Dataset] = {}
        with contextlib.ExitStack() as stack:
            self._open(stack, progress)
            self._stack = stack.pop_all()

    def _open(self, stack: contextlib.ExitStack, progress: bool) -> None:
        config, path = self.config, self.workdir.path
        folder = path / "checkpoints"
        self.checkpoints = stack.enter_context(
            PopulationCheckpoints(folder / "population", witness=path / WITNESS_NAME)
        )
        self.weights = stack.enter_context(TrialCheckpoints(folder / "trials", self.num_kept))
        ledger = self._restore()
        self.records = stack.enter_context(open_records(path, self.space.names, ledger.get("records")))
        journal, mark = path / JOURNAL_NAME, ledger.get("study")
        self.study = open_study(config, self.space, self.objective, journal, mark)
        check_population(config, self.space, self.study.budget)
        self.queue = GroupQueue(self._group_of, ledger.get("queue", ()), most_unfinished(config))
        self.trackers = stack.enter_context(make_trackers(config.trackers, path))
        self.signals = stack.enter_context(Signals())
        total = self.num_trials * config.train.epochs
        self.progress = stack.enter_context(Progress(total)) if progress else None

    def _restore(self) -> dict[str, Any]:
        arrays, ledger = restore_population(self.checkpoints, self.workdir.path)
        self.tally: dict[str, Any] = _empty_tally() | ledger.get("tally", {})
        self.tally["reduced_to_lanes"] = self.most.at_once or self.tally["reduced_to_lanes"]
        self.pace.refresh("checkpoint")
        self.plans: list[dict] = ledger.get("plans", [])
        self._fingerprints: dict[str, str] = ledger.get("fingerprints", {})
        self._saved = _parse_saved(ledger["group"], arrays) if ledger.get("group") else None
        return ledger

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def take_saved(self) -> Saved | None:
        """Returns the group that the checkpoint found running, once; then None."""
        saved, self._saved = self._saved, None
        return saved

    def save(self, group: Group | None = None, run: GroupRun | None = None, block: bool = False) -> None:
        """Saves a group's lanes (None: between two groups) and where the logs stand."""
        self.weights.wait()
        self.tally["saves"] += 1
        arrays = run.engine.snapshot() if run else {"none": jax.numpy.zeros(1)}
        ledger = {
            "records": self.records.mark(),
            "study": self.study.mark(),
            "queue": self.queue.to_list(),
            "tally": dict(self.tally),
            "fingerprints": self._fingerprints,
            "plans": self.plans,
            "group": _describe_group(group, run) if group and run else None,
            "jax": jax.__version__,
        }
        self.checkpoints.save(self.tally["saves"], arrays, ledger, block)

    def seconds_of_writing(self) -> float:
        """Returns how long the newest checkpoint's writing has kept cores from training, so far."""
        return self.checkpoints.seconds if jax.default_backend() == "cpu" else 0.0

    def write_tables(self, finished: bool = False, **summary: Any) -> None:
        """Writes every table and the summary."""
        shares = {"utilisation": self._utilisation(), "layouts": [p.layout() for p in self.plan.groups]}
        swept = {"objective": self.objective.name, "swept": list(self.space.names)}
        entries = {**swept, **self._describe_data(), **self.tally, **shares, **summary}
        self.records.write_tables(self.table_metric, finished, entries)

    @property
    def plan(self) -> Plan:
        """The plan of the groups that were opened so far."""
        groups = tuple(GroupPlan(**p) for p in self.plans)
        populations = max((g.population_bytes for g in groups), default=0)
        weights = max((g.weights_bytes for g in groups), default=0)
        # One more of each while a new one is written and the one that it replaces is still there.
        disk = (POPULATIONS_KEPT + 1) * populations + (self.num_kept + 1) * weights
        return Plan(groups, self.num_trials, disk, count_static(self.space))

    @property
    def num_trials(self) -> int:
        """How many trials there will be, the winner's further seeds included."""
        return self.study.budget + self.config.sweep.final_seeds

    @property
    def num_kept(self) -> int:
        """How many trials' weights are kept: at least those of the winner where it is still to be tested."""
        keep = self.config.checkpoint.keep
        return keep if self.tests_each_epoch else max(keep, 1)

    def is_final(self, trial: Trial) -> bool:
        """Returns whether a trial is one of the further seeds that the winner is run with at the end."""
        return trial.seed_index >= self.config.sweep.seeds

    def find_winner(self) -> SettingRow | None:
        """Returns the setting that ranks first; None if none was measured."""
        rows = summarize_settings(self.records.trials(), self.table_metric)
        return next((row for row in rows if row.winner), None)

    @property
    def table_metric(self) -> str:
        """The column that ranks trials: the objective's own where it is a function of the user's."""
        return OBJECTIVE if ":" in self.objective.name else self.objective.name

    @property
    def tests_each_epoch(self) -> bool:
        """Whether the test split is evaluated each epoch; else it is read once, for the winner."""
        return self.config.data.validation_fraction == 0

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

    def any_dataset(self) -> Dataset:
        """Returns a data set that was loaded already; their images differ in size alone."""
        return next(iter(self._datasets.values()), None) or self.dataset(self.config)

    def _describe_data(self) -> dict[str, Any]:
        if not self._datasets:
            return {}
        dataset = self.any_dataset()
        validation = 0 if dataset.validation is None else len(dataset.validation)
        images = {"train": len(dataset.train), "validation": validation, "test": len(dataset.test)}
        about = {"name": dataset.name, "notice": dataset.notice, "skipped_images": len(dataset.skipped)}
        return {"data": {**about, "images": images}}

    def _utilisation(self) -> float | None:
        """Returns the share of lanes that were busy in the groups that ended; None before the first."""
        lane_epochs = self.tally["lane_epochs"]
        return self.tally["busy_lane_epochs"] / lane_epochs if lane_epochs else None

    def _group_of(self, trial: Trial) -> str:
        return static_key(apply_hyperparameters(self.config, trial.hyperparameters))


def _describe_group(group: Group, run: GroupRun) -> dict[str, Any]:
    return {
        "key": group.key,
        "first": vars(group.first),
        "layout": vars(group.layout),
        "run": run.ledger(),
    }


def _parse_saved(entry: dict[str, Any], arrays: dict[str, np.ndarray]) -> Saved:
    group = Group(entry["key"], Trial(**entry["first"]), Layout(**entry["layout"]))
    return Saved(group, entry["run"], arrays)


def _empty_tally() -> dict[str, Any]:
    names = ("saves", "epochs", "groups", "lane_epochs", "busy_lane_epochs", "traces")
    counts = dict.fromkeys((*names, "damaged_checkpoints", "reduced_to_lanes", "fewer_epochs"), 0)
    return {**counts, "best_trial": None, "best_score": None, "final_setting": None, "not_tested": []}
