"""The configuration's section on what is kept on disk."""

from dataclasses import dataclass

from hpjax.config import rules
from hpjax.config.rules import field


@dataclass(frozen=True)
class CheckpointConfig:
    """What is kept on disk."""

    every_epochs: int = field(
        1, "save the population every so many epochs; 0: by minutes alone", rules.COUNT_OR_0
    )
    every_minutes: float = field(
        0.0, "and no more often than this; 0 with every_epochs=0: never", rules.NOT_NEGATIVE
    )
    states: bool = field(
        False,
        "whether the whole state that each trial ends with is kept, its optimizer's included: sweep.extend "
        "needs it to go on to more epochs",
    )
    keep: int = field(
        20,
        "how many trials' weights are kept: the best ones, and besides them those of the winning setting",
        rules.COUNT_OR_0,
    )
