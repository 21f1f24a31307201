import io
import json
import os

import numpy as np
import pytest
from PIL import Image

from hpjax.data import cache as cache_module
from hpjax.data import stamps
from hpjax.data.cache import decode_source, watching_decoding
from hpjax.data.folder import scan_tree
from hpjax.data.stamps import EDGE, stamp_files
from hpjax.errors import DataError


def load(root, size=8, on_bad_image="fail"):
    tree = scan_tree(root)
    pictures = {"train": tree.train, "test": tree.test}
    return decode_source("folder", tree.classes, pictures, size, tree.files, on_bad_image)


def forbid_decoding(monkeypatch):
    def fail(*_):
        raise AssertionError("decoded again")

    monkeypatch.setattr(cache_module, "decode_chunks", fail)


def assert_equal(a, b):
    assert (a.classes, a.digest, a.skipped) == (b.classes, b.digest, b.skipped)
    for x, y in ((a.train, b.train), (a.test, b.test)):
        np.testing.assert_array_equal(x.images, y.images)
        np.testing.assert_array_equal(x.labels, y.labels)


def test_second_start_decodes_nothing(make_tree, monkeypatch):
    root = make_tree()
    first = load(root)
    forbid_decoding(monkeypatch)
    second = load(root)
    assert_equal(first, second)
    assert type(second.train.images) is np.ndarray and isinstance(second.train.images.base, np.memmap)


def test_size_and_content_have_entries_of_their_own(make_tree, cache):
    root = make_tree()
    first = load(root)
    assert load(root, size=9).train.images.shape[1] == 9
    file = next((root / "train" / "cat").iterdir())
    os.utime(file, ns=(1, 1))
    assert load(root).digest == first.digest
    file.write_bytes(next((root / "train" / "dog").iterdir()).read_bytes())
    assert load(root).digest != first.digest
    assert len(list(cache.iterdir())) == 4


def _same(root, other):
    return load(root).digest == other.digest


def _replace(file, content):
    """Replaces a file by one of equal size and time, as `rsync --times` and archives do."""
    times = os.stat(file)
    new = file.with_name("new")
    new.write_bytes(content)
    os.utime(new, ns=(times.st_atime_ns, times.st_mtime_ns))
    new.replace(file)


def _overwrite(file, content):
    """Changes a file in its place, and sets its time back."""
    times = os.stat(file)
    file.write_bytes(content)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


def _bmp(shade):
    image = io.BytesIO()
    Image.new("RGB", (40, 40), (shade, 9, 9)).save(image, "BMP")
    return image.getvalue()


@pytest.mark.parametrize("change", [_replace, _overwrite])
def test_an_image_of_equal_size_and_time_is_not_taken_from_the_cache(make_tree, change):
    root = make_tree()
    file = root / "train" / "cat" / "0.bmp"
    file.write_bytes(_bmp(1))
    first = load(root)
    assert _same(root, first)
    change(file, _bmp(200))
    assert not _same(root, first)
    change(file, _bmp(1))
    assert _same(root, first)


@pytest.mark.parametrize("place", [0, EDGE - 1, -EDGE, -1])
def test_head_and_tail_count_where_no_inode_and_time_does(tmp_path, monkeypatch, place):
    file = tmp_path / "image"
    content = bytearray(5 * EDGE)
    file.write_bytes(bytes(content))
    status = os.stat(file)
    monkeypatch.setattr(stamps.os, "fstat", lambda fd: status)  # as where a file system keeps none of them
    before = stamp_files([file])
    content[place] = 1
    file.write_bytes(bytes(content))
    assert stamp_files([file]) != before


def test_stamps_tell_orders_and_missing_files_apart(tmp_path):
    one, other, gone = tmp_path / "one", tmp_path / "other", tmp_path / "gone"
    one.write_text("1")
    other.write_text("2")
    os.mkfifo(tmp_path / "pipe")
    drawn = [[one, other], [other, one], [one], [one, gone], [one, tmp_path / "pipe", gone], []]
    found = [stamp_files(paths) for paths in drawn]
    assert len(set(found)) == len(drawn) and found == [stamp_files(paths) for paths in drawn]
    assert stamp_files([one] * 1000) != stamp_files([one] * 999)


