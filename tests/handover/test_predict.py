"""Images, folders and folders of classes through an exported model and a workdir: the same answers."""

import csv
import json
import os
import re
import shutil

import linear_network
import numpy as np
import pytest
from PIL import Image

import hpjax
from hpjax.config import parse_config
from hpjax.config.fields import DataConfig
from hpjax.data import synthetic
from hpjax.data.dataset import load_dataset
from hpjax.errors import CheckpointError, DataError, ModelError
from hpjax.handover.gathering import gather
from hpjax.handover.package import export_trial
from hpjax.handover.tally import Confusion
from hpjax.predict import main
from hpjax.sweep import run_sweep

SCENES = {"name": "synthetic_scenes", "image_size": 30, "max_train_examples": 60, "max_test_examples": 24}


@pytest.fixture(scope="module")
def model(own, tmp_path_factory):
    return export_trial(own.workdir, "best", tmp_path_factory.mktemp("model") / "m", own.file).folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder with a folder of images per class, two of them empty, and one of none."""
    folder = tmp_path_factory.mktemp("photos")
    images, labels = synthetic.draw_scenes(12, 30, seed=5)
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        place = folder / synthetic.CLASSES[label]
        place.mkdir(exist_ok=True)
        Image.fromarray(image).save(place / f"{i:02}.png")
    return folder


def _run(capsys, *arguments):
    status = main(["predict", *map(str, arguments)])
    out, err = capsys.readouterr()
    return status, out, err


def _read(file):
    with open(file, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_a_folder_of_classes_through_both_doors(own, model, photos, tmp_path, capsys):
    tables = []
    for name in (model, own.workdir, f"{own.workdir}:{own.result.best.trial}"):
        arguments = f"--model={name}", photos, f"--csv={tmp_path}/t.csv", f"--confusion={tmp_path}/c.csv"
        file = [] if name == model else [f"--model_file={own.file}"]
        status, out, err = _run(capsys, *arguments, *file, "--batch_size=5")
        assert (status, err) == (0, "")
        tables.append(_read(tmp_path / "t.csv"))
    lines, classes = out.splitlines(), synthetic.CLASSES
    for one, other in zip(tables[0], tables[1], strict=True):
        assert one["file"] == other["file"]
        assert [float(one[c]) for c in classes] == pytest.approx([float(other[c]) for c in classes], abs=1e-4)
    assert tables[1] == tables[2]
    rows = tables[0]
    assert len(rows) == 12 and all(
        os.path.basename(os.path.dirname(r["file"])) == r["true_class"] for r in rows
    )
    right = sum(row["true_class"] == row["predicted_class"] for row in rows)
    assert lines[0] == f"12 images are in {tmp_path}/t.csv"
    assert lines[1].startswith(f"accuracy {right / 12:.4g} ({right} of 12; 95 %: ")
    matrix = _read(tmp_path / "c.csv")
    assert sum(int(row[row["true_class"]]) for row in matrix) == right
    assert sum(int(row[name]) for row in matrix for name in classes) == 12
    for row in rows:
        assert max(classes, key=lambda name: float(row[name])) == row["predicted_class"]
        assert sum(float(row[name]) for name in classes) == pytest.approx(1, abs=1e-4)
    assert sorted(os.listdir(tmp_path)) == ["c.csv", "t.csv"]


def test_images_one_by_one(own, model, photos, capsys, read):
    files = sorted(photos.rglob("*.png"))[:3]
    trained = hpjax.load_trial(own.workdir, "best", own.file)
    expected = trained.predict(files)
    status, out, err = _run(capsys, *files, f"--model={model}")  # flags may stand behind
    assert (status, err) == (0, "")
    for line, file, row in zip(out.splitlines(), files, expected, strict=True):
        name, share = re.fullmatch(rf"{re.escape(str(file))}: (\w+) ([\d.]+)", line).groups()
        assert name == trained.classes[row.argmax()] and float(share) == pytest.approx(row.max(), abs=1e-3)
    # From Python: paths, bytes and floats are the same images.
    images = np.stack([read(file) for file in files])
    assert np.array_equal(trained.predict(images), expected)
    assert trained.predict(np.float32(images) / 255) == pytest.approx(expected, abs=1e-6)
    assert trained.predict(files[0]).shape == (1, 6) and trained.predict([]).shape == (0, 6)
    found, variables = trained
    assert found is trained.model and set(variables["params"]) == {"out"}


def test_probabilities_give_the_recorded_loss(own):
    trained, data = hpjax.load_trial(own.workdir, "best", own.file), DataConfig(**SCENES)
    test = load_dataset(data, seed=0).test
    probabilities = trained.predict(test.images, batch_size=7)
    loss = -np.log(probabilities[np.arange(len(test)), test.labels]).mean()
    assert loss == pytest.approx(own.result.best.final_test_loss, rel=1e-5)
    assert np.mean(probabilities.argmax(1) == test.labels) == own.result.best.final_test_accuracy


def test_arrays_that_cannot_be_are_named(own):
    trained = hpjax.load_trial(own.workdir, "best", own.file)
    for array in (np.zeros((2, 31, 30, 3)), np.zeros((30, 30, 3), np.uint8), np.zeros((1, 30, 30, 3), int)):
        with pytest.raises(
            ModelError, match=r"trial . of .* can't take an array .*: expected paths of images"
        ):
            trained.predict(array)


def test_names_of_files_are_no_formulas_and_no_control_characters(
    model, photos, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    picture = next(photos.rglob("*.png")).read_bytes()
    names = [
        "=HYPERLINK(1).png",
        "+1.png",
        "a\nb.png",
        "\x1b[31mred.png",
        b"\xff.png".decode("utf-8", "surrogateescape"),
    ]
    for name in names:
        (tmp_path / name).write_bytes(picture)
    status, out, err = _run(capsys, f"--model={model}", "--csv=out.csv", *(f"./{name}" for name in names))
    assert (status, err) == (0, "")
    shown = (tmp_path / "out.csv").read_text("utf-8").splitlines()
    assert len(shown) == 6 and all(line.isprintable() for line in shown)
    status, out, err = _run(capsys, f"--model={model}", *names[:4])
    assert len(out.splitlines()) == 4 and all(line.isprintable() for line in out.splitlines())
    assert _read_first_cells(tmp_path, capsys, model, names[:2]) == ["'=HYPERLINK(1).png", "'+1.png"]


def _read_first_cells(tmp_path, capsys, model, names):
    assert _run(capsys, f"--model={model}", "--csv=out.csv", *names)[0] == 0
    return [row["file"] for row in _read(tmp_path / "out.csv")]


def test_bad_images_are_named_or_left_out(model, photos, tmp_path, capsys):
    good = next(photos.rglob("*.png"))
    (tmp_path / "bad.png").write_bytes(b"no image")
    (tmp_path / "good.png").write_bytes(good.read_bytes())
    Image.fromarray(np.full((9, 9), 40_000, np.uint16)).save(tmp_path / "deep.png")
    status, out, err = _run(capsys, f"--model={model}", tmp_path / "bad.png", f"--csv={tmp_path}/t.csv")
    assert (status, out) == (2, "") and "bad.png: not a readable image" in err
    status, out, err = _run(capsys, f"--model={model}", tmp_path / "deep.png")
    assert status == 2 and "deep.png has more than 8 bits a pixel, and mine.py:Net of" in err
    (tmp_path / "deep.png").unlink()
    status, out, err = _run(capsys, f"--model={model}", tmp_path, "--on_bad_image=skip")
    assert status == 0 and out.count("\n") == 1 and "1 bad images left out, the first:" in err
    assert sorted(os.listdir(tmp_path)) == ["bad.png", "good.png"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("{photos}",), "--model is missing"),
        (("--model={model}",), "nothing is named: expected images or folders"),
        (("--model={model}", "{new}/gone.png"), "gone.png doesn't exist"),
        (("--model={model}", "{new}"), "holds no image"),
        (("--model={new}", "{photos}"), "there is no model in .*: expected a folder that hpjax.export wrote"),
        (("--model={sweep}:9", "{photos}"), "there is no trial 9"),
        (("--model={sweep}:x", "{photos}"), "there is no model in"),
        (("--model={model}", "{photos}", "--csv={new}"), "can't write .*: it is there and no file"),
        (("--model={model}", "{photos}", "--csv={new}/a/b.csv"), "can't write .*b.csv: No such file"),
        (("--model={model}", "{photos}", "--batch_size=0"), "batch_size"),
        (("--model={model}", "{photos}", "--on_bad_image=no"), "--on_bad_image='no' is not allowed"),
        (("--model={model}", "{photos}/forest/../../gone"), "doesn't exist"),
    ],
)
def test_what_is_wrong_is_one_line(own, model, photos, tmp_path, capsys, arguments, line):
    places = {"sweep": own.workdir, "model": model, "photos": photos, "new": tmp_path}
    status, out, err = _run(capsys, *(argument.format(**places) for argument in arguments))
    assert (status, out) == (2, "") and err.count("\n") == 1
    assert re.search(f"^hpjax: error: .*{line}", err), err
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["model.json", "forward.jaxexport"])
def test_an_exported_model_that_is_damaged_is_one_line(model, photos, tmp_path, capsys, name):
    place = shutil.copytree(model, tmp_path / "model")
    content = (place / name).read_bytes()
    changes = [
        b"",
        b"{}",
        content[: len(content) // 2],
        content.replace(b'"black"', b'"b"').replace(b"30", b"31"),
    ]
    for change in changes:
        (place / name).write_bytes(change)
        status, out, err = _run(capsys, f"--model={place}", photos)
        assert (status, out) == (2, "") and err.count("\n") == 1 and err.startswith("hpjax: error: "), err
    (place / name).unlink()
    os.mkfifo(place / name)
    status, out, err = _run(capsys, f"--model={place}", photos)
    assert status == 2 and err.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("deep_images", {"black": 0, "white": 10**400}),
        ("deep_images", {"black": "0", "white": "9"}),
        ("deep_images", {"black": True, "white": 2}),
        ("deep_images", {"black": 5, "white": 5}),
        ("deep_images", 3),
        ("image_size", 60_000),  # nothing of that size is tried
        ("image_size", [30]),
        ("image_size", [30, 30, 30]),
        ("image_size", True),
        ("channels", 0),
        ("channels", 10**9),
        ("channels", "1"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_preprocessing_that_is_none_is_one_line(model, photos, tmp_path, capsys, name, value):
    place = shutil.copytree(model, tmp_path / "model")
    content = json.loads((place / "model.json").read_text())
    content["preprocessing"][name] = value
    (place / "model.json").write_text(json.dumps(content))
    status, out, err = _run(capsys, f"--model={place}", photos)
    assert (status, out) == (2, "") and err.count("\n") == 1 and err.startswith("hpjax: error: "), err


def test_whose_folder_is_no_class_is_said(photos, tmp_path):
    place = shutil.copytree(photos, tmp_path / "p")
    (place / "kitchen").mkdir()
    shutil.copy(next(photos.rglob("*.png")), place / "kitchen" / "k.png")
    gathered = gather([str(place)], synthetic.CLASSES)
    assert [p.label for p in gathered.pictures].count(-1) == 1 and len(gathered.pictures) == 13
    assert gathered.remarks == [
        f"1 images of {place} are in no folder of a class, e.g. {place / 'kitchen' / 'k.png'}"
    ]
    # A folder around it is looked through; classes by other names are no classes.
    assert len(gather([str(tmp_path)], synthetic.CLASSES).pictures) == 13
    assert {p.label for p in gather([str(tmp_path)], ["other"]).pictures} == {-1}


def test_a_large_matrix_is_not_printed():
    confusion = Confusion([f"class {i}" for i in range(30)])
    assert confusion.describe() == []
    confusion.add(np.array([3, -1, 4]), np.array([3, 0, 5]))
    assert confusion.total == 2 and len(confusion.describe()) == 2


def test_deep_images_are_read_by_the_scale_they_were_learned_with(tmp_path, capsys):
    """As files of another depth are: a value is the same grey in training and in use."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("test", 2)):
        for k in range(2):
            (tmp_path / "data" / split / f"c{k}").mkdir(parents=True)
            for i in range(count):
                values = rng.integers(1000, 30_000, (10, 10)).astype(np.uint16)
                values[0, 0] = 30_000
                Image.fromarray(values).save(tmp_path / "data" / split / f"c{k}" / f"{i}.png")
    network = linear_network.__file__
    config = {"model": {"name": f"{network}:Net"}, "data": {"name": "folder", "dir": str(tmp_path / "data")}}
    config["data"]["image_size"] = 8
    result = run_sweep(parse_config({**config, "train": {"batch_size": 4, "epochs": 1}}), tmp_path / "sweep")
    trained = hpjax.load_trial(result.workdir, 0, network)
    assert (trained.classifier.scale.low, trained.classifier.scale.high) == (0, 30_000)
    folder = export_trial(result.workdir, 0, tmp_path / "out", network).folder
    status, out, err = _run(capsys, f"--model={folder}", tmp_path / "data" / "test")
    assert status == 0 and f"accuracy {result.best.final_test_accuracy:.4g} " in out


def test_what_python_cannot_load_is_named(own):
    with pytest.raises(CheckpointError, match="there is no trial x in"):
        hpjax.load_trial(own.workdir, "x")
    with pytest.raises(DataError, match="gone.png: not a readable image .no such file."):
        hpjax.load_trial(own.workdir, 0, own.file).predict("gone.png")
