"""Which writer makes which file."""

from __future__ import annotations

import contextlib
import mmap
from pathlib import Path
from typing import BinaryIO, Final

from cycleisp_runtime.dng import is_dng
from cycleisp_runtime.errors import InputError, SettingsError
from cycleisp_runtime.frame import RawFrame
from cycleisp_runtime.noise import NoiseModel
from cycleisp_runtime.tiff import Tiff, parse_tiff
from cycleisp_runtime.writers.atomic import atomic_output
from cycleisp_runtime.writers.dng_append import append_dng
from cycleisp_runtime.writers.dng_fields import Treatment
from cycleisp_runtime.writers.dng_new import new_dng
from cycleisp_runtime.writers.rendered import write_png, write_tiff

__all__ = ["OUTPUT_SUFFIXES", "write_frame"]


def write_frame(
    frame: RawFrame,
    path: Path,
    *,
    level_scale: int,
    noise_reduction: float,
    residual_noise: NoiseModel | None,
    force: bool = False,
) -> None:
    """The frame as a file, in the format that the suffix of ``path`` names.

    .dng: where ``frame.source`` is a DNG, that file with its samples replaced and every other tag
    kept; else a new DNG. Either holds the stored frame, uint16, uncompressed, not turned.

    .tif, .tiff, .png: the visible area rendered by LibRaw for looking at, sRGB, turned as the
    camera was held, 16 or 8 bits per channel.

    Args:
        frame: the frame to write, samples and levels already multiplied by ``level_scale``.
        path: the file to write; it appears whole or not at all.
        level_scale: what samples and levels of the source were multiplied by, 1 or more.
        noise_reduction: 0 for samples that were not denoised, up to 1 for all of it.
        residual_noise: noise left in the frame, normalised units; None where it is not known.
        force: whether a file at ``path`` may be replaced; the source never is.

    Raises:
        SettingsError: where the suffix names no format that we write, or a number is out of range.
        OutputError: where the file cannot be written there, or the format cannot hold the frame.
        InputError: where ``frame.source`` cannot be read again.
    """
    treatment = Treatment(level_scale, noise_reduction, residual_noise)
    write = _WRITERS.get(path.suffix.lower())
    if write is None:
        raise SettingsError(
            "this suffix names no format that we write",
            subject=path,
            wanted=" or ".join(OUTPUT_SUFFIXES),
        )
    with atomic_output(path, source=frame.source, force=force) as file:
        write(file, frame, treatment)


def _write_dng(file: BinaryIO, frame: RawFrame, treatment: Treatment) -> None:
    if frame.source is None:
        new_dng(file, frame, treatment)
        return
    with contextlib.ExitStack() as opened:
        try:
            source = opened.enter_context(frame.source.open("rb"))
            data = opened.enter_context(mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ))
        except (OSError, ValueError) as error:  # mmap answers an empty file with ValueError
            raise InputError("cannot be read again", subject=frame.source) from error
        dng = _parsed_dng(data, frame.source)
        if dng is None:
            new_dng(file, frame, treatment)
        else:
            append_dng(file, dng, frame, treatment)


def _parsed_dng(data: mmap.mmap, source: Path) -> Tiff | None:
    try:
        tiff = parse_tiff(data, source)
    except InputError:
        return None  # a RAW format that is no TIFF
    return tiff if is_dng(tiff) else None


_WRITERS: Final = {
    ".dng": _write_dng,
    ".tif": write_tiff,
    ".tiff": write_tiff,
    ".png": write_png,
}
OUTPUT_SUFFIXES: Final = tuple(_WRITERS)
"""Suffixes of the files that ``write_frame`` can write, with their dot, in lower case."""
