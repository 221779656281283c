"""DNG from any other RAW frame: a new file that says all that the frame knows.

    header | samples | Exif directory | IFD0

Little-endian, the whole stored frame in one strip; tags as DNG 1.7.1 asks for them in an original
CFA image, which Adobe's SDK, LibRaw, dcraw, RawTherapee and darktable open.
"""

from __future__ import annotations

import importlib.metadata
import struct
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import BinaryIO

import numpy as np

from cycleisp_runtime.dng import Photometric, Tag
from cycleisp_runtime.frame import Exposure, RawFrame
from cycleisp_runtime.writers.dng_fields import (
    Treatment,
    level_field,
    noise_pairs,
    noise_reduction_field,
    strip_fields,
    white_field,
    write_samples,
)
from cycleisp_runtime.writers.ifd import ByteOrder, Field, Kind, directory_bytes, text

__all__ = ["new_dng"]

_LITTLE_ENDIAN: ByteOrder = "<"
_HEADER_BYTES = 8
_D65 = 21
_CFA_CODES = {"R": 0, "G": 1, "B": 2}

_XYZ_TO_LINEAR_SRGB = (
    (3.2406, -1.5372, -0.4986),
    (-0.9689, 1.8758, 0.0415),
    (0.0557, -0.2040, 1.0570),
)
"""IEC 61966-2-1:1999, XYZ (D65, Y = 1) to linear sRGB."""


def new_dng(file: BinaryIO, frame: RawFrame, treatment: Treatment) -> None:
    """A DNG in the empty ``file`` that holds the frame's stored samples (H, W) and facts.

    Without a colour matrix the camera's colours are taken for sRGB's, as LibRaw does, because the
    tag is compulsory; without white balance there is none in the file.

    Raises:
        OutputError: where the file would exceed 4 GiB, or the white level is fractional.
    """
    samples_offset = _HEADER_BYTES
    exif_offset = samples_offset + frame.samples.nbytes
    exif = directory_bytes(
        _exif_fields(frame.exposure), offset=exif_offset, byte_order=_LITTLE_ENDIAN
    )
    main_offset = exif_offset + len(exif)
    main = directory_bytes(
        [
            *_storage_fields(frame, samples_offset),
            *_mosaic_fields(frame),
            *_colour_fields(frame),
            *_noise_fields(frame, treatment),
            *_origin_fields(frame),
            Field(Tag.ExifIFD, Kind.LONG, (exif_offset,)),
        ],
        offset=main_offset,
        byte_order=_LITTLE_ENDIAN,
    )
    file.write(struct.pack("<2sHI", b"II", 42, main_offset))
    write_samples(file, frame.samples, _LITTLE_ENDIAN)
    file.write(exif)
    file.write(main)


def _storage_fields(frame: RawFrame, samples_offset: int) -> Iterator[Field]:
    height, width = frame.samples.shape
    yield Field(Tag.NewSubFileType, Kind.LONG, (0,))
    yield Field(Tag.ImageWidth, Kind.LONG, (width,))
    yield Field(Tag.ImageLength, Kind.LONG, (height,))
    yield Field(Tag.PhotometricInterpretation, Kind.SHORT, (Photometric.CFA,))
    yield Field(Tag.Orientation, Kind.SHORT, (frame.orientation,))
    yield Field(Tag.SamplesPerPixel, Kind.SHORT, (1,))
    yield Field(Tag.PlanarConfiguration, Kind.SHORT, (1,))
    yield Field(Tag.DNGVersion, Kind.BYTE, bytes((1, 4, 0, 0)))
    yield Field(Tag.DNGBackwardVersion, Kind.BYTE, bytes((1, 1, 0, 0)))
    yield from strip_fields(frame.samples, samples_offset)


