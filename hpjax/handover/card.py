"""The model card: `README.md` of an exported model."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from hpjax.errors import one_line
from hpjax.handover.about import FORWARD, ONNX, WEIGHTS, About, find_shape, takes_images
from hpjax.tasks import CLASSES, LABELS, NUMBERS

_MOST_CLASSES = 100
_WIDTH = 64  # of the ResNets that torchvision has
_LIMITS = """\
## Limits

{known}The results are of the examples that it was measured on; where a winner of many
trials was chosen by the same examples, they flatter it."""
_KNOWN = "It knows the classes above and no others: any input gets one of them. "


def write_card(about: About, sizes: Mapping[str, Any]) -> str:
    """Returns the card, in Markdown; names of others are escaped in it.

    Args:
      about: what is known of the model.
      sizes: of a built-in network's layers; see `_measure_network`.
    """
    outputs = f"{len(about.classes)} classes" if about.classes else f"{about.network['num_classes']} outputs"
    kind = "An image classifier" if takes_images(about) else "A model"
    sections = [
        f"# {_plain(about.network['name'])}, {outputs}",
        f"{kind} that hpjax trained. `model.json` has all that is known of it, for programs.",
        _table("Results", about.metrics),
        _table("Training", {**about.hyperparameters, **about.trial}),
        _describe_data(about.data),
        _list_classes(about.classes),
        _table("Preprocessing", about.preprocessing),
        _describe_use(about, sizes) if takes_images(about) else _describe_call(about),
        _LIMITS.format(known=_KNOWN if about.classes else ""),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _table(title: str, values: Mapping[str, Any]) -> str:
    rows = [f"| {_plain(name)} | {_plain(_show(value))} |" for name, value in values.items()]
    return "\n".join([f"## {title}", "", "| | |", "|---|---|", *rows]) if rows else ""


def _show(value: Any) -> str:
    if value is None:
        return "none"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _describe_data(data: Mapping[str, Any]) -> str:
    images = data.get("images")
    counts = {f"{name} images": n for name, n in images.items()} if isinstance(images, Mapping) else {}
    known = {"name": data.get("name", "not recorded"), **counts, "fingerprints": data.get("fingerprints")}
    notice = f"\n\n{_plain(data['notice'])}" if data.get("notice") else ""
    return _table("Data", known) + notice


def _list_classes(classes: list[str]) -> str:
    if not classes:
        return ""
    listed = [f"{i}. {_plain(name)}" for i, name in enumerate(classes[:_MOST_CLASSES])]
    if more := classes[_MOST_CLASSES:]:
        listed.append(f"\nand {len(more)} more, in `model.json`")
    return "\n".join(["## Classes", "", *listed])


def _describe_call(about: About) -> str:
    """Returns how a model is used whose inputs or answers aren't those of an image classifier."""
    known = about.preprocessing
    shape = known.get("shape") or find_shape(known)
    answers = {CLASSES: "logits", LABELS: "logits", NUMBERS: "numbers"}.get(
        about.answers, "what its loss takes"
    )
    parts = [
        "## Use",
        f"JAX, without hpjax (`{FORWARD}`); the outputs are {answers}:",
        _write_jax(shape, "inputs", "outputs", known.get("dtype", "float32")),
        _describe_weights(about),
    ]
    return "\n\n".join(parts)


def _describe_use(about: About, sizes: Mapping[str, Any]) -> str:
    height, width, channels = shape = find_shape(about.preprocessing)
    parts = [
        "## Use",
        "Of files and folders, with the preprocessing above: `python -m hpjax.predict --model=. IMAGE…`. "
        "In the following, `images` are floats in [0, 1]; the result are logits.",
        f"JAX, channels last, without hpjax (`{FORWARD}`):",
        _write_jax(shape, "images", "logits"),
    ]
    torch = _TORCH.get(about.network["name"])
    if torch and sizes.get("width") in (None, _WIDTH):
        parts += [f"PyTorch, channels first (`{WEIGHTS}`):", _code(_fill_torch(torch, about, sizes))]
    else:
        parts += [_describe_weights(about)]
    if ONNX in about.files:
        parts += [
            f"onnxruntime, channels first (`{ONNX}`):",
            _code(_ONNX.format(shape=(2, channels, height, width), file=ONNX)),
        ]
    return "\n\n".join(parts)


