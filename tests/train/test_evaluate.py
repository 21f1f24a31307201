"""Logits and sums of a trained model, in batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from hpjax.models import create_model
from hpjax.train.evaluate import create_inference_state, evaluate, predict
from hpjax.train.step import Batch, eval_step

SIZE = 30


@pytest.fixture(scope="module")
def model():
    create = lambda: create_model(  # noqa: E731
        "custom_cnn", num_classes=6, image_size=SIZE, kernel_widths=(3, 3, 3), rngs=nnx.Rngs(params=0)
    )
    graphdef = nnx.graphdef(nnx.eval_shape(create))
    return nnx.merge(graphdef, jax.jit(lambda: nnx.state(create()))())


def _examples(num):
    rng = np.random.default_rng(num)
    images = rng.integers(0, 256, (num, SIZE, SIZE, 3), dtype=np.uint8)
    return images, (np.arange(num) % 6).astype(np.int32)


@pytest.mark.parametrize("batch_size", [3, 4, 7, 250])
def test_batches_of_any_size_give_the_same(model, batch_size):
    images, labels = _examples(7)
    state = create_inference_state(model)
    assert state.opt_state == ()
    logits = predict(state, images, batch_size)
    model.eval()
    expected = nnx.jit(lambda model, x: model(x))(model, jnp.asarray(images, jnp.float32) / 255)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
    sums = evaluate(state, images, labels, batch_size)
    whole = jax.jit(eval_step)(state, Batch(jnp.asarray(images), jnp.asarray(labels)))
    np.testing.assert_allclose(sums.loss, whole.loss, rtol=1e-5)
    assert (sums.correct, sums.count) == (whole.correct, 7)


def test_floats_are_taken_as_they_are(model):
    images, _ = _examples(4)
    state = create_inference_state(model)
    scaled = images.astype(np.float32) / 255
    np.testing.assert_allclose(predict(state, scaled), predict(state, images), rtol=1e-4, atol=1e-5)
