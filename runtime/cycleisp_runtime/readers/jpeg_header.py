"""The size that a JPEG stream inside a TIFF announces. ITU-T T.81, annex B."""

from __future__ import annotations

import mmap
from typing import NamedTuple

__all__ = ["JpegHeader", "read_jpeg_header"]

_START_OF_IMAGE = b"\xff\xd8"
_START_OF_SCAN = 0xDA
_EXTENDED_DCT, _LOSSLESS = 0xC1, 0xC3
_OTHER_FRAMES = {0xC0, 0xC2, *range(0xC5, 0xD0)} - {0xC8, 0xCC}


class JpegHeader(NamedTuple):
    """Lines, samples per line with all components side by side, and whether nothing is lost."""

    lines: int
    columns: int
    is_lossless: bool


def read_jpeg_header(data: bytes | mmap.mmap, start: int, end: int) -> JpegHeader | None:
    """The frame header of the stream in data[start:end].

    None where there is no well-formed one ahead of the first scan, more than one, or one of a
    coding that DNG mosaics do not use: theirs is lossless (SOF3) or 12-bit DCT (SOF1).
    """
    if data[start : start + 2] != _START_OF_IMAGE:
        return None
    found = None
    position = start + 2
    while position + 4 <= end and data[position] == 0xFF:
        marker = data[position + 1]
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        if marker == _START_OF_SCAN:
            return found
        if length < 2 or marker in _OTHER_FRAMES:
            return None
        if marker in (_EXTENDED_DCT, _LOSSLESS):
            header = data[position + 4 : position + 10]
            if found is not None or len(header) < 6:
                return None
            lines = int.from_bytes(header[1:3], "big")
            columns = int.from_bytes(header[3:5], "big") * header[5]
            found = JpegHeader(lines, columns, marker == _LOSSLESS)
        position += 2 + length
    return None
