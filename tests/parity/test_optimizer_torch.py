"""Optimizers against torch.optim over ten steps of a small problem."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hpjax.train.hparams import create_hparams
from hpjax.train.optimizer import OptimizerRule, make_optimizer

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

STEPS = 10
START = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
NOISE = np.random.default_rng(1).normal(size=(STEPS, 4, 3)).astype(np.float32)
DECAY = 0.1
RATE = 0.05

CASES = {
    "sgd": (lambda p: torch.optim.SGD(p, RATE, weight_decay=DECAY), {}),
    "momentum": (lambda p: torch.optim.SGD(p, RATE, momentum=0.8, weight_decay=DECAY), {"momentum": 0.8}),
    "nesterov": (
        lambda p: torch.optim.SGD(p, RATE, momentum=0.8, nesterov=True, weight_decay=DECAY),
        {"momentum": 0.8},
    ),
    "adam": (lambda p: torch.optim.Adam(p, RATE, weight_decay=DECAY), {}),
    "adamw": (lambda p: torch.optim.AdamW(p, RATE, weight_decay=DECAY), {}),
    "rmsprop": (
        lambda p: torch.optim.RMSprop(p, RATE, alpha=0.99, momentum=0.8, weight_decay=DECAY),
        {"b2": 0.99, "momentum": 0.8},
    ),
}


def run_theirs(make, clip_norm=0.0, schedule=None):
    parameter = torch.nn.Parameter(torch.from_numpy(START.copy()))
    optimizer = make([parameter])
    scheduler = schedule and schedule(optimizer)
    for noise in NOISE:
        optimizer.zero_grad()
        (parameter.square().sum() + (parameter * torch.from_numpy(noise)).sum()).backward()
        if clip_norm:
            torch.nn.utils.clip_grad_norm_([parameter], clip_norm)
        optimizer.step()
        if scheduler:
            scheduler.step()
    return parameter.detach().numpy()


def run_ours(rule, hparams):
    @jax.jit
    def run(hparams):
        optimizer = make_optimizer(rule, hparams)
        params = {"w": jnp.asarray(START)}
        state = optimizer.init(params)
        for noise in NOISE:
            updates, state = optimizer.update({"w": 2 * params["w"] + noise}, state, params)
            params = optax.apply_updates(params, updates)
        return params["w"]

    return run(hparams)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("clip_norm", [0.0, 1.5])
def test_equals_torch(name, clip_norm):
    make, numbers = CASES[name]
    hparams = create_hparams(learning_rate=RATE, weight_decay=DECAY, clip_norm=clip_norm, **numbers)
    # PyTorch computes 1 - b2 in float64; float32's 1 - 0.999 is off by 1e-5, its bias correction by more.
    np.testing.assert_allclose(
        run_ours(OptimizerRule(name), hparams), run_theirs(make, clip_norm), rtol=1e-4, atol=2e-5
    )


def test_cosine_schedule_equals_torch():
    hparams = create_hparams(learning_rate=RATE, weight_decay=DECAY)
    expected = run_theirs(
        CASES["adam"][0], schedule=lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=STEPS)
    )
    ours = run_ours(OptimizerRule("adam", schedule="cosine", total_steps=STEPS), hparams)
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=2e-5)
