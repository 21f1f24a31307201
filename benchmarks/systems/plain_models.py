"""Both networks in plain Flax, as anyone would write them: its own convolutions, pooling and batch norm."""

import jax
import jax.numpy as jnp
from flax import nnx


def create_model(
    name: str, image_size: int, num_classes: int, rngs: nnx.Rngs, dtype=jnp.float32
) -> nnx.Module:
    """Returns `custom_cnn` or `resnet18` with hpjax's attribute names, so that weights can be moved over.

    Batch norm returns `dtype`, from statistics in float32; by itself it would raise what follows to float32.
    """
    model = ResNet18(num_classes, rngs) if name == "resnet18" else CustomCNN(image_size, num_classes, rngs)
    for _, module in nnx.iter_graph(model):
        if isinstance(module, nnx.BatchNorm):
            module.dtype = dtype
    return model


class CustomCNN(nnx.Module):
    """Three convolutions and three dense layers."""

    def __init__(self, image_size: int, num_classes: int, rngs: nnx.Rngs):
        side = (((image_size - 2) // 2 - 2) // 2 - 6) // 2
        self.conv1 = _conv(3, 10, 5, 1, 1, rngs)
        self.batch_norm1 = _batch_norm(10, rngs)
        self.conv2 = _conv(10, 20, 5, 1, 1, rngs, bias=True)
        self.batch_norm2 = _batch_norm(20, rngs)
        self.conv3 = _conv(20, 10, 7, 1, 0, rngs, bias=True)
        self.batch_norm3 = _batch_norm(10, rngs)
        self.linear1 = nnx.Linear(side * side * 10, 1024, rngs=rngs)
        self.linear2 = nnx.Linear(1024, 512, rngs=rngs)
        self.linear3 = nnx.Linear(512, num_classes, rngs=rngs)
        self.dropout = nnx.Dropout(0.5)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs) -> jax.Array:
        """Returns logits."""
        x = _halve(jax.nn.relu(self.batch_norm1(self.conv1(x))))
        x = _halve(jax.nn.relu(self.batch_norm2(self.conv2(x))))
        x = _halve(jax.nn.relu(self.batch_norm3(self.conv3(x))))
        x = x.reshape(x.shape[0], -1)
        x = jax.nn.relu(self.dropout(self.linear1(x), rngs=rngs))
        x = self.dropout(jax.nn.relu(self.linear2(x)), rngs=rngs)
        return self.linear3(x)


class BasicBlock(nnx.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, in_features: int, out_features: int, stride: int, rngs: nnx.Rngs):
        self.conv1 = _conv(in_features, out_features, 3, stride, 1, rngs)
        self.bn1 = _batch_norm(out_features, rngs)
        self.conv2 = _conv(out_features, out_features, 3, 1, 1, rngs)
        self.bn2 = _batch_norm(out_features, rngs)
        self.downsample = nnx.List()
        if stride != 1 or in_features != out_features:
            self.downsample.append(_conv(in_features, out_features, 1, stride, 0, rngs))
            self.downsample.append(_batch_norm(out_features, rngs))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns the block's activations."""
        y = self.bn2(self.conv2(jax.nn.relu(self.bn1(self.conv1(x)))))
        for layer in self.downsample:
            x = layer(x)
        return jax.nn.relu(y + x)


class ResNet18(nnx.Module):
    """torchvision's resnet18."""

    def __init__(self, num_classes: int, rngs: nnx.Rngs):
        self.conv1 = _conv(3, 64, 7, 2, 3, rngs)
        self.bn1 = _batch_norm(64, rngs)
        self.layer1 = _stage(64, 64, 1, rngs)
        self.layer2 = _stage(64, 128, 2, rngs)
        self.layer3 = _stage(128, 256, 2, rngs)
        self.layer4 = _stage(256, 512, 2, rngs)
        self.fc = nnx.Linear(512, num_classes, rngs=rngs)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs) -> jax.Array:
        """Returns logits."""
        del rngs
        x = jax.nn.relu(self.bn1(self.conv1(x)))
        x = nnx.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))  # type: ignore[arg-type]
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in stage:
                x = block(x)
        return self.fc(jnp.mean(x, (1, 2)))


def _stage(in_features: int, out_features: int, stride: int, rngs: nnx.Rngs) -> nnx.List:
    first = BasicBlock(in_features, out_features, stride, rngs)
    return nnx.List([first, BasicBlock(out_features, out_features, 1, rngs)])


def _conv(
    in_features: int,
    out_features: int,
    width: int,
    stride: int,
    padding: int,
    rngs: nnx.Rngs,
    bias: bool = False,
) -> nnx.Conv:
    return nnx.Conv(
        in_features, out_features, (width, width), stride, padding=padding, use_bias=bias, rngs=rngs
    )


def _batch_norm(features: int, rngs: nnx.Rngs) -> nnx.BatchNorm:
    return nnx.BatchNorm(features, momentum=0.9, epsilon=1e-5, rngs=rngs)


def _halve(x: jax.Array) -> jax.Array:
    return nnx.max_pool(x, (2, 2), (2, 2))
