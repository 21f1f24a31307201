"""Layers that behave as PyTorch's, for one trial: initialisation, batch normalisation, dropout."""

import functools
import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from hpjax.errors import ModelError
from hpjax.ops import target
from hpjax.ops.batch_norm import Moments, batch_norm, fold, normalize
from hpjax.ops.bias import add_bias
from hpjax.ops.conv import conv
from hpjax.ops.norm_pool import UNPADDED, batch_norm_max_pool, normalize_max_pool
from hpjax.ops.pool import Pair
from hpjax.ops.relu import relu as rectified
from hpjax.ops.sums import accumulation_dtype

NHWC = ("NHWC", "HWIO", "NHWC")
Padding = int | str | tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class UniformInit:
    """Draws from U(-bound, bound); a value, not a closure, so that equal models have equal graphs."""

    bound: float

    def __call__(self, key: Array, shape: tuple[int, ...], dtype=jnp.float32, out_sharding=None) -> Array:
        """Returns an array drawn from `key`."""
        del out_sharding
        return jax.random.uniform(key, shape, dtype, -self.bound, self.bound)


def torch_init(fan_in: int) -> UniformInit:
    """Returns PyTorch's default, for weights and biases alike.

    Kaiming-uniform with a = sqrt(5) is the bound sqrt(6 / ((1 + a^2) fan_in)) = 1 / sqrt(fan_in).
    """
    return UniformInit(1 / math.sqrt(fan_in))


class OffsetConv(nnx.Conv):
    """A convolution that leaves its bias to the batch norm that follows, which takes it as `offset`.

    There a bias only moves the mean: adding it to the map would cost a pass over memory for nothing. It is
    still a parameter, with PyTorch's initialisation and weight decay. In training its gradient is exactly
    zero here, where PyTorch's is rounding.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        """Takes `nnx.Conv`'s arguments."""
        super().__init__(*args, use_bias=True, **kwargs)
        self.use_bias = False  # so that nnx.Conv doesn't add it


def create_conv(
    in_features: int,
    out_features: int,
    width: int,
    *,
    stride: int = 1,
    padding: Padding = 0,
    bias: bool = False,
    rngs: nnx.Rngs,
) -> nnx.Conv:
    """Returns a square convolution; with `bias`, an `OffsetConv`."""
    init = torch_init(in_features * width * width)
    make = (
        functools.partial(OffsetConv, bias_init=init) if bias else functools.partial(nnx.Conv, use_bias=False)
    )
    return make(
        in_features,
        out_features,
        (width, width),
        stride,
        padding=padding,
        kernel_init=init,
        conv_general_dilated=conv,
        rngs=rngs,
    )


def create_linear(in_features: int, out_features: int, *, rngs: nnx.Rngs) -> nnx.Linear:
    """Returns a dense layer with bias."""
    init = torch_init(in_features)
    return nnx.Linear(in_features, out_features, kernel_init=init, bias_init=init, rngs=rngs)


