"""A sheet of all tiles of a set, stratum by stratum, for someone who wants to see what is in it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from cycleisp_calibration.measures import GAMMA, STRATA, Planes

__all__ = ["contact_sheet", "thumbnail"]

THUMBNAIL = 64
"""Pixels a side. RAW tiles of 256 are halved once more, which leaves their noise to be seen."""

_COLUMNS = 24
_CAPTION = 16
_DARK, _BRIGHT = (32, 32, 32), (230, 230, 230)


def thumbnail(balanced: Planes) -> npt.NDArray[np.uint8]:
    """Codes (64, 64, 3) of a tile (3, s, s), linear R, G, B with white balance, white at 1."""
    shown = np.clip(balanced, 0, 1) ** np.float32(1 / GAMMA)
    codes = np.rint(shown * np.float32(255)).astype(np.uint8).transpose(1, 2, 0)
    picture = Image.fromarray(np.ascontiguousarray(codes))
    return np.asarray(picture.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX))


def contact_sheet(thumbnails: npt.NDArray[np.uint8], strata: Sequence[str]) -> Image.Image:
    """The tiles under the name and count of their stratum, empty strata named, too.

    Args:
        thumbnails: (N, 64, 64, 3) codes.
        strata: of every tile.
    """
    members = {name: [i for i, each in enumerate(strata) if each == name] for name in STRATA}
    rows = sum(-(-len(tiles) // _COLUMNS) for tiles in members.values())
    size = (_COLUMNS * THUMBNAIL, rows * THUMBNAIL + len(members) * _CAPTION)
    sheet = Image.new("RGB", size, _DARK)
    draw = ImageDraw.Draw(sheet)
    top = 0
    for name, tiles in members.items():
        draw.text((4, top + 2), f"{name}: {len(tiles)} of {len(strata)} tiles", fill=_BRIGHT)
        top += _CAPTION
        for position, tile in enumerate(tiles):
            row, column = divmod(position, _COLUMNS)
            place = (column * THUMBNAIL, top + row * THUMBNAIL)
            sheet.paste(Image.fromarray(thumbnails[tile]), place)
        top += -(-len(tiles) // _COLUMNS) * THUMBNAIL
    return sheet
