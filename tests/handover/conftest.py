"""Sweeps whose trials are handed over, each run once for all tests of a file."""

from pathlib import Path
from typing import NamedTuple

import pytest

from hpjax.config import parse_config
from hpjax.data.images import decode_image
from hpjax.sweep import SweepResult, run_sweep

SCENES = {"name": "synthetic_scenes", "image_size": 30, "max_train_examples": 60, "max_test_examples": 24}
CONFIG = {
    "model": {"kernel_widths": (3, 3, 3)},
    "data": SCENES,
    "train": {"batch_size": 20, "epochs": 2},
    "sweep": {"space": {"learning_rate": (1e-3, 3e-3)}},
    "lanes": {"strategy": "fused"},
    "trackers": (),
}
MODEL = """
from flax import nnx


class Net(nnx.Module):
    def __init__(self, *, num_classes, rngs):
        self.out = nnx.Linear(3, num_classes, rngs=rngs)

    def __call__(self, images):
        assert isinstance(images.shape[0], int), "it wants to know the number of images"
        return self.out(images.mean((1, 2)))
"""


@pytest.fixture(scope="package")
def swept(tmp_path_factory):
    """The result of a sweep of one trial of custom_cnn."""
    config = parse_config({**CONFIG, "train": {"batch_size": 20, "epochs": 1}, "sweep": {}})
    return run_sweep(config, tmp_path_factory.mktemp("handover") / "sweep")


class Own(NamedTuple):
    """A sweep over a model of the user's own."""

    file: Path  # of the model
    result: SweepResult

    @property
    def workdir(self) -> Path:
        """The sweep's folder."""
        return self.result.workdir


@pytest.fixture(scope="package")
def own(tmp_path_factory):
    """A sweep over a model that is compiled in no time."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "mine.py").write_text(MODEL)
    config = parse_config({**CONFIG, "model": {"name": f"{folder}/mine.py:Net"}})
    return Own(folder / "mine.py", run_sweep(config, folder / "sweep"))


@pytest.fixture
def read():
    """`read(path)`: an image file as the sweeps read it."""
    from hpjax.data.images import Picture

    return lambda path: decode_image(Picture(str(path), 0, path), 30)
