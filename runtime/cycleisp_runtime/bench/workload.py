"""What is denoised in a benchmark: a frame or picture that is in memory, or a file to a file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from cycleisp_runtime.batch import BatchSettings, Outcome, denoise_file
from cycleisp_runtime.bayer import Phase
from cycleisp_runtime.denoiser import Denoiser
from cycleisp_runtime.errors import InputError
from cycleisp_runtime.frame import Area, RawFrame
from cycleisp_runtime.jobs import Job
from cycleisp_runtime.noise import LEVELS, NoiseModel
from cycleisp_runtime.picture_batch import denoise_picture_file
from cycleisp_runtime.pictures import Picture, PictureDenoiser

__all__ = [
    "FileToFile",
    "FrameInMemory",
    "Pass",
    "PictureFileToFile",
    "PictureInMemory",
    "Workload",
    "synthetic_frame",
    "synthetic_picture",
    "workloads",
]

BLACK, WHITE = 256, 4095
"""Of a 12-bit sensor."""

PICTURE_NOISE = 10
"""Standard deviation in codes of 8 bits: that of a phone's picture in dim light."""

ROWS_AT_ONCE = 256


class Pass(NamedTuple):
    """One frame denoised once: seconds by step, size of the picture, warnings."""

    steps: dict[str, float]
    width: int
    height: int
    warnings: tuple[str, ...]


class Workload(Protocol):
    """One frame or picture that can be denoised again and again."""

    name: str

    def run(self, denoiser: Any, tile: int | None) -> Pass:  # noqa: ANN401  RAW's or pictures'
        """Denoise it once by a denoiser of its kind; raises what that raises."""
        ...


class FrameInMemory(Workload):
    """A frame as a camera delivers it, its noise known, into memory that is there already."""

    def __init__(self, frame: RawFrame, noise: NoiseModel, name: str) -> None:
        self.name = name
        self._frame, self._noise = frame, noise
        self._target = np.empty_like(frame.samples)

    def run(self, denoiser: Denoiser, tile: int | None) -> Pass:
        """Denoise it once."""
        denoising = denoiser.denoise_into(self._frame, self._target, noise=self._noise, tile=tile)
        steps = _split(denoising.seconds, denoiser.backend.seconds)
        return Pass(steps, self._frame.area.width, self._frame.area.height, denoising.warnings)


class FileToFile(Workload):
    """What ``cycleisp denoise`` does with one file.

    Args:
        source: a RAW file.
        scratch: the folder that the result is written to, over that of the run before.
    """

    def __init__(self, source: Path, scratch: Path) -> None:
        self.name = source.name
        self._job = Job(source, scratch / f"{source.stem}.dng")

    def run(self, denoiser: Denoiser, tile: int | None) -> Pass:
        """Denoise it once.

        Raises:
            InputError: where the file cannot be denoised.
        """
        outcome = denoise_file(self._job, denoiser, BatchSettings(tile=tile, force=True))
        return _pass_of(outcome, denoiser.backend.seconds)


class PictureInMemory(Workload):
    """A picture, into memory that is there already."""

    def __init__(self, picture: Picture, name: str) -> None:
        self.name = name
        self._picture, self._target = picture, np.empty_like(picture)

    def run(self, denoiser: PictureDenoiser, tile: int | None) -> Pass:
        """Denoise it once."""
        denoising = denoiser.denoise_into(self._picture, self._target, tile=tile)
        height, width, _ = self._picture.shape
        steps = _split(denoising.seconds, denoiser.backend.seconds)
        return Pass(steps, width, height, denoising.warnings)


class PictureFileToFile(Workload):
    """What ``cycleisp denoise`` does with one picture.

    Args:
        source: a file of one.
        scratch: as for ``FileToFile``.
    """

    def __init__(self, source: Path, scratch: Path) -> None:
        self.name = source.name
        self._job = Job(source, scratch / source.name)

    def run(self, denoiser: PictureDenoiser, tile: int | None) -> Pass:
        """Denoise it once.

        Raises:
            InputError: where the file cannot be denoised.
        """
        outcome = denoise_picture_file(self._job, denoiser, tile=tile, force=True)
        return _pass_of(outcome, denoiser.backend.seconds)


def workloads(
    task: Literal["raw", "srgb"],
    files: Sequence[Path],
    size: tuple[int, int],
    scratch: Path,
    rng: np.random.Generator,
) -> tuple[Workload, ...]:
    """The files, each read and written every time; something synthetic where there are none.

    Args:
        task: the model's.
        files: RAW files, or files of pictures.
        size: width and height of the synthetic frame or picture.
        scratch: a folder for results.
        rng: the synthetic one's noise.
    """
    width, height = size
    name = f"{width}x{height}"
    if task == "srgb":
        if files:
            return tuple(PictureFileToFile(file, scratch) for file in files)
        return (PictureInMemory(synthetic_picture(width, height, rng), name),)
    if files:
        return tuple(FileToFile(file, scratch) for file in files)
    noise = NoiseModel.uniform(*LEVELS["middle"])
    return (FrameInMemory(synthetic_frame(width, height, noise, rng), noise, name),)


def synthetic_frame(
    width: int, height: int, noise: NoiseModel, rng: np.random.Generator
) -> RawFrame:
    """Smooth waves with this noise in 12 bits, RGGB.

    The time of a network does not depend on what it sees.
    """
    samples = np.empty((height, width), np.uint16)
    for rows, clean in _waves(width, height):
        deviation = np.sqrt(noise.mean_shot * clean + noise.mean_read)
        noisy = clean + deviation * rng.standard_normal(clean.shape)
        samples[rows] = np.clip(np.rint(noisy * (WHITE - BLACK) + BLACK), 0, WHITE)
    return RawFrame(samples, Phase.RGGB, (BLACK,) * 4, WHITE, Area(0, 0, height, width))


def synthetic_picture(width: int, height: int, rng: np.random.Generator) -> Picture:
    """Grey waves with coloured noise in 8 bits, (height, width, 3)."""
    picture = np.empty((height, width, 3), np.uint8)
    for rows, clean in _waves(width, height):
        noise = PICTURE_NOISE * rng.standard_normal((*clean.shape, 3))
        picture[rows] = np.clip(np.rint(255 * clean[..., None] + noise), 0, 255)
    return picture


def _waves(width: int, height: int) -> Iterator[tuple[slice, npt.NDArray[np.float64]]]:
    """Smooth light from 0.1 to 0.5, in strips of some rows, which take little memory."""
    waves = np.sin(np.arange(width) / 97.0)
    for top in range(0, height, ROWS_AT_ONCE):
        rows = np.arange(top, min(top + ROWS_AT_ONCE, height))
        clean = 0.3 + 0.2 * waves * np.cos(rows / 131.0)[:, None]
        yield slice(top, top + len(rows)), clean


def _pass_of(outcome: Outcome, device: Mapping[str, float]) -> Pass:
    """What became of a file.

    Raises:
        InputError: where it cannot be denoised.
    """
    if outcome.error is not None or outcome.size is None:
        raise InputError(f"cannot be measured: {outcome.error}")
    return Pass(_split(outcome.seconds, device), *outcome.size, tuple(outcome.warnings))


def _split(steps: Mapping[str, float], device: Mapping[str, float]) -> dict[str, float]:
    """The steps, the network's time split by the shares that the device measured for one tile."""
    whole = sum(device.values())
    if whole == 0:
        return dict(steps)
    shares = {name: steps["network"] * seconds / whole for name, seconds in device.items()}
    return {name: seconds for name, seconds in steps.items() if name != "network"} | shares
