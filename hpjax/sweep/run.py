"""A sweep: a study of trials, run group by group in fused lanes, in one workdir."""

import contextlib
import dataclasses
import functools
import gc
import logging
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpjax.cli.allocator import advise
from hpjax.config import Config, to_dict
from hpjax.config.paths import expand_path
from hpjax.config.user_files import keep_own_code
from hpjax.data.cache import watching_decoding
from hpjax.data.own import GIVEN
from hpjax.errors import ConfigError, DeviceError, HpjaxError, OutOfMemory
from hpjax.lanes.exhaustion import is_out_of_memory
from hpjax.ops.compiler import use_compilation_cache
from hpjax.report.curves import label_trials
from hpjax.report.diagnosis import Finding, create_facts, diagnose, format_findings
from hpjax.report.figures import draw_figures
from hpjax.report.heading import create_info
from hpjax.report.notebook import create_figure_of, create_frame, describe_in_html
from hpjax.report.outcome import describe_outcome, describe_standings
from hpjax.report.progress import counting
from hpjax.report.style import leaving_out, plain_drawing, sparing
from hpjax.search.plan import Plan
from hpjax.store.files import read_json
from hpjax.store.judged import load_judged
from hpjax.store.ranking import Ranking, parse_ranking
from hpjax.store.records import load_copies, load_epochs, load_trials
from hpjax.store.rows import EpochRow, TrialRow
from hpjax.store.settings import SettingRow, summarize_settings
from hpjax.store.steps import list_numbers
from hpjax.store.workdir import CONFIG_NAME, POPULATION, SUMMARY_NAME, Resume, Workdir, open_workdir
from hpjax.sweep.datasets import Datasets
from hpjax.sweep.inputs import Files, Inputs, check_changed, check_files, find_inputs, hash_files
from hpjax.sweep.planning import halve_lanes, plan_groups
from hpjax.sweep.planning_for import ForeignPlan, plan_groups_for
from hpjax.sweep.preflight import blaming_models, check_config
from hpjax.sweep.scheduler import run_groups
from hpjax.sweep.selection import find_setting
from hpjax.sweep.session import HERE, Interrupted, Session
from hpjax.sweep.workers import LaneLimit, Workers, WorkersLost

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["Interrupted", "SweepResult", "load_result", "plan_sweep", "plan_sweep_for", "run_sweep"]

log = logging.getLogger("hpjax")

MOST_LOSSES = 5  # of workers, without a checkpoint in between: it is no accident then


@dataclass(frozen=True)
class SweepResult:
    """What a sweep gave.

    Attributes:
      workdir: where everything lies.
      trials: one row per trial.
      epochs: one row per trial and epoch.
      best: the trial that ranks first, by `sweep.metric` and `sweep.select`; None if none ended well.
      summary: the content of `summary.json`.
      settings: one row per setting: means over its seeds, compared with the winner.
    """

    workdir: Path
    trials: list[TrialRow]
    epochs: list[EpochRow]
    best: TrialRow | None
    summary: dict[str, Any] = field(default_factory=dict, repr=False)
    settings: list[SettingRow] = field(default_factory=list, repr=False)

    @property
    def standings(self) -> list[str]:
        """The up to five best settings, a line each; nothing where there is but one."""
        return describe_standings(self.settings, self.trials, self.summary)

    @property
    def outcome(self) -> str:
        """The best trial, its setting, and how busy lanes were, in a line."""
        return describe_outcome(self.best, self.summary)

    def frame(self) -> "pd.DataFrame":
        """Returns the trials as a pandas frame, a column for each hyperparameter."""
        return create_frame(self.trials)

    def epochs_frame(self) -> "pd.DataFrame":
        """Returns the epochs as a pandas frame."""
        return create_frame(self.epochs)

    def figure(self, name: str) -> "Figure":
        """Returns a metric's curves as a matplotlib figure; `name` is a column of epochs.

        Raises:
          UsageError: There is no such figure; names those that there are.
        """
        config = read_json(self.workdir / CONFIG_NAME)
        with plain_drawing():
            return create_figure_of(name, config, self.summary, self.trials, self.epochs)

    def _repr_html_(self) -> str:
        return describe_in_html(self.outcome, self.standings, self.diagnosis)

    @functools.cached_property
    def diagnosis(self) -> list[Finding]:
        """What stands out, the most severe first; also of a sweep that isn't finished."""
        if "findings" in self.summary:
            return [Finding(**entry) for entry in self.summary["findings"]]
        ranking = Ranking(self.summary["metric"], self.summary["select"])
        config, data = read_json(self.workdir / CONFIG_NAME), self.summary.get("data", {})
        facts = create_facts(config, ranking, data, layouts=self.summary.get("layouts", ()))
        return diagnose(self.trials, self.epochs, facts)


