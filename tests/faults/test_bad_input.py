"""Any config, command line or folder tree either runs or is refused in one line, with exit status 2."""

import contextlib
import io
import os
import shutil
import struct
import sys
import tempfile
import zlib
from pathlib import Path

import pytest
from command_lines import OVERRIDES, SPACES, is_tried
from fuzzing import fuzz, time_limit
from hypothesis import strategies as st

from hpjax.main import main

BASE = """
from hpjax.config import get_default

def get_config():
    config = get_default()
    config.model.kernel_widths = (3, 3, 3)
    config.data.name, config.data.image_size = "synthetic_scenes", 30
    config.data.max_train_examples, config.data.max_test_examples = 24, 12
    config.train.batch_size, config.train.epochs = 4, 1
    config.lanes.strategy, config.lanes.count = "fused", 2
    config.sweep.space = {"learning_rate": (1e-3, 1e-2)}
    config.trackers = ()
    return config
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    file = tmp_path_factory.mktemp("base") / "base.py"
    file.write_text(BASE)
    return file


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HPJAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def _run_or_refuse(arguments: list[str]) -> int:
    """Runs a command line; returns its exit status once it is sure that it was answered as promised."""
    stderr, stdout = io.StringIO(), io.StringIO()
    with contextlib.redirect_stderr(stderr), contextlib.redirect_stdout(stdout), time_limit(arguments):
        status = main(["hpjax", *arguments])
    said = [line for line in stderr.getvalue().splitlines() if line.startswith("hpjax: error: ")]
    assert status in (0, 2) and len(said) == (status == 2), (arguments, stderr.getvalue())
    assert status == 0 or len(said[0]) > len("hpjax: error: ") + 10
    return status


OTHERS = st.sampled_from(
    ("--resume=maybe", "--plan=perhaps", "--noplan=3", "--zzz", "zzz", "-", "--", "--config=", "--config=/",
     "--config.zzz=1", "--config.model=3", "--config.sweep.space=3", "--config.sweep.pbt.zzz=1", "--space=",
     "--workdir=", "--workdir=/dev/null", "--workdir=/proc/x", "--resume=must", "--config.model.name.x=1")
)  # fmt: skip


@pytest.mark.landing
def test_any_command_line(base, request, counted):
    def check(flags):
        counted["bad inputs refused"] += _run_or_refuse([f"--config={base}", *flags, "--plan"]) == 2
        counted["inputs tried"] += 1

    fuzz(
        request.config.getoption("--inputs", 40),
        st.lists((OVERRIDES | SPACES | OTHERS).filter(is_tried), min_size=1, max_size=4),
        check,
    )


def _png(width: int, height: int, color_type: int = 2, depth: int = 8) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    channels = {0: 1, 2: 3, 6: 4}[color_type]
    rows = b"".join(b"\x00" + bytes(width * channels * depth // 8) for _ in range(height))
    header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


GOOD = _png(12, 9)
CONTENTS = {
    "good": GOOD,
    "grey": _png(5, 5, 0),
    "deep": _png(5, 5, 0, 16),
    "alpha": _png(7, 7, 6),
    "one pixel": _png(1, 1),
    "empty": b"",
    "truncated": GOOD[: len(GOOD) // 2],
    "header only": GOOD[:30],
    "text": b"no image\n",
    "huge": struct.pack(">I", 0xFFFFFFFF).join([GOOD[:16], GOOD[20:]]),
    "zeros": bytes(1000),
}
KINDS = [*CONTENTS, "folder", "link to good", "dangling link", "loop", "pipe"]
NAMES = st.sampled_from(
    ("a.png", "b.PNG", "c.jpg", "d", ".hidden.png", "e f.png", "ü.png", "x\ny.png", "Thumbs.db", "n" * 250)
)
FILES = st.dictionaries(NAMES, st.sampled_from(["good", "good", *KINDS]), max_size=4)
GOOD_CLASS = st.just({"a.png": "good", "b.PNG": "good"})
CLASSES = st.dictionaries(
    st.sampled_from(("cat", "dog", "ü x", "train", "__MACOSX", ".git", "a\nb")),
    GOOD_CLASS | FILES,
    max_size=3,
)
TREES = st.fixed_dictionaries(
    {},
    optional={
        name: CLASSES for name in ("train", "test", "seg_train", "seg_test", "Train", "Val", "testing")
    },
) | CLASSES.flatmap(
    lambda classes: st.sampled_from(
        (
            {"train": classes, "test": classes},
            {"Training": classes, "valid_set": classes},
            {"train": classes, "test": classes, "val": classes},
            {"train": classes},
            {"": classes},
        )
    )
)
PACKED = st.sampled_from(("", "", "tar", "zip"))


def _plant(root: Path, tree: dict, nested: bool) -> None:
    root.mkdir()
    for split, classes in tree.items():
        for name, files in classes.items():
            name = _on_disk(name)
            folder = (root / split / split / name) if nested else (root / split / name)
            folder.mkdir(parents=True)
            for file, kind in files.items():
                _plant_file(folder / _on_disk(file), kind)


def _on_disk(name: str) -> str:
    """Returns how this process, whose locale may be of ASCII alone, calls a file of that UTF-8 name."""
    return os.fsdecode(name.encode())


def _plant_file(path: Path, kind: str) -> None:
    if kind == "folder":
        path.mkdir()
    elif kind == "link to good":
        (path.parent.parent / "linked.png").write_bytes(GOOD)
        path.symlink_to(path.parent.parent / "linked.png")
    elif kind == "dangling link":
        path.symlink_to("nowhere")
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.write_bytes(CONTENTS[kind])


@pytest.mark.landing
def test_any_folder_tree(base, request, counted):
    def check(drawn):
        tree, nested, packed, on_bad = drawn
        root = Path(tempfile.mkdtemp())
        try:
            _plant(root / "tree", tree, nested)
            images = root / "tree"
            if packed:
                # Python writes no ZIP of names that the locale doesn't have.
                packed = packed if sys.getfilesystemencoding() == "utf-8" else "tar"
                images = shutil.make_archive(str(root / "packed"), packed, images)
            flags = [
                "--config.data.name=folder",
                f"--config.data.dir={images}",
                f"--config.data.on_bad_image={on_bad}",
            ]
            counted["bad inputs refused"] += _run_or_refuse([f"--config={base}", *flags, "--plan"]) == 2
        finally:
            shutil.rmtree(root)
        counted["inputs tried"] += 1

    fuzz(
        request.config.getoption("--inputs", 40),
        st.tuples(TREES, st.booleans(), PACKED, st.sampled_from(("skip", "fail"))),
        check,
    )


REFUSED = {
    "does not exist": ["--config.data.name=folder", "--config.data.dir=images"],
    "train.batch_size=0": ["--config.train.batch_size=0"],
    "data.dir='images'": ["--config.data.name=auto", "--config.data.dir=images"],
    "image_size": ["--config.data.image_size=8", "--config.model.kernel_widths=(7,7,7)"],
    "nowhere.safetensors": ["--config.model.pretrained=nowhere.safetensors"],
}


def test_a_refused_start_blocks_nothing(base, tmp_path, capsys, counted):
    """What was wrong is mended in the config, and the same workdir is used."""
    command = ["hpjax", f"--config={base}", f"--workdir={tmp_path / 'sweep'}"]
    for expected, wrong in REFUSED.items():
        assert main([*command, *wrong]) == 2
        assert expected in capsys.readouterr().err.splitlines()[-1]
        counted["inputs tried"] += 1
    assert main(command) == 0
