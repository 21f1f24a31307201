"""What a sweep runs and what counts in it."""

import math
from dataclasses import dataclass

from hpjax.config.fields import Config
from hpjax.search.objective import Objective, create_objective
from hpjax.search.space import Space, parse_space
from hpjax.store.ranking import Ranking
from hpjax.store.rows import OBJECTIVE


@dataclass(frozen=True)
class Spec:
    """What is run and what counts, the same from a sweep's first trial to its last.

    Attributes:
      config: the sweep's.
      space: what is searched.
      objective: what is optimised.
      ranking: what trials and settings are ranked by.
    """

    config: Config
    space: Space
    objective: Objective
    ranking: Ranking

    @property
    def ranked_by(self) -> str:
        """What ranks trials, in words; the function's name where the metric is the user's own."""
        return self.ranking.describe(self.own_name)

    @property
    def own_name(self) -> str:
        """The name of the metric's function where it is the user's own; else nothing."""
        return self.objective.name.rpartition(":")[2] if self.ranking.metric == OBJECTIVE else ""

    @property
    def tests_each_epoch(self) -> bool:
        """Whether the test split is evaluated each epoch; else it is read once, for the winner."""
        return self.config.data.validation_fraction == 0

    @property
    def keeps_winner(self) -> bool:
        """Whether the winner's weights are kept: for their own sake, or because it is still to be tested."""
        return self.config.checkpoint.keep > 0 or not self.tests_each_epoch

    def score(self, value: float | None) -> float:
        """Returns a number that ranks a trial so that higher is better; -inf for None."""
        return self.objective.score(math.nan if value is None else value)


def create_spec(config: Config) -> Spec:
    """Returns what a configuration says.

    Raises:
      HpjaxError: The space or the metric is wrong.
    """
    objective = create_objective(config.sweep.metric, config.data.validation_fraction > 0)
    column = OBJECTIVE if ":" in objective.name else objective.name  # a function of the user's own
    return Spec(config, parse_space(config.sweep.space), objective, Ranking(column, config.sweep.select))
