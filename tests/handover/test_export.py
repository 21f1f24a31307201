"""What is exported computes what was trained, in JAX, onnxruntime and PyTorch, and says what it is."""

import hashlib
import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image
from tiny_network import DATA

import hpjax
from hpjax.config import parse_config
from hpjax.export import main
from hpjax.handover import about, onnx_graph, package
from hpjax.handover.exported import load_exported
from hpjax.handover.forward import check_outputs, load_forward, serialize_forward
from hpjax.handover.package import export_trial
from hpjax.models import create_model
from hpjax.models.resnet import ResNet18, ResNet34
from hpjax.sweep import run_sweep
from hpjax.train.state import init_rngs
from hpjax.trained.load import make_forward

CONFIG = {
    "model": {"kernel_widths": (3, 3, 3)},
    "data": DATA,
    "train": {"batch_size": 20, "epochs": 2},
    "sweep": {"space": {"learning_rate": (1e-3, 3e-3)}},
}
IMAGES = np.random.default_rng(1).random((5, 30, 30, 3), np.float32)
FILES = ("README.md", "forward.jaxexport", "model.json", "model.onnx", "model.safetensors")


@pytest.fixture(scope="module")
def exported(swept, tmp_path_factory):
    return export_trial(swept.workdir, "best", tmp_path_factory.mktemp("export") / "new" / "model")


@pytest.fixture(scope="module")
def logits(swept):
    """Of `IMAGES`, by the best trial's own model."""
    model, _ = hpjax.load_trial(swept.workdir, "best")
    return np.asarray(model(IMAGES))


def _execute(exported, library):
    """Runs the card's code for a library; returns what it defines."""
    blocks = re.findall(r"```python\n(.*?)```", (exported.folder / "README.md").read_text("utf-8"), re.DOTALL)
    (code,) = (block for block in blocks if f"import {library}\n" in block)
    found = {}
    before = os.getcwd()
    os.chdir(exported.folder)
    try:
        exec(code, found)
    finally:
        os.chdir(before)
    assert tuple(found["logits"].shape) == (2, 6)
    return found


def test_the_folder_says_what_it_holds(exported, swept):
    assert exported.files == FILES and not exported.without_onnx
    assert sorted(os.listdir(exported.folder)) == sorted(FILES)
    assert os.listdir(exported.folder.parent) == ["model"]
    content = json.loads((exported.folder / "model.json").read_text())
    assert content["classes"] == swept.summary["data"]["classes"]
    assert content["metrics"]["final_test_accuracy"] == swept.best.final_test_accuracy
    assert content["hyperparameters"] == dict(swept.best.hyperparameters)
    assert content["trial"]["number"] == swept.best.trial == exported.trial
    assert content["data"]["fingerprints"] == swept.summary["inputs"]["fingerprints"]
    assert content["network"] == {
        **{"name": "custom_cnn", "num_classes": 6, "image_size": 30},
        **{"kernel_widths": [3, 3, 3], "padding": "reference"},
    }
    for name, digest in content["files"].items():
        assert hashlib.sha256((exported.folder / name).read_bytes()).hexdigest() == digest


def test_jax_computes_the_same_from_the_file_alone(exported, logits):
    forward = _execute(exported, "jax")["forward"]
    for count in (1, 5):  # whatever the number of images
        assert np.asarray(forward.call(IMAGES[:count])) == pytest.approx(logits[:count], abs=1e-4)
    assert set(forward.platforms) == {"cpu", "cuda", "rocm", "tpu"}


def test_onnxruntime_computes_the_same(exported, logits):
    session = _execute(exported, "onnxruntime")["session"]
    found = session.run(["logits"], {"images": IMAGES.transpose(0, 3, 1, 2)})[0]
    assert found == pytest.approx(logits, abs=1e-4)


