"""What is known of an exported model: `model.json`, written and read back."""

import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import hpjax
from hpjax.errors import ModelError, WorkdirError
from hpjax.handover.forward import PLATFORMS
from hpjax.store.files import read_json
from hpjax.store.rows import TrialRow
from hpjax.store.tables import finite
from hpjax.store.typed import read_as
from hpjax.store.workdir import SUMMARY_NAME
from hpjax.tasks import CLASSES
from hpjax.trained.load import TrainedTrial

FORMAT = "hpjax-model-1"
ABOUT, CARD = "model.json", "README.md"
FORWARD, ONNX, WEIGHTS = "forward.jaxexport", "model.onnx", "model.safetensors"
_OF_DATA = ("data", "inputs")  # in a summary
_RESULTS = ("final_", "best_")
_COLOURS = {
    1: "EXIF rotation is applied, transparency shows white, RGB is made grey by luma (Pillow's L)",
    3: "EXIF rotation is applied, transparency shows white, grey is repeated (RGB)",
}
_NORMALIZATION = (
    f"(input - mean) / std: forward passes in files do it, the network of {WEIGHTS} takes the result"
)


@dataclass(frozen=True)
class About:
    """The content of `model.json`.

    Attributes:
      format: this form's name.
      network: what `create_model` built it with.
      classes: names, in the order of the logits; empty where the outputs are something else.
      preprocessing: from an image file to what the model takes; or of what shape and type arrays are.
      metrics: what the sweep recorded of the trial.
      hyperparameters: those that the trial ended with.
      trial: its number, seed, status and epochs, and which epoch the weights are of.
      data: what it was trained on: name, numbers of images, fingerprints.
      code: SHA-256 of the files of a model of the user's own, by module.
      forward: how `forward.jaxexport` is called.
      files: SHA-256 of the other files, by name.
      versions: of what made it.
      answers: what the outputs are: `classes` (logits), `labels` (logits), `numbers`; or `any`: what a loss
        of the user's own takes.
    """

    format: str
    network: dict[str, Any]
    classes: list[str]
    preprocessing: dict[str, Any]
    metrics: dict[str, Any]
    hyperparameters: dict[str, Any]
    trial: dict[str, Any]
    data: dict[str, Any]
    code: dict[str, str]
    forward: dict[str, Any]
    files: dict[str, str]
    versions: dict[str, str] = field(default_factory=dict)
    answers: str = CLASSES


def describe(trained: TrainedTrial, workdir: Path, batching: str, files: Mapping[str, str]) -> About:
    """Returns what `model.json` says of a trial's model.

    Args:
      trained: the trial.
      workdir: its sweep's.
      batching: of its serialised forward pass.
      files: SHA-256 of what lies beside `model.json`, by name.
    """
    row, metadata = trained.row, trained.metadata
    return About(
        format=FORMAT,
        network=_describe_network(metadata["model"]),
        classes=list(trained.classes),
        preprocessing=_describe_preprocessing(trained),
        metrics=_list_metrics(row),
        hyperparameters=_clean(row.hyperparameters),
        trial={
            **{"number": row.trial, "seed": row.seed, "status": row.status, "epochs": row.epochs},
            **_describe_weights(metadata),
        },
        data=_describe_data(workdir),
        code=dict(metadata.get("code") or {}),
        forward={"batching": batching, "platforms": list(PLATFORMS), "input": _describe_input(trained)},
        files=dict(files),
        versions={"hpjax": hpjax.__version__, "jax": importlib.metadata.version("jax")},
        answers=str(metadata.get("answers", CLASSES)),
    )


def read_about(folder: Path) -> About:
    """Returns what an exported model's `model.json` says.

    Raises:
      ModelError: It isn't one, or of another version.
      WorkdirError: It can't be read.
    """
    try:
        about = read_as(About, read_json(folder / ABOUT))
        if about.format != FORMAT:
            raise ValueError(f"its format is {about.format[:99]!r} instead of {FORMAT!r}")
    except ValueError as error:
        raise ModelError(f"{folder / ABOUT} isn't what hpjax.export wrote: {error}") from error
    return about


