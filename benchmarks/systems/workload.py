"""The work that every system is given: the same trials on the same images."""

import dataclasses
import pathlib
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

CLASSES = 6
LEARNING_RATES = (1e-4, 3e-5, 3e-4, 1e-5, 2e-4)
WEIGHT_DECAYS = (0.0, 1e-4, 1e-2)


class Trial(NamedTuple):
    """What differs between trials."""

    learning_rate: float
    weight_decay: float
    seed: int


@dataclass(frozen=True)
class Workload:
    """A network, its data and how many trials of it are trained."""

    model: str
    image_size: int
    batch_size: int
    lanes: int  # trials
    precision: str
    steps: int  # of an epoch
    folder: str  # where the images lie
    first_lane: int = 0  # of the trials, where several processes share them
    tune: bool = False  # measure convolutions that no table knows

    @property
    def trials(self) -> list[Trial]:
        """The trials; which one a lane trains doesn't depend on how many there are."""
        return [_create_trial(lane) for lane in range(self.first_lane, self.first_lane + self.lanes)]

    def load_examples(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the images, uint8, features last, and their labels, int32."""
        folder = pathlib.Path(self.folder)
        return np.load(folder / "images.npy"), np.load(folder / "labels.npy")

    def part(self, index: int, parts: int) -> "Workload":
        """Returns the `index`th of `parts` nearly equal shares of the trials."""
        bounds = [self.lanes * i // parts for i in (index, index + 1)]
        return dataclasses.replace(self, lanes=bounds[1] - bounds[0], first_lane=self.first_lane + bounds[0])


def save_examples(workload: Workload) -> None:
    """Draws one epoch of synthetic scenes into the workload's folder."""
    from hpjax.data.synthetic import draw_scenes

    images, labels = draw_scenes(workload.steps * workload.batch_size, workload.image_size, seed=0)
    folder = pathlib.Path(workload.folder)
    np.save(folder / "images.npy", images)
    np.save(folder / "labels.npy", labels)


def _create_trial(lane: int) -> Trial:
    learning_rate = LEARNING_RATES[lane % len(LEARNING_RATES)]
    return Trial(learning_rate, WEIGHT_DECAYS[lane % len(WEIGHT_DECAYS)], seed=lane)
