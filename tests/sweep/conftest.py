"""A network that is compiled in no time, and metrics whose values are given."""

import pytest

NET = """
from flax import nnx

class Net(nnx.Module):
    def __init__(self, *, num_classes, rngs):
        self.out = nnx.Linear(3, num_classes, rngs=rngs)

    def __call__(self, images):
        return self.out(images.mean((1, 2)))
"""
# One value an epoch, in the order in which a single lane trains trials; what is tried before has a loss of 1.
METRIC = """
import pathlib

values = iter({values})

def given(epoch):
    return 0.0 if epoch["train_loss"] == 1.0 else next(values)
"""


@pytest.fixture(scope="session")
def net(tmp_path_factory):
    """Returns `model.name` of the network."""
    file = tmp_path_factory.mktemp("net") / "net.py"
    file.write_text(NET)
    return f"{file}:Net"


@pytest.fixture
def make_metric(tmp_path):
    """Returns a function that makes `sweep.metric` of the values that epochs are to have."""

    def make(*values: float) -> str:
        (tmp_path / "metric.py").write_text(METRIC.format(values=values))
        return f"{tmp_path}/metric.py:given"

    return make
