"""A network that has what matters to lanes, and compiles in a second: for tests of whole sweeps."""

import jax
from flax import nnx

from hpjax.models.layers import BatchNorm, Dropout, create_conv, create_linear

MODEL = {"name": f"{__file__}:Tiny"}  # `model` of a config
# `data` of most sweeps that are tested: of one shape, their programs are compiled once.
DATA = {"name": "synthetic_scenes", "image_size": 30, "max_train_examples": 60, "max_test_examples": 24}


class Tiny(nnx.Module):
    """A convolution, batch norm with ReLU and pool, dropout and a dense layer."""

    def __init__(self, *, num_classes, image_size, rngs):
        side = (image_size - 2) // 2
        self.conv = create_conv(3, 4, 3, rngs=rngs)
        self.norm = BatchNorm(4)
        self.dense = create_linear(side * side * 4, num_classes, rngs=rngs)
        self.dropout = Dropout()

    def __call__(self, images, *, mask=None, dropout_rate=0.5, rngs=None):
        x = self.norm.relu_max_pool(self.conv(images), mask=mask)
        x = self.dropout(jax.nn.relu(x.reshape(x.shape[0], -1)), rate=dropout_rate, rngs=rngs)
        return self.dense(x)