def test_a_pipe_in_the_cache_is_made_anew(make_tree, cache, caplog):
    first = load(root := make_tree())
    file = next(cache.iterdir()) / "meta.json"
    file.unlink()
    os.mkfifo(file)
    assert _same(root, first) and "made anew" in caplog.text


@pytest.mark.parametrize("file", ["train_images.npy", "test_labels.npy", "meta.json"])
@pytest.mark.parametrize("damage", ["cut", "flip", "remove"])
def test_damaged_entry_is_made_anew(make_tree, cache, caplog, file, damage):
    root = make_tree()
    first = load(root)
    path = next(cache.iterdir()) / file
    content = bytearray(path.read_bytes())
    path.unlink()  # the first start's arrays still map the old file
    if damage != "remove":
        content[len(content) // 2 :] = (
            b"" if damage == "cut" else b"\xff" * (len(content) - len(content) // 2)
        )
        path.write_bytes(bytes(content))
    assert_equal(load(root), first)
    assert "made anew" in caplog.text
    caplog.clear()
    load(root)
    assert not caplog.records


def test_failure_leaves_nothing(make_tree, cache):
    root = make_tree()
    (root / "test" / "dog" / "3.png").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"test/dog/3\.png"):
        load(root)
    assert list(cache.iterdir()) == []


def test_skipping_is_counted_and_remembered(make_tree, monkeypatch):
    root = make_tree()
    (root / "train" / "dog" / "1.png").write_bytes(b"broken")
    source = load(root, on_bad_image="skip")
    assert len(source.train) == 7 and source.train.images.shape == (7, 8, 8, 3)
    assert [s.split(":")[0] for s in source.skipped] == [str(root / "train" / "dog" / "1.png")]
    forbid_decoding(monkeypatch)
    assert_equal(load(root, on_bad_image="skip"), source)
    with pytest.raises(DataError, match=r"train/dog/1\.png"):
        load(root)


def test_class_without_a_good_image(make_tree):
    root = make_tree(count=1)
    (root / "test" / "dog" / "0.png").write_bytes(b"broken")
    with pytest.raises(DataError, match="class 'dog' of folder has no readable test image"):
        load(root, on_bad_image="skip")


def test_unusable_cache_only_costs_time(make_tree, tmp_path, monkeypatch, caplog):
    root = make_tree()
    first = load(root)
    (tmp_path / "file").touch()
    monkeypatch.setenv("HPJAX_CACHE", str(tmp_path / "file" / "below"))
    assert_equal(load(root), first)
    assert "can't be kept" in caplog.text


def test_leftovers_of_killed_processes_go(make_tree, cache):
    old, young = cache / ".tmp-old", cache / ".tmp-young"
    old.mkdir(parents=True)
    young.mkdir()
    os.utime(old, (0, 0))
    load(make_tree())
    assert young.exists() and not old.exists()


def test_entry_is_plain_npy(make_tree, cache):
    source = load(make_tree())
    entry = next(cache.iterdir())
    np.testing.assert_array_equal(
        np.load(entry / "train_images.npy", allow_pickle=False), source.train.images
    )
    assert json.loads((entry / "meta.json").read_text())["digest"] == source.digest


@pytest.mark.parametrize("in_memory", [False, True])
def test_who_watches_is_told_how_many_images_are_decoded(make_tree, monkeypatch, in_memory, cache):
    monkeypatch.setattr(cache_module, "CHUNK", 3)
    if in_memory:
        cache.write_text("no folder can be made here")
    root, told = make_tree(), []
    (root / "train" / "cat" / "0.png").write_text("bad")  # is done with, too
    with watching_decoding(lambda *counts: told.append(counts)):
        load(root, on_bad_image="skip")
        assert told == [(done, 16) for done in (3, 6, 9, 12, 15, 16)]
        load(root, on_bad_image="skip")
        assert len(told) == 6 * (1 + in_memory)  # else it is read from the cache
    load(root, size=9, on_bad_image="skip")
    assert len(told) == 6 * (1 + in_memory)
