"""Which RAW container a file is, by its first bytes.

LibRaw takes a file without any known mark for a dump of some camera by its size alone, so a file
that is not listed here never gets that far.
"""

from __future__ import annotations

import enum
import mmap
from pathlib import Path

from cycleisp_runtime.errors import InputError
from cycleisp_runtime.tiff import Tiff, parse_tiff

__all__ = ["Container", "embedded_tiff", "identify"]


class Container(enum.Enum):
    """Containers that may hold a Bayer mosaic."""

    TIFF = "TIFF"
    """DNG, TIFF/EP and the many formats built on TIFF: ARW, CR2, NEF, ORF, PEF, RW2, SRW, ..."""
    RAF = "Fujifilm RAF"
    CR3 = "Canon CR3"
    CRW = "Canon CRW"
    MRW = "Minolta MRW"


_MARKS = (
    (0, b"II*\0", Container.TIFF),
    (0, b"MM\0*", Container.TIFF),
    (0, b"II+\0", Container.TIFF),  # BigTIFF: the TIFF walker refuses it by its name
    (0, b"MM\0+", Container.TIFF),
    (0, b"IIRO", Container.TIFF),  # Olympus ORF
    (0, b"IIRS", Container.TIFF),
    (0, b"MMOR", Container.TIFF),
    (0, b"IIU\0", Container.TIFF),  # Panasonic RW2
    (0, b"FUJIFILMCCD-RAW ", Container.RAF),
    (4, b"ftypcrx ", Container.CR3),
    (6, b"HEAPCCDR", Container.CRW),
    (0, b"\0MRM", Container.MRW),
)

_DEVELOPED = "a developed picture, not RAW"
_REFUSED = (
    (0, b"FOVb", "Foveon sensor (X3F): three colours at every pixel, not a Bayer mosaic"),
    (0, b"\xff\xd8\xff", f"a JPEG file: {_DEVELOPED}"),
    (0, b"\x89PNG", f"a PNG file: {_DEVELOPED}"),
    (4, b"ftypheic", f"an HEIF file: {_DEVELOPED}"),
    (4, b"ftypmif1", f"an HEIF file: {_DEVELOPED}"),
    (4, b"ftypavif", f"an AVIF file: {_DEVELOPED}"),
    (0, b"PK\3\4", "a ZIP archive, not a RAW file"),
)

_SEARCH_BYTES = 1 << 16
_EMBEDDED_BYTES = 1 << 20


def identify(data: bytes | mmap.mmap, source: Path | None = None) -> Container:
    """The container that the first bytes announce.

    Raises:
        InputError: where it is none that holds a mosaic.
    """
    for offset, mark, problem in _REFUSED:
        if data[offset : offset + len(mark)] == mark:
            raise InputError(problem, subject=source, hint="give the camera's RAW file")
    for offset, mark, container in _MARKS:
        if data[offset : offset + len(mark)] == mark:
            return container
    raise InputError(
        "no known RAW format: the file starts with none of the marks of a RAW container",
        subject=source,
        hint="cycleisp denoise and cycleisp stream read headerless sensor dumps, with --layout",
    )


def embedded_tiff(data: bytes | mmap.mmap, container: Container) -> Tiff | None:
    """Camera and exposure, which containers that are not TIFF hold in a small TIFF of its own.

    None where there is none, or a damaged one: names are not worth refusing a frame for. Fujifilm:
    the Exif segment of the preview, whose offset stands at byte 84; Canon CR3: the box CMT1;
    Minolta: the block TTW.
    """
    head = data[:_SEARCH_BYTES]
    start = -1
    if container is Container.RAF:
        preview = int.from_bytes(data[84:88], "big")
        if data[preview + 6 : preview + 12] == b"Exif\0\0":
            start = preview + 12
    elif container is Container.CR3 and b"CMT1" in head:
        start = head.index(b"CMT1") + 4
    elif container is Container.MRW and b"\0TTW" in head:
        start = head.index(b"\0TTW") + 8
    try:
        return None if start < 0 else parse_tiff(data[start : start + _EMBEDDED_BYTES])
    except InputError:
        return None