@contextlib.contextmanager
def _refusing_without_memory() -> Iterator[None]:
    """Says in one line that there is no memory for what comes before the first lane."""
    try:
        yield
    except HpjaxError:
        raise
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(
            "out of memory before anything is trained: lower data.image_size or lanes.count, "
            "or give the process more"
        ) from error


@keep_own_code()
@_refusing_without_memory()
def run_sweep(
    config: Config,
    workdir: str | Path,
    resume: Resume = "auto",
    progress: bool = False,
    data: Any = None,
    workers: Workers = HERE,
) -> SweepResult:
    """Runs a sweep to its end, or goes on with the one in `workdir`.

    Args:
      config: what is run; see `hpjax.config.fields`.
      workdir: a folder of the sweep's own.
      resume: auto continues a sweep that is there, never refuses one, must insists on one.
      progress: shows a progress bar on a terminal, plain lines elsewhere.
      data: arrays of your own, `{"train": (x, y), "test": (x, y)}` and perhaps `"validation"`; see
        docs/data.md. `data.name` is then `arrays`.
      workers: who trains: this process, or a `hpjax.launch.ray.RayWorkers`.

    Returns:
      All trials and epochs, and the best trial.

    Raises:
      HpjaxError: The config, the data, or the workdir don't allow it; says what to change.
      Interrupted: SIGINT or SIGTERM arrived; everything is saved.
    """
    config = _with_arrays(config, data)
    where, files = Path(expand_path(str(workdir))), hash_files(config)
    check_changed(where, files, config)
    check_config(config)
    use_compilation_cache()
    advise()
    with (
        blaming_models(config),
        _showing_decoding(progress),
        open_workdir(where, to_dict(config), resume) as opened,
    ):
        inputs = find_inputs(opened.path) if opened.finished else None
        if inputs is None:  # the summary of a finished sweep that doesn't say is written again
            _run_again_and_again(config, opened, progress, data, workers)
        else:
            _answer_for(config, opened, inputs, files, data)
            log.info("the sweep in %s is finished already", opened.path)
        return load_result(opened.path)


def _with_arrays(config: Config, data: Any) -> Config:
    """Returns the configuration of a sweep that learns what is given, if anything is."""
    if data is None or config.data.name == GIVEN:
        return config
    if config.data.name != Config().data.name:
        raise ConfigError("data.name", config.data.name, f"auto or {GIVEN} with run_sweep(…, data=…)")
    return dataclasses.replace(config, data=dataclasses.replace(config.data, name=GIVEN))


@contextlib.contextmanager
def _showing_decoding(progress: bool) -> Iterator[None]:
    if not progress:
        yield
        return
    with counting("decoding images") as show, watching_decoding(show):
        yield


def _answer_for(config: Config, workdir: Workdir, inputs: Inputs, files: Files, data: Any) -> None:
    """Raises HpjaxError where a finished sweep's results are of other images, code or weights."""
    check_files(workdir.path, inputs.files, files, config)
    Datasets(config, workdir.path, dict(inputs.fingerprints), data).check()
    workdir.accept()


def _run_again_and_again(
    config: Config, workdir: Workdir, progress: bool, data: Any, workers: Workers
) -> None:
    """Runs to the end.

    Goes on from the last checkpoint with half the lanes when memory runs out, and when workers are lost.
    """
    limit: LaneLimit | None = LaneLimit()
    saved: list[int] = []
    losses = 0  # of workers, since a checkpoint was saved
    while limit is not None:
        try:
            used = _run_to_the_end(config, workdir, progress, limit, data, workers)
            limit = None if used is None else halve_lanes(used, keep_population=bool(config.sweep.pbt))
        except WorkersLost as lost:
            before, saved = saved, list_numbers(workdir.path / POPULATION, "step")
            losses = losses + 1 if saved == before else 1
            if losses == MOST_LOSSES:
                raise DeviceError(
                    f"workers were lost {losses} times without a checkpoint in between ({lost}): is their "
                    "memory enough? lower lanes.count, or give them more; the same command goes on"
                ) from lost
            log.warning("%s: going on from the last checkpoint", lost)
            workers.recover()
        gc.collect()  # what failed may hold on to arrays, in cycles


