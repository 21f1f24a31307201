"""Drawn scenes of six classes: a stand-in for the Intel images where those are missing.

Each class is a layout with its own geometry (horizon and waves, a road to a vanishing point, trunks, …).
Light, colour cast, exposure, noise and things in front vary in all of them alike, so that the mean colour
tells little.
"""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Int32, UInt8
from PIL import Image

from hpjax.data.canvas import Canvas
from hpjax.data.scenes import PAINTERS, PALETTE

CLASSES = tuple(PAINTERS)
_BLOCK = 32  # pictures painted at once: their layers fit a core's cache
_LARGEST_CANVAS = 96  # larger pictures are painted at this size and enlarged


def draw_scenes(
    count: int, size: int, seed: int
) -> tuple[UInt8[np.ndarray, "count size size 3"], Int32[np.ndarray, " count"]]:
    """Returns scenes and their labels, in random order, as equally many of each class as there can be.

    Args:
      count: how many.
      size: side in pixels.
      seed: other seeds draw other scenes.
    """
    labels = np.sort(np.arange(count, dtype=np.int32) % len(CLASSES))
    images = np.empty((count, size, size, 3), np.uint8)
    places = np.random.default_rng([seed, count]).permutation(count)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for where, block in pool.map(lambda job: _draw_job(job, size, seed), _jobs(labels)):
            images[places[where]] = block
    shuffled = np.empty_like(labels)
    shuffled[places] = labels
    return images, shuffled


def _jobs(labels: np.ndarray) -> list[tuple[int, int, np.ndarray]]:
    """Returns (label, block number, indices) of each block of one class."""
    jobs = []
    for label in range(len(CLASSES)):
        members = np.flatnonzero(labels == label)
        blocks = np.split(members, range(_BLOCK, len(members), _BLOCK))
        jobs.extend((label, i, block) for i, block in enumerate(blocks))
    return jobs


def _draw_job(job: tuple[int, int, np.ndarray], size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    label, block, where = job
    rng = np.random.default_rng([seed, label, block])
    canvas = Canvas(rng, _BLOCK, min(size, _LARGEST_CANVAS))
    PAINTERS[CLASSES[label]](canvas)
    _put_things_in_front(canvas)
    _photograph(canvas)
    return where, _to_images(canvas, size)[: len(where)]


def _put_things_in_front(canvas: Canvas) -> None:
    for shape in ("box", "blob"):
        x, y = canvas.uniform(0, 1), canvas.uniform(0.2, 1.1)
        width, height = canvas.uniform(0.05, 0.3), canvas.uniform(0.05, 0.3)
        if shape == "box":
            mask = canvas.box(x, y, width, height)
        else:
            radius = np.hypot((canvas.x - x) / width, (canvas.y - y) / height)
            mask = canvas.edge((0.4 + 0.3 * canvas.noise(5, 5) - radius) * 0.2)
        shade = 0.7 + 0.5 * canvas.noise(6, 6)
        canvas.paint(mask * canvas.chance(0.45), canvas.colour(PALETTE["things"]), shade)


def _photograph(canvas: Canvas) -> None:
    """Light, haze, cast, exposure and noise, drawn alike for all classes."""
    rgb, rng = canvas.rgb, canvas.rng
    grey = rgb.mean(0, keepdims=True)
    rgb += canvas.uniform(0, 0.7) * (grey - rgb)
    mean = rgb.mean((2, 3), keepdims=True)
    target = canvas.uniform(0.25, 0.65) + rng.normal(0, 0.05, (3, canvas.count, 1, 1)).astype(np.float32)
    contrast = canvas.uniform(0.55, 1.15)
    light = canvas.uniform(-0.2, 0.2) * (canvas.x - 0.5) + canvas.uniform(-0.2, 0.2) * (canvas.y - 0.5)
    rgb -= mean
    rgb *= contrast
    rgb += 0.8 * target + 0.2 * mean + light
    noise = rng.standard_normal((1, *rgb.shape[1:]), np.float32)
    rgb += canvas.uniform(0.0, 0.06) * noise


def _to_images(canvas: Canvas, size: int) -> UInt8[np.ndarray, "count size size 3"]:
    flipped = canvas.chance(0.5)[:, 0, 0] > 0
    rgb = canvas.rgb
    rgb[:, flipped] = rgb[:, flipped, :, ::-1].copy()
    np.clip(rgb, 0, 1, out=rgb)
    rgb *= 255
    images = np.ascontiguousarray(np.rint(rgb, out=rgb).astype(np.uint8).transpose(1, 2, 3, 0))
    if canvas.size == size:
        return images
    enlarge = lambda image: Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC)  # noqa: E731
    return np.stack([np.asarray(enlarge(image)) for image in images])
