"""Modules by name: which are frozen, and which one is the head."""

import pytest
from flax import nnx

from hpjax.errors import ConfigError
from hpjax.models import create_model
from hpjax.models.modules import check_frozen, find_head

TABLE = """
from flax import nnx

class Net(nnx.Module):
    HEAD = "{head}"

    def __init__(self, *, num_classes, rngs):
        self.out = nnx.Linear(3, num_classes, rngs=rngs)
        self.scale = nnx.Param(rngs.params.uniform((1, 1)))

class Free(Net):
    HEAD = None
"""


@pytest.fixture(scope="module")
def resnet():
    return nnx.eval_shape(lambda: create_model("resnet18", num_classes=4, image_size=32, rngs=nnx.Rngs(0)))


def test_names_are_given_as_text_or_as_a_tuple(resnet):
    names = ("conv1", "layer1.0", "layer4.1.bn2")
    assert check_frozen(resnet, " + ".join(names)) == check_frozen(resnet, names) == names
    assert check_frozen(resnet, "none") == ()


@pytest.mark.parametrize(
    ("freeze", "said"),
    [
        (
            "conv2",
            "'conv2' is not allowed: expected none, or modules of ResNet18: bn1, conv1, fc, layer1, la",
        ),
        ("conv1+layer1.2.conv1", "layer1.0, layer1.1$"),
        (("layer1.0.conv",), "layer1.0.bn1, layer1.0.bn2, layer1.0.conv1, layer1.0.conv2$"),
        ("layer", "modules of ResNet18: bn1"),
        ("bn1+conv1+fc+layer1+layer2+layer3+layer4", "nothing is trained"),
    ],
)
def test_unknown_modules_are_answered_with_those_there_are(resnet, freeze, said):
    with pytest.raises(ConfigError, match=rf"model.freeze.*{said}"):
        check_frozen(resnet, freeze)


@pytest.mark.parametrize(("name", "head"), [("custom_cnn", "linear3"), ("resnet18", "fc")])
def test_the_head_of_a_built_in_network(name, head):
    def create():
        return create_model(name, num_classes=4, image_size=48, rngs=nnx.Rngs(0))

    assert find_head(name, create, 4) == head


def _find(tmp_path, name, head="out"):
    (tmp_path / "net.py").write_text(TABLE.format(head=head))
    own = f"{tmp_path / 'net.py'}:{name}"
    return find_head(own, lambda: create_model(own, num_classes=4, rngs=nnx.Rngs(0)), 4)


def test_the_head_is_declared_or_what_was_created_last_and_fits(tmp_path):
    assert _find(tmp_path, "Net") == "out"
    with pytest.raises(ConfigError, match=r"HEAD of .*'outt' is not allowed: expected one of out, scale"):
        _find(tmp_path, "Net", "outt")
    with pytest.raises(ConfigError, match=r'HEAD = "…" in the class, .* one of out, scale'):
        _find(tmp_path, "Free")  # `scale` doesn't give four outputs
