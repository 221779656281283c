"""Draw two renderings of the demo frame side by side, at 100 % of their pixels.

    python before_after.py BEFORE.dng AFTER.dng PICTURE.png

Both files go through LibRaw with the same explicit settings: white balance and matrix of the file,
AHD demosaicking, no noise reduction of LibRaw's own, and five stops of exposure, because this frame
was taken in a dark room and its noise is in the shadows.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import rawpy
from PIL import Image, ImageDraw, ImageFont

EXPOSURE = 2.0**5
WIDTH, HEIGHT = 440, 330
MARGIN = 8


class Crop(NamedTuple):
    """A part of the frame, (WIDTH, HEIGHT) pixels from its top left corner."""

    name: str
    left: int
    top: int


CROPS = (
    Crop("shadow: black cloth", left=840, top=650),
    Crop("flat: a wall out of focus", left=100, top=240),
)


def render(path: Path) -> npt.NDArray[np.uint8]:
    """sRGB picture (H, W, 3) of a RAW file, five stops brighter than its metering."""
    with rawpy.imread(str(path)) as raw:
        return raw.postprocess(
            use_camera_wb=True,
            output_color=rawpy.ColorSpace.sRGB,
            gamma=(2.4, 12.92),
            no_auto_bright=True,
            bright=EXPOSURE,
            adjust_maximum_thr=0,
            demosaic_algorithm=rawpy.DemosaicAlgorithm.AHD,
            fbdd_noise_reduction=rawpy.FBDDNoiseReductionMode.Off,
            median_filter_passes=0,
            highlight_mode=rawpy.HighlightMode.Clip,
        )


def draw(before: npt.NDArray[np.uint8], after: npt.NDArray[np.uint8]) -> Image.Image:
    """One row per crop, before on the left and after on the right, each with its name."""
    sheet = Image.new(
        "RGB",
        (2 * WIDTH + 3 * MARGIN, len(CROPS) * (HEIGHT + MARGIN) + MARGIN),
        "white",
    )
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(18)
    for row, crop in enumerate(CROPS):
        for column, (when, picture) in enumerate((("before", before), ("after", after))):
            x, y = MARGIN + column * (WIDTH + MARGIN), MARGIN + row * (HEIGHT + MARGIN)
            cut = picture[crop.top : crop.top + HEIGHT, crop.left : crop.left + WIDTH]
            sheet.paste(Image.fromarray(cut), (x, y))
            pen.text(
                (x + 8, y + 6),
                f"{when} - {crop.name}",
                fill="white",
                font=font,
                stroke_width=2,
                stroke_fill="black",
            )
    return sheet


def main() -> None:
    """Read the three paths of the command line and write the picture."""
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    before, after, picture = map(Path, sys.argv[1:])
    draw(render(before), render(after)).save(picture, optimize=True)
    print(f"{picture}: {before.name} before and after, 100 % crops at +5 EV")


if __name__ == "__main__":
    main()
