"""Any flags on any images in any workdir at any terminal: results, or a refusal in one line."""

import contextlib
import io
import os
import random
import shutil
import signal

import linear_network
import numpy as np
import pytest
from command_lines import OVERRIDES, SPACES, is_tried
from damages import KINDS, list_paths, mutate_file, replace_file
from fuzzing import fuzz, time_limit
from hypothesis import strategies as st
from PIL import Image
from sweeps import stop_in_the_second_trial

from hpjax.main import main
from hpjax.store.records import load_epochs
from hpjax.sweep.events import Upkeep

CONFIG = """
def get_config():
    return {
        "model": {"name": "net.py:Net"},
        "data": {"name": "folder", "dir": "images", "image_size": 8},
        "train": {"batch_size": 4, "epochs": 2},
        "sweep": {"space": {"learning_rate": (1e-3, 1e-2)}},
        "lanes": {"strategy": "sequential", "count": 1},
        "trackers": (),
    }
"""


MINE = """
import optax

def allowed(setting):
    return setting.get("batch_size", 0) < 4

def plain(learning_rate):
    return optax.sgd(learning_rate)
"""


def _draw_image(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)).save(path)


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """Images, code, and two workdirs of one sweep: stopped in its second trial, and finished."""
    root = tmp_path_factory.mktemp("begun")
    shutil.copy(linear_network.__file__, root / "net.py")
    (root / "config.py").write_text(CONFIG)
    (root / "mine.py").write_text(MINE)
    for i, place in enumerate(
        f"{s}/{c}/{n}" for s in ("train", "test") for c in ("cat", "dog") for n in "abcd"
    ):
        _draw_image(root / "images" / f"{place}.png", i)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HPJAX_CACHE", str(root / "cache"))
        patch.chdir(root)
        assert main(["hpjax", "--config=config.py", "--workdir=finished"]) == 0
        patch.setattr(Upkeep, "boundary", stop_in_the_second_trial)
        assert main(["hpjax", "--config=config.py", "--workdir=stopped"]) == 128 + signal.SIGTERM
    return root


def _files(root) -> list:
    return sorted(path for path in (root / "images").rglob("*") if path.is_file())


IMAGES = {
    "as they were": lambda root, rng: None,
    "moved away": lambda root, rng: (root / "images").rename(root / "pictures"),
    "a class less": lambda root, rng: shutil.rmtree(root / "images" / "train" / "cat"),
    "a class more": lambda root, rng: _draw_image(root / "images" / "train" / "elk" / "a.png", 99),
    "no test": lambda root, rng: shutil.rmtree(root / "images" / "test"),
    "no image": lambda root, rng: [path.unlink() for path in _files(root)],
    "another image": lambda root, rng: _draw_image(rng.choice(_files(root)), 99),
    "a torn image": lambda root, rng: os.truncate(rng.choice(_files(root)), 40),
    "no file": lambda root, rng: replace_file(rng.choice(_files(root)), rng.choice(sorted(KINDS))),
    "no folder": lambda root, rng: replace_file(root / "images" / "train", rng.choice(sorted(KINDS))),
    "notes beside": lambda root, rng: (root / "images" / "train" / "notes.txt").write_text("mine"),
    "touched": lambda root, rng: os.utime(rng.choice(_files(root)), (1, 1)),
    "another code": lambda root, rng: (root / "net.py").write_text((root / "net.py").read_text() + "\n#"),
    "a broken code": lambda root, rng: (root / "net.py").write_text("1 / 0"),
}
UNHARMED = ("as they were", "notes beside", "touched")


def _damage(workdir, rng):
    name = rng.choice(list_paths(workdir))
    if (workdir / name).parent.is_dir():
        replace_file(workdir / name, rng.choice(sorted(KINDS)))


def _mutate(workdir, rng):
    read = [path for path in workdir.rglob("*") if path.suffix in (".json", ".jsonl", ".journal")]
    mutate_file(rng.choice(sorted(path for path in read if path.is_file())), rng)


WORKDIRS = {
    "fresh": lambda root, rng: root / "fresh",
    "deep": lambda root, rng: root / "none" / "yet" / "a b",
    "a file": lambda root, rng: root / "net.py",
    "somebody's": lambda root, rng: root / "images",
    "stopped": lambda root, rng: root / "stopped",
    "finished": lambda root, rng: root / "finished",
    "stopped, damaged": lambda root, rng: (_damage(root / "stopped", rng), root / "stopped")[1],
    "finished, damaged": lambda root, rng: (_damage(root / "finished", rng), root / "finished")[1],
    "stopped, mutated": lambda root, rng: (_mutate(root / "stopped", rng), root / "stopped")[1],
    "finished, mutated": lambda root, rng: (_mutate(root / "finished", rng), root / "finished")[1],
}


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _open_gone():
    read, write = os.pipe()
    os.close(read)
    return os.fdopen(write, "w")


def _open_full():
    return open("/dev/full", "w", encoding="utf-8")


def _open_closed():
    stream = io.StringIO()
    stream.close()
    return stream


