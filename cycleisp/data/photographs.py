"""Clean photographs in memory, and random patches of them."""

from __future__ import annotations

import fnmatch
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from cycleisp_runtime.errors import InputError, SettingsError

__all__ = [
    "Photographs",
    "load_photograph",
    "load_photographs",
    "random_patch",
    "random_place",
    "random_reduction",
]

_SUFFIXES = {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp"}

_REDUCTION_SHARES = (0.4, 0.4, 0.2)
"""How often a patch is reduced by 1, 2 and 3: the more, the denser its texture and the less of what
a JPEG encoder left."""

_DETAIL_SHARE = 0.5
"""How often the more detailed of two places is taken: photographs are mostly sky and wall, and a
network that mostly sees those takes dense foliage for noise."""


@dataclass(frozen=True)
class Photographs:
    """sRGB codes (H, W, 3) by name, in two parts, and what could not be used.

    Attributes:
        training: what networks learn from.
        held_out: what they are judged by.
        skipped: why a picture is in neither part, by name.
    """

    training: dict[str, npt.NDArray[np.uint8]]
    held_out: dict[str, npt.NDArray[np.uint8]]
    skipped: dict[str, str]

    def manifest(self) -> dict[str, object]:
        """SHA-256 of the codes of every picture that is trained on, and the names of the others."""
        return {
            "trained_on": {
                name: hashlib.sha256(picture.tobytes()).hexdigest()
                for name, picture in self.training.items()
            },
            "held_out": list(self.held_out),
            "skipped": self.skipped,
        }


def load_photographs(
    folder: Path, *, pattern: str, minimum_side: int, held_out: int
) -> Photographs:
    """The pictures of a folder whose name matches; those that cannot be used are skipped.

    Args:
        folder: where they stand.
        pattern: a name, with ``*`` and ``?`` for what varies.
        minimum_side: pictures with a side below it are skipped.
        held_out: every n-th picture, by name, is not trained on.

    Raises:
        InputError: where the folder cannot be read.
        SettingsError: where too few pictures are left to hold one out.
    """
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise InputError(
            "the folder of photographs cannot be read", subject=folder, met=error.strerror
        ) from error
    pictures: dict[str, npt.NDArray[np.uint8]] = {}
    skipped: dict[str, str] = {}
    for path in paths:
        if path.suffix.lower() in _SUFFIXES and fnmatch.fnmatchcase(path.name, pattern):
            try:
                codes = load_photograph(path)
            except InputError as error:
                skipped[path.name] = error.reason
                continue
            if min(codes.shape[:2]) >= minimum_side:
                pictures[path.name] = codes
            else:
                skipped[path.name] = f"a side of less than {minimum_side} pixels"
    if len(pictures) < held_out:
        raise SettingsError(
            "too few usable pictures to hold some out",
            subject=folder,
            met=f"{len(pictures)}, and {len(skipped)} that cannot be used",
            wanted=f"at least {held_out} that match {pattern!r} with sides of {minimum_side}",
            hint="add pictures, or make held_out or patch smaller",
        )
    names = list(pictures)
    judged = set(names[held_out // 2 :: held_out])
    return Photographs(
        {name: pictures[name] for name in names if name not in judged},
        {name: pictures[name] for name in names if name in judged},
        skipped,
    )


def load_photograph(path: Path) -> npt.NDArray[np.uint8]:
    """sRGB codes (H, W, 3) of one picture.

    Raises:
        InputError: where it cannot be read.
    """
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except Image.DecompressionBombError as error:
        raise InputError("the picture is too large", subject=path, hint="reduce it") from error
    except (OSError, SyntaxError) as error:  # Pillow's word for a broken chunk of a PNG
        raise InputError("not a readable picture", subject=path) from error


def random_patch(
    picture: npt.NDArray[np.uint8], side: int, rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """A random square (side, side, 3) of a picture, maybe reduced, flipped and transposed.

    Reduction is by the mean of squares of codes: denser texture, less of what a JPEG encoder left.
    """
    reduction = random_reduction(picture, side, rng)
    codes = random_place(picture, side, reduction, rng)
    if reduction > 1:
        squares = codes.reshape(side, reduction, side, reduction, 3).astype(np.uint16)
        codes = np.rint(squares.sum(axis=(1, 3)) / np.float32(reduction**2)).astype(np.uint8)
    return codes


def random_reduction(picture: npt.NDArray[np.uint8], side: int, rng: np.random.Generator) -> int:
    """By how much a picture is reduced, 1 to 3, if squares of ``side`` are to be left."""
    wanted = int(rng.choice(len(_REDUCTION_SHARES), p=_REDUCTION_SHARES)) + 1
    return min(wanted, int(min(picture.shape[:2])) // side)


def random_place(
    picture: npt.NDArray[np.uint8], side: int, reduction: int, rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """A random square of ``side * reduction`` pixels, flipped and transposed at random.

    Half of the time it is the more detailed of two places.
    """
    codes = _random_square(picture, side * reduction, rng)
    if rng.random() < _DETAIL_SHARE:
        other = _random_square(picture, side * reduction, rng)
        codes = max(codes, other, key=lambda square: _detail(square, reduction))
    if rng.random() < 0.5:
        codes = codes[:, ::-1]
    if rng.random() < 0.5:
        codes = codes[::-1]
    if rng.random() < 0.5:
        codes = codes.transpose(1, 0, 2)
    return codes


def _random_square(
    picture: npt.NDArray[np.uint8], side: int, rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    top, left = (int(rng.integers(extent - side + 1)) for extent in picture.shape[:2])
    return picture[top : top + side, left : left + side]


def _detail(codes: npt.NDArray[np.uint8], reduction: int) -> float:
    """Mean step between neighbours at the scale at which the patch will be seen."""
    green = codes[::reduction, ::reduction, 1].astype(np.int16)
    return float(np.abs(np.diff(green, axis=1)).mean())