def test_the_check_leaves_nothing_in_the_home(exported, tmp_path):
    code = "import sys; from hpjax.handover.onnx_graph import load_onnx; load_onnx(sys.stdin.buffer.read())"
    environment = {**os.environ, "HOME": str(tmp_path)}
    environment.pop("CI", None)  # where this is set, onnxruntime writes and sends nothing
    graph = (exported.folder / "model.onnx").read_bytes()
    subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[2], env=environment, input=graph, check=True
    )
    assert not os.listdir(tmp_path)


@pytest.mark.torch
def test_pytorch_loads_the_weights_strictly_and_computes_the_same(exported, logits):
    found = _execute(exported, "torch")
    images = found["torch"].from_numpy(IMAGES.transpose(0, 3, 1, 2).copy())
    assert found["model"](images).detach().numpy() == pytest.approx(logits, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        pytest.param("resnet18", {}, marks=pytest.mark.landing),
        ("custom_cnn", {"kernel_widths": (3, 4, 6), "padding": "same"}),
        (
            "custom_cnn",
            {"padding": "same", "options": {"kernel2": 3, "features1": 4, "features3": 5, "dense1": 9}},
        ),
        ("resnet34", {"options": {"width": 2}}),
    ],
)
def test_other_graphs(name, options):
    """Strides, shortcuts, and pads that differ from side to side."""
    arguments = {"num_classes": 4, "image_size": 32, **options}
    model = nnx.eval_shape(lambda: create_model(name, rngs=init_rngs(0), **arguments))
    rng = np.random.default_rng(0)

    def draw(leaf):  # running statistics are no identity
        if len(leaf.shape) < 2:
            return np.float32(rng.uniform(0.5, 1.5, leaf.shape))
        return np.float32(rng.normal(0, np.prod(leaf.shape[:-1]) ** -0.5, leaf.shape))

    nnx.update(model, jax.tree.map(draw, nnx.state(model)))
    model.eval()
    content = onnx_graph.serialize_onnx(model, list("abcd"), (32, 32, 3))
    check_outputs(make_forward(model), onnx_graph.load_onnx(content), (32, 32, 3), name)


@pytest.fixture(scope="module")
def normalized(tmp_path_factory):
    """A trial whose images were normalized, as it was exported."""
    return _sweep_and_export(tmp_path_factory.mktemp("normalized"), normalize="imagenet")


def _sweep_and_export(folder, **data):
    """Returns the best trial of a sweep over images like `DATA`, exported and loaded."""
    result = run_sweep(parse_config({**CONFIG, "data": {**DATA, **data}}), folder / "sweep")
    exported = export_trial(result.workdir, "best", folder / "model")
    return exported, hpjax.load_trial(result.workdir, "best")


def test_forward_passes_normalize_as_the_trial_did(normalized, tmp_path):
    exported, trained = normalized
    logits = np.asarray(trained.model(IMAGES))
    forward = load_forward((exported.folder / "forward.jaxexport").read_bytes())
    graph = onnx_graph.load_onnx((exported.folder / "model.onnx").read_bytes())
    for compute in (forward, graph):
        assert np.asarray(compute(IMAGES)) == pytest.approx(logits, abs=1e-4)
    known = json.loads((exported.folder / "model.json").read_text())["preprocessing"]
    mean, std = np.asarray(known["mean"]), np.asarray(known["std"])
    assert mean.shape == std.shape == (3,) and "model.safetensors" in known["normalization"]
    assert known["mean"] == [0.485, 0.456, 0.406] and known["std"] == [0.229, 0.224, 0.225]
    # By the numbers alone: the same network without its rule, on images that were normalized here.
    plain = nnx.clone(trained.model)
    plain.__class__ = type(trained.model).__mro__[1]
    found = plain(jnp.asarray((IMAGES - mean) / std, jnp.float32))
    assert np.asarray(found) == pytest.approx(logits, abs=1e-4)
    assert np.asarray(plain(jnp.asarray(IMAGES))) != pytest.approx(logits, abs=1e-3)
    Image.fromarray(np.uint8(255 * IMAGES[0])).save(tmp_path / "a.png")
    loaded = load_exported(exported.folder).predict(tmp_path / "a.png")
    assert loaded == pytest.approx(trained.predict(tmp_path / "a.png"), abs=1e-5)


