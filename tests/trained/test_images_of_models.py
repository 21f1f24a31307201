"""What a loaded model takes: uint8 or [0, 1], of its size or resized to it; what it can't is named."""

import copy
import pickle

import jax
import jax.numpy as jnp
import linear_network
import numpy as np
import pytest
from flax import nnx

from hpjax.data.images import Picture, decode_image
from hpjax.errors import ModelError
from hpjax.trained.inputs import take_images

SIZE = 8


class Fixed(nnx.Module):
    """A network that takes one size of images."""

    def __init__(self, rngs):
        self.out = nnx.Linear(SIZE * SIZE * 3, 2, rngs=rngs)

    def __call__(self, images, scale=1.0):
        return self.out(images.reshape(images.shape[0], -1)) * scale


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3), np.uint8)


@pytest.fixture
def model():
    return take_images(Fixed(nnx.Rngs(0)), SIZE)


def test_whole_numbers_and_floats_are_the_same_images(model, images):
    expected = Fixed(nnx.Rngs(0))(jnp.asarray(images, jnp.float32) / 255)
    for given in (images, images.astype(np.int64), images / 255.0, jnp.asarray(images)):
        np.testing.assert_allclose(model(given), expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(nnx.jit(lambda m, x: m(x))(model, given), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model(images, scale=2.0), 2 * expected, rtol=1e-5, atol=1e-6)


def test_a_loaded_model_is_still_its_class(model, images):
    assert isinstance(model, Fixed) and type(model).__name__ == "Fixed"
    graphdef, state = nnx.split(model)
    assert graphdef == nnx.graphdef(take_images(Fixed(nnx.Rngs(1)), SIZE))
    for same in (nnx.merge(graphdef, state), copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(same(images), model(images))


def test_a_loaded_model_computes_with_its_own_numbers(images):
    model, same = (take_images(Fixed(nnx.Rngs(0)), SIZE, {"scale": 2.0}) for _ in range(2))
    plain = take_images(Fixed(nnx.Rngs(0)), SIZE)
    np.testing.assert_allclose(model(images), 2 * plain(images), rtol=1e-6)
    np.testing.assert_array_equal(model(images, scale=1.0), plain(images))
    assert nnx.graphdef(model) == nnx.graphdef(same)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model))(images), model(images))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda x: x[0], r"uint8\[8, 8, 3\]"),
        (lambda x: x[..., :1], r"uint8\[3, 8, 8, 1\]"),
        (lambda x: x[:, :7], r"uint8\[3, 7, 8, 3\]|float32\[3, 7, 8, 3\]"),
        (lambda x: x.astype(np.float32), r"float32\[3, 8, 8, 3\] with values up to 25\d"),
        (lambda x: x.astype(int) * 2, r"int64\[3, 8, 8, 3\] with values from 0 to 5\d\d"),
        (lambda x: x.astype(int) - 9, r"with values from -9"),
        (lambda x: (x / 255 - 0.45) / 0.3, r"with values from -1.5"),  # normalized already
        (lambda x: x * np.nan, r"with values from nan"),
        (lambda x: x / 255 - np.inf, r"with values from -inf"),
        (lambda x: x > 3, r"bool\[3, 8, 8, 3\]"),
        (lambda x: x.astype(str), "can't take <U"),
        (lambda x: [["a"]], "can't take <U1"),
    ],
)
def test_what_is_no_image_of_the_model_is_named(model, images, change, named):
    with pytest.raises(
        ModelError, match=rf"(?s){named}.*expected \[images, 8, 8, 3\] of uint8, or of floats"
    ):
        model(change(images))


def test_other_sizes_are_resized_on_request_as_in_training(model, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 28, 3), np.uint8)
    from PIL import Image

    Image.fromarray(pixels).save(tmp_path / "a.png")
    trained = decode_image(Picture("a", 0, tmp_path / "a.png"), SIZE)
    logits = model(pixels[None], resize=True)
    np.testing.assert_allclose(logits, model(trained[None]), atol=0.02)  # Pillow rounds to whole numbers
    with pytest.raises(ModelError, match="resize=True takes images of any size"):
        model(pixels[None])


def test_a_network_that_takes_any_size_does_so_as_it_did_and_the_size_is_said_once(images, caplog):
    bare = linear_network.Net(num_classes=2, rngs=nnx.Rngs(0))
    model = take_images(linear_network.Net(num_classes=2, rngs=nnx.Rngs(0)), 16)
    np.testing.assert_allclose(
        model(images), bare(jnp.asarray(images, jnp.float32) / 255), rtol=1e-5, atol=1e-6
    )
    assert len(model(np.zeros((0, 16, 16, 3), np.uint8))) == 0
    assert not caplog.records or images.shape[1] != 16
    caplog.clear()
    for _ in range(2):
        model(np.zeros((1, 21, 20, 3), np.uint8))
    (record,) = caplog.records
    assert "21 x 20 pixels" in record.message and "trained on 16 x 16: resize=True" in record.message


def test_what_fails_inside_a_model_stays_what_it_is(model, images):
    with pytest.raises(TypeError, match="nonsense"):
        model(images, nonsense=1)
    assert jax.eval_shape(model, jax.ShapeDtypeStruct((2, SIZE, SIZE, 3), jnp.float32)).shape == (2, 2)
