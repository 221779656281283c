"""Rendered pictures as files: PNG, JPEG and TIFF, with their colour profile and EXIF kept.

Pillow would read PNGs of 16 bits as 8 without a word, so they are refused; TIFF holds 16 bits.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cycleisp_runtime.errors import InputError, OutputError
from cycleisp_runtime.writers.atomic import atomic_output

__all__ = ["PICTURE_SUFFIXES", "PictureFile", "read_picture", "write_picture"]

MAX_PIXELS = 1 << 27
"""A picture of 134 MP takes 0.4 GB at 8 bits. Pillow itself stops at 179 MP."""

MAX_FILE_BYTES = 1 << 31

JPEG_QUALITY = 95
"""The highest that Pillow recommends."""

_FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}

PICTURE_SUFFIXES = frozenset(_FORMATS)

# Portable Network Graphics, 3rd edition, 11.2.1: the byte after width and height in IHDR.
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_DEPTH_AT = 24

_DNG_VERSION = 50706
"""A DNG's first picture is its thumbnail."""


@dataclass(frozen=True)
class PictureFile:
    """A picture and what its file says of it.

    Attributes:
        pixels: (H, W, 3), R, G, B as stored: uint8, uint16, or float32.
        icc_profile: the colour profile; None where there is none.
        exif: as EXIF stores it; None where there is none. It holds the turn that a viewer applies.
    """

    pixels: npt.NDArray[Any]
    icc_profile: bytes | None = None
    exif: bytes | None = None


def read_picture(path: Path) -> PictureFile:
    """The picture in a PNG, JPEG or TIFF file.

    Raises:
        InputError: where it cannot be read, has another suffix, is no RGB picture of 8 or 16 bits
            or float32, or is larger than 134 MP.
    """
    if path.suffix.lower() not in PICTURE_SUFFIXES:
        raise _not_rendered(f"suffix {path.suffix!r}", path)
    try:
        size = path.stat().st_size
        if not path.is_file() or size > MAX_FILE_BYTES:
            raise InputError(
                "not a plain file of a picture's size",
                subject=path,
                met=f"{size} bytes",
                wanted=f"a file of at most {MAX_FILE_BYTES} bytes",
            )
        encoded = path.read_bytes()
    except OSError as error:
        raise InputError("cannot be read", subject=path, met=error.strerror) from error
    read = _read_tiff if encoded[:2] in (b"II", b"MM") else _read_with_pillow
    try:
        return read(encoded, path)
    except InputError:
        raise
    except MemoryError as error:
        raise InputError("not enough memory for this picture", subject=path) from error
    except Exception as error:  # Pillow and tifffile raise whatever a damaged file makes of them
        raise InputError(f"not a picture that can be read: {error}", subject=path) from error


def write_picture(picture: PictureFile, path: Path, *, source: Path | None, force: bool) -> None:
    """The picture at ``path``, whole or not at all, in the format of its suffix.

    PNG and JPEG hold 8 bits: other pixels are rounded. TIFF keeps the pixels' type, and no EXIF.

    Raises:
        OutputError: where there is no format of this suffix, ``path`` is taken or the system
            refuses to write.
    """
    file_format = _FORMATS.get(path.suffix.lower())
    if file_format is None:
        raise OutputError(
            "no format of this suffix", subject=path, wanted=", ".join(sorted(PICTURE_SUFFIXES))
        )
    encoded = io.BytesIO()
    if file_format == "TIFF":
        import tifffile

        tifffile.imwrite(
            encoded,
            picture.pixels,
            photometric="rgb",
            software="cycleisp",
            metadata=None,
            iccprofile=picture.icc_profile,
        )
    else:
        from PIL import Image

        kept: dict[str, Any] = {"icc_profile": picture.icc_profile, "exif": picture.exif}
        settings = {name: value for name, value in kept.items() if value is not None}
        if file_format == "JPEG":
            settings.update(quality=JPEG_QUALITY, subsampling=0)
        Image.fromarray(_as_8_bits(picture.pixels)).save(encoded, file_format, **settings)
    with atomic_output(path, source=source, force=force) as file:
        file.write(encoded.getbuffer())


def _read_with_pillow(encoded: bytes, path: Path) -> PictureFile:
    from PIL import Image, UnidentifiedImageError

    if encoded.startswith(_PNG_SIGNATURE) and encoded[_PNG_DEPTH_AT : _PNG_DEPTH_AT + 1] == b"\x10":
        raise InputError(
            "PNGs of 16 bits are not read", subject=path, hint="convert it to a TIFF of 16 bits"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # its limit is below ours
        try:
            image = Image.open(io.BytesIO(encoded), formats=["PNG", "JPEG"])
        except UnidentifiedImageError as error:
            raise InputError("neither PNG nor JPEG nor TIFF", subject=path) from error
    _check_size(image.height, image.width, path)
    if image.mode != "RGB":
        raise _not_rgb(f"mode {image.mode}", path)
    pixels = np.asarray(image)
    return PictureFile(pixels, image.info.get("icc_profile"), image.info.get("exif"))


def _read_tiff(encoded: bytes, path: Path) -> PictureFile:
    import tifffile

    with tifffile.TiffFile(io.BytesIO(encoded)) as tiff:
        page = tiff.pages.first
        if _DNG_VERSION in page.tags:
            raise _not_rendered("a DNG", path)
        _check_size(page.imagelength, page.imagewidth, path)
        shape = (page.imagelength, page.imagewidth, 3)
        if page.photometric != tifffile.PHOTOMETRIC.RGB or page.shape != shape:
            raise _not_rgb(f"{tifffile.PHOTOMETRIC(page.photometric).name} {page.shape}", path)
        if page.dtype not in (np.uint8, np.uint16, np.float32):
            raise _not_rgb(str(page.dtype), path)
        pixels = page.asarray().astype(page.dtype.newbyteorder("="), copy=False)
        return PictureFile(pixels, page.iccprofile)


def _check_size(height: int, width: int, path: Path) -> None:
    """Before memory is taken for the pixels."""
    if height * width > MAX_PIXELS:
        raise InputError(
            "the picture is too large",
            subject=path,
            met=f"{width}x{height}",
            wanted=f"at most {MAX_PIXELS} pixels",
        )


def _not_rendered(met: str, path: Path) -> InputError:
    return InputError(
        "not a rendered picture",
        subject=path,
        met=met,
        wanted=" or ".join(sorted(PICTURE_SUFFIXES)),
        hint="a RAW file needs a model for RAW, such as edge",
    )


def _not_rgb(met: str, path: Path) -> InputError:
    return InputError(
        "not a picture in R, G, B without transparency",
        subject=path,
        met=met,
        wanted="RGB of 8 or 16 bits, or float32",
    )


def _as_8_bits(pixels: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    if pixels.dtype == np.uint8:
        return pixels
    highest = 65535 if pixels.dtype == np.uint16 else 1
    codes = pixels.astype(np.float32) * np.float32(255 / highest)
    rounded: npt.NDArray[np.uint8] = np.clip(np.rint(codes), 0, 255).astype(np.uint8)
    return rounded
