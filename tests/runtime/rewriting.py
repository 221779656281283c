"""DNG files rewritten in tests, and what stands in the result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cycleisp_runtime.bayer import Phase
from cycleisp_runtime.dng import Tag, mosaic_directories
from cycleisp_runtime.frame import Area, RawFrame
from cycleisp_runtime.noise import NoiseModel
from cycleisp_runtime.tiff import Directory, Tiff, parse_tiff
from cycleisp_runtime.writers import write_frame
from tests.runtime.dng_builder import a_dng

SOURCE = "in.dng"

SAMPLES = np.random.default_rng(9).integers(600, 16000, (48, 64), np.uint16)


def frame_of(samples: npt.NDArray[np.uint16], source: Path | None) -> RawFrame:
    """What ``a_dng`` builds, as a frame."""
    area = Area(0, 0, *samples.shape)
    return RawFrame(samples, Phase.RGGB, (600.0,) * 4, 15520.0, area, source=source)


def rewritten(
    frame: RawFrame,
    folder: Path,
    *,
    scale: int = 1,
    noise_reduction: float = 0.0,
    residual: NoiseModel | None = None,
) -> Path:
    """The file that the writer makes of a frame and its source."""
    out = folder / "out.dng"
    scaled = frame.with_samples(frame.samples * np.uint16(scale), scale=scale)
    write_frame(
        scaled,
        out,
        level_scale=scale,
        noise_reduction=noise_reduction,
        residual_noise=residual,
        force=True,
    )
    return out


def built(folder: Path, samples: npt.NDArray[np.uint16], **layout: Any) -> RawFrame:  # noqa: ANN401
    """The frame in a file from the builder, which stands in the folder as ``SOURCE``."""
    source = folder / SOURCE
    source.write_bytes(a_dng(samples, **layout))
    return frame_of(samples, source)


def parsed(path: Path) -> Tiff:
    return parse_tiff(path.read_bytes(), path)


def mosaic_of(path: Path) -> tuple[Tiff, Directory]:
    tiff = parsed(path)
    (directory,) = mosaic_directories(tiff)
    return tiff, directory


def numbers(path: Path, tag: Tag) -> tuple[float, ...] | None:
    tiff, directory = mosaic_of(path)
    return tiff.find(directory, tag)


def changed_old_bytes(old: Path, new: Path) -> list[int]:
    before = np.frombuffer(old.read_bytes(), np.uint8)
    after = np.frombuffer(new.read_bytes()[: before.size], np.uint8)
    return np.flatnonzero(before != after).tolist()


def assert_sound_structure(path: Path) -> None:
    """TIFF 6.0 section 2: what a reader may rely on in the directory that we wrote."""
    tiff, mosaic = mosaic_of(path)
    tags = [entry.tag for entry in mosaic.entries]
    assert tags == sorted(set(tags))
    assert mosaic.offset % 2 == 0
    for entry in mosaic.entries:
        assert entry.value_size <= 4 or entry.value_offset % 2 == 0
        assert entry.value_offset + entry.value_size <= len(tiff.data)
    offset, size = numbers(path, Tag.StripOffsets), numbers(path, Tag.StripByteCounts)
    height, width = numbers(path, Tag.ImageLength), numbers(path, Tag.ImageWidth)
    assert offset is not None
    assert height is not None
    assert width is not None
    assert size == (2 * height[0] * width[0],)
    assert offset[0] % 2 == 0
    assert offset[0] + size[0] <= mosaic.offset
