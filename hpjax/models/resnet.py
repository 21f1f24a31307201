"""ResNet-18 and ResNet-34 (He et al., arXiv:1512.03385) as torchvision has them, with its attribute names."""

from flax import nnx
from jaxtyping import Array, Float

from hpjax.errors import ConfigError
from hpjax.models.layers import BatchNorm, conv_norm, create_conv, create_linear, widen

MOST_FEATURES = 8_192  # of the first stage


class BasicBlock(nnx.Module):
    """Two 3x3 convolutions beside a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, in_features: int, out_features: int, stride: int, *, rngs: nnx.Rngs):
        """Builds a block that divides the side of the map by `stride`."""
        self.conv1 = create_conv(in_features, out_features, 3, stride=stride, padding=1, rngs=rngs)
        self.bn1 = BatchNorm(out_features)
        self.conv2 = create_conv(out_features, out_features, 3, padding=1, rngs=rngs)
        self.bn2 = BatchNorm(out_features)
        self.downsample = nnx.List()
        if stride != 1 or in_features != out_features:
            self.downsample.append(create_conv(in_features, out_features, 1, stride=stride, rngs=rngs))
            self.downsample.append(BatchNorm(out_features))

    def __call__(
        self, x: Float[Array, "batch height width features"], *, mask: Float[Array, " batch"] | None = None
    ) -> Float[Array, "batch height2 width2 features2"]:
        """Returns the block's activations; `mask` is 1 for a real example."""
        y = conv_norm(self.conv1, self.bn1, x, mask=mask, relu=True)
        return conv_norm(self.conv2, self.bn2, y, mask=mask, added=self._shortcut(x, mask), relu=True)

    def _shortcut(self, x: Array, mask: Array | None) -> Array:
        if not self.downsample:
            return x
        conv, norm = self.downsample
        return conv_norm(conv, norm, x, mask=mask)


class ResNet18(nnx.Module):
    """torchvision's resnet18; from scratch it starts from PyTorch's default initialisation of each layer.

    (torchvision's own constructor draws convolutions from a normal distribution instead.)
    """

    HEAD = "fc"
    BLOCKS = (2, 2, 2, 2)  # of each stage

    def __init__(
        self, *, num_classes: int, input_shape: tuple[int, ...] = (), width: int = 64, rngs: nnx.Rngs
    ):
        """Builds the network with PyTorch's default initialisation; it takes images of any size.

        Args:
          num_classes: how many logits.
          input_shape: height, width and channels of an image; empty: 3 channels.
          width: features of the first stage; each further one has twice as many.
          rngs: streams of which `params` is used.

        Raises:
          ConfigError: The width isn't allowed.
        """
        if not 1 <= width <= MOST_FEATURES:
            raise ConfigError("model.options.width", width, f"a whole number from 1 to {MOST_FEATURES}")
        widths = [width * 2**stage for stage in range(4)]
        self.conv1 = create_conv(
            input_shape[-1] if input_shape else 3, width, 7, stride=2, padding=3, rngs=rngs
        )
        self.bn1 = BatchNorm(width)
        self.layer1 = _create_stage(width, widths[0], 1, self.BLOCKS[0], rngs)
        self.layer2 = _create_stage(widths[0], widths[1], 2, self.BLOCKS[1], rngs)
        self.layer3 = _create_stage(widths[1], widths[2], 2, self.BLOCKS[2], rngs)
        self.layer4 = _create_stage(widths[2], widths[3], 2, self.BLOCKS[3], rngs)
        self.fc = create_linear(widths[3], num_classes, rngs=rngs)

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
          dropout_rate: not used: this network has no dropout.
          rngs: not used.
        """
        del dropout_rate, rngs
        x = self.bn1.relu_max_pool(
            self.conv1(images), mask=mask, window=(3, 3), strides=(2, 2), pads=((1, 1), (1, 1))
        )
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in stage:
                x = block(x, mask=mask)
        x = widen(x).mean((1, 2)).astype(x.dtype)
        return widen(self.fc(x))


class ResNet34(ResNet18):
    """torchvision's resnet34."""

    BLOCKS = (3, 4, 6, 3)


def _create_stage(in_features: int, out_features: int, stride: int, blocks: int, rngs: nnx.Rngs) -> nnx.List:
    first = BasicBlock(in_features, out_features, stride, rngs=rngs)
    others = [BasicBlock(out_features, out_features, 1, rngs=rngs) for _ in range(blocks - 1)]
    return nnx.List([first, *others])
