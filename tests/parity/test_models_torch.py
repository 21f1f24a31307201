"""Both networks against the same networks in PyTorch: same weights, same batches, dropout off."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from hpjax.config import parse_config
from hpjax.data.dataset import Dataset, Split
from hpjax.lanes.group import create_program
from hpjax.models import create_model, from_torch, to_torch
from hpjax.train.hparams import create_hparams
from hpjax.train.optimizer import OptimizerRule, make_optimizer
from hpjax.train.state import merge_model
from hpjax.train.step import predict_step

torch = pytest.importorskip("torch")
safetensors_torch = pytest.importorskip("safetensors.torch")
tnn = torch.nn
pytestmark = pytest.mark.torch

SIZES = {"custom_cnn": 48, "resnet18": 32}
BATCH = 8
STEPS = 20
LEARNING_RATE = 1e-4
WEIGHT_DECAY = 0.01


class TorchCNN(tnn.Module):
    """The article's network, layer by layer as it is described there."""

    def __init__(self, classes, side):
        super().__init__()
        self.conv1 = tnn.Conv2d(3, 10, kernel_size=5, stride=1, padding=1, bias=False)
        self.batch_norm1 = tnn.BatchNorm2d(10)
        self.conv2 = tnn.Conv2d(10, 20, kernel_size=5, stride=1, padding=1)
        self.batch_norm2 = tnn.BatchNorm2d(20)
        self.conv3 = tnn.Conv2d(20, 10, kernel_size=7, stride=1, padding=0)
        self.batch_norm3 = tnn.BatchNorm2d(10)
        self.max_pool = tnn.MaxPool2d(2)
        self.relu = tnn.ReLU()
        self.dropout = tnn.Dropout(0.5)
        self.linear1 = tnn.Linear(10 * side * side, 1024)
        self.linear2 = tnn.Linear(1024, 512)
        self.linear3 = tnn.Linear(512, classes)

    def forward(self, x):
        x = self.max_pool(self.relu(self.batch_norm1(self.conv1(x))))
        x = self.max_pool(self.relu(self.batch_norm2(self.conv2(x))))
        x = self.max_pool(self.relu(self.batch_norm3(self.conv3(x))))
        x = self.relu(self.dropout(self.linear1(x.flatten(1))))
        x = self.dropout(self.relu(self.linear2(x)))
        return self.linear3(x)


class TorchBlock(tnn.Module):
    def __init__(self, cin, cout, stride):
        super().__init__()
        self.conv1 = tnn.Conv2d(cin, cout, 3, stride, 1, bias=False)
        self.bn1 = tnn.BatchNorm2d(cout)
        self.conv2 = tnn.Conv2d(cout, cout, 3, 1, 1, bias=False)
        self.bn2 = tnn.BatchNorm2d(cout)
        self.downsample = tnn.Identity()
        if stride != 1 or cin != cout:
            self.downsample = tnn.Sequential(
                tnn.Conv2d(cin, cout, 1, stride, bias=False), tnn.BatchNorm2d(cout)
            )

    def forward(self, x):
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + self.downsample(x))


class TorchResNet18(tnn.Module):
    def __init__(self, classes):
        super().__init__()
        self.conv1 = tnn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = tnn.BatchNorm2d(64)
        self.layer1 = tnn.Sequential(TorchBlock(64, 64, 1), TorchBlock(64, 64, 1))
        self.layer2 = tnn.Sequential(TorchBlock(64, 128, 2), TorchBlock(128, 128, 1))
        self.layer3 = tnn.Sequential(TorchBlock(128, 256, 2), TorchBlock(256, 256, 1))
        self.layer4 = tnn.Sequential(TorchBlock(256, 512, 2), TorchBlock(512, 512, 1))
        self.fc = tnn.Linear(512, classes)

    def forward(self, x):
        x = tnn.functional.max_pool2d(torch.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        return self.fc(self.layer4(self.layer3(self.layer2(self.layer1(x)))).mean((2, 3)))


def create_pair(name):
    torch.manual_seed(0)
    theirs = TorchCNN(6, 2) if name == "custom_cnn" else TorchResNet18(6)
    for module in theirs.modules():
        if isinstance(module, tnn.Dropout):
            module.p = 0.0  # two random generators can't drop the same values
    ours = nnx.eval_shape(
        lambda: create_model(name, num_classes=6, image_size=SIZES[name], rngs=nnx.Rngs(params=1))
    )
    return from_torch(ours, theirs.state_dict()), theirs


def create_batches(name, count):
    rng = np.random.default_rng(0)
    size = SIZES[name]
    images = rng.random((count, BATCH, size, size, 3), np.float32)
    return images, rng.integers(0, 6, (count, BATCH))


def to_nchw(images):
    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy())


