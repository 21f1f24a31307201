"""The least that is a network: compiled in no time."""

from flax import nnx


class Net(nnx.Module):
    """A dense layer on the mean colour."""

    def __init__(self, *, num_classes, rngs):
        self.out = nnx.Linear(3, num_classes, rngs=rngs)

    def __call__(self, images):
        return self.out(images.mean((1, 2)))