@pytest.mark.torch
def test_pytorch_normalizes_before_the_weights(normalized):
    _check_torch(*normalized, IMAGES)


def _check_torch(exported, trained, images):
    """Checks the logits of PyTorch's weights, by the card's code and its mean and deviation."""
    found = _execute(exported, "torch")
    first = found["torch"].from_numpy(images.transpose(0, 3, 1, 2).copy())
    logits = found["model"]((first - found["mean"]) / found["std"]).detach().numpy()
    assert logits == pytest.approx(np.asarray(trained.model(images)), abs=1e-4)


@pytest.fixture(scope="module")
def grey(tmp_path_factory):
    """A trial of images of one channel that aren't square, as it was exported."""
    folder = tmp_path_factory.mktemp("grey")
    return _sweep_and_export(folder, image_size=(32, 44), channels=1, normalize="dataset")


GREY = np.random.default_rng(2).random((5, 32, 44, 1), np.float32)


def test_grey_images_that_are_not_square(grey, tmp_path):
    exported, trained = grey
    logits = np.asarray(trained.model(GREY))
    for compute, name in ((load_forward, "forward.jaxexport"), (onnx_graph.load_onnx, "model.onnx")):
        forward = compute((exported.folder / name).read_bytes())
        assert np.asarray(forward(GREY)) == pytest.approx(logits, abs=1e-4)
    content = json.loads((exported.folder / "model.json").read_text())
    known = content["preprocessing"]
    assert (known["image_size"], known["channels"], len(known["mean"])) == ([32, 44], 1, 1)
    assert "grey" in known["colour"] and "square" not in known["resize"]
    assert (content["network"]["image_size"], content["network"]["input_shape"]) == ([32, 44], [32, 44, 1])
    assert create_model(**content["network"], rngs=init_rngs(0)).conv1.in_features == 1  # as it is said
    for library in ("jax", "onnxruntime"):
        assert _execute(exported, library)["images"].size == 2 * GREY[0].size
    # A file in colours, of another size, is read as those that it was trained on.
    pixels = np.random.default_rng(0).integers(0, 256, (50, 60, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    resized = Image.fromarray(pixels).convert("L").resize((44, 32), Image.Resampling.BILINEAR)
    brought = np.asarray(resized)[None, :, :, None]
    expected = trained.predict(brought)
    for model in (trained, load_exported(exported.folder)):
        assert model.predict(tmp_path / "a.png") == pytest.approx(expected, abs=1e-5)
    of_floats = np.asarray(trained.model(brought / 255.0))
    assert np.asarray(trained.model(brought)) == pytest.approx(of_floats, abs=1e-5)


@pytest.mark.torch
def test_pytorch_takes_grey_images(grey):
    _check_torch(*grey, GREY)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda x: x[:, :31], r"float32\[5, 31, 44, 1\]: .* \[images, 32, 44, 1\]"),
        (lambda x: np.repeat(x, 3, -1), r"float32\[5, 32, 44, 3\]: .* \[images, 32, 44, 1\]"),
        (lambda x: x * 255, r"can't take values up to 25\d"),
        (lambda x: x * 3 - 2, r"can't take values from -1.9"),
        (lambda x: x * np.float32(np.nan), "can't take values from nan"),
    ],
)
def test_what_is_no_grey_image_of_the_model_is_named(grey, change, expected):
    for model in (grey[1], load_exported(grey[0].folder)):
        with pytest.raises(hpjax.errors.ModelError, match=expected):
            model.predict(change(GREY))


