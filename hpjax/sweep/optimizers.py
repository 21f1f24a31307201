"""Optimizers of the user's own that a sweep's trials may have: checked before anything is trained."""

from collections.abc import Callable

from flax import nnx

from hpjax.config.fields import Config
from hpjax.config.hyperparameters import apply_hyperparameters
from hpjax.config.user_files import is_own
from hpjax.data.dataset import Dataset
from hpjax.lanes.group import create_group_recipe, model_factory, trial_hparams
from hpjax.lanes.own_optimizer import check_optimizer
from hpjax.search.space import parse_space
from hpjax.train.state import init_rngs
from hpjax.train.weights import split_weights


def check_optimizers(config: Config, trial: Config, load: Callable[[Config], Dataset]) -> None:
    """Checks the optimizers of the user's own on the weights of a trial's network.

    Args:
      config: the sweep's.
      trial: a trial's, whose network can be built.
      load: returns the data set of a trial's configuration.

    Raises:
      HpjaxError: One can't be imported, fails, or isn't one of a single trial.
    """
    axes = {axis.name: axis for axis in parse_space(config.sweep.space).axes}
    names = axes["optimizer"].choices if "optimizer" in axes else (config.optimizer.name,)
    decayed = axes.get("weight_decay_on")
    for name in filter(is_own, names):
        # Of all that trials may have beside it: one that it doesn't go with would be met by its group.
        met = decayed.choices if decayed and decayed.applies({"optimizer": name}) else ()
        also = {"weight_decay_on": "kernels"} if "kernels" in met else {}
        own = apply_hyperparameters(trial, {"optimizer": name, **also})
        dataset = load(own)
        create = model_factory(own, dataset)
        model = nnx.eval_shape(lambda: create(init_rngs(0)))  # noqa: B023
        recipe = create_group_recipe(own, dataset, model)
        trained, _ = split_weights(nnx.state(model, nnx.Param), recipe.frozen)
        check_optimizer(recipe.optimizer, trained, trial_hparams(own, own.seed))
