"""DNG to RawFrame: every fact from the tags, the samples alone from LibRaw.

Adobe, "Digital Negative (DNG) Specification 1.7.1.0", 2023.
"""

from __future__ import annotations

from pathlib import Path
from typing import IO

from cycleisp_runtime.dng import Opcode, OpcodeId, Photometric, Tag, mosaic_directories, opcodes
from cycleisp_runtime.errors import InputError
from cycleisp_runtime.frame import RawFrame
from cycleisp_runtime.readers import libraw
from cycleisp_runtime.readers.cfa import phase_from_tags
from cycleisp_runtime.readers.dng_color import (
    read_color_matrix,
    read_noise_profile,
    read_white_balance,
)
from cycleisp_runtime.readers.dng_levels import linearization_table, read_active_area, read_levels
from cycleisp_runtime.readers.limits import Limits
from cycleisp_runtime.readers.metadata import (
    optional_numbers,
    read_camera,
    read_exposure,
    read_orientation,
)
from cycleisp_runtime.readers.plausibility import refuse_dark, signal_warnings
from cycleisp_runtime.readers.storage import check_dng_storage, check_frame_size
from cycleisp_runtime.tiff import Directory, Tiff, shown

__all__ = ["read_dng"]

_VALUE_MAPPING_OPCODES = {
    OpcodeId.FixVignetteRadial,
    OpcodeId.MapTable,
    OpcodeId.MapPolynomial,
    OpcodeId.GainMap,
    OpcodeId.DeltaPerRow,
    OpcodeId.DeltaPerColumn,
    OpcodeId.ScalePerRow,
    OpcodeId.ScalePerColumn,
}


def read_dng(tiff: Tiff, file: IO[bytes], source: Path, limits: Limits) -> RawFrame:
    """The Bayer frame of a DNG.

    Raises:
        InputError: where it holds no Bayer mosaic of integers, contradicts itself, is cut short,
            or cannot be decoded within the limits.
    """
    directory = _mosaic_directory(tiff)
    size = check_frame_size(tiff, directory, limits)
    bits, storage_warnings = check_dng_storage(tiff, directory, size, limits)
    phase = phase_from_tags(tiff, directory)
    plane_colors = _plane_colors(tiff, directory)
    area = read_active_area(tiff, directory, size.height, size.width)
    levels = read_levels(tiff, directory, area, bits)
    table = linearization_table(tiff, directory)
    reserved_dn, opcode_warnings = _opcode_facts(tiff, directory, table)
    white_balance, balance_warnings = read_white_balance(tiff)
    color_matrix, matrix_warnings = read_color_matrix(tiff)
    noise_profile, noise_warnings = read_noise_profile(tiff, directory, plane_colors)
    orientation, orientation_warnings = read_orientation(tiff)

    samples, facts = libraw.decode(file, source, limits)
    if not facts.flat or samples.shape != size:
        raise InputError(
            "LibRaw decodes another picture of this file than its mosaic",
            subject=source,
            wanted=f"a mosaic of {size.width}x{size.height}",
        )
    visible = samples[area.slices]
    refuse_dark(visible, source)
    has_black, has_white = (
        directory.get(tag) is not None for tag in (Tag.BlackLevel, Tag.WhiteLevel)
    )
    return RawFrame(
        samples=samples,
        cfa=phase,
        black=levels.black,
        white=levels.white,
        levels_from="file" if has_black and has_white else "default",
        area=area,
        black_rows=levels.black_rows,
        black_columns=levels.black_columns,
        white_balance=white_balance,
        color_matrix=color_matrix,
        orientation=orientation,
        exposure=read_exposure(tiff),
        camera=read_camera(tiff),
        noise_profile=noise_profile,
        reserved_dn=reserved_dn,
        source=source,
        warnings=(
            *storage_warnings,
            *levels.warnings,
            *signal_warnings(visible, max(levels.black), levels.white, black_is_known=has_black),
            *_table_warnings(table, bits, levels.white, int(visible.max())),
            *opcode_warnings,
            *balance_warnings,
            *matrix_warnings,
            *noise_warnings,
            *_earlier_denoising(tiff, directory),
            *orientation_warnings,
        ),
    )


