import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

from hpjax.errors import ModelError
from hpjax.models import create_model, from_torch, to_torch
from hpjax.models.torch_weights import load_state_dict, match_weights

SIZE = 48


@functools.cache
def create(name="custom_cnn", classes=6, seed=0):
    """Returns a model of cheap random weights; drawing hpjax's own takes longer."""
    model = nnx.eval_shape(
        lambda: create_model(name, num_classes=classes, image_size=SIZE, rngs=nnx.Rngs(params=0))
    )
    graphdef, state = nnx.split(model)
    rng = np.random.default_rng(seed)
    return nnx.merge(graphdef, jax.tree.map(lambda x: jnp.asarray(rng.random(x.shape, np.float32)), state))


@pytest.fixture(scope="module")
def weights():
    return to_torch(create())


def leaves(model):
    return jax.tree.leaves(nnx.state(model))


@pytest.mark.parametrize("name", ["custom_cnn", "resnet18"])
def test_round_trip(name):
    source, target = create(name, seed=0), create(name, seed=1)
    loaded = from_torch(target, to_torch(source))
    for a, b in zip(leaves(source), leaves(loaded), strict=True):
        np.testing.assert_array_equal(a, b)
    assert nnx.graphdef(loaded) == nnx.graphdef(target)


def test_leaves_the_given_model_alone(weights):
    target = create(seed=1)
    before = np.array(target.linear3.kernel[...])
    from_torch(target, weights)
    np.testing.assert_array_equal(target.linear3.kernel[...], before)


def test_torch_names_and_layouts(weights):
    assert weights["conv2.weight"].shape == (20, 10, 5, 5)
    assert weights["linear2.weight"].shape == (512, 1024)
    assert {
        "batch_norm1.weight",
        "batch_norm1.running_mean",
        "batch_norm1.num_batches_tracked",
    } <= weights.keys()
    resnet = to_torch(create("resnet18"))
    assert resnet["layer2.0.downsample.0.weight"].shape == (128, 64, 1, 1)
    assert {"layer4.1.bn2.running_var", "fc.bias", "bn1.bias"} <= resnet.keys()
    assert len(resnet) == 122  # as torchvision's


def test_first_dense_layer_reads_channels_first(weights):
    model = create()
    side = model.feature_map[0]
    kernel = np.asarray(model.linear1.kernel[...]).reshape(side, side, 10, 1024)
    theirs = weights["linear1.weight"].reshape(1024, 10, side, side)
    np.testing.assert_array_equal(theirs[5, 3, 1, 0], kernel[1, 0, 3, 5])


@pytest.mark.parametrize(("name", "head"), [("custom_cnn", "linear3"), ("resnet18", "fc")])
def test_other_number_of_classes_keeps_a_fresh_head(name, head):
    fresh = create(name, classes=4, seed=1)
    loaded = from_torch(fresh, to_torch(create(name, classes=6)))
    np.testing.assert_array_equal(getattr(loaded, head).kernel[...], getattr(fresh, head).kernel[...])
    np.testing.assert_array_equal(getattr(loaded, head).bias[...], getattr(fresh, head).bias[...])
    np.testing.assert_array_equal(loaded.conv1.kernel[...], create(name).conv1.kernel[...])


def test_names_every_tensor_that_does_not_fit(weights):
    wrong = dict(weights)
    del wrong["conv1.weight"], wrong["batch_norm2.running_var"]
    wrong |= {
        "conv9.weight": np.zeros(3),
        "linear2.bias": np.zeros(7),
        "conv3.weight": np.zeros((10, 20, 5, 5)),
    }
    with pytest.raises(ModelError) as error:
        from_torch(create(), wrong)
    message = str(error.value)
    assert "missing: batch_norm2.running_var, conv1.weight;" in message
    assert "not in the model: conv9.weight;" in message
    assert "misshapen: conv3.weight (10, 20, 5, 5), expected (10, 20, 7, 7), linear2.bias (7,)" in message


