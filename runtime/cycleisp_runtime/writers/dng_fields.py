"""What both DNG writers say about the samples that they write.

Tags as in Adobe, "Digital Negative (DNG) Specification 1.7.1.0", 2023, chapter 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from cycleisp_runtime.dng import Tag
from cycleisp_runtime.errors import OutputError, SettingsError
from cycleisp_runtime.frame import RawFrame
from cycleisp_runtime.noise import NoiseModel
from cycleisp_runtime.writers.ifd import ByteOrder, Field, Kind

__all__ = [
    "Treatment",
    "level_field",
    "noise_pairs",
    "noise_reduction_field",
    "strip_fields",
    "white_field",
    "write_samples",
]

_ROWS_AT_ONCE = 256


@dataclass(frozen=True)
class Treatment:
    """What was done to a frame since its source was read.

    Attributes:
        level_scale: the factor by which samples and levels were multiplied.
        noise_reduction: 0 for samples that were not denoised, 1 for all of it.
        residual_noise: noise that is left, in normalised units, or None where it is not known.

    Raises:
        SettingsError: where a number is out of range.
    """

    level_scale: int
    noise_reduction: float
    residual_noise: NoiseModel | None

    def __post_init__(self) -> None:
        if self.level_scale < 1 or not 0 <= self.noise_reduction <= 1:
            raise SettingsError(
                "the treatment of the samples is out of range",
                met=f"level_scale {self.level_scale}, noise_reduction {self.noise_reduction}",
                wanted="level_scale of at least 1, noise_reduction from 0 to 1",
            )

    @property
    def denoised(self) -> bool:
        """Whether any noise was taken out."""
        return self.noise_reduction > 0


def strip_fields(samples: npt.NDArray[np.uint16], offset: int) -> list[Field]:
    """Storage of samples (H, W) as one uncompressed strip at ``offset``.

    The one form that every reader tried takes: dcraw, LibRaw 0.20, RawTherapee 5.9 and darktable
    4.2 each misread some uncompressed tiles or some predictors of lossless JPEG.
    """
    return [
        Field(Tag.BitsPerSample, Kind.SHORT, (16,)),
        Field(Tag.Compression, Kind.SHORT, (1,)),
        Field(Tag.StripOffsets, Kind.LONG, (offset,)),
        Field(Tag.RowsPerStrip, Kind.LONG, (samples.shape[0],)),
        Field(Tag.StripByteCounts, Kind.LONG, (samples.nbytes,)),
    ]


def write_samples(file: BinaryIO, samples: npt.NDArray[np.uint16], byte_order: ByteOrder) -> None:
    """Samples (H, W) written row by row, without a second copy of the frame in memory."""
    file.writelines(
        samples[top : top + _ROWS_AT_ONCE].astype(f"{byte_order}u2").tobytes()
        for top in range(0, samples.shape[0], _ROWS_AT_ONCE)
    )


def level_field(tag: int, values: Sequence[float | Fraction]) -> Field:
    """Levels in DN in the smallest type that holds them: SHORT, LONG or RATIONAL.

    Raises:
        OutputError: where one is below 0, which these types cannot hold.
    """
    exact = [Fraction(value) for value in values]
    if min(exact) < 0:
        raise OutputError("a DNG cannot hold a negative level", met=float(min(exact)))
    if any(value.denominator != 1 for value in exact):
        return Field(tag, Kind.RATIONAL, exact)
    whole = [value.numerator for value in exact]
    return Field(tag, Kind.SHORT if max(whole) < 1 << 16 else Kind.LONG, whole)


def white_field(frame: RawFrame) -> Field:
    """The level of saturation.

    Raises:
        OutputError: where it is not a whole number, which the tag cannot hold.
    """
    if not float(frame.white).is_integer():
        raise OutputError(
            "a DNG cannot hold a fractional white level",
            subject=frame.source,
            met=frame.white,
            hint="give the frame a whole one",
        )
    return level_field(Tag.WhiteLevel, (frame.white,))


def noise_reduction_field(treatment: Treatment) -> Field:
    """How much noise was taken out, in 0..1, so that other programs do not do it again."""
    amount = Fraction(treatment.noise_reduction).limit_denominator(10_000)
    return Field(Tag.NoiseReductionApplied, Kind.RATIONAL, (amount,))


def noise_pairs(noise: NoiseModel) -> tuple[tuple[float, float], ...]:
    """(shot, read) of the colours red, green and blue, as NoiseProfile counts them.

    A DNG has one green; ours is the mean of the two.
    """
    (r, gr, gb, b), (r0, gr0, gb0, b0) = noise.shot, noise.read
    return (r, r0), ((gr + gb) / 2, (gr0 + gb0) / 2), (b, b0)
