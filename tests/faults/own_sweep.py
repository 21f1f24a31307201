"""A sweep with a model, a metric and a config of a user's own, into each of which code can be put."""

import textwrap
from pathlib import Path

CONFIG = """
def get_config():
    {in_config}
    return {{
        "model": {{"name": {model!r}}},
        "data": {{
            "name": "synthetic_scenes", "image_size": 16, "max_train_examples": 24, "max_test_examples": 12
        }},
        "train": {{"batch_size": 5, "epochs": 2}},
        "sweep": {{"space": {{"learning_rate": (1e-3, 1e-2)}}, "metric": {metric!r}}},
        "lanes": {{"count": 2, "strategy": "fused"}},
        "trackers": (),
    }}
"""
MODEL = """
from flax import nnx
import jax.numpy as jnp
{at_import}
class Net(nnx.Module):
    def __init__(self, *, num_classes, rngs):
        self.out = nnx.Linear(3, num_classes, rngs=rngs)
        {at_creation}

    def __call__(self, images):
        {at_call}
        return self.out(images.mean((1, 2)))
"""
METRIC = """
def metric(epoch):
    {in_metric}
    return epoch["test_accuracy"]
"""


def write_sweep(folder: Path, **code: str) -> list[str]:
    """Writes config, model and metric, with code in places of theirs; returns the command line."""
    indents = {"in_config": 4, "at_import": 0, "at_creation": 8, "at_call": 8, "in_metric": 4}
    placed = {p: textwrap.indent(code.get(p, "pass"), " " * n).lstrip() for p, n in indents.items()}
    (folder / "net.py").write_text(MODEL.format(**placed), encoding="utf-8")
    (folder / "metric.py").write_text(METRIC.format(**placed), encoding="utf-8")
    names = {"model": f"{folder}/net.py:Net", "metric": f"{folder}/metric.py:metric"}
    (folder / "config.py").write_text(CONFIG.format(**placed, **names), encoding="utf-8")
    return ["hpjax", f"--config={folder}/config.py", f"--workdir={folder}/sweep"]
