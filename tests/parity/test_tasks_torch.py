"""Twenty steps of a regression and of a token task against the same loop in PyTorch."""

import jax
import numpy as np
import pytest
from flax import nnx

from hpjax.train.hparams import create_hparams
from hpjax.train.inputs import InputRule
from hpjax.train.loss import LossRule
from hpjax.train.optimizer import OptimizerRule
from hpjax.train.scores import measure
from hpjax.train.state import create_recipe, create_state
from hpjax.train.step import Batch, train_step

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

STEPS, BATCH = 20, 16
WEIGHTS = (0.5, 2.0, 1.5)
MEAN, STD = (0.5, -1.0, 0.0, 2.0), (1.5, 0.5, 1.0, 3.0)
RNG = np.random.default_rng(0)
TABLE = RNG.normal(1, 2, (STEPS, BATCH, 4)).astype(np.float32)
TOKENS = RNG.integers(0, 9, (STEPS, BATCH, 6)).astype(np.int32)
NUMBERS = np.stack([TABLE.sum(-1), 3 * TABLE[..., 0] ** 2], -1).astype(np.float32)


class Table(nnx.Module):
    def __init__(self, rngs):
        self.first, self.out = nnx.Linear(4, 8, rngs=rngs), nnx.Linear(8, 2, rngs=rngs)

    def __call__(self, x):
        return self.out(jax.nn.relu(self.first(x)))


class Tokens(nnx.Module):
    def __init__(self, rngs):
        self.first, self.out = nnx.Embed(9, 8, rngs=rngs), nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, x):
        return self.out(jax.nn.relu(self.first(x).mean(1)))


def _linear(layer):
    theirs = torch.nn.Linear(*layer.kernel.shape)
    theirs.weight.data = torch.from_numpy(np.array(layer.kernel[...]).T.copy())
    theirs.bias.data = torch.from_numpy(np.array(layer.bias[...]))
    return theirs


def _embedding(layer):
    return torch.nn.Embedding.from_pretrained(torch.from_numpy(np.array(layer.embedding[...])), freeze=False)


CASES = {
    "mse": (Table, TABLE, NUMBERS, LossRule("mse", ("mae",), 2, 1), torch.nn.MSELoss()),
    "huber": (Table, TABLE, NUMBERS, LossRule("huber", ("mae",), 2, 1), torch.nn.HuberLoss()),
    "binary": (
        Table,
        TABLE,
        (NUMBERS > 3).astype(np.float32),
        LossRule("binary", ("f1",), 2, 1, WEIGHTS[:2]),
        torch.nn.BCEWithLogitsLoss(pos_weight=torch.tensor(WEIGHTS[:2])),
    ),
    "tokens": (
        Tokens,
        TOKENS,
        (TOKENS.sum(-1) % 3).astype(np.int32),
        LossRule("cross_entropy", ("f1",), 3, 0, WEIGHTS),
        torch.nn.CrossEntropyLoss(weight=torch.tensor(WEIGHTS)),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_twenty_steps(name):
    """Losses to 1e-4: both run in float32, and Adam turns roundings into steps."""
    kind, inputs, targets, loss, criterion = CASES[name]
    model = kind(nnx.Rngs(0))
    first = (_embedding if kind is Tokens else _linear)(model.first)
    layers = torch.nn.ModuleList([first, _linear(model.out)])
    optimizer = torch.optim.Adam(layers.parameters(), 0.01)
    rule = InputRule(MEAN, STD) if kind is Table else InputRule()
    recipe = create_recipe(model, OptimizerRule("adam"), "float32", loss, rule)
    hparams = create_hparams(learning_rate=0.01)
    state, step = create_state(model, recipe, hparams), jax.jit(train_step)
    for x, y in zip(inputs, targets, strict=True):
        state, sums = step(state, hparams, Batch(x, y))
        x = torch.from_numpy(
            (x - np.float32(MEAN)) / np.float32(STD) if kind is Table else x.astype(np.int64)
        )
        hidden = layers[0](x).mean(1) if kind is Tokens else layers[0](x)
        y = torch.from_numpy(y if loss.targets else y.astype(np.int64))
        theirs = criterion(layers[1](torch.relu(hidden)), y)
        optimizer.zero_grad()
        theirs.backward()
        optimizer.step()
        assert measure(loss, jax.device_get(sums))["loss"] == pytest.approx(theirs.item(), rel=1e-4)
    out = nnx.to_pure_dict(state.params)["out"]["kernel"]
    np.testing.assert_allclose(out, layers[1].weight.detach().numpy().T, rtol=1e-3, atol=1e-5)
