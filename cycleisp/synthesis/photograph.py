"""Clean photographs from files of any format that Pillow reads, in all the bits that they have."""

from __future__ import annotations

import hashlib
import io
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os.path import realpath
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from cycleisp_runtime.errors import InputError
from cycleisp_runtime.text import printable

__all__ = ["Photograph", "PhotographFile", "find_photographs", "read_photograph"]

_SUFFIXES = frozenset(
    {".avif", ".bmp", ".jp2", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
"""What a folder is searched for. A file that is named one by one may have any suffix."""

_LARGEST_FILE = 1 << 30
"""Bytes."""

_MOST_PIXELS = 1 << 27
"""1.6 GB as float32; above what cameras make."""

_LEAST_SIDE = 12
"""Pixels: the colour branch mirrors ten."""

_IN_16_BITS = ("RGB;16", "RGBA;16")
"""How Pillow calls samples that it would otherwise cut down to 8 bits."""


@dataclass(frozen=True)
class PhotographFile:
    """A file, and its name as the results tell it: from the folder that was searched."""

    name: str
    path: Path


@dataclass(frozen=True)
class Photograph:
    """A picture in memory.

    Attributes:
        rgb: (3, H, W) float32, sRGB in [0, 1], turned upright.
        digest: SHA-256 of the file.
    """

    rgb: npt.NDArray[np.float32]
    digest: bytes

    def rng(self, seed: int) -> np.random.Generator:
        """The generator of this picture: the same wherever and whenever its content is met."""
        return np.random.default_rng([seed, int.from_bytes(self.digest[:16], "little")])


def find_photographs(inputs: Sequence[Path]) -> list[PhotographFile]:
    """The files that were named and the pictures in folders that were, by name; each once.

    Raises:
        InputError: where a folder cannot be searched, or there is no picture at all.
    """
    try:
        found = {
            realpath(file.path): file
            for path in sorted(inputs, reverse=True)
            for file in _pictures_of(path)
        }
    except OSError as error:
        raise InputError(
            "cannot be searched", subject=error.filename, met=error.strerror
        ) from error
    if not found:
        raise InputError(
            "no picture is there",
            subject=", ".join(map(str, inputs)),
            wanted=f"files in {' '.join(sorted(_SUFFIXES))}",
        )
    return sorted(found.values(), key=lambda file: (file.name, str(file.path)))


def _pictures_of(path: Path) -> Iterator[PhotographFile]:
    if not path.is_dir():
        yield PhotographFile(printable(path.name), path)
        return
    for file in path.rglob("*"):
        if file.suffix.lower() in _SUFFIXES and file.is_file():
            yield PhotographFile(printable(file.relative_to(path).as_posix()), file)


def read_photograph(path: Path) -> Photograph:
    """The picture in a file.

    8 bits are divided by 255, 16 bits by 65535. Turned as EXIF says; what is transparent shows
    white; grey becomes R = G = B. Colours are taken for sRGB whatever profile the file holds.

    Raises:
        InputError: where it is no readable picture, or too large or too small.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_FILE + 1)
        if len(content) > _LARGEST_FILE:
            raise InputError("the file is too large", subject=path, wanted=f"{_LARGEST_FILE} bytes")
        rgb = _decoded(path, content)
    except Image.DecompressionBombError as error:
        raise InputError("the picture is too large", subject=path, hint="reduce it") from error
    except OSError as error:
        met = error.strerror or "no picture, or a damaged one"
        raise InputError("not a readable picture", subject=path, met=met) from error
    except (SyntaxError, ValueError, EOFError, IndexError, OverflowError) as error:
        # What Pillow's decoders raise for broken chunks, tags and palettes.
        raise InputError("not a readable picture", subject=path, met="a damaged one") from error
    return Photograph(rgb, hashlib.sha256(content).digest())


def _decoded(path: Path, content: bytes) -> npt.NDArray[np.float32]:
    with Image.open(io.BytesIO(content)) as image:
        width, height = image.size
        if min(image.size) < _LEAST_SIDE or width * height > _MOST_PIXELS:
            raise InputError(
                "the picture is too small or too large",
                subject=path,
                met=f"{width}x{height}",
                wanted=f"sides of {_LEAST_SIDE} or more, at most {_MOST_PIXELS} pixels",
            )
        if image.mode == "F":
            raise InputError(
                "the range of floating-point pictures is not known",
                subject=path,
                wanted="8 or 16 bits per sample",
            )
        if _raw_mode(image).startswith(_IN_16_BITS):
            codes, white = _codes_of_16_bits(content), 65535
        elif image.mode.startswith("I"):
            grey = np.asarray(ImageOps.exif_transpose(image))
            codes, white = np.stack([grey] * 3, axis=2), 65535
        else:
            upright = ImageOps.exif_transpose(image)
            opaque = not upright.has_transparency_data
            codes, white = np.asarray(upright.convert("RGB" if opaque else "RGBA")), 255
    samples = np.ascontiguousarray(codes.transpose(2, 0, 1), np.float32) / np.float32(white)
    if len(samples) == 4:
        samples = samples[:3] * samples[3] + (1 - samples[3])
    return np.clip(samples, 0, 1, out=samples)


def _raw_mode(image: Image.Image) -> str:
    """How the file holds its samples, in Pillow's words; empty where it is not told."""
    tiles = getattr(image, "tile", [])
    arguments = tiles[0].args if tiles else ""
    mode = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return mode if isinstance(mode, str) else ""


def _codes_of_16_bits(content: bytes) -> npt.NDArray[np.uint16]:
    """(H, W, 3 or 4), from two decodings.

    Pillow has no mode for such pictures and keeps the high byte of each sample. Told that the file
    has the other byte order, it keeps the low byte.
    """
    low, high = (
        np.asarray(_with_byte_order(content, other=other), np.uint16) for other in (True, False)
    )
    codes: npt.NDArray[np.uint16] = high << np.uint16(8) | low
    return codes


def _with_byte_order(content: bytes, *, other: bool) -> Image.Image:
    with Image.open(io.BytesIO(content)) as image:
        if other:
            mode = _raw_mode(image)
            native = (
                "B" if sys.byteorder == "big" else "L"
            )  # which libtiff delivers and N stands for
            swapped = mode[:-1] + {"B": "L", "L": "B"}[mode[-1].replace("N", native)]
            image.tile = [
                tile._replace(
                    args=(swapped, *tile.args[1:]) if isinstance(tile.args, tuple) else swapped
                )
                for tile in image.tile
            ]
        return ImageOps.exif_transpose(image)
