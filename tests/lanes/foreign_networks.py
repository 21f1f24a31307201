"""Networks as people write them in Flax, who have never heard of lanes: of Flax's own layers alone."""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import nnx

LEAKY = functools.partial(jax.nn.leaky_relu, negative_slope=0.1)


class Residual(nnx.Module):
    """Two stages of pre-activation blocks with batch norm, the second one strided."""

    def __init__(self, *, num_classes: int, rngs: nnx.Rngs):
        self.stem = nnx.Conv(3, 8, (3, 3), use_bias=False, rngs=rngs)
        self.norms = nnx.List([nnx.BatchNorm(8, rngs=rngs), nnx.BatchNorm(8, rngs=rngs)])
        self.convs = nnx.List([nnx.Conv(8, 8, (3, 3), rngs=rngs), nnx.Conv(8, 16, (3, 3), 2, rngs=rngs)])
        self.shortcut = nnx.Conv(8, 16, (1, 1), 2, use_bias=False, rngs=rngs)
        self.out = nnx.Linear(16, num_classes, rngs=rngs)

    def __call__(self, images):
        x = self.stem(images)
        x = x + self.convs[0](nnx.relu(self.norms[0](x)))
        y = nnx.relu(self.norms[1](x))
        x = self.shortcut(y) + self.convs[1](y)
        return self.out(nnx.relu(x).mean((1, 2)))


class Depthwise(nnx.Module):
    """Separable convolutions, one of them dilated, and a channel gate."""

    def __init__(self, *, num_classes, rngs):
        self.stem = nnx.Conv(3, 8, (4, 4), strides=4, padding="VALID", rngs=rngs)
        self.depth = nnx.Conv(8, 8, (3, 3), feature_group_count=8, kernel_dilation=2, rngs=rngs)
        self.point = nnx.Conv(8, 12, (1, 1), rngs=rngs)
        self.gate = nnx.Linear(12, 12, rngs=rngs)
        self.norm = nnx.LayerNorm(12, rngs=rngs)
        self.out = nnx.Linear(12, num_classes, rngs=rngs)

    def __call__(self, images):
        x = nnx.gelu(self.point(self.depth(self.stem(images))))
        x = x * nnx.sigmoid(self.gate(x.mean((1, 2))))[:, None, None]
        return self.out(self.norm(x).mean((1, 2)))


class Grouped(nnx.Module):
    """Group norm, and dropout that draws from a stream of its own, made in `__init__`."""

    def __init__(self, num_classes, rngs):
        self.conv = nnx.Conv(3, 8, (3, 3), strides=(2, 2), rngs=rngs)
        self.norm = nnx.GroupNorm(8, num_groups=4, rngs=rngs)
        self.drop = nnx.Dropout(0.3, rngs=rngs)
        self.up = nnx.ConvTranspose(8, 4, (2, 2), strides=(2, 2), rngs=rngs)
        self.out = nnx.Linear(4, num_classes, rngs=rngs)

    def __call__(self, images):
        x = self.drop(nnx.silu(self.norm(self.conv(images))))
        return self.out(nnx.max_pool(self.up(x), (2, 2), (2, 2)).mean((1, 2)))


class Attention(nnx.Module):
    """A small vision transformer with a learned position of each patch."""

    def __init__(self, *, num_classes, image_size, rngs):
        self.patch = nnx.Conv(3, 16, (6, 6), strides=6, padding="VALID", rngs=rngs)
        count = (image_size // 6) ** 2
        self.place = nnx.Param(0.02 * jax.random.normal(rngs.params(), (1, count, 16)))
        self.norm = nnx.LayerNorm(16, rngs=rngs)
        self.mix = nnx.MultiHeadAttention(num_heads=2, in_features=16, decode=False, rngs=rngs)
        self.dense = nnx.Sequential(nnx.Linear(16, 32, rngs=rngs), nnx.gelu, nnx.Linear(32, 16, rngs=rngs))
        self.out = nnx.Linear(16, num_classes, rngs=rngs)

    def __call__(self, images):
        x = self.patch(images)
        x = x.reshape(x.shape[0], -1, 16) + self.place[...]
        x = x + self.mix(self.norm(x))
        x = x + self.dense(x)
        return self.out(x.mean(1))


class _Linen(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(6, (3, 3), strides=(2, 2))(x))
        x = nn.avg_pool(x, (3, 3), (3, 3))
        return nn.Dense(self.num_classes)(jnp.reshape(x, (x.shape[0], -1)))


class Linen(nnx.Module):
    """A module of Flax's older interface, as `nnx.bridge` takes it."""

    def __init__(self, *, num_classes, image_size, rngs):
        image = jnp.zeros((1, image_size, image_size, 3))
        self.inner = nnx.bridge.ToNNX(_Linen(num_classes), rngs=rngs).lazy_init(image)

    def __call__(self, images):
        return self.inner(images)


class Recurrent(nnx.Module):
    """Rows of an image as a sequence, read by a GRU in `nnx.RNN`: a scan inside of the network."""

    def __init__(self, *, num_classes, image_size, rngs):
        self.rnn = nnx.RNN(nnx.GRUCell(image_size * 3, 8, rngs=rngs))
        self.out = nnx.Linear(8, num_classes, rngs=rngs)

    def __call__(self, images):
        rows = images.reshape(*images.shape[:2], -1)
        return self.out(jnp.asarray(self.rnn(rows))[:, -1])


class Shared(nnx.Module):
    """One block used twice, an activation that is an argument, rematerialised in the backward pass."""

    def __init__(self, *, num_classes, rngs, activation=LEAKY):
        self.stem = nnx.Conv(3, 6, (5, 5), strides=5, rngs=rngs)
        self.block = nnx.Conv(6, 6, (3, 3), rngs=rngs)
        self.out = nnx.Linear(6, num_classes, rngs=rngs)
        self.activation = activation

    def __call__(self, images):
        @nnx.remat
        def twice(block, x):
            return self.activation(block(self.activation(block(x))))

        return self.out(twice(self.block, self.stem(images)).mean((1, 2)))