def loss_and_state(params, graphdef, rest, images, labels):
    model = nnx.merge(graphdef, params, rest, copy=True)
    model.train()
    logits = model(images, dropout_rate=0.0)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    return loss, nnx.split(model, nnx.Param, ...)[2]


@pytest.fixture(params=list(SIZES), scope="module")
def name(request):
    return request.param


def test_logits_in_evaluation(name):
    ours, theirs = create_pair(name)
    images, _ = create_batches(name, 1)
    for module in theirs.modules():
        if isinstance(module, tnn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.5, 0.5)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    ours = from_torch(ours, theirs.state_dict())
    ours.eval()
    with torch.no_grad():
        expected = theirs.eval()(to_nchw(images[0])).numpy()
    # float32 sums in another order: a few units of 1e-7 per layer, relative to logits of order 1.
    np.testing.assert_allclose(nnx.jit(lambda m, x: m(x))(ours, images[0]), expected, rtol=1e-4, atol=2e-5)


def test_strict_state_dicts_both_ways(name):
    ours, theirs = create_pair(name)
    tensors = {key: torch.tensor(value) for key, value in to_torch(ours).items()}
    assert tensors.keys() == theirs.state_dict().keys()
    other = TorchCNN(6, 2) if name == "custom_cnn" else TorchResNet18(6)
    other.load_state_dict(tensors, strict=True)
    for key, value in theirs.state_dict().items():
        np.testing.assert_array_equal(other.state_dict()[key], value, err_msg=key)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_pretrained_weights_of_the_original_start_a_trial(tmp_path, suffix):
    _, theirs = create_pair("custom_cnn")
    path = tmp_path / f"original{suffix}"
    if suffix == ".pth":
        torch.save(theirs.state_dict(), path)
    else:
        safetensors_torch.save_file(theirs.state_dict(), path)
    images = np.random.default_rng(0).integers(0, 256, (4, 48, 48, 3), dtype=np.uint8)
    split = Split(images, np.arange(4, dtype=np.int32))
    dataset = Dataset("drawn", tuple("abcdef"), split, None, split, fingerprint="")
    config = parse_config({"model": {"pretrained": str(path)}, "train": {"batch_size": 4}})
    state = create_program(config, dataset).create(create_hparams(seed=3)).state
    loaded = to_torch(merge_model(state))
    for key, value in theirs.state_dict().items():
        np.testing.assert_array_equal(loaded[key], value, err_msg=key)
    with torch.no_grad():
        expected = theirs.eval()(to_nchw(images.astype(np.float32) / 255)).numpy()
    np.testing.assert_allclose(predict_step(state, jnp.asarray(images)), expected, rtol=1e-4, atol=2e-5)


