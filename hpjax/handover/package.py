"""Exporting a trial: a folder that other programs can use, written at once or not at all."""

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from flax import nnx

from hpjax.config.paths import expand_path
from hpjax.errors import ConfigError, HpjaxError
from hpjax.handover.about import ABOUT, CARD, FORWARD, ONNX, WEIGHTS, describe, name_network
from hpjax.handover.card import write_card
from hpjax.handover.forward import check_outputs, serialize_forward
from hpjax.handover.onnx_graph import has_graph, is_installed, load_onnx, serialize_onnx
from hpjax.models.cnn import CustomCNN
from hpjax.models.resnet import ResNet18
from hpjax.models.torch_weights import to_torch
from hpjax.store.files import allowed_mode, describe_os_error
from hpjax.trained.load import TrainedTrial, load_trial, make_forward


class Exported(NamedTuple):
    """What was exported.

    Attributes:
      folder: where it lies.
      trial: the trial's number.
      files: names of what lies in the folder.
      without_onnx: why there is no ONNX model among them; empty where there is one.
    """

    folder: Path
    trial: int
    files: tuple[str, ...]
    without_onnx: str = ""


def export_trial(
    workdir: str | Path, trial: int | str, out: str | Path, model_file: str | os.PathLike | None = None
) -> Exported:
    """Writes a trial's model into a folder: weights, forward pass, what is known of it, and a model card.

    Nothing is run that the workdir contains or names; see `load_trial`.

    Args:
      workdir: the sweep's folder.
      trial: the trial's number, or `best`.
      out: a new or an empty folder.
      model_file: the Python file of the user's own model.

    Raises:
      HpjaxError: As `load_trial` does; `out` isn't empty or can't be written; or the model can't be exported.
    """
    folder = Path(expand_path(os.fspath(out)))
    _check_folder(folder)  # before the long work
    trained = load_trial(workdir, trial, model_file)
    contents, batching, without_onnx = _make_files(trained)
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    about = describe(trained, Path(expand_path(str(workdir))), batching, hashes)
    text = json.dumps(dataclasses.asdict(about), indent=2, allow_nan=False) + "\n"
    contents[ABOUT] = text.encode()
    contents[CARD] = write_card(about, _measure_network(trained.model)).encode()
    _write(folder, contents)
    return Exported(folder, trained.row.trial, tuple(sorted(contents)), without_onnx)


def _make_files(trained: TrainedTrial) -> tuple[dict[str, bytes], str, str]:
    """Returns the model's files, how its forward pass is computed, and why it isn't there as ONNX."""
    from safetensors.numpy import save

    model, (shape, dtype, rule) = trained.model, trained.inputs
    network, expected = name_network(trained.metadata["model"]["name"]), make_forward(trained.model)
    forward = serialize_forward(model, expected, shape, network, dtype)
    contents = {WEIGHTS: save(to_torch(model), {"format": "pt"}), FORWARD: forward.content}
    if not has_graph(model):
        return contents, forward.batching, f"hpjax writes it of its own networks alone, not of {network}"
    if not is_installed():
        return contents, forward.batching, "the extra onnx isn't installed: pip install 'hpjax[onnx]'"
    contents[ONNX] = serialize_onnx(model, trained.classes, shape, rule)
    check_outputs(expected, load_onnx(contents[ONNX]), shape, f"{network} in onnxruntime")
    return contents, forward.batching, ""


def _measure_network(model: nnx.Module) -> dict[str, Any]:
    """Returns the sizes of a built-in network that its PyTorch code is written with."""
    if isinstance(model, CustomCNN):
        convs = (model.conv1, model.conv2, model.conv3)
        height, width, features = model.feature_map
        return {
            "channels": (model.conv1.in_features, *(conv.out_features for conv in convs)),
            "widths": tuple(conv.kernel_size[0] for conv in convs),  # type: ignore[index]
            "features": height * width * features,
            "dense": (model.linear1.out_features, model.linear2.out_features),
        }
    if isinstance(model, ResNet18):
        return {"width": model.conv1.out_features, "channels": model.conv1.in_features}
    return {}


def _check_folder(folder: Path) -> None:
    with _refusing(folder):
        if os.path.lexists(folder) and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigError("out", str(folder), "a new or an empty folder")


def _write(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Writes a folder's files beside it first, and moves them there together."""
    target = Path(os.path.realpath(folder))
    with _refusing(folder):
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=f".{target.name[:99]}-", dir=target.parent))
        try:
            for name, content in contents.items():
                (unfinished / name).write_bytes(content)
            unfinished.chmod(allowed_mode(0o777))
            os.rename(unfinished, target)  # onto nothing, or a folder that is empty
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


@contextlib.contextmanager
def _refusing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise HpjaxError(describe_os_error("write", folder, error)) from error
    except ValueError as error:  # a name with a null
        raise ConfigError("out", str(folder), f"a folder's name ({error})") from error