def _run_to_the_end(
    config: Config, workdir: Workdir, progress: bool, limit: LaneLimit, data: Any, workers: Workers
) -> LaneLimit | None:
    """Returns None when done, or the lanes that memory ran out with."""
    session = None
    try:
        with Session(config, workdir, progress, limit, data, workers) as session:
            run_groups(session)
            with sparing("every figure"):
                _draw(session)
            found: dict[str, Any] = {"findings": []}
            with sparing("the diagnosis"):
                found = _diagnose(session)
            session.write_tables(finished=True, more=found)
            session.write_page()
    except Exception as error:
        lost = isinstance(error, WorkersLost)
        if session is None or not (lost or is_out_of_memory(error)):
            raise
        if signum := session.signals.received:  # which is why a worker died, perhaps
            raise Interrupted(signum, workdir.path) from error
        if lost:
            raise
        return session.lanes_in_use
    return None


@keep_own_code()
@_refusing_without_memory()
def plan_sweep(config: Config, progress: bool = False, data: Any = None, workers: Workers = HERE) -> Plan:
    """Returns what a sweep would compile, hold and take; measures a few steps of each program it knows of.

    Args:
      config: what would be run. Of groups that only a sampler will find, the first is planned.
      progress: shows how far images are decoded.
      data: arrays of your own, as `run_sweep` takes them.
      workers: who would train.

    Raises:
      HpjaxError: The config or the data don't allow it; says what to change.
    """
    with _planning(config, progress, data, workers) as session:
        return plan_groups(session)


@keep_own_code()
@_refusing_without_memory()
def plan_sweep_for(config: Config, gpu: str, progress: bool = False, data: Any = None) -> ForeignPlan:
    """Returns what a sweep would need of a GPU that needn't be here: compiles for it, and times nothing.

    Args:
      config: what would be run.
      gpu: a100, h100 or h200.
      progress: shows how far images are decoded.
      data: arrays of your own, as `run_sweep` takes them.

    Raises:
      HpjaxError: As of `plan_sweep`; or XLA's compiler for CUDA isn't installed.
    """
    with _planning(config, progress, data) as session:
        return plan_groups_for(session, gpu)


@contextlib.contextmanager
def _planning(config: Config, progress: bool, data: Any, workers: Workers = HERE) -> Iterator[Session]:
    config = dataclasses.replace(_with_arrays(config, data), trackers=())
    check_config(config)
    use_compilation_cache()
    with (
        blaming_models(config),
        _showing_decoding(progress),
        tempfile.TemporaryDirectory() as scratch,
        open_workdir(scratch, to_dict(config)) as opened,
        Session(config, opened, data=data, workers=workers) as session,
        session.signals.at_once(),  # there is nothing to save
    ):
        yield session


def load_result(workdir: str | Path) -> SweepResult:
    """Returns what a sweep has given so far.

    Raises:
      WorkdirError: There is no sweep in `workdir`.
    """
    path = Path(expand_path(str(workdir)))
    trials, summary = load_trials(path), read_json(path / SUMMARY_NAME)
    ranking = parse_ranking(path / SUMMARY_NAME, summary)
    settings, best = summarize_settings(trials, ranking), ranking.find_best(trials)
    return SweepResult(path, trials, load_epochs(path), best, summary, settings)


def _diagnose(session: Session) -> dict[str, Any]:
    """Tells trackers what stands out; returns it with what is known of the data, for the summary."""
    spec, stores = session.spec, session.stores
    session.datasets.any()  # is loaded, and described from now on
    data = session.datasets.describe()["data"] | {"copies_of_train": session.datasets.count_copies()}
    data |= _predictions(session)
    layouts = [plan.layout() for plan in session.plans]
    facts = create_facts(to_dict(spec.config), spec.ranking, data, spec.space, layouts)
    findings = diagnose(stores.records.trials(), stores.records.epochs(), facts)
    stores.trackers.log_text("diagnosis", format_findings(findings))
    return {"data": data, "findings": [finding.to_dict() for finding in findings]}


def _predictions(session: Session) -> dict[str, Any]:
    """Returns each class's test images and those that the winner takes for it, where that is known."""
    with leaving_out("what the winner predicts"):
        judged, winner = load_judged(session.workdir.path), find_setting(session)
        if judged is not None and winner is not None and judged.trial in winner.trials:
            images, _, taken = judged.by_class()
            return {"predictions": [[int(a), int(b)] for a, b in zip(images, taken, strict=True)]}
    return {}


def _draw(session: Session) -> None:
    path, spec = session.workdir.path, session.spec
    session.datasets.any()  # is loaded, and described from now on
    trials = load_trials(path)
    ranked = {"metric": spec.ranking.metric, "select": spec.ranking.select, "objective": spec.objective.name}
    info = create_info(to_dict(spec.config), {**session.datasets.describe(), **ranked}, trials)
    labels = label_trials(trials, info.swept)
    draw_figures(load_epochs(path), trials, labels, info, path / "figures", load_copies(path))