def takes_images(about: About) -> bool:
    """Returns whether a model tells classes of images."""
    return about.answers == CLASSES and "shape" not in about.preprocessing


def find_shape(preprocessing: Mapping[str, Any]) -> tuple[Any, ...]:
    """Returns height, width and channels of an image, as they are written."""
    size = preprocessing.get("image_size")
    return (
        *(size if isinstance(size, list) else (size, size)),
        preprocessing.get("channels", 3),
    )  # earlier: 3


def _describe_weights(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Returns of which epoch the weights are; with `select=best` the checkpoint doesn't say its number."""
    select = metadata.get("select")
    return {"select": select} | ({"weights_of_epoch": metadata.get("epoch")} if select == "final" else {})


def _describe_network(arguments: Mapping[str, Any]) -> dict[str, Any]:
    network = {"name": name_network(arguments["name"])}
    names = ("num_classes", "image_size", *(("input_shape",) if arguments.get("input_shape") else ()))
    if network["name"] == "custom_cnn":
        names += ("kernel_widths", "padding")
    options = arguments.get("options") or {}
    return network | {name: arguments[name] for name in names} | ({"options": options} if options else {})


def name_network(name: str) -> str:
    """Returns a model's name, without the folder that the file of one's own lay in."""
    file, colon, attribute = name.rpartition(":")
    return f"{Path(file).name}{colon}{attribute}"


def _describe_input(trained: TrainedTrial) -> str:
    if trained.metadata.get("arrays"):
        return f"{trained.inputs.dtype}, [batch, {', '.join(map(str, trained.inputs.shape))}]"
    return "float32, [0, 1], NHWC"


def _describe_preprocessing(trained: TrainedTrial) -> dict[str, Any]:
    shape, dtype, rule = trained.inputs
    mean, std = (list(values) * (shape[-1] // len(values)) if values else None for values in rule)
    normalization = {"mean": mean, "std": std, **({"normalization": _NORMALIZATION} if mean else {})}
    if trained.metadata.get("arrays"):
        return {"shape": list(shape), "dtype": dtype, **normalization}
    height, width, channels = shape
    target = "a square" if height == width else "this height and width"
    return {
        "image_size": height if height == width else [height, width],
        "channels": channels,
        "order": "deep_images, colour, resize, range, normalization",
        "deep_images": _describe_scale(trained.metadata.get("scale")),
        "colour": _COLOURS.get(channels, "as they were given"),
        "resize": f"the whole image to {target}, bilinear with antialiasing (Pillow), not cropped",
        "range": [0.0, 1.0],
        **normalization,
    }


def _describe_scale(ends: list[float] | None) -> dict[str, Any] | None:
    if ends is None:
        return None
    how = "values of more than 8 bits, from black to white, become 0 to 255: clipped and rounded"
    return {"black": ends[0], "white": ends[1], "scale": how}


def _list_metrics(row: TrialRow) -> dict[str, Any]:
    names = [column.name for column in fields(row) if column.name.startswith(_RESULTS)]
    return _clean({name: value for name in names if (value := getattr(row, name)) is not None})


def _describe_data(workdir: Path) -> dict[str, Any]:
    """Returns what the summary says of the data; a sweep that has just begun has none."""
    try:
        summary = read_json(workdir / SUMMARY_NAME)
    except WorkdirError:
        return {}
    data, inputs = (summary[name] if isinstance(summary.get(name), dict) else {} for name in _OF_DATA)
    known = {name: data[name] for name in ("name", "notice", "images") if name in data}
    return _clean({**known, "fingerprints": inputs.get("fingerprints")})


def _clean(values: Mapping[str, Any]) -> dict[str, Any]:
    found: Any = finite({name: _name_file(value) for name, value in values.items()})
    return found


def _name_file(value: Any) -> Any:
    return name_network(value) if isinstance(value, str) and ".py:" in value else value
