"""A network with what fine-tuning tells apart, compiled in no time: layers, batch norm and a head."""

from flax import nnx

from hpjax.models.layers import BatchNorm, create_linear

FILE = __file__
MODEL = {"name": f"{FILE}:Net"}  # `model` of a config


class Net(nnx.Module):
    """Two dense layers on the mean colour, with batch norm in between; the first layers are in a list."""

    def __init__(self, *, num_classes, rngs):
        self.stem = nnx.List([create_linear(3, 5, rngs=rngs)])
        self.norm = BatchNorm(5)
        self.head = create_linear(5, num_classes, rngs=rngs)

    def __call__(self, images, *, mask=None):
        (first,) = self.stem
        return self.head(self.norm(first(images.mean((1, 2))), mask=mask, relu=True))
