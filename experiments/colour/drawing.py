"""Coloured pictures drawn by a program."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

#: Standard deviation of the noise of every number, in levels.
NOISE = 8.0


def draw(number: int, side: int = 16, *, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Pictures (number, 3, side, side) of one shape over a background that changes from top to bottom.

    A disc, a square or a triangle; its colour, place and size, and the colours of the background's upper and
    lower edge are uniform and independent: 12 numbers and a kind. Every byte has normal noise of 8 levels,
    so that no model needs fewer than about log2(8 √(2πe)) = 5.05 bits per dimension.
    """
    random = np.random.RandomState(seed)
    top, bottom, ink = random.uniform(30, 225, (3, number, 3, 1, 1))
    down = ((np.arange(side) + 0.5) / side)[:, None]
    background = top * (1 - down) + bottom * down
    inside = _inside(random, number, side)[:, None]
    levels = background * (1 - inside) + ink * inside
    levels = levels + NOISE * random.standard_normal(levels.shape)
    return levels.round().clip(0, 255).astype(np.uint8)


def _inside(random: np.random.RandomState, number: int, side: int) -> Floats:
    """How much of each pixel the shape covers, (number, side, side)."""
    places = (np.arange(side) + 0.5) / side
    x, y = (random.uniform(0.3, 0.7, (number, 1, 1)) for _ in range(2))
    size = random.uniform(0.15, 0.3, (number, 1, 1))
    x, y = np.broadcast_arrays(places - x, places[:, None] - y)
    distances = np.stack(
        [
            np.hypot(x, y) - size,
            np.maximum(abs(x), abs(y)) - 0.85 * size,
            np.maximum(1.6 * abs(x) + 0.8 * y, -y) - 0.8 * size,
        ]
    )
    kind = random.randint(3, size=number)
    covered: Floats = (0.5 - side * distances[kind, np.arange(number)]).clip(0, 1)
    return covered
