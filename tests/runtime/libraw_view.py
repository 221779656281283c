"""What LibRaw says about a file: the judge of files that we wrote."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import rawpy

from cycleisp_runtime.frame import RawFrame
from cycleisp_runtime.readers import read_frame

__all__ = ["LibRawView", "corpus_frame", "libraw_view"]


class LibRawView(NamedTuple):
    """Facts as rawpy names them; ``samples`` (H, W) uint16 is the stored frame."""

    samples: npt.NDArray[np.uint16]
    colors: npt.NDArray[np.uint8]
    sizes: tuple[int, int, int, int, int, int]
    flip: int
    black: list[int]
    white: int
    white_balance: list[float]
    color_matrix: list[list[float]]
    rgb_xyz_matrix: list[list[float]]

    @property
    def about_samples(self) -> dict[str, Any]:
        """All but samples and levels."""
        facts = self._asdict()
        for name in ("samples", "black", "white"):
            del facts[name]
        facts["colors"] = self.colors.tobytes()
        return facts


def libraw_view(path: Path) -> LibRawView:
    """What LibRaw makes of a file."""
    with rawpy.imread(str(path)) as raw:
        sizes = raw.sizes
        return LibRawView(
            samples=raw.raw_image.copy(),
            colors=raw.raw_colors.copy(),
            sizes=(
                sizes.raw_height,
                sizes.raw_width,
                sizes.top_margin,
                sizes.left_margin,
                sizes.height,
                sizes.width,
            ),
            flip=sizes.flip,
            black=raw.black_level_per_channel,
            white=raw.white_level,
            white_balance=raw.camera_whitebalance,
            color_matrix=raw.color_matrix.tolist(),
            rgb_xyz_matrix=raw.rgb_xyz_matrix.tolist(),
        )


@functools.cache
def corpus_frame(path: Path) -> RawFrame:
    """The frame as our reader reads it, once for all tests."""
    return read_frame(path)
