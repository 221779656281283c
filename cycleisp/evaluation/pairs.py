"""Any folder of noisy and clean sRGB pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cycleisp.data.photographs import load_photograph
from cycleisp.evaluation.denoisers import SrgbDenoiser
from cycleisp.evaluation.scores import Judgement, judged_srgb
from cycleisp_runtime.errors import InputError

__all__ = ["PicturePair", "find_picture_pairs", "judged_pair"]

_SUFFIXES = {".bmp", ".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp"}
_MOST_PIXELS = 2**24
"""A network without tiles takes some kB per pixel."""


@dataclass(frozen=True)
class PicturePair:
    """Two files of one scene.

    Attributes:
        name: what both names begin with.
        group: the name up to the first underscore.
        noisy: the input.
        clean: the truth.
    """

    name: str
    group: str
    noisy: Path
    clean: Path


def find_picture_pairs(folder: Path) -> list[PicturePair]:
    """Pairs NAME_noisy.EXT and NAME_clean.EXT, or noisy/NAME.EXT and clean/NAME.EXT, by name.

    Raises:
        InputError: where the folder cannot be read, a picture has no partner or two, or there is
            no pair.
    """
    found: dict[str, dict[str, Path]] = {"noisy": {}, "clean": {}}
    for path in _pictures(folder):
        name, _, kind = path.stem.rpartition("_")
        if path.parent != folder:
            name, kind = path.stem, path.parent.name
        if kind in found:
            if name in found[kind]:
                raise InputError(f"two {kind} pictures of one name", subject=path)
            found[kind][name] = path
    alone = sorted(found["noisy"].keys() ^ found["clean"].keys())
    if alone or not found["noisy"]:
        raise InputError(
            "pictures without their partner" if alone else "no pair of pictures",
            subject=folder,
            met=", ".join(alone[:3]) or None,
            wanted="NAME_noisy.png and NAME_clean.png, or noisy/NAME.png and clean/NAME.png",
        )
    return [
        PicturePair(name, name.partition("_")[0], path, found["clean"][name])
        for name, path in sorted(found["noisy"].items())
    ]


def _pictures(folder: Path) -> list[Path]:
    try:
        inside = [path for name in ("noisy", "clean") if (path := folder / name).is_dir()]
        paths = [path for each in (folder, *inside) for path in each.iterdir()]
    except OSError as error:
        raise InputError("cannot be read", subject=folder, met=error.strerror) from error
    return [path for path in paths if path.suffix.lower() in _SUFFIXES]


def judged_pair(denoise: SrgbDenoiser, pair: PicturePair) -> Judgement:
    """Protocol of ``cycleisp evaluate pairs``, for one pair.

    Both pictures as 8-bit sRGB, R, G, B; the network sees the whole picture in [0, 1]; its output
    is clipped and rounded to 8 bits; peak 255; PSNR over all three channels, SSIM per channel.

    Raises:
        InputError: where a picture cannot be read, or they do not fit each other.
    """
    noisy, clean = load_photograph(pair.noisy), load_photograph(pair.clean)
    height, width = noisy.shape[:2]
    if noisy.shape != clean.shape or min(height, width) < 11 or height * width > _MOST_PIXELS:
        raise InputError(
            "not a pair that can be judged",
            subject=pair.noisy,
            met=f"{width}x{height} and {clean.shape[1]}x{clean.shape[0]}",
            wanted="equal sizes, sides of 11 and more, 16 MP at most",
        )
    return judged_srgb(denoise, noisy, clean)
