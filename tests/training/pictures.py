"""Photographs made on the spot, for what is trained in tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["write_photographs"]


def write_photographs(folder: Path, count: int, side: int) -> Path:
    """The folder, with this many square PNGs of soft light and hard edges in it."""
    folder.mkdir()
    for index in range(count):
        picture = _photograph(np.random.default_rng(index), side)
        Image.fromarray(picture).save(folder / f"picture_{index}.png")
    return folder


def _photograph(rng: np.random.Generator, side: int) -> npt.NDArray[np.uint8]:
    rows, columns = np.mgrid[:side, :side] / side
    picture = np.empty((side, side, 3))
    for channel in range(3):
        slopes, phase = rng.uniform(-3, 3, 2), rng.uniform(0, 6)
        picture[..., channel] = 128 + 90 * np.sin(slopes[0] * rows + slopes[1] * columns + phase)
    for _ in range(12):
        top, left, height, width = rng.uniform(0, 1, 4)
        inside = (np.abs(rows - top) < height / 6) & (np.abs(columns - left) < width / 6)
        picture[inside] = rng.uniform(0, 255, 3)
    return picture.astype(np.uint8)