@pytest.mark.landing
def test_channels_that_no_file_has(tmp_path):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (24, 30, 30, 2), np.uint8), np.arange(24) % 3
    data = {"train": (images, labels), "test": (images, labels)}
    config = parse_config({**CONFIG, "data": {"name": "arrays", "normalize": (0.4, 0.3)}})
    result = run_sweep(config, tmp_path / "sweep", data=data)
    exported = export_trial(result.workdir, "best", tmp_path / "model")
    trained, loaded = hpjax.load_trial(result.workdir, "best"), load_exported(exported.folder)
    assert loaded.predict(images) == pytest.approx(trained.predict(images), abs=1e-5)
    known = json.loads((exported.folder / "model.json").read_text())["preprocessing"]
    assert known["mean"] == [0.4, 0.4] and known["std"] == [0.3, 0.3]
    assert trained.predict(images).shape == (24, 3)
    Image.fromarray(images[0, :, :, 0]).save(tmp_path / "a.png")
    for model in (trained, loaded):
        with pytest.raises(hpjax.errors.DataError, match="2 channels, which no file has: expected an array"):
            model.predict(tmp_path / "a.png")


@pytest.mark.parametrize("channels", [1, 3])
def test_the_code_for_torchvision_has_a_first_layer_for_other_channels(channels):
    from hpjax.handover.card import write_card

    preprocessing = {"image_size": [32, 40], "channels": channels, "mean": None, "std": None}
    network = {"name": "resnet18", "num_classes": 4}
    rest = {name: {} for name in ("metrics", "hyperparameters", "trial", "data", "code", "forward", "files")}
    known = about.About(about.FORMAT, network, list("abcd"), preprocessing, **rest)
    card = write_card(known, {"width": 64, "channels": channels})
    (code,) = (b for b in re.findall(r"```python\n(.*?)```", card, re.DOTALL) if "import torch\n" in b)
    compile(code, "card", "exec")
    line = f"model.conv1 = torch.nn.Conv2d({channels}, 64, 7, stride=2, padding=3, bias=False)\n"
    assert (line in code) == (channels != 3)
    assert f"torch.zeros((2, {channels}, 32, 40))" in code


def test_a_class_of_ones_own_has_no_graph_though_it_is_below_one_of_hpjax():
    class Mine(ResNet18):
        pass

    model = nnx.eval_shape(lambda: Mine(num_classes=2, width=2, rngs=nnx.Rngs(0)))
    assert not onnx_graph.has_graph(model)
    assert onnx_graph.has_graph(nnx.eval_shape(lambda: ResNet34(num_classes=2, width=2, rngs=nnx.Rngs(0))))


def test_a_graph_that_computes_something_else_is_not_written(swept, tmp_path, monkeypatch):
    monkeypatch.setitem(onnx_graph._BUILDERS, onnx_graph.CustomCNN, lambda *a: _without_relu(*a))
    with pytest.raises(hpjax.errors.ModelError, match="custom_cnn in onnxruntime gives other outputs"):
        export_trial(swept.workdir, 0, tmp_path / "out")
    assert not any(tmp_path.iterdir())


def _without_relu(graph, model, x):
    graph.relu = lambda x: x
    return onnx_graph._add_cnn(graph, model, x)


def test_a_model_of_ones_own_is_exported_from_the_file_that_is_named(own, tmp_path):
    exported = export_trial(own.workdir, "best", tmp_path / "out", own.file)
    assert "model.onnx" not in exported.files
    assert "its own networks alone, not of mine.py:Net" in exported.without_onnx
    text = (exported.folder / "model.json").read_text()
    content = json.loads(text)
    # It asks for the number of images while it is traced.
    assert content["forward"]["batching"] == "image by image"
    assert content["network"]["name"] == "mine.py:Net" and str(own.file.parent) not in text
    model, _ = hpjax.load_trial(own.workdir, "best", own.file)
    forward = load_forward((exported.folder / "forward.jaxexport").read_bytes())
    assert np.asarray(forward(IMAGES)) == pytest.approx(np.asarray(model(IMAGES)), abs=1e-5)


def test_a_model_that_cannot_be_exported_is_one_line(own):
    class Never(nnx.Module):
        def __call__(self, images):
            raise ValueError("not\ntoday")

    with pytest.raises(hpjax.errors.UserCodeError, match="mine can't be exported: not today"):
        serialize_forward(Never(), lambda images: images, (30, 30, 3), "mine")


def _run(capsys, *arguments):
    status = main(["export", *map(str, arguments)])
    out, err = capsys.readouterr()
    return status, out, err


