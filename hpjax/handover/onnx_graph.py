"""hpjax's own networks as ONNX graphs, written layer by layer: no converter, and neither torch, is needed."""

import importlib.util
import json
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from flax import nnx

from hpjax.models.cnn import CustomCNN
from hpjax.models.layers import BatchNorm
from hpjax.models.resnet import BasicBlock, ResNet18
from hpjax.models.torch_weights import to_torch
from hpjax.train.inputs import AS_THEY_ARE, InputRule
from hpjax.trained.classifier import Forward

OPSET, IR_VERSION = 17, 8  # old enough for the runtimes that are about
_MEAN, _STD = "images.mean", "images.std"  # no layer's names


def has_graph(model: nnx.Module) -> bool:
    """Returns whether a model is one of those whose graph is known."""
    return _find_builder(model) is not None


def _find_builder(model: nnx.Module) -> Callable[..., str] | None:
    # A model that was loaded has a class of its own below the network's; so may a class of the user's.
    if type(model).__module__.partition(".")[0] != "hpjax":
        return None
    return next((_BUILDERS[base] for base in type(model).__mro__ if base in _BUILDERS), None)


def is_installed() -> bool:
    """Returns whether the extra `onnx` is there."""
    return all(importlib.util.find_spec(name) is not None for name in ("onnx", "onnxruntime"))


def serialize_onnx(
    model: nnx.Module,
    classes: Sequence[str],
    image_shape: tuple[int, ...],
    rule: InputRule = AS_THEY_ARE,
) -> bytes:
    """Returns an ONNX model from `images`, `[batch, channels, height, width]` in [0, 1], to `logits`.

    Args:
      model: one of hpjax's own; see `has_graph`.
      classes: names, in the order of the logits, kept in the file's metadata; or none.
      image_shape: height, width and channels of an image.
      rule: what images are brought to, within the graph.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    tensors = {**to_torch(model), **_make_constants(rule)}
    graph = _Graph(tensors)
    builder = _find_builder(model)
    assert builder is not None
    head: str = type(model).HEAD  # type: ignore[attr-defined]
    logits = builder(graph, model, graph.normalize("images", rule))
    graph.node("Identity", [logits], "logits")
    weights = [numpy_helper.from_array(tensors[name], name) for name in sorted(graph.used)]
    height, width, channels = image_shape
    shape = ["batch", channels, height, width]
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)
    output = helper.make_tensor_value_info(
        "logits", TensorProto.FLOAT, ["batch", len(tensors[f"{head}.bias"])]
    )
    nodes = [helper.make_node(op, inputs, [output], **more) for op, inputs, output, more in graph.nodes]
    made = helper.make_model(
        helper.make_graph(nodes, type(model).__name__, [images], [output], weights),
        producer_name="hpjax",
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    helper.set_model_props(made, {"classes": json.dumps(list(classes))})
    onnx.checker.check_model(made, full_check=True)
    return made.SerializeToString()


def load_onnx(content: bytes) -> Forward:
    """Returns an ONNX model, run by onnxruntime, as `f(images)` of images as JAX has them, channels last."""
    # Else importing it leaves an identifier in the home, and tells its makers what is run.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def forward(images):
        channels_first = np.ascontiguousarray(np.asarray(images, np.float32).transpose(0, 3, 1, 2))
        return session.run(["logits"], {"images": channels_first})[0]

    return forward


def _make_constants(rule: InputRule) -> dict[str, np.ndarray]:
    """Returns mean and deviation of each channel, or of all, as images with channels first have them."""
    constants = {_MEAN: rule.mean, _STD: rule.std} if rule.mean else {}
    return {name: np.asarray(values, np.float32).reshape(1, -1, 1, 1) for name, values in constants.items()}


class _Graph:
    """Nodes in the order of computation; each has one output."""

    def __init__(self, tensors: dict[str, np.ndarray]):
        self._tensors = tensors
        self.nodes: list[tuple[str, list[str], str, dict[str, Any]]] = []
        self.used: set[str] = set()

    def node(self, op: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> str:
        """Adds an operation; returns its output's name."""
        output = output or f"{op.lower()}_{len(self.nodes)}"
        self.used.update(name for name in inputs if name in self._tensors)
        self.nodes.append((op, list(inputs), output, attributes))
        return output

    def normalize(self, x: str, rule: InputRule) -> str:
        """Adds what brings images in [0, 1] to what the network was trained on."""
        return self.node("Div", [self.node("Sub", [x, _MEAN]), _STD]) if rule.mean else x

    def conv(self, x: str, layer: nnx.Conv, name: str) -> str:
        """Adds a convolution, with its bias if it has one."""
        width = layer.kernel_size[0]  # type: ignore[index]
        pads = np.broadcast_to(np.asarray(layer.padding), (2, 2))
        return self.node(
            "Conv",
            [x, *self._parameters(name, "weight", "bias")],
            kernel_shape=[width, width],
            strides=np.broadcast_to(np.asarray(layer.strides), 2).tolist(),
            pads=pads.T.ravel().tolist(),  # all befores, then all afters
        )

    def norm(self, x: str, layer: BatchNorm, name: str) -> str:
        """Adds a batch normalisation by running statistics."""
        parameters = self._parameters(name, "weight", "bias", "running_mean", "running_var")
        return self.node("BatchNormalization", [x, *parameters], epsilon=layer.epsilon)

    def dense(self, x: str, name: str) -> str:
        """Adds a dense layer."""
        return self.node("Gemm", [x, *self._parameters(name, "weight", "bias")], transB=1)

    def relu(self, x: str) -> str:
        """Adds a ReLU."""
        return self.node("Relu", [x])

    def max_pool(self, x: str, width: int, stride: int, pad: int = 0) -> str:
        """Adds a max pool of square windows."""
        return self.node("MaxPool", [x], kernel_shape=[width] * 2, strides=[stride] * 2, pads=[pad] * 4)

    def _parameters(self, layer: str, *names: str) -> list[str]:
        return [name for name in (f"{layer}.{part}" for part in names) if name in self._tensors]


