"""Renders a DNG with LibRaw, in a process of its own.

LibRaw works for seconds without listening to Ctrl-C, and a crash of it must not take a batch
along. This file is run by its path and imports nothing of the package.

Arguments: the DNG, the .npy file to write, bits per value (8 or 16), power and toe slope of the
curve, the share of the white level above which the brightest sample becomes white (0: never), and
the gains of R, G, B, or none of them for those that LibRaw derives for daylight from the colour
matrix.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import rawpy


def main() -> None:
    """Render and save an array (H, W, 3)."""
    dng, picture, bits, power, toe_slope, stretch_from, *gains = sys.argv[1:]
    red, green, blue = (float(gain) for gain in gains) if gains else (None, None, None)
    with rawpy.imread(dng) as raw:
        rendered = raw.postprocess(
            output_bps=int(bits),
            output_color=rawpy.ColorSpace.sRGB,
            gamma=(float(power), float(toe_slope)),
            user_wb=[red, green, blue, green] if gains else None,
            no_auto_bright=True,
            adjust_maximum_thr=float(stretch_from),
        )
    np.save(Path(picture), rendered)


if __name__ == "__main__":
    main()
