"""Where the samples of a TIFF directory lie, and whether they can be what the directory says.

LibRaw reads on where a strip ends early, believes the size inside a JPEG stream, and follows only
the first of several strips. What it would get wrong without a word is refused here first.
"""

from __future__ import annotations

from typing import NamedTuple

from cycleisp_runtime.dng import Tag
from cycleisp_runtime.errors import InputError
from cycleisp_runtime.readers.jpeg_header import read_jpeg_header
from cycleisp_runtime.readers.limits import Limits
from cycleisp_runtime.tiff import Directory, Tiff, shown

__all__ = ["FrameSize", "check_dng_storage", "check_extent", "check_frame_size"]

UNCOMPRESSED = 1
JPEG = 7
_COMPRESSION_NAMES = {
    8: "deflate",
    9: "VC-5 (GoPro)",
    34892: "lossy JPEG",
    52546: "JPEG XL",
}
_MAX_BLOCKS = 1 << 17
_TIFF_HEADER_BYTES = 8

_LOSSLESS_SAMPLES_PER_BYTE = 8
"""A Huffman code has one bit or more, and every sample has one."""

_DCT_SAMPLES_PER_BYTE = 256
"""A block of 64 samples has two codes or more."""


class FrameSize(NamedTuple):
    """Rows and columns of the stored frame, masked borders included."""

    height: int
    width: int


class _Block(NamedTuple):
    """A strip or tile: its bytes, its samples with overhang, and its samples in the frame."""

    offset: int
    size: int
    rows: int
    columns: int
    rows_inside: int
    columns_inside: int


def check_frame_size(tiff: Tiff, directory: Directory, limits: Limits) -> FrameSize:
    """The declared size of the stored frame.

    Raises:
        InputError: where it is missing, smaller than one cell, or beyond the limits.
    """
    height = _integer(tiff, directory, Tag.ImageLength)
    width = _integer(tiff, directory, Tag.ImageWidth)
    if height < 2 or width < 2:
        raise InputError(
            "the frame is smaller than one 2x2 cell",
            subject=tiff.source,
            met=f"{width}x{height}",
        )
    allowed = limits.samples(len(tiff.data))
    if height * width > allowed:
        raise InputError(
            "the declared frame is too large for a file of this size",
            subject=tiff.source,
            met=f"{width}x{height}",
            wanted=f"at most {allowed} samples in {len(tiff.data)} bytes",
            hint="the file is cut short, or made to do harm",
        )
    return FrameSize(height, width)


def check_extent(tiff: Tiff, directory: Directory) -> None:
    """Refuse a directory whose strips or tiles do not all lie in the file, or have gaps.

    For formats whose coding is not known here. A directory without strips or tiles passes.
    """
    for offsets_tag, counts_tag in (
        (Tag.StripOffsets, Tag.StripByteCounts),
        (Tag.TileOffsets, Tag.TileByteCounts),
    ):
        offsets = _integers(tiff, directory, offsets_tag)
        sizes = _integers(tiff, directory, counts_tag)
        ends = [offset + size for offset, size in zip(offsets, sizes, strict=False)]
        if max(ends, default=0) > len(tiff.data):
            raise _truncated(tiff)
        is_plain = _integer(tiff, directory, Tag.Compression, default=0) == UNCOMPRESSED
        if is_plain and offsets_tag is Tag.StripOffsets and [*offsets[1:]] != ends[:-1]:
            raise _scattered(tiff)