def test_weights_of_a_network_without_biases_are_refused_in_one_line(weights):
    old = {name: value for name, value in weights.items() if name not in ("conv2.bias", "conv3.bias")}
    with pytest.raises(ModelError) as error:
        from_torch(create(), old)
    assert str(error.value) == "the weights don't fit the model: missing: conv2.bias, conv3.bias"


def test_says_which_leaves_the_weights_determine(weights):
    matched = nnx.to_flat_state(match_weights(create(classes=4), weights))
    every = {path for path, _ in nnx.to_flat_state(nnx.state(create()))}
    assert {path for path, _ in matched} == every - {("linear3", "kernel"), ("linear3", "bias")}


def test_other_image_size_is_misshapen(weights):
    other = nnx.eval_shape(
        lambda: create_model("custom_cnn", num_classes=6, image_size=60, rngs=nnx.Rngs(params=0))
    )
    with pytest.raises(ModelError, match="linear1.weight"):
        from_torch(other, weights)


def test_batch_counters_may_be_missing(weights):
    from_torch(create(), {k: v for k, v in weights.items() if "num_batches" not in k})


def test_safetensors(weights, tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file(weights, path)
    loaded = from_torch(create(seed=1), str(path))
    np.testing.assert_array_equal(loaded.conv1.kernel[...], create().conv1.kernel[...])


@pytest.mark.parametrize("content", [None, b"", b"not weights"])
@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_bad_files(tmp_path, content, suffix):
    path = tmp_path / f"weights{suffix}"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=f"weights{suffix}"):
        load_state_dict(path)


@pytest.mark.torch
def test_pth(weights, tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "weights.pth"
    torch.save({"state_dict": {k: torch.tensor(v) for k, v in weights.items()}}, path)
    loaded = from_torch(create(seed=1), path)
    np.testing.assert_array_equal(loaded.linear1.kernel[...], create().linear1.kernel[...])


@pytest.mark.torch
def test_pth_that_would_run_code_or_holds_no_tensors(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "weights.pth"
    torch.save(torch.nn.Linear(2, 2), path)
    with pytest.raises(ModelError, match="weights.pth"):
        load_state_dict(path)
    torch.save([1, 2], path)
    with pytest.raises(ModelError, match="doesn't hold a state dict"):
        load_state_dict(path)


@pytest.mark.torch
def test_a_program_of_torchs_is_one_line(tmp_path, recwarn):
    import torch

    path = tmp_path / "weights.pt"
    warnings.simplefilter("always")
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), path)
    recwarn.clear()
    with pytest.raises(ModelError, match="can't read weights from") as caught:
        load_state_dict(path)
    assert "\n" not in str(caught.value) and not recwarn.list


class _Planted:
    """Has whoever unpickles it make a file."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return open, (str(self.file), "w")


@pytest.mark.torch
@pytest.mark.parametrize("suffix", [".pth", ".pt"])
@pytest.mark.parametrize("legacy", [False, True])
def test_nothing_in_a_pickle_is_run(tmp_path, suffix, legacy):
    import torch

    path, planted = tmp_path / f"weights{suffix}", tmp_path / "run"
    content = {"state_dict": {"out.weight": torch.zeros(2), "more": _Planted(planted)}}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ModelError, match="can't read weights from") as caught:
        load_state_dict(path)
    assert "\n" not in str(caught.value) and not planted.exists()


@pytest.mark.torch
def test_mapping_of_torch_tensors(weights):
    torch = pytest.importorskip("torch")
    tensors = {k: torch.tensor(v, requires_grad=v.dtype == np.float32) for k, v in weights.items()}
    loaded = from_torch(create(seed=1), tensors)
    with torch.no_grad():
        tensors["linear3.bias"].zero_()
    assert np.abs(loaded.linear3.bias[...]).max() > 0
