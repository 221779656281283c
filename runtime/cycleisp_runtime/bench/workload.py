"""What is denoised in a benchmark: a frame that is in memory, or a file to a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from cycleisp_runtime.batch import BatchSettings, denoise_file
from cycleisp_runtime.bayer import Phase
from cycleisp_runtime.denoiser import Denoiser
from cycleisp_runtime.errors import InputError
from cycleisp_runtime.frame import Area, RawFrame
from cycleisp_runtime.jobs import Job
from cycleisp_runtime.noise import LEVELS, NoiseModel

__all__ = ["FileToFile", "FrameInMemory", "Pass", "Workload", "synthetic_frame", "workloads"]

BLACK, WHITE = 256, 4095
"""Of a 12-bit sensor."""

ROWS_AT_ONCE = 256


class Pass(NamedTuple):
    """One frame denoised once: seconds by step, size of the picture, warnings."""

    steps: dict[str, float]
    width: int
    height: int
    warnings: tuple[str, ...]


class Workload(Protocol):
    """One frame that can be denoised again and again."""

    name: str

    def run(self, denoiser: Denoiser, tile: int | None) -> Pass:
        """Denoise it once; raises what the denoiser raises."""
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
        if outcome.error is not None or outcome.size is None:
            raise InputError(f"cannot be measured: {outcome.error}")
        steps = _split(outcome.seconds, denoiser.backend.seconds)
        return Pass(steps, *outcome.size, tuple(outcome.warnings))


def workloads(
    files: Sequence[Path], size: tuple[int, int], scratch: Path, rng: np.random.Generator
) -> tuple[Workload, ...]:
    """The files, each read and written every time; a synthetic frame where there are none.

    Args:
        files: RAW files.
        size: width and height of the synthetic frame.
        scratch: a folder for results.
        rng: the synthetic frame's noise.
    """
    if files:
        return tuple(FileToFile(file, scratch) for file in files)
    noise = NoiseModel.uniform(*LEVELS["middle"])
    width, height = size
    return (FrameInMemory(synthetic_frame(width, height, noise, rng), noise, f"{width}x{height}"),)


def synthetic_frame(
    width: int, height: int, noise: NoiseModel, rng: np.random.Generator
) -> RawFrame:
    """Smooth waves with this noise in 12 bits, RGGB; made in strips, which take little memory.

    The time of a network does not depend on what it sees.
    """
    samples = np.empty((height, width), np.uint16)
    waves = np.sin(np.arange(width) / 97.0)
    for top in range(0, height, ROWS_AT_ONCE):
        rows = np.arange(top, min(top + ROWS_AT_ONCE, height))
        clean = 0.3 + 0.2 * waves * np.cos(rows / 131.0)[:, None]
        deviation = np.sqrt(noise.mean_shot * clean + noise.mean_read)
        noisy = clean + deviation * rng.standard_normal(clean.shape)
        samples[rows] = np.clip(np.rint(noisy * (WHITE - BLACK) + BLACK), 0, WHITE)
    return RawFrame(samples, Phase.RGGB, (BLACK,) * 4, WHITE, Area(0, 0, height, width))


def _split(steps: Mapping[str, float], device: Mapping[str, float]) -> dict[str, float]:
    """The steps, the network's time split by the shares that the device measured for one tile."""
    whole = sum(device.values())
    if whole == 0:
        return dict(steps)
    shares = {name: steps["network"] * seconds / whole for name, seconds in device.items()}
    return {name: seconds for name, seconds in steps.items() if name != "network"} | shares
