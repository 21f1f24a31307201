import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from hpjax.errors import ConfigError, UserCodeError
from hpjax.models import MODEL_NAMES, create_model
from hpjax.models.registry import describe_inputs

SIZE = 40
OWN = textwrap.dedent(
    """
    import jax
    from flax import nnx

    class Tiny(nnx.Module):
        def __init__(self, *, num_classes, rngs):
            self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)
            self.norm = nnx.BatchNorm(4, rngs=rngs)
            self.dropout = nnx.Dropout(0.5, rngs=rngs)
            self.out = nnx.Linear(4, num_classes, rngs=rngs)

        def __call__(self, images):
            x = self.dropout(jax.nn.relu(self.norm(self.conv(images))).mean((1, 2)))
            return self.out(x)

    def function():
        pass
    """
)


def create(name, seed=0):
    key = jax.random.key(seed)
    return create_model(name, num_classes=3, image_size=SIZE, rngs=nnx.Rngs(params=key, dropout=key))


@pytest.fixture
def own_file(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(OWN)
    return path


@pytest.fixture(params=[*MODEL_NAMES, "own"])
def name(request, own_file):
    return f"{own_file}:Tiny" if request.param == "own" else request.param


def graphdef_of(name, seed):
    return nnx.graphdef(
        nnx.eval_shape(lambda: create_model(name, num_classes=3, image_size=SIZE, rngs=nnx.Rngs(seed)))
    )


def test_equal_models_have_equal_graphs(name):
    one, other = graphdef_of(name, 0), graphdef_of(name, 1)
    assert one == other
    assert hash(one) == hash(other)


def test_lanes_initialise_in_one_program():
    def init(seed):
        return nnx.state(create("custom_cnn", seed))

    lanes = jax.jit(jax.vmap(init))(jnp.arange(2, dtype=jnp.uint32))
    alone = jax.jit(init)(jnp.uint32(1))
    # To the bit but for the scaling of the draws, which two programs may round differently.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[1], b, rtol=1e-6, atol=1e-8), lanes, alone)


def test_seed_can_be_traced(name):
    jax.eval_shape(jax.vmap(lambda seed: nnx.state(create(name, seed), nnx.Param)), jnp.arange(2))


def test_trains_in_lanes():
    graphdef, params, stats = nnx.split(nnx.jit(create, static_argnums=0)("custom_cnn"), nnx.Param, ...)
    images = jax.random.uniform(jax.random.key(1), (4, SIZE, SIZE, 3))

    def loss(params, stats, rate, key):
        merged = nnx.merge(graphdef, params, stats, copy=True)
        merged.train()
        logits = merged(images, mask=jnp.ones(4), dropout_rate=rate, rngs=nnx.Rngs(dropout=key))
        return (logits**2).mean(), nnx.split(merged, nnx.Param, ...)[2]

    lanes = jax.tree.map(lambda x: jnp.stack([x, x]), (params, stats))
    lanes[0]["linear3"]["bias"] = lanes[0]["linear3"]["bias"].replace(jnp.array([[jnp.nan] * 3, [0.1] * 3]))
    step = jax.jit(jax.vmap(jax.value_and_grad(loss, has_aux=True)), donate_argnums=1)
    (losses, new_stats), grads = step(*lanes, jnp.array([0.1, 0.2]), jax.random.split(jax.random.key(0), 2))
    assert jnp.isnan(losses[0])
    assert all(jnp.isfinite(x[1]).all() for x in jax.tree.leaves((losses, new_stats, grads)))


def test_own_model(own_file):
    model = create(f"{own_file}:Tiny")
    assert model(jnp.zeros((2, SIZE, SIZE, 3))).shape == (2, 3)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("alexnet", "custom_cnn, resnet18, resnet34 or FILE.py:CLASS"),
        ("missing.py:Tiny", "missing.py doesn't"),
        ("OWN:Huge", "flax.nnx.Module class"),
        ("OWN:function", "flax.nnx.Module class"),
        ("OWN", "FILE.py:CLASS"),
    ],
)
def test_refuses_names(name, part, own_file):
    with pytest.raises(ConfigError, match=part) as error:
        create(name.replace("OWN", str(own_file)))
    assert error.value.key == "model.name"


def test_own_file_that_fails(tmp_path):
    path = tmp_path / "broken.py"
    path.write_text("import nothing_of_that_name\n")
    with pytest.raises(UserCodeError, match="broken.py can't be imported: line 1: ModuleNotFoundError"):
        create(f"{path}:Tiny")


def test_changed_file_is_read_again(own_file):
    assert create(f"{own_file}:Tiny").out.kernel.shape == (4, 3)
    own_file.write_text(
        OWN.replace("(3, 4,", "(3, 19,")
        .replace("BatchNorm(4", "BatchNorm(19")
        .replace("Linear(4", "Linear(19")
    )
    assert create(f"{own_file}:Tiny").out.kernel.shape == (19, 3)


@pytest.mark.parametrize("name", ["custom_cnn", "resnet18"])
def test_built_in_networks_take_images_of_any_height_width_and_channels(name):
    @nnx.eval_shape
    def logits():
        shape = {"image_size": (40, 56), "input_shape": (40, 56, 1)}
        model = create_model(name, num_classes=5, **shape, rngs=nnx.Rngs(0))
        model.eval()
        return model(jnp.zeros((2, 40, 56, 1)))

    assert logits.shape == (2, 5)


def test_what_a_class_is_given_says_what_inputs_are_like():
    arguments = {(8, 8, 3): 8, (8, 8, 1): 8, (8, 6, 3): [8, 6], (8,): 0, (8, 6): 0}
    for shape, size in arguments.items():
        found = describe_inputs(shape)
        assert found["image_size"] == size and tuple(found.get("input_shape", (8, 8, 3))) == shape
