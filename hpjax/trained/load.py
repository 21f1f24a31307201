"""Trained models: a finished trial's weights, in its model."""

from pathlib import Path
from typing import Any

from flax import nnx

from hpjax.config.paths import expand_path
from hpjax.errors import CheckpointError
from hpjax.models.registry import create_model
from hpjax.store.arrays import fit_template
from hpjax.store.checkpoints import load_trial_checkpoint
from hpjax.store.records import load_trials
from hpjax.train.state import init_rngs


def load_trial(workdir: str | Path, trial: int) -> tuple[nnx.Module, dict[str, Any]]:
    """Returns a trial's model with its weights, ready to predict: those its rank was measured with.

    With `sweep.select=final` they are those of its last epoch, with `best` those of its best one.

    `model(images)` takes float images in [0, 1], `[batch, height, width, 3]`, of the size that the trial was
    trained on, and gives logits, `[batch, classes]`, in the order of the data set's sorted class names. A
    model of the user's own is imported from its file, which must still be there.

    Args:
      workdir: the sweep's folder; nothing in it is changed.
      trial: the trial's number, as in `trials.csv`.

    Returns:
      The model, in evaluation mode and with its logits' names as `class_names`, and its variables:
      `{"params", "batch_stats"}` as nested dicts of arrays.

    Raises:
      WorkdirError: There is no sweep in `workdir`.
      ConfigError: The file of the user's own model is gone.
      CheckpointError: There is no such trial, its weights weren't kept, or they are damaged; says which are.
    """
    path = Path(expand_path(str(workdir)))
    _check_known(path, trial)
    directory = path / "checkpoints" / "trials"
    weights, metadata = load_trial_checkpoint(directory, trial)
    model = create_model(rngs=init_rngs(0), **metadata["model"])
    _, params, _, batch_stats = nnx.split(model, nnx.Param, nnx.RngState, ...)
    template = {"params": nnx.to_pure_dict(params), "batch_stats": nnx.to_pure_dict(batch_stats)}
    variables = fit_template(weights, template, directory)
    nnx.replace_by_pure_dict(params, variables["params"])
    nnx.replace_by_pure_dict(batch_stats, variables.get("batch_stats", {}))
    nnx.update(model, params, batch_stats)
    model.eval()
    model.class_names = tuple(metadata["classes"])  # type: ignore[attr-defined]
    return model, variables


def _check_known(path: Path, trial: int) -> None:
    numbers = [row.trial for row in load_trials(path)]
    if trial not in numbers:
        known = f"its trials are 0 to {max(numbers)}" if numbers else "it has none yet"
        raise CheckpointError(f"there is no trial {trial} in {path}: {known}")
