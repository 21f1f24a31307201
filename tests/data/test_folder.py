import os

import pytest

from hpjax.data.folder import scan_tree
from hpjax.data.layout import has_splits
from hpjax.errors import DataError


@pytest.mark.parametrize("splits", [("train", "test"), ("seg_train", "seg_test")])
@pytest.mark.parametrize("nested", [False, True])
def test_every_layout_is_read(make_tree, splits, nested):
    tree = scan_tree(make_tree(splits=splits, nested=nested))
    assert tree.classes == ("cat", "dog")
    assert [p.label for p in tree.train] == [0] * 4 + [1] * 4
    assert len(tree.test) == 8 and len(tree.files) == 16


def test_clutter_is_ignored_and_other_files_are_counted(make_tree):
    root = make_tree()
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._0.png"):
        (root / "train" / "cat" / name).write_text("clutter")
    (root / "__MACOSX").mkdir()
    (root / "train" / "__MACOSX").mkdir()
    tree = scan_tree(root)
    assert len(tree.train) == 8 and tree.left_out == {}
    (root / "train" / "cat" / "README.txt").write_text("no image")
    (root / "train" / "notes.txt").write_text("beside the classes")
    (root / "labels.csv").write_text("beside the splits")
    (root / "train" / "cat" / ".hidden.png").write_text("hidden")
    tree = scan_tree(root)
    assert len(tree.train) == 8 and tree.left_out == {".txt": 2, ".csv": 1, "hidden images": 1}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_clutter_that_can_not_be_read_is_left_alone(make_tree):
    root = make_tree()
    (root / "lost+found").mkdir(mode=0)
    assert len(scan_tree(root).train) == 8


def test_upper_case_suffixes_count(make_tree):
    root = make_tree()
    (root / "test" / "cat" / "0.png").rename(root / "test" / "cat" / "0.PNG")
    assert len(scan_tree(root).test) == 8


def test_missing_folder(tmp_path):
    with pytest.raises(DataError, match=r"nowhere does not exist: expected .*train/<class>"):
        scan_tree(tmp_path / "nowhere")


def test_file_instead_of_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="file is no folder, zip or tar file: expected"):
        scan_tree(tmp_path / "file")


def test_folder_without_splits(tmp_path):
    (tmp_path / "pictures").mkdir()
    assert not has_splits(tmp_path)
    with pytest.raises(DataError, match=r"holds pictures: expected train/<class>"):
        scan_tree(tmp_path)


def test_split_without_classes(make_tree, tmp_path):
    make_tree(classes=("cat", "dog"), splits=("train",))
    (tmp_path / "tree" / "test").mkdir()
    with pytest.raises(DataError, match="test holds no class"):
        scan_tree(tmp_path / "tree")


def test_class_missing_from_one_split(make_tree):
    make_tree(splits=("train",), classes=("cat", "dog", "eel"))
    root = make_tree(splits=("test",))
    with pytest.raises(DataError, match=r"class 'eel' of .*train is missing from .*test"):
        scan_tree(root)


def test_class_missing_from_training(make_tree):
    make_tree(splits=("test",), classes=("cat", "dog", "eel"))
    root = make_tree(splits=("train",))
    with pytest.raises(DataError, match=r"class 'eel' of .*test is missing from .*train"):
        scan_tree(root)


def test_single_class(make_tree):
    with pytest.raises(DataError, match="single class 'cat'.*at least 2"):
        scan_tree(make_tree(classes=("cat",)))


def test_empty_class(make_tree):
    root = make_tree()
    (root / "train" / "eel").mkdir()
    (root / "train" / "eel" / "list.csv").touch()
    with pytest.raises(DataError, match=r"eel holds no image \(its 1 other files are ignored\)"):
        scan_tree(root)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_folder(make_tree):
    root = make_tree()
    (root / "train" / "cat").chmod(0)
    try:
        with pytest.raises(DataError, match="cat can't be read: Permission denied"):
            scan_tree(root)
    finally:
        (root / "train" / "cat").chmod(0o755)
