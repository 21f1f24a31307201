import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hpjax.data.augment import AUGMENTS, make_augment
from hpjax.errors import ConfigError


@pytest.fixture
def images():
    return jnp.asarray(np.random.default_rng(0).integers(0, 256, (16, 24, 24, 3), np.uint8))


@pytest.mark.parametrize("name", AUGMENTS)
def test_shape_dtype_and_randomness(name, images):
    augment = make_augment(name)
    first, again = augment(jax.random.key(0), images), jax.jit(augment)(jax.random.key(0), images)
    assert first.shape == images.shape and first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)
    assert np.array_equal(first, augment(jax.random.key(1), images)) == (name == "none")


def test_none_changes_nothing(images):
    np.testing.assert_array_equal(make_augment("none")(jax.random.key(0), images), images)


def test_flip_gives_each_image_or_its_mirror_image(images):
    flipped = np.asarray(make_augment("flip")(jax.random.key(0), images))
    kept = (flipped == images).all((1, 2, 3))
    mirrored = (flipped == images[:, :, ::-1]).all((1, 2, 3))
    assert (kept ^ mirrored).all() and 2 < kept.sum() < 14


def test_crop_moves_by_an_eighth_at_most_and_mirrors_the_border(images):
    result = np.asarray(make_augment("flip_crop")(jax.random.key(0), images))
    reach, moved = 3, set()
    for image, original in zip(result, images, strict=True):
        padded = np.pad(original, ((reach, reach), (reach, reach), (0, 0)), mode="reflect")
        mirrored = np.pad(original[:, ::-1], ((reach, reach), (reach, reach), (0, 0)), mode="reflect")
        found = [
            (dy, dx)
            for source in (padded, mirrored)
            for dy in range(2 * reach + 1)
            for dx in range(2 * reach + 1)
            if np.array_equal(source[dy : dy + 24, dx : dx + 24], image)
        ]
        assert found
        moved.update(found)
    assert len(moved) > 5


def test_unknown_name():
    with pytest.raises(ConfigError, match="data.augment='cutout'.*none, flip, flip_crop"):
        make_augment("cutout")
