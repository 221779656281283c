"""A sheet to look at: each row one photograph on its way through the camera and its noise."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from cycleisp.synthesis.pictures import grey_gains, viewable
from cycleisp.synthesis.scene import Scene
from cycleisp_runtime.writers import atomic_output

__all__ = ["CROP", "contact_row", "write_contact_sheet"]

CROP = 384
"""Pixels that a row shows, from the middle of its photograph."""

_ZOOM = 96
"""Pixels that a row shows in their own size, doubled so that single ones can be seen."""

_DIFFERENCE_GAIN = 4
_CELL = 192
_GAP = 4
_CAPTION = 16
_DARK, _BRIGHT = (32, 32, 32), (230, 230, 230)

_Codes = npt.NDArray[np.uint8]


def contact_row(scene: Scene) -> Image.Image:
    """One row: clean sRGB, clean RAW, noisy RAW, noisy sRGB, and the noise amplified about grey.

    Above each picture as a whole, below it its middle, two screen pixels to one. Without noisy sRGB
    the noise is that of RAW.
    """
    gains = grey_gains(scene.clean_raw)
    level = scene.level.pixel
    clean, noisy = (viewable(picture, gains) for picture in scene.pair)
    pictures = {
        f"shot {level.mean_shot:.1e} read {level.mean_read:.1e}": viewable(scene.clean_rgb, gains),
        "clean RAW (balanced, gamma)": viewable(scene.clean_raw, gains),
        "noisy RAW": viewable(scene.noisy_raw, gains),
    }
    if scene.noisy_rgb is not None:
        pictures["noisy sRGB"] = noisy
    pictures[f"noise x {_DIFFERENCE_GAIN}"] = _amplified(clean, noisy)
    row = Image.new("RGB", (len(pictures) * (_CELL + _GAP), _CAPTION + 2 * (_CELL + _GAP)), _DARK)
    draw = ImageDraw.Draw(row)
    for column, (caption, codes) in enumerate(pictures.items()):
        left = column * (_CELL + _GAP)
        draw.text((left + 2, 2), caption, fill=_BRIGHT)
        whole = Image.fromarray(codes)
        whole.thumbnail((_CELL, _CELL))
        row.paste(whole, (left, _CAPTION))
        row.paste(_zoomed(codes, scene.clean_rgb.shape[2]), (left, _CAPTION + _CELL + _GAP))
    return row


def _amplified(clean: _Codes, noisy: _Codes) -> _Codes:
    noise = noisy.astype(np.float32) - clean
    codes: _Codes = np.clip(np.rint(128 + _DIFFERENCE_GAIN * noise), 0, 255).astype(np.uint8)
    return codes


def _zoomed(codes: _Codes, pixels_across: int) -> Image.Image:
    """The middle of a picture, all of the same part of the scene whatever its resolution."""
    height, width = codes.shape[:2]
    side = min(height, width, max(1, _ZOOM * width // pixels_across))
    top, left = (height - side) // 2, (width - side) // 2
    middle = Image.fromarray(np.ascontiguousarray(codes[top : top + side, left : left + side]))
    return middle.resize((_CELL, _CELL), Image.Resampling.NEAREST)


def write_contact_sheet(path: Path, rows: Iterable[Image.Image]) -> None:
    """Write rows one below the other as a PNG; it appears whole or not at all.

    Raises:
        OutputError: where it cannot be written.
    """
    images = list(rows)
    sheet = Image.new(
        "RGB", (max(row.width for row in images), sum(row.height for row in images)), _DARK
    )
    top = 0
    for row in images:
        sheet.paste(row, (0, top))
        top += row.height
    with atomic_output(path, source=None, force=True) as file:
        sheet.save(file, format="PNG")