def test_gradients_and_running_statistics(name):
    ours, theirs = create_pair(name)
    images, labels = create_batches(name, 1)
    loss = tnn.functional.cross_entropy(theirs.train()(to_nchw(images[0])), torch.from_numpy(labels[0]))
    loss.backward()
    graphdef, params, rest = nnx.split(ours, nnx.Param, ...)
    gradient = jax.jit(jax.value_and_grad(loss_and_state, has_aux=True), static_argnums=1)
    (our_loss, rest), grads = gradient(params, graphdef, rest, images[0], labels[0])
    np.testing.assert_allclose(our_loss, loss.item(), rtol=1e-5)
    our_grads = to_torch(nnx.merge(graphdef, grads, rest))
    for key, parameter in theirs.named_parameters():
        expected = parameter.grad.numpy()
        if key in ("conv2.bias", "conv3.bias"):  # zero before batch norm; there it is rounding
            assert not our_grads[key].any() and np.abs(expected).max() < 1e-7
            continue
        # Relative to the tensor's largest entry, as single entries cancel to nearly nothing; float32 sums
        # in another order, through up to 20 layers: measured 4e-6 (custom_cnn) and 2e-5 (resnet18).
        difference = np.abs(our_grads[key] - expected).max() / np.abs(expected).max()
        assert difference < 2e-4, f"{key}: {difference}"
    compare_statistics(our_grads, theirs, rtol=1e-5)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("custom_cnn", marks=pytest.mark.landing),
        pytest.param("resnet18", marks=pytest.mark.exhaustive),
    ],
)
def test_twenty_adam_steps_in_float64(name):
    # In float64, since a ResNet's training amplifies float32's rounding until two correct programs disagree.
    with jax.enable_x64(True):
        trained, theirs, losses = train_both(name, np.float64)
    # Measured: 1e-13 in losses, 1e-8 of a learning rate in weights; a flaw of method would show at 1e-3.
    np.testing.assert_allclose(*losses, rtol=1e-10)
    compare_weights(trained, theirs, steps_off=1e-5)
    compare_statistics(trained, theirs, rtol=1e-9)


@pytest.mark.landing
def test_twenty_adam_steps_in_float32():
    trained, theirs, losses = train_both("custom_cnn", np.float32)
    # Rounding, divided by Adam's small second moments; measured 1e-6 and 0.02 of a learning rate.
    np.testing.assert_allclose(*losses, rtol=1e-5)
    compare_weights(trained, theirs, steps_off=0.2)
    compare_statistics(trained, theirs, rtol=1e-5)


def train_both(name, dtype):
    ours, theirs = create_pair(name)
    images, labels = create_batches(name, STEPS)
    images = images.astype(dtype)
    graphdef, params, rest = nnx.split(ours, nnx.Param, ...)
    params, rest = jax.tree.map(lambda x: x.astype(dtype), (params, rest))
    losses, params, rest = train_ours(graphdef, params, rest, images, labels)
    expected = train_theirs(theirs.double() if dtype == np.float64 else theirs, images, labels)
    return to_torch(nnx.merge(graphdef, params, rest)), theirs, (losses, expected)


def train_theirs(model, images, labels):
    optimizer = torch.optim.Adam(model.train().parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    losses = []
    for x, y in zip(images, labels, strict=True):
        optimizer.zero_grad()
        loss = tnn.functional.cross_entropy(model(to_nchw(x)), torch.from_numpy(y))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def train_ours(graphdef, params, rest, images, labels):
    numbers = {
        "learning_rate": LEARNING_RATE,
        "weight_decay": WEIGHT_DECAY,
        "b1": 0.9,
        "b2": 0.999,
        "eps": 1e-8,
    }
    hparams = create_hparams()._replace(**{k: jnp.asarray(v, images.dtype) for k, v in numbers.items()})
    optimizer = make_optimizer(OptimizerRule(), hparams)

    @jax.jit
    def step(params, rest, opt_state, x, y):
        (loss, rest), grads = jax.value_and_grad(loss_and_state, has_aux=True)(params, graphdef, rest, x, y)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), rest, opt_state, loss

    opt_state, losses = optimizer.init(params), []
    for x, y in zip(images, labels, strict=True):
        params, rest, opt_state, loss = step(params, rest, opt_state, jnp.asarray(x), jnp.asarray(y))
        losses.append(float(loss))
    return losses, params, rest


def compare_weights(ours, theirs, steps_off):
    for key, parameter in theirs.named_parameters():
        difference = np.abs(ours[key] - parameter.detach().numpy()).max() / LEARNING_RATE
        assert difference < steps_off, f"{key}: {difference} of a learning rate"


def compare_statistics(ours, theirs, rtol):
    for key, expected in theirs.named_buffers():
        if "running" in key:
            np.testing.assert_allclose(ours[key], expected.numpy(), rtol=rtol, atol=rtol, err_msg=key)
