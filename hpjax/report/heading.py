"""What a sweep's figures say above them: data, network, and what is the same for all trials."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hpjax.config import Config, parse_config
from hpjax.data.dataset import Dataset
from hpjax.report.style import FigureInfo, format_value
from hpjax.search.space import parse_space
from hpjax.store.ranking import Ranking
from hpjax.store.rows import OBJECTIVE, TrialRow
from hpjax.store.settings import find_winner
from hpjax.tasks import unit_of


def create_info(
    config: Mapping[str, Any], summary: Mapping[str, Any], trials: Sequence[TrialRow]
) -> FigureInfo:
    """Returns what the figures of a sweep say about it, as `config.json` and `summary.json` have it."""
    parsed, data, space = parse_config(config), summary.get("data", {}), parse_space(config["sweep"]["space"])
    ranking = Ranking(summary["metric"], summary["select"])
    own = summary["objective"].rpartition(":")[2] if ranking.metric == OBJECTIVE else ""
    winner = find_winner(trials, ranking)
    return FigureInfo(
        dataset=describe_data(parsed, data, list(trials)),
        model=join_values(list(trials), "model", parsed.model.name),
        swept=space.names,
        details=describe_fixed(parsed, space.names),
        notice=data.get("notice", ""),
        classes=len(data.get("classes", ())),
        winner=winner and winner.setting,
        choices=tuple(axis.name for axis in space.axes if axis.choices),
        logs=tuple(axis.name for axis in space.axes if axis.log),
        ranking=ranking,
        ranked_by=ranking.describe(own),
        minimize=bool(trials) and trials[0].prefers_small(OBJECTIVE),
        own_metric=own,
        loss_unit=unit_of(parsed.task.loss),
        example="image" if len(data.get("input_shape", (0, 0, 0))) == 3 else "example",
        images={name: count for name, count in data.get("images", {}).items() if name != "train"},
    )


def describe_data(config: Config, data: Mapping[str, Any], trials: list[TrialRow]) -> str:
    """Returns which images were learned, how many, and at what size; `data` is of `summary.json`."""
    if not data:
        return config.data.name
    named = config.data.dir or config.data.train
    folder = Path(named).name if config.data.name in ("folder", "intel_scenes", "auto") else ""
    name = f"{data['name']} {folder}" if folder and not data["notice"] else data["name"]
    shape = data.get("input_shape", (0, 0, 3))  # of earlier versions, images in colours
    if len(shape) != 3:
        return f"{name} ({data['images']['train']:,} training examples), inputs of {describe_shape(shape)}"
    size = join_values(trials, "image_size", data.get("image_size") or describe_shape(shape))
    return f"{name} ({data['images']['train']:,} training images), {size} px"


def describe_shape(shape: Sequence[int]) -> str:
    """Returns a shape in words: `28 x 20`; of images with their channels where these aren't 3."""
    sides = shape[:2] if len(shape) == 3 and shape[2] == 3 else shape
    return " x ".join(map(str, sides))


def describe_start(device: str, config: Config, dataset: Dataset, trials: int) -> str:
    """Returns what is about to be trained on what, in a line.

    Args:
      device: e.g. `cpu, 2 cores`.
      config: the sweep's.
      dataset: the first trials'.
      trials: how many there will be.
    """
    parts = {"training": dataset.train, "validation": dataset.validation, "test": dataset.test}
    counts = [f"{len(split):,} {name}" for name, split in parts.items() if split is not None]
    shape, classes = dataset.input_shape, len(dataset.classes)
    images = f"{', '.join(counts[:-1])} and {counts[-1]} {'images' if len(shape) == 3 else 'examples'}"
    size = shape[0] if shape[:1] == shape[1:2] and shape[2:] == (3,) else describe_shape(shape)
    size = f"at {size} px" if len(shape) == 3 else f"with inputs of {size}"
    answers = f"of {classes} classes" if classes else f"with {dataset.num_outputs} to answer"
    epochs = config.train.epochs
    todo = f"{trials:,} trial{'s' * (trials != 1)} of {epochs} epoch{'s' * (epochs != 1)}"
    return f"{dataset.name}: {images} {answers} {size}; {todo}; on {device}"


def join_values(trials: list[TrialRow], name: str, default: object) -> str:
    """Returns the values of a hyperparameter over all trials, in words."""
    values = [trial.hyperparameters.get(name) for trial in trials]
    texts = dict.fromkeys(format_value(value) for value in values if value is not None)
    return ", ".join(texts) or format_value(default)


def describe_fixed(config: Config, swept: tuple[str, ...]) -> str:
    """Returns the values of the most important hyperparameters that aren't swept."""
    fixed = {
        "batch_size": f"batch size {config.train.batch_size}",
        "optimizer": config.optimizer.name,
        "learning_rate": f"learning rate {format_value(config.optimizer.learning_rate)}",
        "weight_decay": f"weight decay {format_value(config.optimizer.weight_decay)}",
    }
    return ", ".join(text for name, text in fixed.items() if name not in swept)
