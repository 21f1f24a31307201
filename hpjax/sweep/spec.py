"""What a sweep runs and what counts in it."""

import dataclasses
import math
from dataclasses import dataclass

from hpjax.config.fields import Config
from hpjax.config.hyperparameters import Hyperparameter, find_hyperparameter, option_of
from hpjax.models.options import check_options, declare_option, dynamic_values
from hpjax.models.registry import find_model_class
from hpjax.search.axis import Axis
from hpjax.search.constraint import load_constraint
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
    validates = config.data.validation_fraction > 0
    objective = create_objective(config.sweep.metric, validates, config.task)
    column = OBJECTIVE if ":" in objective.name else objective.name  # a function of the user's own
    return Spec(config, create_space(config), objective, Ranking(column, config.sweep.select))


def create_space(config: Config) -> Space:
    """Returns what is searched, after asking the classes of its models for their options.

    Raises:
      HpjaxError: The space is wrong, a file of the user's own fails, or a class has no such option.
    """
    loose = parse_space(config.sweep.space)
    axes = {axis.name: axis for axis in loose.axes}
    models = list_models(config, loose)

    def models_of(axis: Axis) -> set[str]:
        """Returns the models beside which an axis may exist."""
        found = set(map(str, axis.when.get("model", models)))
        return found.intersection(*(models_of(axes[name]) for name in axis.when))

    def find(name: str) -> Hyperparameter | None:
        if not option_of(name):
            return find_hyperparameter(name)
        among = models_of(axes[name])
        return declare_option(name, [find_model_class(model) for model in models if model in among])

    for model in models:
        check_options(find_model_class(model), config.model.options)
    space = parse_space(config.sweep.space, find)
    for model in models:
        # What every trial of it is sure to be given; the others have the class's defaults.
        sure = [axis for axis in space.axes if set(axis.when) <= {"model"} and axis.applies({"model": model})]
        given = {option_of(axis.name): (axis.choices or (axis.low,))[0] for axis in sure}
        dynamic_values(find_model_class(model), {**config.model.options, **given})
    return dataclasses.replace(space, constraint=load_constraint(config.sweep.constraints))


def list_models(config: Config, space: Space) -> list[str]:
    """Returns the models that trials may have."""
    axis = next((axis for axis in space.axes if axis.name == "model"), None)
    return [config.model.name] if axis is None else list(axis.choices)
