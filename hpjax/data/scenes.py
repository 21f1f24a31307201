"""The painters of the six classes of scenes."""

from collections.abc import Callable

import numpy as np

from hpjax.data.canvas import Array, Canvas, wave


def _palette(*colours: int) -> Array:
    """Returns colours given as 0xRRGGBB as rows in [0, 1]."""
    return np.array([[c >> 16, c >> 8 & 255, c & 255] for c in colours], np.float32) / 255


PALETTE = {
    "sky": _palette(0x5B8FD0, 0xA9C4E0, 0xC9CDD2, 0x8E959C, 0xE8A070, 0x46587C, 0xEAE6DE),
    "haze": _palette(0xDDE5EC, 0xF2D2B0, 0xB9BEC4, 0xE9ECEE, 0x9FB4CC),
    "water": _palette(0x1F4E79, 0x2F7F8C, 0x5F7787, 0x3A5A50, 0x8A9AA8, 0x6D5A62),
    "sand": _palette(0xD8C49A, 0xB39B76, 0x8C8478, 0xC9BBA8),
    "rock": _palette(0x6A625C, 0x85786A, 0x4E5560, 0x9A8A7C, 0x5C5048),
    "leaves": _palette(0x2F5A2A, 0x54752F, 0x8A8A3A, 0xA8692B, 0x35503F, 0x7E8C74, 0x5A4A34),
    "bark": _palette(0x3A2C22, 0x5A4A3C, 0x777068, 0xB8B2A6, 0x2A2A26),
    "ice": _palette(0xE6EEF4, 0xC3D8E6, 0xA4BED0, 0xD8D8D4, 0xB6C0C8),
    "wall": _palette(0xB59A80, 0x8C8C90, 0xC9C0B0, 0x7A5548, 0x64788C, 0xA8A49C, 0x4C5058),
    "glass": _palette(0x202830, 0x36485C, 0xE8DCA8, 0x9FB8CC),
    "road": _palette(0x4A4A4C, 0x6A6866, 0x8A8680, 0x343638),
    "things": _palette(0x2A2A2E, 0x7C2E28, 0xC8C4BC, 0x2C4460, 0x46583A, 0x8A7A5C),
}


def paint_buildings(canvas: Canvas) -> None:
    """Towers with rows of windows, seen from the front."""
    _paint_sky(canvas)
    slant, tilt = canvas.uniform(-0.12, 0.12), canvas.uniform(-0.12, 0.12)
    x, y = canvas.x + slant * (canvas.y - 0.5), canvas.y + tilt * (canvas.x - 0.5)
    for i in range(5):
        width = canvas.uniform(0.12, 0.3 + 0.1 * i)
        middle = canvas.uniform(0.0, 1.0)
        top = canvas.uniform(0.05, 0.35) + 0.05 * i
        mask = canvas.edge(width / 2 - np.abs(x - middle)) * canvas.edge(y - top)
        wall = canvas.colour(PALETTE["wall"])
        canvas.paint(mask, wall, canvas.uniform(0.75, 1.1) + 0.2 * (x - middle) / width)
        windows = _windows(canvas, (x - middle) / width + 0.5, y - top, mask)
        canvas.paint(windows, canvas.colour(PALETTE["glass"]), 0.7 + 0.5 * canvas.noise(9, 9))
    ground = canvas.uniform(0.85, 1.1) + 0.05 * canvas.profile(6)
    greenery = canvas.chance(0.5)
    base = PALETTE["leaves"], PALETTE["road"]
    colour = np.where(greenery > 0, canvas.colour(base[0]), canvas.colour(base[1]))
    canvas.paint(canvas.edge(canvas.y - ground), colour, 0.7 + 0.6 * canvas.fractal(10, 2))


