import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from hpjax.errors import ConfigError
from hpjax.models.resnet import BasicBlock, ResNet18, ResNet34


def test_size_and_shapes():
    model = nnx.eval_shape(lambda: ResNet18(num_classes=1000, rngs=nnx.Rngs(params=0)))
    # torchvision's resnet18 has 11,689,512 parameters.
    assert sum(p.size for p in jax.tree.leaves(nnx.state(model, nnx.Param))) == 11_689_512
    assert model.layer2[0].downsample[0].kernel.shape == (1, 1, 64, 128)
    assert len(model.layer1[0].downsample) == 0


def _count(model_class, **options):
    model = nnx.eval_shape(lambda: model_class(num_classes=1000, rngs=nnx.Rngs(params=0), **options))
    return sum(p.size for p in jax.tree.leaves(nnx.state(model, nnx.Param))), model.fc.kernel.shape


def test_depth_and_width():
    # torchvision's resnet34 has 21,797,672 parameters.
    assert _count(ResNet34) == (21_797_672, (512, 1000))
    assert _count(ResNet18, width=64) == (11_689_512, (512, 1000))
    assert _count(ResNet18, width=16)[1] == (128, 1000)
    for width in (0, 10**9):
        with pytest.raises(ConfigError, match="model.options.width"):
            _count(ResNet18, width=width)


def test_any_image_size():
    for size in (1, 33, 150):
        images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
        logits = jax.eval_shape(lambda x: ResNet18(num_classes=6, rngs=nnx.Rngs(params=0))(x), images)
        assert (logits.shape, logits.dtype) == ((2, 6), jnp.float32)


def test_block_masks_every_normalisation():
    x, mask = jax.random.normal(jax.random.key(0), (3, 6, 6, 4)), jnp.array([1.0, 1.0, 0.0])
    block, alone = (BasicBlock(4, 8, 2, rngs=nnx.Rngs(params=0)) for _ in range(2))
    call = nnx.jit(lambda block, x, mask=None: block(x, mask=mask))
    y = call(block, x.at[2].set(50.0), mask)
    expected = call(alone, x[:2])
    # float32 sums of another length.
    np.testing.assert_allclose(y[:2], expected, rtol=1e-4, atol=1e-5)
    statistics = (nnx.state(m, nnx.BatchStat) for m in (block, alone))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *statistics)
