"""Pairs as pictures: what RAW looks like, and single files for people and other tools."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from cycleisp.synthesis.shards import WHITE, Sample
from cycleisp_runtime.bayer import Phase, unpack
from cycleisp_runtime.errors import SettingsError
from cycleisp_runtime.frame import Area, RawFrame
from cycleisp_runtime.noise import NoiseModel
from cycleisp_runtime.writers import atomic_output, write_frame

__all__ = ["PICTURE_FORMATS", "grey_gains", "pair_files", "viewable", "write_pair"]

_GAMMA: Final = 2.2

_MOST_GAIN: Final = 8.0
"""More than any illuminant asks for."""


def grey_gains(raw: npt.NDArray[np.float32]) -> tuple[float, float, float]:
    """Gains of R, G, B, G = 1, that make the mean of packed RAW (4, h, w) as grey as they may."""
    red, green, blue = (float(plane.mean()) for plane in (raw[0], raw[1:3], raw[3]))
    return _gain(green, red), 1.0, _gain(green, blue)


def _gain(wanted: float, met: float) -> float:
    return min(max(wanted / max(met, 1e-9), 1 / _MOST_GAIN), _MOST_GAIN)


def viewable(
    picture: npt.NDArray[np.float32], gains: tuple[float, float, float]
) -> npt.NDArray[np.uint8]:
    """Codes (H, W, 3) to look at: of sRGB (3, H, W), or of packed RAW (4, h, w) in half its size.

    RAW alone is balanced by ``gains`` and bent by a gamma of 2.2, without a colour matrix.
    """
    if len(picture) == 4:
        red, green, blue = picture[0], (picture[1] + picture[2]) / 2, picture[3]
        balanced = np.stack([red, green, blue]) * np.array(gains, np.float32)[:, None, None]
        picture = np.clip(balanced, 0, 1) ** np.float32(1 / _GAMMA)
    codes: npt.NDArray[np.uint8] = np.rint(picture * 255).astype(np.uint8).transpose(1, 2, 0)
    return np.ascontiguousarray(codes)


def pair_files(folder: Path, key: str, file_format: str) -> tuple[Path, ...]:
    """The files that ``write_pair`` makes."""
    if file_format == "npz":
        return (folder / f"{key}.npz",)
    return tuple(folder / f"{key}.{role}.{file_format}" for role in ("clean", "noisy"))


def write_pair(folder: Path, sample: Sample, file_format: str) -> None:
    """Write one pair as single files; each appears whole or not at all.

    png: 8 bits, to look at. dng: RAW alone, 16 bits, with the noise as its NoiseProfile. npz:
    ``clean`` and ``noisy`` (C, h, w) float32 as they are, ``shot`` and ``read`` (4,), ``row``.

    Raises:
        SettingsError: where the format cannot hold the pair.
        OutputError: where a file cannot be written.
    """
    PICTURE_FORMATS[file_format](pair_files(folder, sample.key, file_format), sample)


def _write_npz(paths: tuple[Path, ...], sample: Sample) -> None:
    noise = sample.level
    with atomic_output(paths[0], source=None, force=True) as file:
        np.savez(
            file,
            clean=sample.clean,
            noisy=sample.noisy,
            shot=np.array(noise.pixel.shot),
            read=np.array(noise.pixel.read),
            row=np.array(noise.row),
        )


def _write_png(paths: tuple[Path, ...], sample: Sample) -> None:
    gains = grey_gains(sample.clean)
    for path, picture in zip(paths, (sample.clean, sample.noisy), strict=True):
        with atomic_output(path, source=None, force=True) as file:
            Image.fromarray(viewable(picture, gains)).save(file, format="PNG")


def _write_dng(paths: tuple[Path, ...], sample: Sample) -> None:
    if len(sample.clean) != 4:
        raise SettingsError("a DNG holds RAW", met="pairs of sRGB", hint="use --as png or npz")
    gains = grey_gains(sample.clean)
    clean, noisy = paths
    _write_mosaic(clean, sample.clean, gains, None)
    _write_mosaic(noisy, sample.noisy, gains, sample.level.pixel)


def _write_mosaic(
    path: Path,
    packed: npt.NDArray[np.float32],
    gains: tuple[float, float, float],
    noise: NoiseModel | None,
) -> None:
    height, width = 2 * packed.shape[1], 2 * packed.shape[2]
    codes = np.rint(packed * np.float32(WHITE)).astype(np.uint16)
    frame = RawFrame(
        unpack(codes, Phase.RGGB, height, width),
        Phase.RGGB,
        black=(0.0, 0.0, 0.0, 0.0),
        white=WHITE,
        area=Area(0, 0, height, width),
        white_balance=gains,
        noise_profile=noise,
    )
    write_frame(frame, path, level_scale=1, noise_reduction=0, residual_noise=None, force=True)


PICTURE_FORMATS: Final[dict[str, Callable[[tuple[Path, ...], Sample], None]]] = {
    "png": _write_png,
    "dng": _write_dng,
    "npz": _write_npz,
}
"""What ``write_pair`` can write, by the name and suffix of the format."""