def paint_forest(canvas: Canvas) -> None:
    """Foliage with trunks before it, over a floor."""
    leaves, light = canvas.colour(PALETTE["leaves"]), canvas.colour(PALETTE["haze"])
    canvas.rgb += light * canvas.uniform(0.5, 1.0)
    thick = canvas.uniform(0.25, 0.55)
    foliage = canvas.fractal(5, 4)
    canvas.paint(canvas.edge((foliage - thick + 0.15) * 0.3), leaves, 0.35 + 1.1 * canvas.fractal(12, 2))
    floor = canvas.uniform(0.65, 0.95) + 0.06 * canvas.profile(4)
    canvas.paint(
        canvas.edge(canvas.y - floor), canvas.colour(PALETTE["leaves"]), 0.4 + canvas.fractal(12, 2, 2)
    )
    bark = canvas.colour(PALETTE["bark"])
    for i in range(9):
        width = canvas.uniform(0.008, 0.02 + 0.008 * i) * (0.8 + 0.4 * canvas.y)
        middle = canvas.uniform(0, 1) + canvas.uniform(-0.1, 0.1) * (canvas.y - 0.5)
        foot = floor + canvas.uniform(0.0, 0.03 * i)
        mask = canvas.edge(width - np.abs(canvas.x - middle)) * canvas.edge(foot - canvas.y)
        across = (canvas.x - middle) / width
        canvas.paint(mask, bark * canvas.uniform(0.5, 1.2), 0.9 + 0.3 * across * canvas.uniform(-1, 1))
    crown = canvas.edge((canvas.fractal(10, 3) - canvas.uniform(0.45, 0.62) - 0.4 * (canvas.y - 0.35)) * 0.3)
    canvas.paint(crown, leaves * canvas.uniform(0.7, 1.4), 0.4 + canvas.fractal(16, 2))


def paint_glacier(canvas: Canvas) -> None:
    """Ice that flows down from dark ridges, with crevasses and bands of rubble."""
    _paint_sky(canvas)
    rim = canvas.uniform(0.25, 0.5)
    ridge = rim - canvas.uniform(0.05, 0.3) * canvas.profile(3)
    _paint_ridge(canvas, ridge, canvas.colour(PALETTE["rock"]), snow=canvas.uniform(0.0, 0.1))
    depth = canvas.y - rim - 0.06 * canvas.profile(3)
    ice = canvas.edge(depth)
    canvas.paint(ice, canvas.colour(PALETTE["ice"]), 0.75 + 0.4 * canvas.fractal(4, 3))
    flow = (canvas.x - canvas.uniform(0.1, 0.9)) / (np.maximum(depth, 0) + canvas.uniform(0.15, 0.4))
    flow = flow * canvas.uniform(1.0, 3.0) + canvas.fractal(3, 2) * 1.5
    rubble = ice * np.clip(np.sin(6.28 * flow) * 3 - 2, 0, 1) * canvas.uniform(0.1, 0.8)
    canvas.paint(rubble, canvas.colour(PALETTE["rock"]))
    cracks = np.abs(canvas.fractal(5, 2, 2) - 0.5) < canvas.uniform(0.012, 0.035)
    canvas.paint(ice * cracks * canvas.uniform(0.4, 0.9), canvas.colour(PALETTE["water"]))
    _paint_ice_front(canvas)


def paint_mountain(canvas: Canvas) -> None:
    """Ridges one behind the other, some with snow, over a foreground."""
    _paint_sky(canvas)
    haze, rock = canvas.colour(PALETTE["haze"]), canvas.colour(PALETTE["rock"])
    base, snow = canvas.uniform(0.3, 0.5), canvas.uniform(-0.15, 0.25)
    for i in range(3):
        ridge = base + 0.14 * i - canvas.uniform(0.1, 0.5 - 0.1 * i) * (canvas.profile(2 + i) - 0.25)
        near = 0.45 + 0.25 * i
        _paint_ridge(canvas, ridge, rock * near + haze * (1 - near), snow - 0.07 * i)
    kind = canvas.chance(0.35)
    front = canvas.uniform(0.7, 1.05) + 0.08 * canvas.profile(5) * (1 - kind)
    colour = np.where(kind > 0, canvas.colour(PALETTE["water"]), canvas.colour(PALETTE["leaves"]))
    canvas.paint(canvas.edge(canvas.y - front), colour, 0.6 + 0.7 * canvas.fractal(10, 2, 2))