def test_the_command(swept, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(package, "is_installed", lambda: False)  # as without the extra
    status, out, err = _run(capsys, f"--workdir={swept.workdir}", "--trial=0", f"--out={tmp_path / 'm'}")
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        "without model.onnx: the extra onnx isn't installed: pip install 'hpjax[onnx]'",
        f"trial 0 is in {tmp_path / 'm'}: README.md, forward.jaxexport, model.json, model.safetensors",
    ]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((), "--workdir is missing"),
        (("--workdir={sweep}",), "--out is missing"),
        (("--workdir={sweep}", "--out={new}", "--trial=-1"), "--trial='-1' is not allowed: expected best or"),
        (("--workdir={sweep}", "--out={new}", "--trial=7"), "there is no trial 7 in"),
        (("--workdir={new}", "--out={new}"), "can't read"),
        (
            ("--workdir={sweep}", "--out={sweep}"),
            "--out='.*' is not allowed: expected a new or an empty folder",
        ),
        (("--workdir={sweep}", "--out={sweep}/config.json/x"), "can't write .*config.json/x: "),
        (("--workdir={sweep}", "--out={new}", "--model_file=a.py"), "--model_file='a.py' is not allowed"),
        (("--workdir={sweep}", "--out={new}", "more"), "argument 'more' is not allowed"),
        (("--workdir={sweep}", "--out={new}", "--tria=1"), "Unknown command line flag 'tria'"),
    ],
)
def test_what_is_wrong_is_one_line(swept, tmp_path, capsys, arguments, line):
    places = {"sweep": swept.workdir, "new": tmp_path / "new"}
    status, out, err = _run(capsys, *(argument.format(**places) for argument in arguments))
    assert (status, out) == (2, "") and err.count("\n") == 1
    assert re.search(f"^hpjax: error: .*{line}", err), err
    assert not any(tmp_path.iterdir())


def test_help_needs_no_jax():
    code = "import sys; from hpjax.export import main; main(['x', '--help']); sys.exit('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("usage: python -m hpjax.export")


HOSTILE = [
    "<script>alert(1)</script>",
    "[x](http://evil)",
    "| a | b |",
    "`code`",
    "=1+1",
    "a\n# b",
    "\x1b[31m",
]


def test_names_of_others_mean_nothing_in_the_card(exported):
    from hpjax.handover.card import write_card

    known = about.read_about(exported.folder)
    known.classes[:] = HOSTILE
    known.data["notice"] = HOSTILE[4]
    sizes = {"channels": (3, 10, 20, 10), "widths": (3, 3, 3), "features": 40, "dense": (1024, 512)}
    card = write_card(known, sizes)
    assert all(line.isprintable() for line in card.splitlines())
    for name in ("<script", "](http", "| a |", "`code`"):
        assert not re.search(rf"(?<!\\){re.escape(name)}", card), name
    assert "\n# b" not in card
    assert r"\<script\>alert\(1\)\<\/script\>" in card


@pytest.mark.landing
def test_what_the_documentation_shows_runs(tmp_path, monkeypatch, capsys):
    text = (Path(__file__).parents[2] / "docs" / "trained.md").read_text("utf-8")
    monkeypatch.chdir(tmp_path)
    run_sweep(parse_config(CONFIG), "runs/mine")
    for file in ("photo.jpg", "other.png", "images/forest/a.png"):
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.uint8(255 * IMAGES[0])).save(file)
    commands = re.findall(r"^python -m (hpjax\.\w+) (.*)$", text, re.MULTILINE)
    assert {name for name, _ in commands} == {"hpjax.export", "hpjax.predict", "hpjax.replay"}
    for name, arguments in commands:
        given = arguments.replace("/path/to/images", "images").split()
        assert importlib.import_module(name).main([name, *given]) == 0, capsys.readouterr()
    found = {"images": IMAGES}
    for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(code, found)
    assert found["logits"].shape == (5, 6)
    for name in FILES:
        assert f"`{name}`" in text