def _mosaic_fields(frame: RawFrame) -> Iterator[Field]:
    """CFA pattern and levels; DNG counts all of them from the corner of ActiveArea."""
    area = frame.area
    bounds = (area.top, area.left, area.top + area.height, area.left + area.width)
    yield Field(Tag.ActiveArea, Kind.LONG, bounds)
    yield Field(Tag.CFARepeatPatternDim, Kind.SHORT, (2, 2))
    yield Field(Tag.CFAPattern, Kind.BYTE, bytes(_CFA_CODES[colour] for colour in frame.cfa.value))
    if len(set(frame.black)) == 1:
        yield Field(Tag.BlackLevelRepeatDim, Kind.SHORT, (1, 1))
        yield level_field(Tag.BlackLevel, frame.black[:1])
    else:
        yield Field(Tag.BlackLevelRepeatDim, Kind.SHORT, (2, 2))
        yield level_field(Tag.BlackLevel, frame.black)
    if frame.black_columns is not None:
        yield Field(Tag.BlackLevelDeltaH, Kind.SRATIONAL, frame.black_columns.tolist())
    if frame.black_rows is not None:
        yield Field(Tag.BlackLevelDeltaV, Kind.SRATIONAL, frame.black_rows.tolist())
    yield white_field(frame)


def _colour_fields(frame: RawFrame) -> Iterator[Field]:
    matrix = _XYZ_TO_LINEAR_SRGB if frame.color_matrix is None else frame.color_matrix
    elements = np.asarray(matrix, np.float64).ravel().tolist()
    yield Field(Tag.ColorMatrix1, Kind.SRATIONAL, _rounded(elements, 10_000))
    yield Field(Tag.CalibrationIlluminant1, Kind.SHORT, (_D65,))
    if frame.white_balance is not None:
        neutral = [1 / gain for gain in frame.white_balance]
        yield Field(Tag.AsShotNeutral, Kind.RATIONAL, _rounded(neutral, 1_000_000))


def _noise_fields(frame: RawFrame, treatment: Treatment) -> Iterator[Field]:
    noise = treatment.residual_noise if treatment.denoised else frame.noise_profile
    if treatment.denoised:
        yield noise_reduction_field(treatment)
    if noise is not None:
        pairs = noise_pairs(noise)
        values = [value for pair in pairs for value in pair]
        yield Field(Tag.NoiseProfile, Kind.DOUBLE, values[:2] if len(set(pairs)) == 1 else values)


def _origin_fields(frame: RawFrame) -> Iterator[Field]:
    camera = frame.camera
    if camera.make:
        yield text(Tag.Make, camera.make)
    if camera.model:
        yield text(Tag.Model, camera.model)
    yield text(Tag.UniqueCameraModel, str(camera) or "Unknown camera")
    yield text(Tag.Software, _software())
    if frame.source is not None:
        yield text(Tag.OriginalRawFileName, frame.source.name)


def _software() -> str:
    try:
        return f"cycleisp {importlib.metadata.version('cycleisp')}"
    except importlib.metadata.PackageNotFoundError:  # run from a checkout
        return "cycleisp"


def _exif_fields(exposure: Exposure) -> Iterator[Field]:
    """How the frame was taken, for programs that show or use it."""
    yield Field(Tag.ExifVersion, Kind.UNDEFINED, b"0230")
    # LibRaw's numbers are float32; short fractions bring back what the camera wrote (1/60, 2.8).
    for tag, value, denominator in (
        (Tag.ExposureTime, exposure.shutter_s, 1_000_000),
        (Tag.FNumber, exposure.aperture, 1_000),
        (Tag.FocalLength, exposure.focal_length_mm, 1_000),
    ):
        if value is not None:
            yield Field(tag, Kind.RATIONAL, (Fraction(value).limit_denominator(denominator),))
    if exposure.bias_ev is not None:
        bias = Fraction(exposure.bias_ev).limit_denominator(1_000)
        yield Field(Tag.ExposureBiasValue, Kind.SRATIONAL, (bias,))
    if exposure.iso is not None:
        iso = round(exposure.iso)
        yield Field(Tag.PhotographicSensitivity, Kind.SHORT, (min(iso, 65535),))
        if iso > 65535:
            # Exif 2.3, 4.6.5: what the SHORT cannot hold stands in RecommendedExposureIndex.
            yield Field(Tag.SensitivityType, Kind.SHORT, (2,))
            yield Field(Tag.RecommendedExposureIndex, Kind.LONG, (iso,))
    if exposure.taken is not None:
        yield text(Tag.DateTimeOriginal, exposure.taken)


def _rounded(values: Sequence[float], denominator: int) -> list[Fraction]:
    return [Fraction(round(value * denominator), denominator) for value in values]
