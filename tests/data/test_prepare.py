import os
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from hpjax.config import DataConfig
from hpjax.data import prepare
from hpjax.data.intel_scenes import CLASSES, KAGGLE, is_prepared
from hpjax.data.sources import load_source


def run(*arguments) -> int:
    return prepare.run(["prepare", *map(str, arguments)])


def sorted_images(split) -> np.ndarray:
    flat = split.images.reshape(len(split), -1)
    return flat[np.lexsort(flat.T)]


@pytest.mark.parametrize("nested", [False, True])
def test_prepared_set_equals_its_tree(make_tree, tmp_path, nested, capfd):
    root = make_tree(splits=("seg_train", "seg_test"), classes=CLASSES, nested=nested)
    assert run(f"--dir={root}", f"--data_dir={tmp_path / 'prepared'}") == 0
    out, err = capfd.readouterr()
    assert "prepared: " in out and "checking images" in err
    assert is_prepared(tmp_path / "prepared")
    tree, prepared = (
        load_source(DataConfig(name="intel_scenes", dir=str(place), image_size=8))
        for place in (root, tmp_path / "prepared")
    )
    assert prepared.classes == tree.classes == CLASSES
    for a, b in ((tree.train, prepared.train), (tree.test, prepared.test)):
        np.testing.assert_array_equal(sorted_images(a), sorted_images(b))
        assert np.bincount(b.labels).tolist() == [4] * 6
    assert run(f"--dir={root}", f"--data_dir={tmp_path / 'prepared'}") == 0
    assert "exists already" in capfd.readouterr().out


def test_nested_and_deep_images_are_prepared(make_tree, tmp_path):
    root = make_tree(splits=("seg_train", "seg_test"), classes=CLASSES)
    sea = root / "seg_train" / "sea"
    for folder in (sea / "more", sea / "sea"):
        folder.mkdir()
        (sea / f"{len(list(sea.glob('*.png'))) - 1}.png").rename(folder / "0.png")
    Image.fromarray(np.full((9, 9), 3000, np.uint16)).save(root / "seg_test" / "sea" / "0.png")
    assert run(f"--dir={root}", f"--data_dir={tmp_path / 'prepared'}") == 0
    tree, prepared = (
        load_source(DataConfig(name="intel_scenes", dir=str(place), image_size=8))
        for place in (root, tmp_path / "prepared")
    )
    for a, b in ((tree.train, prepared.train), (tree.test, prepared.test)):
        np.testing.assert_array_equal(sorted_images(a), sorted_images(b))
        assert np.bincount(b.labels).tolist() == [4] * 6
    assert tree.remarks == prepared.remarks and "more than 8 bits" in tree.remarks[0]


def test_a_path_may_begin_with_a_tilde(make_tree, tmp_path, monkeypatch):
    make_tree(splits=("seg_train", "seg_test"), classes=CLASSES, count=1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PLACE", "prepared")
    assert run("--dir=~/tree", "--data_dir=~/$PLACE") == 0
    assert is_prepared(tmp_path / "prepared") and not (tmp_path / "~").exists()


def test_bad_image_is_named(make_tree, tmp_path, capfd):
    root = make_tree(splits=("seg_train", "seg_test"), classes=CLASSES)
    (root / "seg_test" / "sea" / "2.png").write_bytes(b"not an image")
    assert run(f"--dir={root}") == 2
    assert "hpjax: error: " in (err := capfd.readouterr().err) and "seg_test/sea/2.png" in err
    assert not is_prepared(root)


def test_other_classes_are_refused(make_tree, capfd):
    assert run(f"--dir={make_tree()}") == 2
    assert "holds the classes cat, dog: expected buildings, forest" in capfd.readouterr().err


def test_target_that_can_not_be_written(make_tree, tmp_path, capfd):
    root = make_tree(splits=("seg_train", "seg_test"), classes=CLASSES, count=1)
    (tmp_path / "file").touch()
    assert run(f"--dir={root}", f"--data_dir={tmp_path / 'file'}") == 2
    assert "could not be prepared in" in capfd.readouterr().err


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--dir=/nowhere/at/all"], f"/nowhere/at/all does not exist.*{KAGGLE}"),
        (["--bogus=1"], "bogus"),
        (["--dowload"], "dowload"),
        (["--download=maybe"], "download"),
        (["--nodownload=3"], "--nodownload=3 does not take an argument"),
        (["stray"], "'stray'.*flags only"),
        (["--name=cifar10"], "--name=cifar10 is not known"),
        (["--name=tfds:no_such_set_of_images"], "no_such_set_of_images is not known"),
    ],
)
def test_misuse_is_one_line_and_exit_code_2(arguments, message, tmp_path):
    command = [sys.executable, "-m", "hpjax.data.prepare", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "HOME": str(tmp_path)})
    assert done.returncode == 2 and done.stdout == ""
    [line] = [line for line in done.stderr.splitlines() if not line.startswith("WARNING")]
    assert line.startswith("hpjax: error: ")
    assert re.search(message, line)


def test_download_without_kagglehub_says_what_to_do(tmp_path, monkeypatch, capfd):
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    assert run("--download", f"--dir={tmp_path}") == 2
    err = capfd.readouterr().err
    assert "pip install kagglehub" in err and KAGGLE in err and "seg_train/" in err


def test_download_with_kagglehub(make_tree, tmp_path, monkeypatch):
    root = make_tree(splits=("seg_train", "seg_test"), classes=CLASSES, nested=True, count=1)

    class Hub:
        @staticmethod
        def dataset_download(handle):
            assert handle == KAGGLE
            return str(root)

    monkeypatch.setitem(sys.modules, "kagglehub", Hub)
    assert run("--download", f"--dir={tmp_path / 'data'}") == 0
    assert is_prepared(tmp_path / "data")


def test_help(capfd):
    assert run("--help") == 0
    assert "--data_dir" in capfd.readouterr().out


def test_no_tensorflow(make_tree, tmp_path):
    root = make_tree(splits=("seg_train", "seg_test"), classes=CLASSES, count=1)
    code = (
        "import sys; from hpjax.data import prepare, load_dataset; from hpjax.config import DataConfig;"
        f"prepare.run(['x', '--dir={root}']);"
        f"load_dataset(DataConfig(name='intel_scenes', dir='{root}', image_size=8), 0);"
        "sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
