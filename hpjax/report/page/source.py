"""What the page is made of: a sweep's rows and summary, from a running sweep or from its workdir."""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from hpjax.errors import ConfigError, WorkdirError, one_line, text_of
from hpjax.report.curves import label_trials
from hpjax.report.diagnosis import Finding, create_facts, diagnose
from hpjax.report.style import leaving_out
from hpjax.search.space import Axis, parse_space
from hpjax.store.files import check_file, read_json
from hpjax.store.judged import Judged, load_judged
from hpjax.store.occupancy import Occupancy
from hpjax.store.ranking import Ranking, parse_ranking
from hpjax.store.records import load_history
from hpjax.store.rows import OBJECTIVE, CopyRow, EpochRow, TrialRow
from hpjax.store.settings import SettingRow, summarize_settings
from hpjax.store.workdir import CONFIG_NAME, SUMMARY_NAME, WINNER_NAME


@dataclass(frozen=True, eq=False)
class PageSource:
    """A sweep as it is now.

    Attributes:
      workdir: where it lies, as the user named it.
      config: the content of `config.json`.
      summary: the content of `summary.json`.
      trials: all rows.
      epochs: all rows.
      copies: PBT's copies.
      occupancy: which trial sat in which lane.
    """

    workdir: Path
    config: Mapping[str, Any]
    summary: Mapping[str, Any]
    trials: Sequence[TrialRow]
    epochs: Sequence[EpochRow]
    copies: Sequence[CopyRow] = ()
    occupancy: Occupancy = field(default_factory=Occupancy)

    @property
    def finished(self) -> bool:
        """Whether the sweep ran to its end."""
        return self.summary.get("finished") is True

    @cached_property
    def ranking(self) -> Ranking:
        """What ranks trials."""
        return parse_ranking(self.workdir / SUMMARY_NAME, self.summary)

    @property
    def ranked_by(self) -> str:
        """What ranks trials, in words."""
        own = str(self.summary.get("objective", "")) if self.ranking.metric == OBJECTIVE else ""
        return one_line(self.ranking.describe(own.rpartition(":")[2]))

    @cached_property
    def ranked(self) -> list[TrialRow]:
        """The trials that have a value of what ranks them."""
        return [trial for trial in self.trials if self.ranking.value(trial) is not None]

    @cached_property
    def axes(self) -> tuple[Axis, ...]:
        """What was searched."""
        return parse_space(self.config["sweep"]["space"]).axes

    @property
    def swept(self) -> tuple[str, ...]:
        """The hyperparameters that were searched."""
        return tuple(axis.name for axis in self.axes)

    @cached_property
    def labels(self) -> dict[int, str]:
        """Each trial's setting in words."""
        return label_trials(self.trials, self.swept)

    @cached_property
    def settings(self) -> list[SettingRow]:
        """Every setting, compared with the winner."""
        return summarize_settings(self.trials, self.ranking)

    @cached_property
    def scores(self) -> dict[int, float]:
        """What ranks settings, by number, so that less is better; of those that were measured."""
        sign = 1.0 if self.less_is_better else -1.0
        ranked = ((row.setting, row.ranked(self.ranking)) for row in self.settings)
        return {setting: sign * found.mean for setting, found in ranked if found is not None}

    def order(self, trial: TrialRow) -> float:
        """Returns what ranks a trial, so that less is better; infinity where it has no value."""
        value = self.ranking.value(trial)
        return math.inf if value is None else value if self.less_is_better else -value

    @property
    def winner(self) -> SettingRow | None:
        """The setting that wins; None if none was measured."""
        return next((row for row in self.settings if row.winner), None)

    @cached_property
    def best(self) -> TrialRow | None:
        """The trial that ranks first; None if none was measured."""
        return self.ranking.find_best(self.trials)

    @cached_property
    def findings(self) -> list[Finding]:
        """What stands out, the most severe first."""
        if "findings" in self.summary:
            return [Finding(**entry) for entry in self.summary["findings"]]
        data, layouts = self.summary.get("data", {}), self.summary.get("layouts", ())
        facts = create_facts(self.config, self.ranking, data, layouts=layouts)
        return diagnose(self.trials, self.epochs, facts)

    @cached_property
    def judged(self) -> Judged | None:
        """What the winner made of the test images; None where that isn't known, or of another trial."""
        with leaving_out(f"what {WINNER_NAME} shows"):
            found, winner = load_judged(self.workdir), self.winner
            return found if found and winner and found.trial in winner.trials else None

    def images_of(self, column: str) -> int:
        """Returns on how many images an accuracy's column was measured; 0 where that isn't known."""
        images = self.summary.get("data", {}).get("images", {})
        split = next((name for name in ("validation", "test") if f"{name}_accuracy" in column), "")
        return int(images.get(split, 0))

    @property
    def less_is_better(self) -> bool:
        """Whether less is better of what ranks trials."""
        return bool(self.trials) and self.trials[0].prefers_small(self.ranking.metric)


def load_source(workdir: Path) -> PageSource:
    """Returns the sweep in a workdir: one that ended, that was interrupted, or that runs.

    Raises:
      WorkdirError: There is no sweep, it has written nothing yet, or what it wrote is damaged.
    """
    if not check_file(workdir / CONFIG_NAME):
        raise WorkdirError(f"--workdir={workdir} holds no sweep: expected a folder with {CONFIG_NAME}")
    if not check_file(workdir / SUMMARY_NAME):
        raise WorkdirError(
            f"--workdir={workdir} holds no {SUMMARY_NAME} yet: it is written after a sweep's first epoch; "
            "the command that began the sweep goes on with it"
        )
    config, summary = read_json(workdir / CONFIG_NAME), read_json(workdir / SUMMARY_NAME)
    history = load_history(workdir)
    rows = history.trials(), history.epochs(), history.copies()
    return PageSource(workdir, config, summary, *rows, history.occupancy)


@contextlib.contextmanager
def refusing_damage(workdir: Path) -> Iterator[None]:
    """Says in one line that what a workdir holds is none of a sweep's: anything may fail then."""
    try:
        yield
    except (ConfigError, LookupError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
        raise WorkdirError(
            f"{workdir} holds a damaged {CONFIG_NAME} or {SUMMARY_NAME} ({type(error).__name__}: "
            f"{text_of(error, 200)}): restore them, or choose another workdir"
        ) from error