def widen(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Returns `x` in float32, or wider where it is."""
    return x.astype(accumulation_dtype(x.dtype))


class BatchNorm(nnx.Module):
    """PyTorch's BatchNorm: running statistics move by 0.1, the running variance is unbiased.

    Statistics are computed and kept in float32; the output has the dtype of the input.
    """

    def __init__(self, num_features: int, *, momentum: float = 0.1, epsilon: float = 1e-5):
        """Starts as the identity; `momentum` is the weight of the newest batch."""
        self.scale = nnx.Param(jnp.ones(num_features, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(num_features, jnp.float32))
        self.mean = nnx.BatchStat(jnp.zeros(num_features, jnp.float32))
        self.var = nnx.BatchStat(jnp.ones(num_features, jnp.float32))
        self.momentum = momentum
        self.epsilon = epsilon
        self.use_running_average = False
        # Set in evaluation. Of frozen modules that train, only `use_running_average` is.
        self.deterministic = False

    def __call__(
        self,
        x: Float[Array, "batch *space features"],
        *,
        mask: Float[Array, " batch"] | None = None,
        relu: bool = False,
    ) -> Float[Array, "batch *space features"]:
        """Returns `x` normalised; in training mode the running statistics move.

        Args:
          x: activations, features last.
          mask: 1 for a real example; the others don't enter the statistics.
          relu: whether a ReLU follows; as part of this layer it costs no further pass.
        """
        if self.use_running_average:
            return normalize(x, *self._running(), epsilon=self.epsilon, relu=relu)
        y, moments = batch_norm(x, *self._affine(), mask, epsilon=self.epsilon, relu=relu)
        self._move(moments)
        return y

    def relu_max_pool(
        self,
        x: Float[Array, "batch height width features"],
        *,
        mask: Float[Array, " batch"] | None = None,
        offset: Float[Array, " features"] | None = None,
        window: Pair = (2, 2),
        strides: Pair | None = None,
        pads: tuple[Pair, Pair] = UNPADDED,
    ) -> Float[Array, "batch out_height out_width features"]:
        """Returns `x` normalised, after a ReLU and a max pool, which halves it by default; see `__call__`.

        `offset` is what `OffsetConv` left out: the result is that of `x + offset`, whose mean alone differs.
        Windows are those of `batch_norm_max_pool`.
        """
        offset = jnp.zeros_like(self.mean[...]) if offset is None else offset.astype(self.mean.dtype)
        windows: Any = {"window": window, "strides": strides, "pads": pads}
        if self.use_running_average:
            mean, *others = self._running()
            return normalize_max_pool(x, mean - offset, *others, **windows, epsilon=self.epsilon)
        y, moments = batch_norm_max_pool(x, *self._affine(), mask, **windows, epsilon=self.epsilon)
        self._move(moments._replace(mean=moments.mean + offset))
        return y

    def folded_into(self, kernel: Array) -> tuple[Array, Array]:
        """Returns the kernel and the bias of a convolution that is normalised already; for evaluation."""
        return fold(kernel, *self._running(), epsilon=self.epsilon)

    def _affine(self) -> tuple[Array, Array]:
        return self.scale[...], self.bias[...]

    def _running(self) -> tuple[Array, Array, Array, Array]:
        return self.mean[...], self.var[...], *self._affine()

    def _move(self, moments: Moments) -> None:
        unbiased = moments.variance * moments.count / jnp.maximum(moments.count - 1, 1)
        self.mean[...] = self._moved(self.mean[...], moments.mean)
        self.var[...] = self._moved(self.var[...], unbiased)

    def _moved(self, old: Array, new: Array) -> Array:
        return ((1 - self.momentum) * old + self.momentum * new).astype(old.dtype)


def conv_norm(
    layer: nnx.Conv,
    norm: BatchNorm,
    x: Float[Array, "batch height width channels"],
    *,
    mask: Float[Array, " batch"] | None = None,
    added: Float[Array, "batch out_height out_width features"] | None = None,
    relu: bool = False,
) -> Float[Array, "batch out_height out_width features"]:
    """Returns `norm(layer(x)) + added`, after a ReLU where asked.

    In evaluation a GPU has the norm in the kernel, and no pass of its own over the activations.

    Args:
      layer: a convolution.
      norm: of its features.
      x: images or activations.
      mask: 1 for a real example; the others don't enter the statistics.
      added: a shortcut; None: there is none.
      relu: whether a ReLU follows.
    """
    if target.backend() != "cpu" and _can_be_folded(layer, norm):
        kernel, bias = norm.folded_into(layer.kernel[...].astype(x.dtype))
        stride, pad = layer.strides, layer.padding
        y = conv(x, kernel, (stride, stride), ((pad, pad), (pad, pad)), dimension_numbers=NHWC)  # type: ignore[arg-type]
        return add_bias(y, bias, added, relu)
    y = norm(layer(x), mask=mask, relu=relu and added is None)
    if added is None:
        return y
    return rectified(y + added) if relu else y + added


def _can_be_folded(layer: nnx.Conv, norm: BatchNorm) -> bool:
    """Returns whether these are the layers that a network was built with, in evaluation.

    A user may have put others in their place, or may have statistics of the batch used.
    """
    own = type(layer) is nnx.Conv and layer.conv_general_dilated is conv and type(norm) is BatchNorm
    plain = layer.dtype is None and layer.mask is None and not layer.use_bias
    dense = layer.input_dilation == layer.kernel_dilation == layer.feature_group_count == 1
    whole = isinstance(layer.strides, int) and isinstance(layer.padding, int)
    return own and plain and dense and whole and norm.deterministic and norm.use_running_average


class Dropout(nnx.Module):
    """Dropout whose rate is an argument, so that it can differ per lane; holds no random stream."""

    def __init__(self):
        """Starts in training mode."""
        self.deterministic = False

    def __call__(
        self, x: Float[Array, "*shape"], *, rate: Float[Array, ""] | float, rngs: nnx.Rngs | None
    ) -> Float[Array, "*shape"]:
        """Returns `x` with each value dropped with probability `rate`, the rest scaled up by 1 / (1 - rate).

        Args:
          x: activations.
          rate: in [0, 1); can be traced. A Python 0.0 drops nothing and draws nothing.
          rngs: streams of which `dropout` is used; needed in training mode only.

        Raises:
          ModelError: Training mode without `rngs`.
        """
        if self.deterministic or (isinstance(rate, float) and rate == 0.0):
            return x
        if rngs is None:
            raise ModelError(
                "dropout in training mode needs rngs=nnx.Rngs(dropout=key); or call model.eval() first"
            )
        keep = 1.0 - rate
        kept = jax.random.bernoulli(rngs.dropout(), keep, x.shape)
        return jnp.where(kept, x / jnp.asarray(keep, x.dtype), 0)
