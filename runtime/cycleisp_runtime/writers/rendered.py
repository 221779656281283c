"""Pictures for looking at: the frame as LibRaw renders it from our DNG.

Turned as the camera was held, demosaicked by AHD, sRGB with its own curve, the camera's white
balance (daylight by the colour matrix where the frame has none), white at the white level: no
brightening, no sharpening, no lens correction. A frame and its denoised version look alike but
for the noise.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from cycleisp_runtime.errors import OutputError
from cycleisp_runtime.frame import Area, RawFrame
from cycleisp_runtime.writers.dng_fields import Treatment
from cycleisp_runtime.writers.dng_new import new_dng

__all__ = ["LIBRAW_TONE", "SRGB_TONE", "Tone", "render", "write_png", "write_tiff"]

_CHILD = Path(__file__).with_name("libraw_render_child.py")
_SECONDS = 60.0
_SECONDS_PER_MP = 10.0
"""Several times what a small ARM core takes for AHD; beyond it LibRaw hangs."""


class Tone(NamedTuple):
    """How linear light becomes codes.

    Attributes:
        power: of the curve, inverted.
        toe_slope: of the straight piece at black.
        stretch_from: where the brightest sample lies above this share of the white level, it
            becomes white in its place; 0 keeps the white level.
    """

    power: float
    toe_slope: float
    stretch_from: float


SRGB_TONE = Tone(2.4, 12.92, 0.0)
"""White is the file's white level in every frame, however dark or bright it is."""

LIBRAW_TONE = Tone(2.222, 4.5, 0.75)
"""LibRaw's own defaults: the curve of BT.709, and exposure by the brightest sample."""


def write_tiff(file: BinaryIO, frame: RawFrame, treatment: Treatment) -> None:
    """The rendered picture as an uncompressed TIFF, 16 bits per channel.

    Raises:
        OutputError: where LibRaw cannot render the frame.
    """
    import tifffile

    picture = render(frame, treatment, bits=16)
    tifffile.imwrite(file, picture, photometric="rgb", software="cycleisp", metadata=None)


def write_png(file: BinaryIO, frame: RawFrame, treatment: Treatment) -> None:
    """The rendered picture as a PNG, 8 bits per channel.

    Raises:
        OutputError: where LibRaw cannot render the frame.
    """
    import PIL.Image

    PIL.Image.fromarray(render(frame, treatment, bits=8)).save(file, format="PNG")


def render(
    frame: RawFrame, treatment: Treatment, *, bits: int, tone: Tone = SRGB_TONE
) -> npt.NDArray[Any]:
    """Picture (height, width, 3) of the visible area, turned: R, G, B in sRGB's primaries.

    uint8 or uint16 codes, by ``bits``.

    Raises:
        OutputError: where LibRaw cannot render the frame.
    """
    with tempfile.TemporaryDirectory(prefix="cycleisp-") as folder:
        dng, picture = Path(folder, "frame.dng"), Path(folder, "picture.npy")
        with dng.open("wb") as file:
            new_dng(file, _visible_alone(frame), treatment)
        _run_libraw(frame, dng, picture, bits, tone)
        return np.asarray(np.load(picture, allow_pickle=False))


def _visible_alone(frame: RawFrame) -> RawFrame:
    """The frame without masked samples.

    LibRaw rounds odd margins up, loses a row or column by it, and then takes the black level of
    one colour for that of another; without margins it has nothing to round.
    """
    area = Area(0, 0, frame.area.height, frame.area.width)
    return replace(frame, samples=frame.visible, area=area)


def _run_libraw(frame: RawFrame, dng: Path, picture: Path, bits: int, tone: Tone) -> None:
    command = [sys.executable, os.fspath(_CHILD), os.fspath(dng), os.fspath(picture), str(bits)]
    command += [str(number) for number in (*tone, *(frame.white_balance or ()))]
    seconds = _SECONDS + _SECONDS_PER_MP * frame.samples.size / 1e6
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired as error:
        raise _failure(frame, f"no result in {seconds:.0f} s") from error
    except subprocess.CalledProcessError as error:
        last_line = (error.stderr.strip().splitlines() or [f"status {error.returncode}"])[-1]
        raise _failure(frame, last_line) from error


def _failure(frame: RawFrame, met: str) -> OutputError:
    return OutputError(
        "LibRaw could not render the frame", subject=frame.source, met=met, hint="write a .dng"
    )
