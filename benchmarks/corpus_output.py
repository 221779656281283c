"""Whether an output is its input, but for the samples: both are opened by LibRaw and compared."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rawpy

from benchmarks.corpus_truth import CorpusFile, Fault, same_balance
from benchmarks.tag_listing import Difference, tag_differences
from cycleisp_runtime.dng import is_dng
from cycleisp_runtime.errors import InputError
from cycleisp_runtime.frame import RawFrame
from cycleisp_runtime.tiff import parse_tiff

__all__ = ["changed_tags", "output_faults", "rendering_faults", "sample_faults", "tag_faults"]

_LARGEST_SHIFT = 0.002
"""Of the range: how far denoising may move the mean of a colour plane."""

_MAY_DIFFER = {
    "BitsPerSample",
    "Compression",
    "LinearizationTable",
    "NewRawImageDigest",
    "RawImageDigest",
    "RowsPerStrip",
    "StripByteCounts",
    "StripOffsets",
    "SubIFDs",
    "TileByteCounts",
    "TileLength",
    "TileOffsets",
    "TileWidth",
    "WhiteLevel",
}
"""Tags of a DNG that say how and where its samples are stored."""


@dataclass(frozen=True)
class Opened:
    """A RAW file as LibRaw shows it.

    Attributes:
        samples: (H, W) uint16, the stored frame.
        facts: what must be the same in the output.
        black: DN by colour index.
        white: DN.
        white_balance: gains of R, G, B with G = 1, or None.
        matrices: two of (3, 3): XYZ to camera by LibRaw's table of cameras, and camera to sRGB as
            the file says; zero where there is none.
    """

    samples: npt.NDArray[np.uint16]
    facts: dict[str, object]
    black: tuple[float, ...]
    white: float
    white_balance: tuple[float, float, float] | None
    matrices: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]


def opened(path: Path) -> Opened:
    """The file through rawpy."""
    with rawpy.imread(str(path)) as raw:
        sizes, gains = raw.sizes, raw.camera_whitebalance
        names = raw.color_desc.decode()
        cell = raw.raw_colors_visible[:2, :2].ravel()
        return Opened(
            samples=raw.raw_image.copy(),
            facts={
                "stored size": raw.raw_image.shape,
                "area": (sizes.top_margin, sizes.left_margin, sizes.height, sizes.width),
                "cfa": "".join(names[colour] for colour in cell),
                "flip": sizes.flip,
            },
            black=tuple(raw.black_level_per_channel),
            white=raw.white_level,
            white_balance=(
                (gains[0] / gains[1], 1.0, gains[2] / gains[1]) if min(gains[:3]) > 0 else None
            ),
            matrices=(raw.rgb_xyz_matrix[:3], raw.color_matrix[:3, :3]),
        )


def as_opened(frame: RawFrame) -> Opened:
    """A frame from a dump, which LibRaw cannot open, as LibRaw would show it."""
    red, green, second_green, blue = frame.cfa.by_plane(frame.black)
    return Opened(
        samples=frame.samples,
        facts={
            "stored size": frame.samples.shape,
            "area": tuple(frame.area),
            "cfa": frame.cfa.value,
            "flip": 0,
        },
        black=(red, green, blue, second_green),
        white=frame.white,
        white_balance=None,
        matrices=(np.zeros((3, 3), np.float32), np.zeros((3, 3), np.float32)),
    )


def output_faults(
    file: CorpusFile, frame: RawFrame, output: Path, level_scale: int
) -> Iterator[Fault]:
    """Where the denoised DNG is not the input: sizes, phase, levels, colours, masked samples."""
    before = as_opened(frame) if file.layout is not None else opened(file.path)
    after = opened(output)
    for fact, value in before.facts.items():
        if after.facts[fact] != value:
            yield Fault("wrong output", f"{fact} {after.facts[fact]}, should be {value}")
    wanted_levels = [level_scale * level for level in (*before.black, before.white)]
    if [*after.black, after.white] != wanted_levels:
        levels = [*after.black, after.white]
        yield Fault("wrong output", f"levels {levels}, should be {wanted_levels}")
    if not same_balance(after.white_balance, before.white_balance):
        text = f"white balance {after.white_balance}, should be {before.white_balance}"
        yield Fault("wrong output", text)
    for met, wanted in zip(after.matrices, before.matrices, strict=True):
        # A camera without a matrix gets one in its DNG, because DNG demands it.
        if wanted.any() and not np.allclose(met, wanted, rtol=0, atol=1e-4):
            yield Fault("wrong output", f"matrix {met.tolist()}, should be {wanted.tolist()}")
    yield from _shift_faults(frame, after.samples, level_scale)


def sample_faults(frame: RawFrame, output: Path, level_scale: int) -> Iterator[Fault]:
    """Whether a DNG of an undenoised frame holds exactly its samples times a power of two."""
    samples = opened(output).samples
    if level_scale & (level_scale - 1):
        yield Fault("wrong output", f"levels x{level_scale}, which is no power of two")
    if not np.array_equal(samples, frame.samples.astype(np.int64) * level_scale):
        yield Fault("wrong output", f"{output.name}: samples are not the input's x{level_scale}")


def rendering_faults(frame: RawFrame, output: Path) -> Iterator[Fault]:
    """Whether a picture opens and has the size of the frame's picture, turned as it was held."""
    if output.suffix == ".png":
        from PIL import Image

        picture = np.asarray(Image.open(output))
    else:
        import tifffile

        picture = tifffile.imread(output)
    height, width = frame.area.height, frame.area.width
    wanted = (width, height, 3) if frame.orientation >= 5 else (height, width, 3)
    if picture.shape != wanted:
        yield Fault("wrong output", f"{output.suffix} is {picture.shape}, should be {wanted}")


def changed_tags(source: Path, output: Path) -> dict[str, Difference]:
    """The tags in which a DNG made from a DNG differs from it; nothing for another source."""
    try:
        from_dng = is_dng(parse_tiff(source.read_bytes(), source))
    except InputError:
        return {}
    return tag_differences(source, output) if from_dng else {}


def tag_faults(changed: dict[str, Difference]) -> Iterator[Fault]:
    """Tags that changed although neither samples nor levels did.

    TIFF allows a tag once in a directory; its repetitions ("NAME#2") are dropped.
    """
    for path, difference in changed.items():
        name, _, repetition = path.rpartition(".")[2].partition("#")
        if name not in _MAY_DIFFER and not repetition:
            yield Fault("wrong output", f"{path}: {difference}")


def _shift_faults(
    frame: RawFrame, samples: npt.NDArray[np.uint16], level_scale: int
) -> Iterator[Fault]:
    """Means of colour planes that moved, and masked samples that changed."""
    masked = np.ones(samples.shape, bool)
    masked[frame.area.slices] = False
    if (samples[masked] != frame.samples[masked] * level_scale).any():
        yield Fault("wrong output", "masked samples changed")
    # Where the reader doubts what the filters are, planes have no colour that could be kept.
    if any("filters" in warning for warning in frame.warnings):
        return
    for position, black in enumerate(frame.black):
        row, column = divmod(position, 2)
        before, after = (
            stored[frame.area.slices][row::2, column::2].mean()
            for stored in (frame.samples, samples)
        )
        shift = (after / level_scale - before) / (frame.white - black)
        if abs(shift) > _LARGEST_SHIFT:
            text = f"mean at position ({row}, {column}) moved by {shift:+.2%} of the range"
            yield Fault("wrong output", text)
