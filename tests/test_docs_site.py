"""The documentation builds without a warning, and the tutorial runs from folder to exported model."""

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image
from test_rooms import LEVELS

import hpjax
from hpjax.data import synthetic
from hpjax.report.__main__ import _parse as parse_report

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
NAV = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))["nav"]
TUTORIAL = (DOCS / "tutorial.md").read_text("utf-8")


def _blocks(text, language):
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def _commands(text):
    blocks = (block.replace("\\\n", " ") for block in _blocks(text, "sh"))
    lines = (line for block in blocks for line in block.splitlines())
    return [shlex.split(line, comments=True) for line in lines if line.startswith("python -m hpjax.")]


def test_every_page_is_in_the_navigation():
    assert sorted(NAV) == sorted(file.name for file in DOCS.glob("*.md"))


@pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="needs the extra `docs`")
def test_the_pages_are_built_without_a_warning(tmp_path):
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "HOME": str(tmp_path)}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", tmp_path / "site"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + done.stdout
    pages = {file.parent.name for file in (tmp_path / "site").glob("*/index.html")}
    assert {name.removesuffix(".md") for name in NAV} - {"index"} <= pages
    text = (tmp_path / "site" / "api" / "index.html").read_text("utf-8")
    for name in hpjax.__all__:
        assert name == "__version__" or re.search(rf'id="hpjax\.[\w.]*\b{name}"', text), name
    assert "Returns:" in re.sub("<[^>]*>", "", text)
    assert not re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="?https?:', text)  # they ask no server


def test_the_rooms_of_the_drawing_are_those_that_there_are():
    page = (DOCS / "architecture.md").read_text("utf-8")
    (table,) = re.findall(r"<!-- rooms: begin -->(.*?)<!-- rooms: end -->", page, re.DOTALL)
    rows = {int(level): set(re.findall(r"`(\w+)`", rooms)) for level, rooms in re.findall(
        r"^\| (\d) \| (.*?) \|", table, re.MULTILINE)}  # fmt: skip
    assert rows == LEVELS
    (drawing,) = _blocks(page, "text")
    main_rooms = ("config", "search", "sweep", "lanes", "store", "report", "trained", "handover")
    assert [room for room in main_rooms if not re.search(rf"\b{room}\b", drawing)] == []


WITH_COMMANDS = [name for name in NAV if "python -m hpjax." in (DOCS / name).read_text("utf-8")]


@pytest.mark.parametrize("page", WITH_COMMANDS)
def test_commands_of_a_page_name_modules_with_flags_that_they_have(page):
    for words in _commands((DOCS / page).read_text("utf-8")):
        module = importlib.util.find_spec(words[2])
        assert module is not None, words[2]
        flags = [word.partition("=")[0] for word in words[3:] if word.startswith("--")]
        if words[2] == "hpjax.report":
            assert parse_report(words[3:])
        elif words[2] != "hpjax.main":  # of which every command is parsed: tests/test_readme.py
            place = ROOT.joinpath(*words[2].split(".")).with_suffix(".py")
            text = place.read_text("utf-8")
            assert all(flag in text or flag.startswith("--config") for flag in flags), words


def _draw_photos(folder):
    images, _ = synthetic.draw_scenes(45, 64, seed=3)
    for i, image in enumerate(images):
        place = folder / ("cat", "dog", "horse")[i % 3]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{i // 3 + 1:03}.jpg")


SMALL = ("--config.data.image_size=64", "--config.train.epochs=2", "--config.lanes.count=3")


@pytest.mark.exhaustive
def test_the_tutorial_runs(tmp_path):
    """As it is written, but with few small images, for two epochs."""
    _draw_photos(tmp_path / "photos")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HPJAX_CACHE": str(tmp_path / "cache")}
    steps = [[sys.executable, *words[1:]] for words in _commands(TUTORIAL)]
    for words in steps:
        if words[2] == "hpjax.main":
            words += SMALL
            words += ["--config.sweep.trials=6"] * ("--config=asha" in words)
    steps += [[sys.executable, "-c", code] for code in _blocks(TUTORIAL, "python")]
    for words in steps:
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, (words, done.stderr[-2000:])
    for name in ("lr", "batch_size", "kernel_width", "wd", "search"):
        assert (tmp_path / "runs" / name / "report.html").stat().st_size
        assert (tmp_path / "runs" / name / "winner.json").stat().st_size
    model = json.loads((tmp_path / "model" / "model.json").read_text("utf-8"))
    assert model["classes"] == ["cat", "dog", "horse"]
    assert len((tmp_path / "answers.csv").read_text("utf-8").splitlines()) == 46