def paint_sea(canvas: Canvas) -> None:
    """A level horizon, waves that widen towards the eye, perhaps a headland or a beach."""
    sky = _paint_sky(canvas)
    horizon = canvas.uniform(0.15, 0.6)
    land = horizon - canvas.uniform(-0.05, 0.15) * canvas.profile(3) * canvas.chance(0.6)
    land = land + canvas.uniform(-0.6, 0.6) * (canvas.x - canvas.uniform(0, 1))
    canvas.paint(canvas.edge(canvas.y - land) * canvas.chance(0.5), canvas.colour(PALETTE["rock"]))
    depth = np.maximum(canvas.y - horizon, 0)
    water = 0.65 * canvas.colour(PALETTE["water"]) + 0.35 * sky
    swell = canvas.uniform(0.6, 2.5) / (depth + 0.06) + 2.5 * canvas.fractal(3, 2)
    shade = 0.85 + np.sin(6.28 * swell) * np.minimum(depth, 0.3) * canvas.uniform(0.2, 0.9)
    canvas.paint(canvas.edge(canvas.y - horizon), water, shade + 0.5 * (canvas.fractal(6, 2, 4) - 0.5))
    foam = canvas.edge((canvas.fractal(5, 2, 4) - canvas.uniform(0.58, 0.8)) * 0.3) * canvas.edge(depth)
    canvas.paint(foam, canvas.colour(PALETTE["haze"]))
    shore = canvas.uniform(0.7, 1.3) + canvas.uniform(-0.3, 0.3) * (canvas.x - 0.5) + 0.05 * canvas.profile(3)
    canvas.paint(canvas.edge(canvas.y - shore + 0.03), canvas.colour(PALETTE["haze"]))
    canvas.paint(
        canvas.edge(canvas.y - shore), canvas.colour(PALETTE["sand"]), 0.85 + 0.3 * canvas.fractal(12, 2)
    )


def paint_street(canvas: Canvas) -> None:
    """A road to a vanishing point between two rows of houses."""
    _paint_sky(canvas)
    dx, dy = canvas.x - canvas.uniform(0.25, 0.75), canvas.y - canvas.uniform(0.35, 0.6)
    away = np.abs(dx) + 1e-3
    canvas.paint(canvas.edge(dy), canvas.colour(PALETTE["wall"]), 0.8 + 0.2 * canvas.noise(8, 8))
    foot = canvas.uniform(0.25, 0.7)
    for side in (-1.0, 1.0):
        _paint_house_row(canvas, side * dx, dy, away, foot)
    half = canvas.uniform(0.5, 1.6)
    road = canvas.edge((half * dy - np.abs(dx)) * 0.7) * canvas.edge(dy)
    canvas.paint(road, canvas.colour(PALETTE["road"]), 0.85 + 0.3 * canvas.fractal(8, 2))
    far = np.maximum(dy, 0.01)
    dashes = wave(canvas.uniform(0.3, 0.8) / far, 0.5) * (np.abs(dx) < 0.04 * far) * canvas.chance(0.7)
    canvas.paint(road * dashes, canvas.colour(PALETTE["haze"]))
    for _ in range(2):
        _paint_car(canvas, dx, dy, half)


PAINTERS: dict[str, Callable[[Canvas], None]] = {
    "buildings": paint_buildings,
    "forest": paint_forest,
    "glacier": paint_glacier,
    "mountain": paint_mountain,
    "sea": paint_sea,
    "street": paint_street,
}


def _paint_sky(canvas: Canvas) -> Array:
    """Paints all of the canvas; returns the sky's colour."""
    top, bottom = canvas.colour(PALETTE["sky"]), canvas.colour(PALETTE["haze"])
    fade = np.minimum(canvas.y * canvas.uniform(0.8, 2.0), 1)
    canvas.rgb += top * (1 - fade) + bottom * fade
    clouds = np.clip((canvas.fractal(3, 3, 2) - canvas.uniform(0.4, 0.8)) * 4, 0, 1) * canvas.uniform(
        0.2, 0.9
    )
    canvas.paint(clouds, bottom, canvas.uniform(0.7, 1.1))
    return top