def _describe_weights(about: About) -> str:
    after = " The network takes (input - mean) / std." if about.preprocessing["mean"] else ""
    return f"`{WEIGHTS}` has the weights under the names and in the layouts that PyTorch would use.{after}"


def _write_jax(shape: Iterable[int], inputs: str, outputs: str, dtype: str = "float32") -> str:
    names = {"inputs": inputs, "outputs": outputs, "dtype": dtype, "file": FORWARD}
    return _code(_JAX.format(shape=(2, *shape), **names))


def _code(text: str) -> str:
    return f"```python\n{text.strip()}\n```"


def _fill_torch(text: str, about: About, sizes: Mapping[str, Any]) -> str:
    network = about.network
    padding = (1, 1, 0) if network.get("padding") == "reference" else ("same",) * 3
    mean, std = about.preprocessing["mean"], about.preprocessing["std"]
    height, width, channels = find_shape(about.preprocessing)
    values = {
        "classes": network["num_classes"],
        "shape": (2, channels, height, width),
        "file": WEIGHTS,
        "name": network["name"],
        "padding": padding,
        "call": _TORCH_NORMALIZED.format(mean=mean, std=std) if mean else "logits = model(images)",
        "first": _TORCH_FIRST.format(channels=channels) if channels != 3 else "",
    }
    return text.format(**values, **sizes)


def _plain(text: str) -> str:
    """Returns text as one line that means nothing in Markdown but itself."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", one_line(str(text), 2_000))


_JAX = """
import jax
import jax.numpy as jnp

with open("{file}", "rb") as file:
    forward = jax.export.deserialize(bytearray(file.read()))
{inputs} = jnp.zeros({shape}, jnp.{dtype})
{outputs} = forward.call({inputs})
"""

_ONNX = """
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("{file}")
images = np.zeros({shape}, np.float32)
(logits,) = session.run(["logits"], {{"images": images}})
"""

_TORCH_FIRST = """\
model.conv1 = torch.nn.Conv2d({channels}, 64, 7, stride=2, padding=3, bias=False)
"""
_TORCH_NORMALIZED = """\
mean, std = (torch.tensor(v).view(-1, 1, 1) for v in ({mean}, {std}))
logits = model((images - mean) / std)"""

_CNN = """
import torch
from safetensors.torch import load_file
from torch import nn


class CustomCNN(nn.Module):
    def __init__(self):
        super().__init__()
        widths, padding, channels = {widths}, {padding}, {channels}
        for i in (1, 2, 3):
            conv = nn.Conv2d(channels[i - 1], channels[i], widths[i - 1], padding=padding[i - 1], bias=i > 1)
            setattr(self, f"conv{{i}}", conv)
            setattr(self, f"batch_norm{{i}}", nn.BatchNorm2d(channels[i]))
        self.linear1 = nn.Linear({features}, {dense[0]})
        self.linear2 = nn.Linear({dense[0]}, {dense[1]})
        self.linear3 = nn.Linear({dense[1]}, {classes})

    def forward(self, x):
        for i in (1, 2, 3):
            x = getattr(self, f"batch_norm{{i}}")(getattr(self, f"conv{{i}}")(x))
            x = torch.max_pool2d(torch.relu(x), 2)
        x = torch.relu(self.linear1(x.flatten(1)))
        return self.linear3(torch.relu(self.linear2(x)))


model = CustomCNN()
model.load_state_dict(load_file("{file}"), strict=True)
model.eval()
images = torch.zeros({shape})
{call}
"""

_RESNET = """
import torch
import torchvision
from safetensors.torch import load_file

model = torchvision.models.{name}(num_classes={classes})
{first}model.load_state_dict(load_file("{file}"), strict=True)
model.eval()
images = torch.zeros({shape})
{call}
"""

_TORCH = {"custom_cnn": _CNN, "resnet18": _RESNET, "resnet34": _RESNET}
