"""The vocabulary of DNG: tag numbers, which directory holds the mosaic, and what opcodes do.

Adobe, "Digital Negative (DNG) Specification 1.7.1.0", 2023; TIFF/EP (ISO 12234-2); Exif 2.3.
"""

from __future__ import annotations

import enum
import struct
from typing import NamedTuple

from cycleisp_runtime.errors import InputError
from cycleisp_runtime.tiff import Directory, Tiff

__all__ = ["Opcode", "OpcodeId", "Photometric", "Tag", "is_dng", "mosaic_directories", "opcodes"]


class Tag(enum.IntEnum):
    """Tag numbers under the names that the specifications give them."""

    NewSubFileType = 254
    ImageWidth = 256
    ImageLength = 257
    BitsPerSample = 258
    Compression = 259
    PhotometricInterpretation = 262
    FillOrder = 266
    Make = 271
    Model = 272
    StripOffsets = 273
    Orientation = 274
    SamplesPerPixel = 277
    RowsPerStrip = 278
    StripByteCounts = 279
    PlanarConfiguration = 284
    Software = 305
    DateTime = 306
    Predictor = 317
    TileWidth = 322
    TileLength = 323
    TileOffsets = 324
    TileByteCounts = 325
    SubIFDs = 330
    SampleFormat = 339
    CFARepeatPatternDim = 33421
    CFAPattern = 33422
    ExposureTime = 33434
    FNumber = 33437
    ExifIFD = 34665
    PhotographicSensitivity = 34855
    SensitivityType = 34864
    RecommendedExposureIndex = 34866
    ExifVersion = 36864
    DateTimeOriginal = 36867
    ExposureBiasValue = 37380
    FocalLength = 37386
    DNGVersion = 50706
    DNGBackwardVersion = 50707
    UniqueCameraModel = 50708
    CFAPlaneColor = 50710
    CFALayout = 50711
    LinearizationTable = 50712
    BlackLevelRepeatDim = 50713
    BlackLevel = 50714
    BlackLevelDeltaH = 50715
    BlackLevelDeltaV = 50716
    WhiteLevel = 50717
    ColorMatrix1 = 50721
    ColorMatrix2 = 50722
    AsShotNeutral = 50728
    CalibrationIlluminant1 = 50778
    CalibrationIlluminant2 = 50779
    RawDataUniqueID = 50781
    OriginalRawFileName = 50827
    ActiveArea = 50829
    MaskedAreas = 50830
    NoiseReductionApplied = 50935
    RawImageDigest = 50972
    SubTileBlockSize = 50974
    RowInterleaveFactor = 50975
    OpcodeList1 = 51008
    OpcodeList2 = 51009
    OpcodeList3 = 51022
    NoiseProfile = 51041
    NewRawImageDigest = 51111
    CalibrationIlluminant3 = 52529
    ColorMatrix3 = 52531
    ColumnInterleaveFactor = 52547
    ImageStats = 52550
    JXLDistance = 52553
    JXLEffort = 52554
    JXLDecodeSpeed = 52555


class Photometric(enum.IntEnum):
    """What the samples of a directory are."""

    CFA = 32803
    LINEAR_RAW = 34892


class OpcodeId(enum.IntEnum):
    """Opcodes of DNG 1.7.1, chapter 7."""

    WarpRectilinear = 1
    WarpFisheye = 2
    FixVignetteRadial = 3
    FixBadPixelsConstant = 4
    FixBadPixelsList = 5
    TrimBounds = 6
    MapTable = 7
    MapPolynomial = 8
    GainMap = 9
    DeltaPerRow = 10
    DeltaPerColumn = 11
    ScalePerRow = 12
    ScalePerColumn = 13
    WarpRectilinear2 = 14


class Opcode(NamedTuple):
    """One entry of an opcode list: its number and its parameters, which are big-endian."""

    number: int
    parameters: bytes


def is_dng(tiff: Tiff) -> bool:
    """Whether the first directory declares a DNGVersion."""
    return tiff.directories[0].get(Tag.DNGVersion) is not None


def mosaic_directories(tiff: Tiff) -> tuple[Directory, ...]:
    """The directories that hold a main image (no preview, no mask) of colour filter samples."""
    return tuple(
        directory
        for directory in tiff.directories
        if tiff.find(directory, Tag.PhotometricInterpretation) == (Photometric.CFA,)
        and tiff.find(directory, Tag.NewSubFileType) in (None, (0,))
    )


def opcodes(tiff: Tiff, directory: Directory, tag: Tag) -> tuple[Opcode, ...]:
    """The opcodes of an OpcodeList tag, which is big-endian in every file; none where it is absent.

    Raises:
        InputError: where the list ends early.
    """
    entry = directory.get(tag)
    if entry is None:
        return ()
    stored = tiff.value_bytes(entry)
    found = []
    try:
        (count,) = struct.unpack_from(">I", stored, 0)
        offset = 4
        for _ in range(count):
            number, _version, _flags, size = struct.unpack_from(">4I", stored, offset)
            offset += 16 + size
            (parameters,) = struct.unpack_from(f">{size}s", stored, offset - size)
            found.append(Opcode(number, parameters))
    except struct.error as error:
        raise InputError(
            f"{tag.name} ends early", subject=tiff.source, hint="the file is damaged"
        ) from error
    return tuple(found)