def check_dng_storage(
    tiff: Tiff, directory: Directory, size: FrameSize, limits: Limits
) -> tuple[int, tuple[str, ...]]:
    """Bits per sample of a DNG's mosaic, and warnings about its strips or tiles.

    Raises:
        InputError: where the samples are not integers of 8 to 16 bits, are coded or arranged in
            a way that LibRaw cannot read, or cannot all be in the file.
    """
    bits = _sample_bits(tiff, directory)
    _refuse_rearranged(tiff, directory)
    compression = _integer(tiff, directory, Tag.Compression, default=UNCOMPRESSED)
    if compression not in (UNCOMPRESSED, JPEG):
        name = _COMPRESSION_NAMES.get(compression, "unknown")
        raise InputError(
            "the samples are compressed in a way that is not supported",
            subject=tiff.source,
            met=f"{compression}, {name}",
            wanted="1, uncompressed, or 7, JPEG",
            hint="convert the file with Adobe DNG Converter",
        )
    blocks, is_tiled = _blocks(tiff, directory, size, limits)
    for block in blocks:
        if block.offset < _TIFF_HEADER_BYTES:
            raise InputError(
                "the picture data are missing: their offset points into the file header",
                subject=tiff.source,
            )
        if block.offset + block.size > len(tiff.data):
            raise _truncated(tiff)
    if compression == JPEG:
        return bits, _check_jpeg(tiff, blocks)
    return bits, _check_uncompressed(tiff, blocks, bits, is_tiled)


def _sample_bits(tiff: Tiff, directory: Directory) -> int:
    if _integer(tiff, directory, Tag.SamplesPerPixel, default=1) != 1:
        raise InputError("more than one sample per pixel: not a mosaic", subject=tiff.source)
    if _integer(tiff, directory, Tag.SampleFormat, default=1) != 1:
        raise InputError(
            "floating-point or signed samples are not supported",
            subject=tiff.source,
            wanted="unsigned integers",
        )
    bits = _integer(tiff, directory, Tag.BitsPerSample)
    if not 8 <= bits <= 16:
        raise InputError(
            "samples of this depth are not supported",
            subject=tiff.source,
            met=f"{bits} bits",
            wanted="8 to 16 bits",
        )
    return bits


def _refuse_rearranged(tiff: Tiff, directory: Directory) -> None:
    """Storage orders and sensor layouts that LibRaw ignores; absent tags mean the plain one."""
    for tag, plain in (
        (Tag.CFALayout, (1,)),
        (Tag.SubTileBlockSize, (1, 1)),
        (Tag.RowInterleaveFactor, (1,)),
        (Tag.ColumnInterleaveFactor, (1,)),
        (Tag.FillOrder, (1,)),
    ):
        value = tiff.find(directory, tag)
        if value is not None and value != plain:
            raise InputError(
                "the samples are stored in an order that is not supported",
                subject=tiff.source,
                met=f"{tag.name} {shown(value)}",
                wanted=shown(plain),
            )