def _add_cnn(graph: _Graph, model: CustomCNN, x: str) -> str:
    for i in (1, 2, 3):
        x = graph.conv(x, getattr(model, f"conv{i}"), f"conv{i}")
        x = graph.relu(graph.norm(x, getattr(model, f"batch_norm{i}"), f"batch_norm{i}"))
        x = graph.max_pool(x, 2, 2)
    x = graph.node("Flatten", [x])
    x = graph.relu(graph.dense(x, "linear1"))
    x = graph.relu(graph.dense(x, "linear2"))
    return graph.dense(x, "linear3")


def _add_resnet(graph: _Graph, model: ResNet18, x: str) -> str:
    x = graph.relu(graph.norm(graph.conv(x, model.conv1, "conv1"), model.bn1, "bn1"))
    x = graph.max_pool(x, 3, 2, 1)
    for stage in ("layer1", "layer2", "layer3", "layer4"):
        for i, block in enumerate(getattr(model, stage)):
            x = _add_block(graph, block, f"{stage}.{i}", x)
    x = graph.node("Flatten", [graph.node("GlobalAveragePool", [x])])
    return graph.dense(x, "fc")


def _add_block(graph: _Graph, block: BasicBlock, name: str, x: str) -> str:
    y = graph.relu(graph.norm(graph.conv(x, block.conv1, f"{name}.conv1"), block.bn1, f"{name}.bn1"))
    y = graph.norm(graph.conv(y, block.conv2, f"{name}.conv2"), block.bn2, f"{name}.bn2")
    if block.downsample:
        conv, norm = block.downsample
        x = graph.norm(graph.conv(x, conv, f"{name}.downsample.0"), norm, f"{name}.downsample.1")
    return graph.relu(graph.node("Add", [y, x]))


_BUILDERS: dict[type, Callable[[_Graph, Any, str], str]] = {CustomCNN: _add_cnn, ResNet18: _add_resnet}
