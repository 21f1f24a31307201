"""The three-convolution network of the article."""

import itertools
from collections.abc import Sequence

import jax
from flax import nnx
from jaxtyping import Array, Float

from hpjax.config import check_field
from hpjax.errors import ConfigError
from hpjax.models.layers import BatchNorm, Dropout, Padding, create_conv, create_linear, widen

WIDEST = 63  # a kernel, in pixels; as `model.kernel_widths` has it
MOST_FEATURES = 65_536  # of a layer


class CustomCNN(nnx.Module):
    """Three times convolution, batch norm, ReLU and halving pool, then three dense layers.

    Attribute names are those of the PyTorch original, so that its weights load by name. As there, only the
    first convolution has no bias.
    """

    HEAD = "linear3"

    def __init__(
        self,
        *,
        num_classes: int,
        image_size: int | tuple[int, int],
        input_shape: tuple[int, ...] = (),
        kernel_widths: Sequence[int] = (5, 5, 7),
        padding: str = "reference",
        kernel1: int | None = None,
        kernel2: int | None = None,
        kernel3: int | None = None,
        features1: int = 10,
        features2: int = 20,
        features3: int = 10,
        dense1: int = 1024,
        dense2: int = 512,
        rngs: nnx.Rngs,
    ):
        """Builds the network with PyTorch's default initialisation.

        Args:
          num_classes: how many logits.
          image_size: side of the square images in pixels, or height and width.
          input_shape: height, width and channels of an image; empty: in colours.
          kernel_widths: of the three square kernels.
          padding: `reference` or `same`.
          kernel1: width of the first kernel; None: as in `kernel_widths`.
          kernel2: of the second.
          kernel3: of the third.
          features1: features that the first convolution gives.
          features2: the second.
          features3: the third.
          dense1: outputs of the first dense layer.
          dense2: of the second.
          rngs: streams of which `params` is used.

        Raises:
          ConfigError: A width or the padding isn't allowed, or the image is too small for them.
        """
        own = (kernel1, kernel2, kernel3)
        widths = _checked_widths(kernel_widths, own)
        pads = conv_paddings(widths, padding)
        sides = image_size if isinstance(image_size, tuple) else (image_size, image_size)
        height, width = (_checked_side(image_size, side, widths, padding) for side in sides)
        channels = input_shape[-1] if input_shape else 3
        _check_sizes(
            features1=features1, features2=features2, features3=features3, dense1=dense1, dense2=dense2
        )
        self.conv1 = create_conv(channels, features1, widths[0], padding=pads[0], rngs=rngs)
        self.batch_norm1 = BatchNorm(features1)
        self.conv2 = create_conv(features1, features2, widths[1], padding=pads[1], bias=True, rngs=rngs)
        self.batch_norm2 = BatchNorm(features2)
        self.conv3 = create_conv(features2, features3, widths[2], padding=pads[2], bias=True, rngs=rngs)
        self.batch_norm3 = BatchNorm(features3)
        self.linear1 = create_linear(height * width * features3, dense1, rngs=rngs)
        self.linear2 = create_linear(dense1, dense2, rngs=rngs)
        self.linear3 = create_linear(dense2, num_classes, rngs=rngs)
        self.dropout = Dropout()
        self.feature_map = (height, width, features3)

    def flattened_inputs(self) -> dict[str, tuple[int, int, int]]:
        """Returns the dense layers that read a flattened map, with its height, width and channels."""
        return {"linear1": self.feature_map}

    def __call__(
        self,
        images: Float[Array, "batch height width channels"],
        *,
        mask: Float[Array, " batch"] | None = None,
        dropout_rate: Float[Array, ""] | float = 0.5,
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "batch classes"]:
        """Returns logits, in float32 at least.

        Args:
          images: pixels in [0, 1].
          mask: 1 for a real example; the others don't enter batch statistics.
          dropout_rate: probability of dropping an activation of the dense layers; can be traced.
          rngs: streams of which `dropout` is used; needed in training mode only.
        """
        x = self._features(images, mask)
        x = self.linear1(x.reshape(x.shape[0], -1))
        x = jax.nn.relu(self.dropout(x, rate=dropout_rate, rngs=rngs))
        x = jax.nn.relu(self.linear2(x))
        x = self.dropout(x, rate=dropout_rate, rngs=rngs)
        return widen(self.linear3(x))

    def _features(self, x: Array, mask: Array | None) -> Array:
        x = self.batch_norm1.relu_max_pool(self.conv1(x), mask=mask)
        x = self.batch_norm2.relu_max_pool(self.conv2(x), mask=mask, offset=_bias(self.conv2))
        return self.batch_norm3.relu_max_pool(self.conv3(x), mask=mask, offset=_bias(self.conv3))


def _bias(layer: nnx.Conv) -> Array:
    assert layer.bias is not None
    return layer.bias[...]


def conv_paddings(kernel_widths: Sequence[int], padding: str) -> tuple[Padding, ...]:
    """Returns the three convolutions' paddings: (1, 1, 0) whatever the widths, or what keeps the side.

    Raises:
      ConfigError: `padding` has another name.
    """
    if check_field("model.padding", padding) == "reference":
        return (1, 1, 0)
    return tuple((((w - 1) // 2, w // 2),) * 2 for w in kernel_widths)


def feature_map_side(image_size: int, kernel_widths: Sequence[int], padding: str = "reference") -> int:
    """Returns the side in pixels of the map that reaches the dense layers; 0 where none is left."""
    side = image_size
    for width, pad in zip(kernel_widths, conv_paddings(kernel_widths, padding), strict=True):
        total = 2 * pad if isinstance(pad, int) else width - 1
        side = max(side + total - width + 1, 0) // 2
    return side


def smallest_image_size(kernel_widths: Sequence[int], padding: str = "reference") -> int:
    """Returns the smallest image side that leaves a feature map."""
    return next(s for s in itertools.count(1) if feature_map_side(s, kernel_widths, padding) > 0)


def _checked_widths(kernel_widths: Sequence[int], own: Sequence[int | None]) -> tuple[int, ...]:
    widths = tuple(int(w) for w in kernel_widths)
    if len(widths) != 3 or min(widths) < 1:
        raise ConfigError("model.kernel_widths", kernel_widths, "three widths of 1 or more")
    for number, width in enumerate(own, 1):
        if width is not None and not 1 <= width <= WIDEST:
            raise ConfigError(
                f"model.options.kernel{number}", width, f"a whole number from 1 to {WIDEST}, or None"
            )
    return tuple(width if kernel is None else kernel for width, kernel in zip(widths, own, strict=True))


def _check_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        if not 1 <= size <= MOST_FEATURES:
            raise ConfigError(f"model.options.{name}", size, f"a whole number from 1 to {MOST_FEATURES}")


def _checked_side(image_size: object, pixels: int, widths: tuple[int, ...], padding: str) -> int:
    side = feature_map_side(pixels, widths, padding)
    if side < 1:
        allowed = f"at least {smallest_image_size(widths, padding)} pixels"
        reason = f"for custom_cnn with kernel widths {widths} and padding {padding}"
        raise ConfigError("data.image_size", image_size, f"{allowed} {reason}")
    return side
