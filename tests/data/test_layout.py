"""Whatever a tree looks like, each of its files is learned, tested on, selected on, or counted."""

import shutil
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from trees import VALIDATIONS, planted_trees

from hpjax.config import DataConfig
from hpjax.data import load_dataset
from hpjax.data.folder import TEST_SHARE, Tree, scan_tree
from hpjax.data.layout import has_splits
from hpjax.errors import DataError

LIMITED = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def _paths(pictures, root) -> list[str]:
    return [str(Path(picture.content).relative_to(root)) for picture in pictures]


def _by_class(tree: Tree, pictures, root) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {name: set() for name in tree.classes}
    for picture, path in zip(pictures, _paths(pictures, root), strict=True):
        found[tree.classes[picture.label]].add(path)
    return found


@LIMITED
@given(planted_trees(), st.booleans(), st.integers(0, 3))
def test_every_file_is_used_or_counted(planted, validation, seed):
    root = Path(tempfile.mkdtemp())
    try:
        planted.write(root)
        tree = scan_tree(root, seed, validation)
        splits = {split for split, _ in planted.images}
        classes = {label for _, label in planted.images}
        assert set(tree.classes) == classes
        learned = {split: {c: planted.images[split, c] for c in classes} for split in splits}
        train, test = (_by_class(tree, pictures, root) for pictures in (tree.train, tree.test))
        assert tree.left_out == planted.left_out(validation)
        if "test" in splits:
            assert (train, test) == (learned["train"], learned["test"]) and tree.division == ()
        else:
            _check_held_out(tree, {c: (train[c], test[c]) for c in classes}, learned["train"], seed)
        selects = validation and "validation" in splits
        held = _by_class(tree, tree.validation, root)
        assert held == (learned["validation"] if selects else {c: set() for c in classes})
        _check_remarks(tree, planted.names, selects)
        assert len(tree.files) == len(tree.train) + len(tree.test) + len(tree.validation)
    finally:
        shutil.rmtree(root)


def _check_held_out(tree, divided, learned, seed):
    for name, (train, test) in divided.items():
        assert train | test == learned[name] and not train & test
        count = len(learned[name])
        assert len(test) == min(max(round(TEST_SHARE * count), 1), count - 1)
    assert tree.division == (TEST_SHARE, seed)


def _check_remarks(tree, names, selects):
    said = " / ".join(tree.remarks)
    assert ("held out for testing" in said) == ("test" not in names)
    assert ("is tested on" in said) == (names.get("test") in VALIDATIONS)
    if "validation" in names:
        assert ("is the validation split" if selects else "isn't used") in said
    assert len(tree.remarks) == ("test" not in names) + ("is tested on" in said) + ("validation" in names)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(planted_trees())
def test_every_planted_image_is_decoded(planted):
    root = Path(tempfile.mkdtemp())
    try:
        planted.write(root)
        dataset = load_dataset(DataConfig(name="folder", dir=str(root), image_size=8), 0)
        expected = sum(len(paths) for (split, _), paths in planted.images.items() if split != "validation")
        assert len(dataset.train) + len(dataset.test) == expected and dataset.skipped == ()
        assert dataset.left_out == planted.left_out(validation=False)
    finally:
        shutil.rmtree(root)


def test_the_held_out_images_follow_the_seed(make_tree):
    root = make_tree(splits=("train",), count=20)
    first, again, other = (_paths(scan_tree(root, seed).test, root) for seed in (0, 0, 1))
    assert first == again != other and len(first) == 8


def test_held_out_images_are_never_learned(make_tree):
    root = str(make_tree(splits=("",), count=10))
    first, other = (load_dataset(DataConfig(name="folder", dir=root, image_size=8), seed) for seed in (0, 1))
    for dataset in (first, other):
        pixels = [{image.tobytes() for image in split.images} for split in (dataset.train, dataset.test)]
        assert not pixels[0] & pixels[1] and np.bincount(dataset.test.labels).tolist() == [2, 2]
    assert first.fingerprint != other.fingerprint
    assert "held out for testing, drawn with seed=1: 4 of 20" in other.remarks[-1]


def test_a_class_of_one_image_can_not_be_divided(make_tree):
    root = make_tree(splits=("train",))
    make_tree(splits=("train",), classes=("eel",), count=1)
    with pytest.raises(DataError, match="class 'eel' of .* has 1 image: expected at least 2"):
        scan_tree(root)


