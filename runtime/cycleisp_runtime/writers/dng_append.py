"""DNG from DNG: the file's own bytes stay where they stand, new samples go behind them.

    old file, unchanged | zeros | new samples | new directory of the mosaic
            ^ one pointer, patched --------------^

Every offset that the file holds stays true, also those inside maker notes, which nobody but the
camera's maker can move. The old samples stay in the file as dead bytes. Directories that the
pointer does not lead to keep their entries; a few values in them that speak about the samples
(digests, noise) are overwritten in place.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Iterator
from fractions import Fraction
from typing import BinaryIO, NamedTuple

from cycleisp_runtime.dng import OpcodeId, Tag, mosaic_directories, opcodes
from cycleisp_runtime.errors import InputError, OutputError
from cycleisp_runtime.frame import RawFrame
from cycleisp_runtime.noise import NoiseModel
from cycleisp_runtime.tiff import Directory, Entry, Tiff
from cycleisp_runtime.writers.digests import new_raw_image_digest, raw_image_digest
from cycleisp_runtime.writers.dng_fields import (
    Treatment,
    level_field,
    noise_pairs,
    noise_reduction_field,
    strip_fields,
    white_field,
    write_samples,
)
from cycleisp_runtime.writers.ifd import Field, Kind, directory_bytes

__all__ = ["append_dng"]

_TRANSPARENCY_MASK = 4
_ENHANCED_IMAGE = 16

_OLD_STORAGE = frozenset(
    {
        Tag.Predictor,
        Tag.TileWidth,
        Tag.TileLength,
        Tag.TileOffsets,
        Tag.TileByteCounts,
        Tag.SubTileBlockSize,
        Tag.RowInterleaveFactor,
        Tag.ColumnInterleaveFactor,
        Tag.JXLDistance,
        Tag.JXLEffort,
        Tag.JXLDecodeSpeed,
    }
)
# BlackLevel, WhiteLevel and NoiseProfile speak of values behind the table (DNG 1.7.1, chapter 5,
# "Mapping Raw Values to Linear Reference Values"), and so do our samples: it goes, they stay.
_FALSE_OF_NEW_SAMPLES = frozenset({Tag.LinearizationTable, Tag.ImageStats})

_POSITIONAL_OPCODES = frozenset(
    {
        OpcodeId.WarpRectilinear,
        OpcodeId.WarpFisheye,
        OpcodeId.WarpRectilinear2,
        OpcodeId.FixBadPixelsList,
        OpcodeId.TrimBounds,
    }
)
_GAIN_OPCODES = frozenset(
    {
        OpcodeId.FixVignetteRadial,
        OpcodeId.GainMap,
        OpcodeId.ScalePerRow,
        OpcodeId.ScalePerColumn,
    }
)


class _Place(NamedTuple):
    """An entry and the directory that it stands in."""

    directory: Directory
    entry: Entry


def append_dng(file: BinaryIO, tiff: Tiff, frame: RawFrame, treatment: Treatment) -> None:
    """A DNG in ``file`` that is ``tiff`` but for its samples and what is said about them.

    Args:
        file: empty, writable and readable.
        tiff: the DNG that the frame was read from.
        frame: stored samples (H, W) as large as the mosaic in ``tiff``, and their levels.
        treatment: what was done to them.

    Raises:
        InputError: where ``tiff`` has no single mosaic of this size.
        OutputError: where something in it would be wrong with the new samples.
    """
    mosaic = _mosaic(tiff, frame)
    _check_opcodes(tiff, mosaic, frame, treatment)
    _check_derived_images(tiff, frame, treatment)

    size = len(tiff.data)
    # A directory that ends the file without its next-field has none; zeros keep it so.
    zeros = 4 + size % 2
    samples_offset = size + zeros
    directory_offset = samples_offset + frame.samples.nbytes
    overwritten = dict(_overwritten_values(tiff, frame, treatment))
    removed = _removed_entries(tiff, treatment)
    directory = directory_bytes(
        [
            *strip_fields(frame.samples, samples_offset),
            *_level_fields(tiff, mosaic, frame, treatment),
            *([noise_reduction_field(treatment)] if treatment.denoised else []),
            *_kept_entries(mosaic, removed),
        ],
        offset=directory_offset,
        byte_order=tiff.byte_order,
        next_offset=mosaic.next_offset,
    )

    file.write(tiff.data)
    file.write(bytes(zeros))
    write_samples(file, frame.samples, tiff.byte_order)
    file.write(directory)
    overwritten[mosaic.pointer_offset] = struct.pack(f"{tiff.byte_order}I", directory_offset)
    for offset, value in overwritten.items():
        file.seek(offset)
        file.write(value)
    for place in sorted(removed, key=lambda place: place.entry.entry_offset, reverse=True):
        if place.directory is not mosaic:
            _close_gap(file, place, tiff)


def _mosaic(tiff: Tiff, frame: RawFrame) -> Directory:
    height, width = frame.samples.shape
    found = [
        directory
        for directory in mosaic_directories(tiff)
        if tiff.find(directory, Tag.ImageLength) == (height,)
        and tiff.find(directory, Tag.ImageWidth) == (width,)
    ]
    if len(found) != 1:
        raise InputError(
            "the samples do not belong to one mosaic of this file",
            subject=tiff.source,
            met=f"{len(found)} of {width}x{height}",
            wanted="one",
            hint="read the file again",
        )
    return found[0]


def _check_opcodes(tiff: Tiff, mosaic: Directory, frame: RawFrame, treatment: Treatment) -> None:
    """OpcodeList1 works on values as the file stores them; these we change by scale or table."""
    if mosaic.get(Tag.LinearizationTable) is not None:
        allowed = _POSITIONAL_OPCODES
        hint = "write a .tif instead"
    elif treatment.level_scale != 1:
        allowed = _POSITIONAL_OPCODES | _GAIN_OPCODES
        hint = "keep the levels of the input (--keep-levels)"
    else:
        return
    for opcode in opcodes(tiff, mosaic, Tag.OpcodeList1):
        if opcode.number not in allowed:
            raise OutputError(
                "an opcode of this DNG works on stored values, and they would change",
                subject=frame.source,
                met=f"opcode {opcode.number} in OpcodeList1",
                hint=hint,
            )


def _check_derived_images(tiff: Tiff, frame: RawFrame, treatment: Treatment) -> None:
    if treatment.denoised and _holds_image_of_type(tiff, _ENHANCED_IMAGE):
        raise OutputError(
            "this DNG also holds an enhanced image, made from the noisy samples",
            subject=frame.source,
            hint="denoise the DNG as the camera wrote it, or write a .tif",
        )


def _holds_image_of_type(tiff: Tiff, image_type: int) -> bool:
    return any(
        tiff.find(directory, Tag.NewSubFileType) == (image_type,) for directory in tiff.directories
    )


def _level_fields(
    tiff: Tiff, mosaic: Directory, frame: RawFrame, treatment: Treatment
) -> Iterator[Field]:
    scale = treatment.level_scale
    # The default of WhiteLevel depends on BitsPerSample, which may have changed.
    if scale != 1 or mosaic.get(Tag.WhiteLevel) is None:
        yield white_field(frame)
    if scale == 1:
        return
    black = tiff.find(mosaic, Tag.BlackLevel)
    if black is not None:
        yield level_field(Tag.BlackLevel, [Fraction(value) * scale for value in black])
    for tag in (Tag.BlackLevelDeltaH, Tag.BlackLevelDeltaV):
        deltas = tiff.find(mosaic, tag)
        if deltas is not None and all(map(math.isfinite, deltas)):
            yield Field(tag, Kind.SRATIONAL, [Fraction(delta) * scale for delta in deltas])


def _kept_entries(mosaic: Directory, removed: list[_Place]) -> Iterator[Entry]:
    dropped = _OLD_STORAGE | _FALSE_OF_NEW_SAMPLES
    gone = [place.entry for place in removed if place.directory is mosaic]
    return (entry for entry in mosaic.entries if entry.tag not in dropped and entry not in gone)


def _places(tiff: Tiff, tag: Tag) -> Iterator[_Place]:
    """Where the tag stands, unless its value lies outside the file and so says nothing."""
    for directory in tiff.directories:
        for entry in directory.entries:
            if entry.tag == tag and entry.value_offset + entry.value_size <= len(tiff.data):
                yield _Place(directory, entry)


def _overwritten_values(
    tiff: Tiff, frame: RawFrame, treatment: Treatment
) -> Iterator[tuple[int, bytes]]:
    """Offsets in the old file and the value bytes that go there, as many as there were."""
    for tag, digest in (
        (Tag.RawImageDigest, raw_image_digest),
        (Tag.NewRawImageDigest, new_raw_image_digest),
    ):
        for _, entry in _places(tiff, tag):
            if entry.value_size == 16:
                yield entry.value_offset, digest(frame.samples)
    if treatment.denoised or treatment.level_scale != 1:
        for _, entry in _places(tiff, Tag.RawDataUniqueID):
            origin = tiff.value_bytes(entry) + raw_image_digest(frame.samples)
            yield entry.value_offset, hashlib.shake_128(origin).digest(entry.value_size)
    if treatment.denoised and treatment.residual_noise is not None:
        for _, entry in _places(tiff, Tag.NoiseProfile):
            values = _noise_profile(tiff, entry, treatment.residual_noise)
            if values is not None:
                layout = f"{tiff.byte_order}{len(values)}d"
                yield entry.value_offset, struct.pack(layout, *values)


def _removed_entries(tiff: Tiff, treatment: Treatment) -> list[_Place]:
    """Entries about the old samples for which there is no new value."""
    removed: list[_Place] = []
    # The digest covers the mask as well, which may be stored in ways that we do not decode.
    if _holds_image_of_type(tiff, _TRANSPARENCY_MASK):
        removed += _places(tiff, Tag.NewRawImageDigest)
    if treatment.denoised:
        residual = treatment.residual_noise
        removed += [
            place
            for place in _places(tiff, Tag.NoiseProfile)
            if residual is None or _noise_profile(tiff, place.entry, residual) is None
        ]
    return removed


def _noise_profile(tiff: Tiff, entry: Entry, noise: NoiseModel) -> list[float] | None:
    """As many values as the entry has, or None where its count is none that DNG knows."""
    if entry.kind != Kind.DOUBLE:
        return None
    if entry.count == 2:
        return [noise.mean_shot, noise.mean_read]
    colours = next(
        (tiff.numbers(place.entry) for place in _places(tiff, Tag.CFAPlaneColor)),
        (0, 1, 2),
    )
    if entry.count != 6 or sorted(colours) != [0, 1, 2]:
        return None
    pairs = noise_pairs(noise)
    return [value for colour in colours for value in pairs[int(colour)]]


def _close_gap(file: BinaryIO, place: _Place, tiff: Tiff) -> None:
    """Takes an entry out of a directory that stays where it is: the following ones move up."""
    directory, entry = place
    end = directory.offset + 2 + 12 * len(directory.entries) + 4
    following = entry.entry_offset + 12
    file.seek(following)
    rest = file.read(end - following)
    file.seek(entry.entry_offset)
    file.write(rest)
    file.seek(directory.offset)
    (count,) = struct.unpack(f"{tiff.byte_order}H", file.read(2))
    file.seek(directory.offset)
    file.write(struct.pack(f"{tiff.byte_order}H", count - 1))
