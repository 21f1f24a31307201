"""Fixtures: a cache of the test's own, and trees of real image files."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """A fresh folder for decoded images."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("HPJAX_CACHE", str(folder))
    return folder


@pytest.fixture
def make_tree(tmp_path):
    """Returns `f(name, ...) -> root`, which writes a tree of small PNG files."""

    def make(
        name="tree", splits=("train", "test"), classes=("cat", "dog"), count=4, nested=False, seed=0
    ) -> Path:
        rng = np.random.default_rng(seed)
        for split in splits:
            for label in classes:
                folder = tmp_path / name / split / (split if nested else "") / label
                folder.mkdir(parents=True)
                for i in range(count):
                    pixels = rng.integers(0, 256, (12, 14, 3), np.uint8)
                    Image.fromarray(pixels).save(folder / f"{i}.png")
        return tmp_path / name

    return make


@pytest.fixture
def small_intel() -> Path:
    """A tree of 216 original photographs; tests that need it are skipped without it."""
    root = Path(__file__).parents[2].parent / "shared" / "intel" / "small"
    if not root.is_dir():
        pytest.skip("no Intel images beside the repository")
    return root