def test_a_validation_folder_takes_the_place_of_held_out_images(make_tree, caplog):
    root = str(make_tree(splits=("train", "test"), count=5))
    make_tree(splits=("val",), count=3, seed=1)
    options = {"name": "folder", "dir": root, "image_size": 8}
    with caplog.at_level("INFO", "hpjax"):
        without = load_dataset(DataConfig(**options), 0)
    assert without.validation is None and "isn't used" in caplog.text
    dataset = load_dataset(DataConfig(**options, validation_fraction=0.5), 0)
    assert (len(dataset.train), len(dataset.validation or ()), len(dataset.test)) == (10, 6, 10)
    assert dataset.fingerprint != without.fingerprint
    Image.new("RGB", (12, 12)).save(f"{root}/val/cat/0.png")
    changed = load_dataset(DataConfig(**options, validation_fraction=0.5), 0)
    assert changed.fingerprint != dataset.fingerprint


AMBIGUOUS = {
    "two of one kind": (
        ("train", "Training", "test"),
        "Training/, train/, which all say train: data.train",
    ),
    "two cases": (("TRAIN", "train"), "TRAIN/, train/, which all say train"),
    "two families": (("a_train", "a_test", "b_train", "b_test"), "a_test/, b_test/, which all say test"),
    "only test": (("test",), "test/ but no training images"),
    "test and validation": (("test", "val"), "but no training images"),
    "train and what else": (("train", "others"), "train/, others/, but no test folder by name"),
}


@pytest.mark.parametrize("case", AMBIGUOUS)
def test_what_is_not_clear_is_refused_with_the_cure(make_tree, case):
    splits, expected = AMBIGUOUS[case]
    with pytest.raises(DataError, match=expected) as caught:
        scan_tree(make_tree(splits=splits))
    assert "data.train and data.test" in str(caught.value) and "\n" not in str(caught.value)


def test_a_class_may_have_the_name_of_a_split(make_tree):
    for lone in ("train", "test", "valid"):
        tree = scan_tree(make_tree(lone, splits=("",), classes=(lone, "bus", "car")))
        assert tree.classes == tuple(sorted((lone, "bus", "car")))
    root = make_tree("both", classes=("train", "bus"))
    assert scan_tree(root).classes == ("bus", "train") and len(scan_tree(root).test) == 8


def test_splits_full_of_images_without_classes_are_not_taken_for_classes(make_tree):
    root = make_tree(splits=("",), classes=("train", "test"))
    with pytest.raises(DataError, match=r"train holds no class but 0.png, .*a folder of images per class"):
        scan_tree(root)


def test_folders_that_are_not_used_are_named(make_tree):
    root = make_tree(splits=("seg_train", "seg_test"), nested=True)
    (root / "seg_pred" / "seg_pred").mkdir(parents=True)
    assert scan_tree(root).remarks == (f"not used: {root}/seg_pred",)


def test_a_folder_without_images_beside_classes_is_none(make_tree):
    root = make_tree(splits=("",))
    (root / "annotations").mkdir()
    (root / "annotations" / "boxes.xml").touch()
    Image.new("L", (9, 9)).save(root / "cover.png")
    tree = scan_tree(root)
    assert tree.classes == ("cat", "dog")
    assert tree.left_out == Counter({"folders without images": 1, ".xml": 1, "images outside a class": 1})


@pytest.mark.parametrize("links", ["up", "itself", "across"])
def test_links_in_circles_end(make_tree, links):
    root = make_tree()
    cat, dog = root / "train" / "cat", root / "train" / "dog"
    if links == "up":
        (cat / "up").symlink_to(root / "train" / "cat")
    elif links == "itself":
        (cat / "self").symlink_to("self")
    else:
        for i in range(12):  # each in all others: more ways through them than can be walked
            (cat / f"a{i}").mkdir()
        for i in range(12):
            for j in range(12):
                (cat / f"a{i}" / f"to{j}").symlink_to(cat / f"a{j}")
    tree = scan_tree(root)
    assert len([p for p in tree.train if p.label == 0]) == 4 and dog.is_dir()


def test_linked_folders_and_files_are_read(make_tree, tmp_path):
    root = make_tree()
    linked = tmp_path / "linked"
    (linked / "train").mkdir(parents=True)
    for label in ("cat", "dog"):
        (linked / "train" / label).symlink_to(root / "train" / label)
    (linked / "test").symlink_to(root / "test")
    assert len(scan_tree(linked).train) == 8 == len(scan_tree(linked).test)


def test_has_splits_reads_names_alone(make_tree, tmp_path):
    assert has_splits(make_tree(splits=("Training", "VAL")))
    assert not has_splits(make_tree("lone", splits=("train",)))
    assert not has_splits(make_tree("flat", splits=("",))) and not has_splits(tmp_path / "nowhere")


def test_more_wrapping_folders_than_anyone_needs_are_not_followed(make_tree, tmp_path):
    inner = make_tree()
    for depth in range(6):
        outer = tmp_path / f"outer{depth}"
        outer.mkdir()
        inner.rename(outer / f"w{depth}")
        inner = outer
    with pytest.raises(DataError, match="single class"):
        scan_tree(inner)