def _mosaic_directory(tiff: Tiff) -> Directory:
    found = mosaic_directories(tiff)
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(
            "the file holds several RAW frames",
            subject=tiff.source,
            met=len(found),
            wanted=1,
            hint="split it into one file per frame",
        )
    for directory in tiff.directories:
        photometric = tiff.find(directory, Tag.PhotometricInterpretation)
        if photometric == (Photometric.LINEAR_RAW,):
            if tiff.find(directory, Tag.SamplesPerPixel) in (None, (1,)):
                raise InputError(
                    "monochrome sensor: there is no colour mosaic", subject=tiff.source
                )
            raise InputError(
                "already demosaicked (LinearRaw): every pixel has all colours",
                subject=tiff.source,
                hint="give the camera's own RAW file",
            )
    raise InputError(
        "there is no colour filter mosaic: a monochrome or already developed picture",
        subject=tiff.source,
        hint="give the camera's own RAW file",
    )


def _plane_colors(tiff: Tiff, directory: Directory) -> tuple[int, int, int]:
    """CFAPlaneColor: which colour each plane is; red, green, blue where it is absent."""
    colors = tiff.find(directory, Tag.CFAPlaneColor) or (0, 1, 2)
    if sorted(colors) != [0, 1, 2]:
        raise InputError(
            "the colour planes are not red, green and blue",
            subject=tiff.source,
            met=f"CFAPlaneColor {shown(colors)}",
        )
    first, second, third = map(int, colors)
    return first, second, third


def _opcode_facts(
    tiff: Tiff, directory: Directory, table: tuple[int, ...] | None
) -> tuple[int | None, tuple[str, ...]]:
    """The DN that marks defective samples, and warnings, from OpcodeList1.

    List 1 acts on codes, before the linearization table. The samples here are behind the table, so
    the mark goes through it, and a list that maps values cannot be combined with a table.
    """
    found = opcodes(tiff, directory, Tag.OpcodeList1)
    if not any(opcode.number in _VALUE_MAPPING_OPCODES for opcode in found):
        return _reserved_dn(found, table), ()
    if table is not None:
        raise InputError(
            "OpcodeList1 maps values ahead of a linearization table, which is not supported",
            subject=tiff.source,
            hint="convert the file with Adobe DNG Converter",
        )
    warning = "OpcodeList1 maps values before the black level holds; it is not applied here."
    return _reserved_dn(found, table), (warning,)


def _reserved_dn(found: tuple[Opcode, ...], table: tuple[int, ...] | None) -> int | None:
    """FixBadPixelsConstant: a LONG with the mark, then the phase of its mosaic."""
    for opcode in found:
        if opcode.number == OpcodeId.FixBadPixelsConstant and len(opcode.parameters) >= 4:
            code = int.from_bytes(opcode.parameters[:4], "big")
            if table is not None:
                code = table[min(code, len(table) - 1)]
            return code if code <= 65535 else None
    return None


def _table_warnings(
    table: tuple[int, ...] | None, bits: int, white: float, brightest: int
) -> tuple[str, ...]:
    """A table that ends early, below white, and that samples ran into."""
    if table is None or len(table) >= 2**bits or table[-1] >= white or brightest != table[-1]:
        return ()
    end = f"code {len(table) - 1} of {bits} bits"
    return (f"The linearization table ends at {end}; samples beyond it have its last value.",)


def _earlier_denoising(tiff: Tiff, directory: Directory) -> tuple[str, ...]:
    applied = optional_numbers(tiff, (directory, *tiff.directories), Tag.NoiseReductionApplied)
    if applied and applied[0] > 0:
        return (f"Noise reduction was applied to this file before (by {applied[0]:.0%}).",)
    return ()