def _blocks(
    tiff: Tiff, directory: Directory, size: FrameSize, limits: Limits
) -> tuple[list[_Block], bool]:
    """Every strip or tile, row by row, and whether they are tiles."""
    is_tiled = directory.get(Tag.TileOffsets) is not None
    if is_tiled and directory.get(Tag.StripOffsets) is not None:
        raise InputError("the picture is declared as strips and as tiles", subject=tiff.source)
    if is_tiled:
        offsets = _integers(tiff, directory, Tag.TileOffsets)
        sizes = _integers(tiff, directory, Tag.TileByteCounts)
        rows = _integer(tiff, directory, Tag.TileLength)
        columns = _integer(tiff, directory, Tag.TileWidth)
    else:
        offsets = _integers(tiff, directory, Tag.StripOffsets)
        sizes = _integers(tiff, directory, Tag.StripByteCounts)
        rows = _integer(tiff, directory, Tag.RowsPerStrip, default=size.height)
        rows = min(rows, size.height)
        columns = size.width
    if rows < 1 or columns < 1 or rows * columns > limits.samples(len(tiff.data)):
        raise InputError(
            "strips or tiles have an impossible size",
            subject=tiff.source,
            met=f"{columns}x{rows}",
        )
    down, across = -(-size.height // rows), -(-size.width // columns)
    wanted = down * across
    if len(offsets) != wanted or len(sizes) != wanted:
        raise InputError(
            "the picture is incomplete: strips or tiles are missing",
            subject=tiff.source,
            met=f"{len(offsets)} offsets, {len(sizes)} byte counts",
            wanted=wanted,
        )
    if wanted > _MAX_BLOCKS:
        raise InputError("too many strips or tiles", subject=tiff.source, met=wanted)
    blocks = []
    for index, (offset, byte_count) in enumerate(zip(offsets, sizes, strict=True)):
        top, left = index // across * rows, index % across * columns
        inside = min(rows, size.height - top), min(columns, size.width - left)
        # A last strip is short, a last tile is padded to its full size.
        stored_rows = rows if is_tiled else inside[0]
        blocks.append(_Block(offset, byte_count, stored_rows, columns, *inside))
    return blocks, is_tiled


def _check_uncompressed(
    tiff: Tiff, blocks: list[_Block], bits: int, is_tiled: bool
) -> tuple[str, ...]:
    needed = [block.rows * -(-block.columns * bits // 8) for block in blocks]
    for block, bytes_needed in zip(blocks, needed, strict=True):
        if block.offset + bytes_needed > len(tiff.data):
            raise _truncated(tiff)
        if bits not in (8, 16) and block.size >= 2 * block.rows * block.columns:
            raise InputError(
                "the samples seem to be 16-bit words, which the file does not say",
                subject=tiff.source,
                met=f"{bits} bits declared",
                hint="set BitsPerSample to 16, with its WhiteLevel given",
            )
    if not is_tiled:
        for block, following, bytes_needed in zip(blocks, blocks[1:], needed, strict=False):
            if block.offset + bytes_needed != following.offset:
                raise _scattered(tiff)
    if any(block.size < wanted for block, wanted in zip(blocks, needed, strict=True)):
        return ("A strip or tile declares fewer bytes than its samples need; all were read.",)
    return ()


def _check_jpeg(tiff: Tiff, blocks: list[_Block]) -> tuple[str, ...]:
    """Refuse streams that hold another number of samples than their tile, or too few bytes.

    DNG lets a stream arrange the samples of a tile in another shape, so only their number counts.
    """
    is_lossless = True
    for block in blocks:
        header = read_jpeg_header(tiff.data, block.offset, block.offset + block.size)
        if header is None:
            raise InputError(
                "the picture data are damaged, or not the JPEG that DNG allows",
                subject=tiff.source,
                hint="copy the file again from the camera",
            )
        held = header.lines * header.columns
        fits = block.rows_inside * block.columns_inside <= held <= block.rows * block.columns
        densest = _LOSSLESS_SAMPLES_PER_BYTE if header.is_lossless else _DCT_SAMPLES_PER_BYTE
        if not fits or held > densest * block.size:
            raise InputError(
                "a JPEG stream cannot hold the samples of its tile",
                subject=tiff.source,
                met=f"{header.columns}x{header.lines} in {block.size} bytes",
                wanted=f"{block.columns}x{block.rows}",
                hint="the file is damaged, or made to do harm",
            )
        is_lossless = is_lossless and header.is_lossless
    if is_lossless:
        return ()
    return ("The samples are lossy JPEG: fine texture and noise are not the sensor's own.",)


def _truncated(tiff: Tiff) -> InputError:
    return InputError(
        "the file is cut short: picture data lie beyond its end",
        subject=tiff.source,
        met=f"{len(tiff.data)} bytes",
        hint="copy the file again from the camera",
    )


def _scattered(tiff: Tiff) -> InputError:
    return InputError(
        "uncompressed strips are not stored one behind the other, which LibRaw reads wrongly",
        subject=tiff.source,
        hint="convert the file with Adobe DNG Converter",
    )


def _integer(tiff: Tiff, directory: Directory, tag: Tag, *, default: int | None = None) -> int:
    """The first value of a tag."""
    values = _integers(tiff, directory, tag)
    if not values:
        if default is not None:
            return default
        raise InputError(f"{tag.name} is missing", subject=tiff.source, hint="the file is damaged")
    return values[0]


def _integers(tiff: Tiff, directory: Directory, tag: Tag) -> tuple[int, ...]:
    """The values of a tag that counts something; none where it is absent."""
    values = tiff.find(directory, tag) or ()
    if not all(isinstance(value, int) and value >= 0 for value in values):
        raise InputError(
            f"{tag.name} holds something else than whole numbers",
            subject=tiff.source,
            hint="the file is damaged",
        )
    return tuple(map(int, values))
