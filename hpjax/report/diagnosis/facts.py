"""What the diagnosis must know of a sweep besides its rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hpjax.config.hyperparameters import HYPERPARAMETERS, OPTION
from hpjax.errors import one_line
from hpjax.search.space import Axis, Space, parse_space
from hpjax.store.ranking import Ranking


@dataclass(frozen=True)
class SweepFacts:
    """What was searched and measured, and on how many images.

    Attributes:
      ranking: what ranks trials.
      axes: what was searched.
      fixed: every hyperparameter's value where it isn't searched, by name.
      classes: how many; 0: unknown.
      class_names: in the order of their numbers; empty: unknown.
      images: how many of each split, by its name.
      class_counts: how many images of each class, by the split's name.
      predictions: images of each class and those taken for it, by class, in the winner's answers to the test
        images; empty where they aren't known.
      copies_of_train: test images that are training images as well, to the last pixel; None: not counted.
      sampler: which settings were tried; `grid` is all combinations.
      population: whether trials took over others' states on the way (PBT).
      layouts: of each group, as `summary.json` has them.

    """

    ranking: Ranking = Ranking("test_accuracy")
    axes: tuple[Axis, ...] = ()
    fixed: Mapping[str, Any] = field(default_factory=dict)
    classes: int = 0
    class_names: Sequence[str] = ()
    images: Mapping[str, int] = field(default_factory=dict)
    class_counts: Mapping[str, Sequence[int]] = field(default_factory=dict)
    predictions: Sequence[tuple[int, int]] = ()
    copies_of_train: int | None = None
    sampler: str = "grid"
    population: bool = False
    layouts: Sequence[Mapping[str, Any]] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The hyperparameters that were searched."""
        return tuple(axis.name for axis in self.axes)

    def name_class(self, number: int) -> str:
        """Returns a class in words; its number where its name isn't known."""
        known = number < len(self.class_names)
        return one_line(str(self.class_names[number]), 40) if known else f"class {number}"

    def guess(self, split: str) -> float | None:
        """Returns the accuracy of always answering the commonest class; None where classes are unknown."""
        counts = self.class_counts.get(split)
        if counts and sum(counts):
            return max(counts) / sum(counts)
        return 1 / self.classes if self.classes > 1 else None


def create_facts(
    config: Mapping[str, Any],
    ranking: Ranking,
    data: Mapping[str, Any],
    space: Space | None = None,
    layouts: Sequence[Mapping[str, Any]] = (),
) -> SweepFacts:
    """Returns the facts of a sweep.

    Args:
      config: the content of `config.json`.
      ranking: what ranks trials.
      data: the entry `data` of `summary.json`.
      space: what is searched; read from the configuration if not given.
      layouts: the entry `layouts` of `summary.json`.
    """
    keys = {name: known.key.split(".") for name, known in HYPERPARAMETERS.items()}
    options = {f"{OPTION}{name}": value for name, value in config["model"].get("options", {}).items()}
    return SweepFacts(
        ranking=ranking,
        axes=(space or parse_space(config["sweep"]["space"])).axes,
        fixed={name: config[section][key] for name, (section, key) in keys.items()} | options,
        classes=len(data.get("classes", ())),
        class_names=tuple(data.get("classes", ())),
        images=data.get("images", {}),
        class_counts=data.get("class_counts", {}),
        predictions=tuple(tuple(pair) for pair in data.get("predictions", ())),
        copies_of_train=data.get("copies_of_train"),
        sampler=config["sweep"]["sampler"],
        population=bool(config["sweep"]["pbt"]),
        layouts=tuple(layouts),
    )
