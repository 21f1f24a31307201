"""Zip and tar files are read like folders, and what is hostile or damaged in them is one line."""

import io
import os
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpjax.config import DataConfig
from hpjax.data import archives, load_dataset
from hpjax.data.archives import find_archive, unpack
from hpjax.errors import DataError

TARS = {".tar": "w", ".tar.gz": "w:gz", ".tgz": "w:gz", ".tar.bz2": "w:bz2", ".tar.xz": "w:xz"}
KINDS = (".zip", *TARS)


def pack(path: Path, files: dict[str, bytes]) -> Path:
    """Writes an archive of the kind that its suffix says."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
            for name, content in files.items():
                zipped.writestr(name, content)
    else:
        suffix = next(suffix for suffix in sorted(TARS, key=len, reverse=True) if path.name.endswith(suffix))
        with tarfile.open(path, TARS[suffix]) as tarred:
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tarred.addfile(info, io.BytesIO(content))
    return path


def read_tree(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def load(path, **given):
    return load_dataset(DataConfig(name="folder", dir=str(path), image_size=8, **given), 0)


def unpacked(cache: Path) -> list[Path]:
    return [path for path in cache.iterdir() if path.name.startswith("unpacked-")] if cache.exists() else []


@pytest.mark.parametrize("suffix", KINDS)
@pytest.mark.parametrize("around", ["", "images/", "./"])
def test_an_archive_is_read_as_its_folder(make_tree, tmp_path, cache, suffix, around):
    root = make_tree()
    files = {f"{around}{name}": content for name, content in read_tree(root).items()}
    archive = pack(tmp_path / f"packed{suffix}", {**files, f"{around}train/cat/notes.txt": b"-"})
    tree, packed, again = load(root), load(archive), load(archive)
    for dataset in (packed, again):
        assert dataset.classes == tree.classes and dataset.fingerprint == tree.fingerprint
        np.testing.assert_array_equal(dataset.train.images, tree.train.images)
        assert dataset.left_out == {".txt": 1}
        assert dataset.remarks == (f"{archive} is unpacked in {unpacked(cache)[0]}",)
    assert len(unpacked(cache)) == 1


def test_any_name_will_do_and_a_folder_with_nothing_but_an_archive(make_tree, tmp_path):
    root = make_tree()
    folder = tmp_path / "download"
    folder.mkdir()
    pack(folder / "x.zip", read_tree(root)).rename(folder / "images")
    (folder / ".DS_Store").touch()
    assert load(folder).fingerprint == load(folder / "images").fingerprint == load(root).fingerprint
    (folder / "read me.txt").touch()
    assert find_archive(folder) is None
    assert find_archive(folder / "read me.txt") is None and find_archive(tmp_path / "nowhere") is None


def test_each_split_may_be_an_archive(make_tree, tmp_path):
    root = make_tree()
    train, test = (pack(tmp_path / f"{s}.zip", read_tree(root / s)) for s in ("train", "test"))
    config = DataConfig(name="folder", train=str(train), test=str(test), image_size=8)
    dataset = load_dataset(config, 0)
    assert dataset.fingerprint == load(root).fingerprint and len(dataset.remarks) == 2


def test_an_archive_that_changed_is_unpacked_anew(make_tree, tmp_path, cache):
    first, other = read_tree(make_tree("a")), read_tree(make_tree("b", seed=1))
    archive = pack(tmp_path / "x.tar", first)
    before, status = load(archive), archive.stat()
    pack(archive, other)
    os.utime(archive, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert archive.stat().st_size == status.st_size
    assert load(archive).fingerprint != before.fingerprint and len(unpacked(cache)) == 2


@pytest.mark.parametrize("damage", ["remove", "cut", "note"])
def test_what_is_missing_in_the_cache_is_unpacked_again(make_tree, tmp_path, cache, damage):
    archive = pack(tmp_path / "x.zip", read_tree(make_tree()))
    before = load(archive)
    file = unpacked(cache)[0] / ("train/cat/0.png" if damage != "note" else ".hpjax-unpacked.json")
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:20])
    else:
        file.unlink()
    assert load(archive).fingerprint == before.fingerprint


ESCAPES = (
    "../evil.png",
    "train/../../evil.png",
    "/tmp/hpjax-evil.png",
    "..\\evil.png",
    "C:\\evil.png",
    "a/../../b",
)
ESCAPES += ("train/cat/..", "C:evil.png", "\\evil.png")


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
@pytest.mark.parametrize("name", ESCAPES)
def test_nothing_is_written_outside(make_tree, tmp_path, cache, suffix, name):
    files = {**read_tree(make_tree()), name: b"evil"}
    archive = pack(tmp_path / f"x{suffix}", files)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataError, match="expected names inside of it, without .. and from no root") as caught:
        load(archive)
    assert str(archive) in str(caught.value) and "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == sorted([*before, cache])
    assert not unpacked(cache) and not Path("/tmp/hpjax-evil.png").exists()


PARTS = st.sampled_from(("..", ".", "", "a", "train", "cat", "b.png", "C:", "~", "x" * 300, "ü", "a\nb", " "))
NAMES = st.lists(PARTS, min_size=1, max_size=5).map(lambda parts: "/".join(parts) or "/")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(NAMES, st.binary(max_size=9), max_size=4), st.sampled_from((".zip", ".tar")))
def test_any_names_stay_inside_or_are_refused(tmp_path, cache, files, suffix):
    archive = pack(tmp_path / f"x{suffix}", files)
    try:
        folder = unpack(archive).folder
    except DataError as error:
        assert "archive" in str(error) and "\n" not in str(error)
    else:
        assert folder.parent == cache
    assert {path.name for path in tmp_path.iterdir()} <= {"cache", archive.name}
    archive.unlink()


@pytest.mark.parametrize("kind", ["symlink", "hard link", "pipe", "device"])
def test_links_and_devices_are_left_in_a_tar(make_tree, tmp_path, kind):
    archive = pack(tmp_path / "x.tar", read_tree(make_tree()))
    types = {"symlink": tarfile.SYMTYPE, "hard link": tarfile.LNKTYPE, "pipe": tarfile.FIFOTYPE}
    with tarfile.open(archive, "a") as tarred:
        info = tarfile.TarInfo("train/cat/linked.png")
        info.type, info.linkname = types.get(kind, tarfile.CHRTYPE), "/etc/passwd"
        tarred.addfile(info)
    dataset = load(archive)
    name = "links in the archive" if "link" in kind else "devices in the archive"
    assert dataset.left_out == {name: 1} and len(dataset.train) == 8


def test_nothing_is_written_through_a_link(make_tree, tmp_path):
    """A link to a folder elsewhere, and then a file in it."""
    archive = pack(tmp_path / "x.tar", read_tree(make_tree()))
    (tmp_path / "elsewhere").mkdir()
    with tarfile.open(archive, "a") as tarred:
        info = tarfile.TarInfo("train/out")
        info.type, info.linkname = tarfile.SYMTYPE, str(tmp_path / "elsewhere")
        tarred.addfile(info)
        info = tarfile.TarInfo("train/out/evil.png")
        info.size = 4
        tarred.addfile(info, io.BytesIO(b"evil"))
    unpack(archive)
    assert not list((tmp_path / "elsewhere").iterdir())


def test_links_are_left_in_a_zip(make_tree, tmp_path):
    archive = pack(tmp_path / "x.zip", read_tree(make_tree()))
    with zipfile.ZipFile(archive, "a") as zipped:
        info = zipfile.ZipInfo("train/cat/linked.png")
        info.create_system, info.external_attr = 3, 0o120777 << 16
        zipped.writestr(info, "/etc/passwd")
    assert load(archive).left_out == {"links in the archive": 1}


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz", ".tar.xz"])
def test_a_bomb_is_stopped_before_it_fills_the_disk(tmp_path, cache, monkeypatch, suffix):
    monkeypatch.setattr(archives, "LEAST_LIMIT", 1 << 20)
    archive = pack(tmp_path / f"bomb{suffix}", {"train/cat/0.bmp": bytes(64 << 20)})
    assert archive.stat().st_size < 1 << 18
    with pytest.raises(DataError, match="unfolds to more than 100 times its size.*unpack it by hand"):
        load(archive)
    assert list(cache.iterdir()) == []


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("suffix", [".zip", ".tar.gz"])
def test_a_bomb_of_one_name_many_times_is_stopped(tmp_path, cache, monkeypatch, suffix):
    monkeypatch.setattr(archives, "LEAST_LIMIT", 1 << 20)
    archive, content = tmp_path / f"x{suffix}", bytes(1 << 19)
    if suffix == ".zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zipped:
            for _ in range(4):
                zipped.writestr("0.bmp", content)
    else:
        with tarfile.open(archive, "w:gz") as tarred:
            for _ in range(4):
                info = tarfile.TarInfo("0.bmp")
                info.size = len(content)
                tarred.addfile(info, io.BytesIO(content))
    with pytest.raises(DataError, match="unfolds to more than"):
        load(archive)
    assert list(cache.iterdir()) == []


def test_the_last_of_several_of_one_name_counts(make_tree, tmp_path):
    files = read_tree(make_tree())
    archive = tmp_path / "x.tar"
    pack(archive, {"train/cat/0.png": b"an older one", **files})
    with tarfile.open(archive, "a") as tarred:
        info = tarfile.TarInfo("train/cat/0.png")
        info.size = len(files["train/cat/1.png"])
        tarred.addfile(info, io.BytesIO(files["train/cat/1.png"]))
    dataset, again = load(archive), load(archive)
    assert len(dataset.train) == 8 and dataset.fingerprint == again.fingerprint
    np.testing.assert_array_equal(dataset.train.images[0], dataset.train.images[1])


def test_a_zip_that_lies_about_its_sizes_is_not_believed(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(archives, "LEAST_LIMIT", 1 << 20)
    archive = pack(tmp_path / "x.zip", {"0.bmp": bytes(8 << 20)})
    content = archive.read_bytes().replace(struct.pack("<I", 8 << 20), struct.pack("<I", 10))
    archive.write_bytes(content)
    with pytest.raises(DataError, match="x.zip"):
        load(archive)
    assert list(cache.iterdir()) == []


def test_too_many_names_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MOST_MEMBERS", 10)
    archive = pack(tmp_path / "x.zip", {f"{i}/": b"" for i in range(11)})
    with pytest.raises(DataError, match="holds more than 10 names"):
        unpack(archive)


@pytest.mark.parametrize("suffix", KINDS)
@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_a_damaged_archive_is_one_line(make_tree, tmp_path, cache, suffix, damage):
    archive = pack(tmp_path / f"x{suffix}", read_tree(make_tree(count=20)))
    content = bytearray(archive.read_bytes())
    middle = len(content) // 2
    content[middle:] = b"" if damage == "cut" else bytes(255 - b for b in content[middle : middle + 600])
    archive.write_bytes(bytes(content))
    with pytest.raises(DataError, match=f"x{suffix}") as caught:
        load(archive)
    assert "\n" not in str(caught.value)
    if suffix != ".tar" or damage == "cut":  # a tar file has no checksums of what is in its files
        assert not unpacked(cache)


def test_a_tar_that_ends_between_two_files_is_damaged(make_tree, tmp_path):
    archive = pack(tmp_path / "x.tar", read_tree(make_tree()))
    with tarfile.open(archive) as tarred:
        offsets = [member.offset for member in tarred]
    content = archive.read_bytes()
    archive.write_bytes(content[: offsets[9]])
    with pytest.raises(DataError, match="can't be unpacked .*: unpack it by hand"):
        load(archive)
    archive.write_bytes(content[: offsets[9]] + b"?" * 512 + content[offsets[9] + 512 :])
    with pytest.raises(DataError, match=f"after {offsets[9]:,} bytes: bad checksum|invalid header"):
        load(archive)


def test_an_encrypted_zip_is_one_line(make_tree, tmp_path):
    archive = pack(tmp_path / "x.zip", read_tree(make_tree()))
    content = bytearray(archive.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # the bit in each header that says so
        at = content.find(mark)
        while at >= 0:
            content[at + offset] |= 1
            at = content.find(mark, at + 4)
    archive.write_bytes(bytes(content))
    with pytest.raises(DataError, match="can't be unpacked .*(encrypted|password).*unpack it by hand"):
        load(archive)


def test_a_cache_that_can_not_be_written_is_one_line(make_tree, tmp_path, monkeypatch):
    archive = pack(tmp_path / "x.zip", read_tree(make_tree()))
    (tmp_path / "file").touch()
    monkeypatch.setenv("HPJAX_CACHE", str(tmp_path / "file" / "below"))
    with pytest.raises(DataError, match=r"can't be unpacked \(Not a directory\): unpack it by hand"):
        load(archive)


def test_clutter_in_an_archive_is_not_unpacked(make_tree, tmp_path):
    files = {**read_tree(make_tree()), "__MACOSX/train/cat/._0.png": b"-", ".DS_Store": b"-"}
    assert load(pack(tmp_path / "x.zip", files)).left_out == {}


def test_names_with_backslashes_are_folders(make_tree, tmp_path):
    files = {name.replace("/", "\\"): content for name, content in read_tree(make_tree()).items()}
    assert len(load(pack(tmp_path / "x.zip", {"train\\": b"", **files})).train) == 8


def test_a_tar_that_ends_in_a_zip_is_a_tar(make_tree, tmp_path):
    inner = pack(tmp_path / "inner.zip", {"a.txt": b"-"}).read_bytes()
    archive = pack(tmp_path / "x.tar", {**read_tree(make_tree()), "z.zip": inner})
    assert len(load(archive).train) == 8