def _paint_ridge(canvas: Canvas, ridge: Array, rock: Array, snow: Array) -> None:
    below = canvas.y - ridge
    mask = canvas.edge(below)
    slope = np.gradient(ridge, axis=-1) * canvas.size
    lit = np.clip(0.85 + 0.35 * slope * canvas.uniform(-1, 1) + 0.8 * (canvas.fractal(7, 3) - 0.5), 0.2, 1.5)
    canvas.paint(mask, rock, lit)
    cap = canvas.edge((snow + 0.25 * (canvas.fractal(6, 2) - 0.5) - below) * 0.5)
    canvas.paint(mask * cap, canvas.colour(PALETTE["ice"]), 0.4 + 0.6 * lit)


def _paint_ice_front(canvas: Canvas) -> None:
    """A cliff of ice with water before it, in some pictures."""
    shown = canvas.chance(0.4)
    top, foot = canvas.uniform(0.5, 0.65) + 0.08 * canvas.profile(8), canvas.uniform(0.72, 0.9)
    wall = canvas.edge(canvas.y - top) * shown
    canvas.paint(wall, canvas.colour(PALETTE["ice"]), 0.5 + 0.7 * canvas.noise(3, 24))
    lake = canvas.edge(canvas.y - foot) * shown
    canvas.paint(lake, canvas.colour(PALETTE["water"]), 0.8 + 0.4 * canvas.fractal(5, 2, 3))
    floes = canvas.edge((canvas.fractal(6, 2, 3) - 0.6) * 0.3)
    canvas.paint(lake * floes, canvas.colour(PALETTE["ice"]))


def _windows(canvas: Canvas, across: Array, down: Array, mask: Array) -> Array:
    """Returns the mask of a wall's windows: a grid, or bands where one of its two shares is 1."""
    banded = canvas.chance(0.25)
    columns = wave(across * np.floor(canvas.uniform(3, 8)), np.maximum(canvas.uniform(0.35, 0.7), banded))
    rows = wave(down * canvas.uniform(9, 20), canvas.uniform(0.35, 0.7))
    return mask * columns * rows * canvas.uniform(0.5, 1.0)


def _paint_house_row(canvas: Canvas, out: Array, dy: Array, away: Array, foot: Array) -> None:
    """Houses on the side where `out` is positive; they shrink towards the vanishing point."""
    near = np.log(away) * canvas.uniform(1.2, 2.5) + canvas.uniform(0, 1)
    house = np.clip(np.floor(near) + 10, 0, 11).astype(np.intp)
    pick = lambda low, high: _per_house(canvas, house, low, high)  # noqa: E731
    rise = dy / away
    mask = canvas.edge(out - canvas.uniform(0.02, 0.12)) * canvas.edge((rise + pick(0.5, 1.6)) * 0.3)
    mask = mask * canvas.edge((foot - rise) * 0.3)
    canvas.paint(mask, canvas.colour(PALETTE["wall"]), pick(0.5, 1.2))
    windows = wave(near * np.floor(canvas.uniform(2, 5)), 0.5) * wave(rise * canvas.uniform(2.5, 6), 0.5)
    canvas.paint(mask * windows * canvas.uniform(0.5, 1.0), canvas.colour(PALETTE["glass"]))


def _per_house(canvas: Canvas, house: Array, low: float, high: float) -> Array:
    values = canvas.rng.uniform(low, high, (canvas.count, 12)).astype(np.float32)
    return np.take_along_axis(values, house[:, 0], axis=1)[:, None, :]


def _paint_car(canvas: Canvas, dx: Array, dy: Array, half: Array) -> None:
    depth = canvas.uniform(0.06, 0.4)
    middle, width = canvas.uniform(-0.8, 0.8) * half * depth, 0.5 * depth
    shown = canvas.chance(0.6)
    body = (
        canvas.edge(width / 2 - np.abs(dx - middle)) * canvas.edge(depth - dy) * canvas.edge(dy - 0.5 * depth)
    )
    canvas.paint(body * shown, canvas.colour(PALETTE["things"]))
    glass = (
        canvas.edge(width / 3 - np.abs(dx - middle))
        * canvas.edge(0.7 * depth - dy)
        * canvas.edge(dy - 0.4 * depth)
    )
    canvas.paint(glass * shown, canvas.colour(PALETTE["glass"]))