STREAMS = {
    "plain": io.StringIO,
    "a terminal": _Terminal,
    "ascii": lambda: io.TextIOWrapper(io.BytesIO(), encoding="ascii"),
    "none": lambda: None,
    "closed": _open_closed,
    **({"full": _open_full} if os.path.exists("/dev/full") else {}),
    "gone": _open_gone,
}
COLUMNS = ("80", "1", "0", "-5", "", "abc", "9" * 30)
READ = ("plain", "a terminal", "ascii")
LOST = {"full": 2, "gone": 141, "closed": 2}  # the exit status where stdout is so


def _read(stream, kind: str) -> str:
    if kind == "ascii":
        stream.flush()
        return stream.buffer.getvalue().decode("ascii")
    return stream.getvalue()


FLAGS = st.lists(
    (OVERRIDES | SPACES).filter(is_tried).filter(lambda flag: "trackers" not in flag), min_size=1, max_size=2
)
# Most of what is drawn above is refused: these are taken, alone and together.
TAKEN = (
    "--config.train.batch_size=3",
    "--config.train.epochs=1",
    "--config.train.label_smoothing=0.1",
    "--config.data.augment=flip_crop",
    "--config.data.remainder=drop",
    "--config.optimizer.name=sgd",
    "--config.optimizer.clip_norm=1.0",
    "--config.optimizer.schedule=cosine",
    "--config.lanes.count=2",
    "--config.lanes.strategy=fused",
    "--config.data.residency=stream",
    "--config.data.validation_fraction=0.25",
    "--config.checkpoint.every_minutes=0.001",
    "--config.sweep.seeds=2",
    "--config.sweep.final_seeds=2",
    "--config.sweep.extend=True",
    "--config.sweep.select=best",
    "--config.seed=7",
    "--config.checkpoint.states=True",
    "--config.optimizer.ema_decay=0.9",
    "--config.optimizer.head_factor=2",
    "--config.optimizer.weight_decay_on=kernels",
    "--config.sweep.constraints=mine.py:allowed",
    "--config.optimizer.name=mine.py:plain",
    "--space=seed=3,5",
    "--space=head_factor=0.5:2:log",
    "--space=momentum=0.5,0.9 if optimizer=momentum",
    "--space=learning_rate=1e-3",
    "--space=batch_size=2,4",
    "--space=optimizer=adam,sgd",
)
KINDS_OF_FLAGS = {
    "none": st.just([]),
    "taken": st.lists(st.sampled_from(TAKEN), min_size=1, max_size=3),
    "any": FLAGS,
}
STARTS = st.tuples(
    st.sampled_from(["none", "taken", "taken", "any"]).flatmap(KINDS_OF_FLAGS.__getitem__),
    st.sampled_from(["as they were"] * 20 + list(IMAGES)),
    # Other flags than a workdir's own are refused there.
    st.sampled_from(["fresh"] * 12 + ["stopped", "finished"] * 4 + list(WORKDIRS)),
    *(st.sampled_from(["plain", *STREAMS]) for _ in range(2)),
    st.sampled_from(COLUMNS),
    st.integers(0, 2**31),
)


@pytest.mark.filterwarnings("ignore")
def test_any_start(begun, tmp_path, monkeypatch, request, counted):
    results = [(row.trial, row.epoch, row.train_loss) for row in load_epochs(begun / "finished")]

    def check(start):
        flags, images, state, out, err, columns, seed = start
        root, rng = shutil.copytree(begun, tmp_path / "place", symlinks=True), random.Random(seed)
        monkeypatch.setenv("HPJAX_CACHE", str(root / "cache"))
        monkeypatch.setenv("COLUMNS", columns)
        monkeypatch.chdir(root)
        IMAGES[images](root, rng)
        try:
            workdir = WORKDIRS[state](root, rng)
            status, text = _start([f"--workdir={workdir}", *flags], out, err, start)
            _check(status, text, out, err, start)
            if status in (0, 141) and not flags and images in UNHARMED:
                found = [(row.trial, row.epoch, row.train_loss) for row in load_epochs(workdir)]
                assert found == results, start
            counted["starts tried"] += 1
            counted["starts refused"] += status == 2
        finally:
            monkeypatch.chdir(tmp_path)
            shutil.rmtree(root)

    fuzz(request.config.getoption("--starts", 4), STARTS, check)


def _start(flags, out: str, err: str, case) -> tuple[int, str | None]:
    stdout, stderr = STREAMS[out](), STREAMS[err]()
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr), time_limit(case):
        status = main(["hpjax", "--config=config.py", *flags])
    text = _read(stderr, err) if err in READ else None
    for stream in (stdout, stderr):
        with contextlib.suppress(OSError, AttributeError):
            stream.close()
    return status, text


def _check(status: int, text: str | None, out: str, err: str, case) -> None:
    assert status in (0, 2, 3, LOST.get(out)), (case, status, text)
    if text is not None:
        said = [line for line in text.splitlines() if line.startswith("hpjax: error: ")]
        assert len(said) == (status == 2) and "Traceback" not in text, (case, text)
        assert all(line.isprintable() and len(line) < 2_000 for line in said), (case, said)


def test_a_start_of_every_kind_of_stream(begun, tmp_path, monkeypatch):
    monkeypatch.chdir(begun)
    for out in STREAMS:
        for err in STREAMS:
            case = (out, err)
            status, text = _start(["--workdir=net.py"], out, err, case)
            assert status == 2, case
            _check(status, text, out, err, case)
