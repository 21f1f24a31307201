"""Twenty steps of fine-tuning against the same loop in PyTorch: frozen layers, a head with its own rate."""

import jax
import numpy as np
import pytest
import tuned_network
from flax import nnx

from hpjax.train.hparams import create_hparams
from hpjax.train.optimizer import OptimizerRule
from hpjax.train.state import create_recipe, create_state, evaluated_state
from hpjax.train.step import Batch, predict_step, train_step

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

STEPS, RATE, DECAY = 20, 0.05, 0.1
EPS = 1e-3  # of Adam: a bias before batch norm has a gradient of rounding alone, which is no direction
RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(STEPS, 16, 2, 2, 3)).astype(np.float32)
LABELS = (IMAGES.mean((2, 3)).argmax(-1)).astype(np.int32)


class Theirs(torch.nn.Module):
    """The tiny network in PyTorch, with the weights that ours begins with."""

    def __init__(self, ours):
        super().__init__()
        self.stem, self.norm, self.head = (
            torch.nn.Linear(3, 5),
            torch.nn.BatchNorm1d(5),
            torch.nn.Linear(5, 3),
        )
        for layer, source in ((self.stem, ours.stem[0]), (self.head, ours.head)):
            layer.weight.data = torch.from_numpy(np.array(source.kernel[...]).T.copy())
            layer.bias.data = torch.from_numpy(np.array(source.bias[...]))

    def forward(self, x):
        return self.head(torch.relu(self.norm(self.stem(x.mean((1, 2))))))


def _freeze(*modules):
    for module in modules:
        module.requires_grad_(False)
        module.eval()


def _head_apart(net, factor):
    body = [*net.stem.parameters(), *net.norm.parameters()]
    return [{"params": body}, {"params": net.head.parameters(), "lr": factor * RATE}]


def _kernels_apart(net):
    kernels = [net.stem.weight, net.head.weight]
    others = [net.stem.bias, *net.norm.parameters(), net.head.bias]
    return [{"params": kernels}, {"params": others, "weight_decay": 0.0}]


def _adamw(groups):
    return torch.optim.AdamW(groups, RATE, weight_decay=DECAY, eps=EPS)


def _trained(net):
    return (parameter for parameter in net.parameters() if parameter.requires_grad)


def _sgd(groups):
    return torch.optim.SGD(groups, RATE, momentum=0.9, weight_decay=DECAY)


# Rule of the optimizer, frozen modules, hyperparameters; and in PyTorch what is frozen, and the optimizer.
CASES = {
    "head": ({"name": "adamw", "head": "head"}, (), {"head_factor": 10.0},
             lambda net: (), lambda net: _adamw(_head_apart(net, 10.0))),
    "head, coupled": ({"name": "momentum", "head": "head"}, (), {"head_factor": 0.1},
                      lambda net: (), lambda net: _sgd(_head_apart(net, 0.1))),
    "frozen": ({"name": "adamw"}, ("stem", "norm"), {},
               lambda net: (net.stem, net.norm), lambda net: _adamw(net.head.parameters())),
    "frozen norm": ({"name": "momentum"}, ("norm",), {},  # gradients pass through it
                    lambda net: (net.norm,), lambda net: _sgd(_trained(net))),
    "kernels": ({"name": "adamw", "weight_decay_on": "kernels"}, (), {},
                lambda net: (), lambda net: _adamw(_kernels_apart(net))),
    "kernels, coupled": ({"name": "momentum", "weight_decay_on": "kernels"}, (), {},
                         lambda net: (), lambda net: _sgd(_kernels_apart(net))),
}  # fmt: skip


def _train_ours(model, rule, frozen, numbers):
    recipe = create_recipe(model, OptimizerRule(**rule), frozen=frozen)
    hparams = create_hparams(learning_rate=RATE, weight_decay=DECAY, eps=EPS, **numbers)
    state, step = create_state(model, recipe, hparams), jax.jit(train_step)
    for images, labels in zip(IMAGES, LABELS, strict=True):
        state, _ = step(state, hparams, Batch(images, labels))
    return state


def _train_theirs(net, optimizer, after=lambda: None):
    for images, labels in zip(IMAGES, LABELS, strict=True):
        optimizer.zero_grad()
        outputs = net(torch.from_numpy(images))
        torch.nn.functional.cross_entropy(outputs, torch.from_numpy(labels.astype(np.int64))).backward()
        optimizer.step()
        after()


def _assert_equal(params, batch_stats, net):
    """To 1e-3: both run in float32."""
    ours, stats = nnx.to_pure_dict(params), nnx.to_pure_dict(batch_stats)["norm"]
    pairs = [
        (ours["stem"][0]["kernel"].T, net.stem.weight),
        (ours["stem"][0]["bias"], net.stem.bias),
        (ours["norm"]["scale"], net.norm.weight),
        (ours["norm"]["bias"], net.norm.bias),
        (ours["head"]["kernel"].T, net.head.weight),
        (ours["head"]["bias"], net.head.bias),
        (stats["mean"], net.norm.running_mean),
        (stats["var"], net.norm.running_var),
    ]
    for mine, theirs in pairs:
        np.testing.assert_allclose(mine, theirs.detach().numpy(), rtol=1e-3, atol=2e-4)


VARIANTS = ("head", "frozen", "kernels")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.landing) if n in VARIANTS else n for n in CASES]
)
def test_twenty_steps(name):
    rule, frozen, numbers, freeze, make = CASES[name]
    model = tuned_network.Net(num_classes=3, rngs=nnx.Rngs(0))
    net = Theirs(model)
    _freeze(*freeze(net))
    _train_theirs(net, make(net))
    state = _train_ours(model, rule, frozen, numbers)
    _assert_equal(state.params, state.batch_stats, net)


@pytest.mark.parametrize("frozen", [(), pytest.param(("norm",), marks=pytest.mark.landing)])
def test_the_average_is_that_of_an_averaged_model(frozen):
    """Weights and running statistics alike (`use_buffers`), and it is what is evaluated."""
    model = tuned_network.Net(num_classes=3, rngs=nnx.Rngs(0))
    net, decay = Theirs(model), 0.8
    _freeze(*(getattr(net, name) for name in frozen))
    update = torch.optim.swa_utils.get_ema_multi_avg_fn(decay)
    averaged = torch.optim.swa_utils.AveragedModel(net, multi_avg_fn=update, use_buffers=True)
    _train_theirs(net, _sgd(_trained(net)), lambda: averaged.update_parameters(net))
    state = _train_ours(model, {"name": "momentum"}, frozen, {"ema_decay": decay})
    _assert_equal(state.params, state.batch_stats, net)  # training goes on from the weights themselves
    evaluated = evaluated_state(state)
    _assert_equal(evaluated.params, evaluated.batch_stats, averaged.module)
    averaged.eval()
    theirs = averaged(torch.from_numpy(IMAGES[0])).detach().numpy()
    np.testing.assert_allclose(jax.jit(predict_step)(state, IMAGES[0]), theirs, rtol=1e-3, atol=1e-3)
