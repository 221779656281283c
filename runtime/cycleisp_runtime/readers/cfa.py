"""From a file's word about its colour filters to a Bayer phase, or to a refusal that names them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cycleisp_runtime.bayer import Phase
from cycleisp_runtime.dng import Tag
from cycleisp_runtime.errors import InputError
from cycleisp_runtime.readers.libraw import LibRawFacts
from cycleisp_runtime.tiff import Directory, Tiff, shown

__all__ = ["phase_from_libraw", "phase_from_tags"]

_FILTERS: dict[float, str] = dict(
    enumerate(("red", "green", "blue", "cyan", "magenta", "yellow", "white"))
)
"""Codes of CFAPattern (TIFF/EP, ISO 12234-2)."""

_LIBRAW_FILTERS = {
    "R": "red",
    "G": "green",
    "B": "blue",
    "C": "cyan",
    "M": "magenta",
    "Y": "yellow",
    "E": "emerald",
}


def phase_from_tags(tiff: Tiff, directory: Directory) -> Phase:
    """The phase that CFARepeatPatternDim and CFAPattern declare.

    In a DNG it holds at the corner of ActiveArea, elsewhere at the corner of the stored frame.

    Raises:
        InputError: where a tag is missing, or this is no red-green-blue Bayer pattern.
    """
    sides = tiff.find(directory, Tag.CFARepeatPatternDim)
    codes = tiff.find(directory, Tag.CFAPattern)
    if sides is None or codes is None:
        raise InputError(
            "the file does not say how its colour filters are arranged",
            subject=tiff.source,
            wanted="tags CFARepeatPatternDim and CFAPattern",
        )
    if sides != (2, 2):
        raise _not_bayer(_array_name(sides, codes), tiff.source)
    if len(codes) != 4:
        raise InputError(
            "the colour filter pattern is damaged",
            subject=tiff.source,
            met=f"{len(codes)} entries",
            wanted="4, for a 2x2 cell",
        )
    return _bayer_phase([_FILTERS.get(code, f"code {code:g}") for code in codes], tiff.source)


def phase_from_libraw(facts: LibRawFacts, colors: tuple[int, int, int, int], source: Path) -> Phase:
    """The phase of a cell of LibRaw's colour indices.

    Raises:
        InputError: where LibRaw shows no mosaic, or none that is red-green-blue Bayer.
    """
    if not facts.flat:
        raise InputError(
            "already demosaicked or no colour filter mosaic: every pixel has all colours",
            subject=source,
            hint="give the camera's own RAW file",
        )
    if facts.color_count == 1:
        raise InputError("monochrome sensor: there is no colour filter mosaic", subject=source)
    if facts.pattern_sides != (2, 2):
        raise _not_bayer(_array_name(facts.pattern_sides, ()), source)
    if not all(0 <= color < len(facts.colors) for color in colors):
        raise _not_bayer("an unknown colour filter array", source)
    letters = [facts.colors[color] for color in colors]
    return _bayer_phase([_LIBRAW_FILTERS.get(letter, letter) for letter in letters], source)


def _bayer_phase(names: Sequence[str], source: Path | None) -> Phase:
    """Three colours, and the greens on a diagonal: exactly what Phase can name."""
    initials = {"red": "R", "green": "G", "blue": "B"}
    cell = "".join(initials.get(name, "?") for name in names)
    if cell not in Phase.__members__:
        raise _not_bayer(f"a colour filter cell of {', '.join(names)}", source)
    return Phase(cell)


def _array_name(sides: Sequence[float], codes: Sequence[float]) -> str:
    """A name for a pattern with these sides; ``codes`` row by row, or empty where not known."""
    if sides == (6, 6):
        return "X-Trans colour filter array"
    if sides == (4, 4) and len(codes) == 16 and len({*codes[0:2], *codes[4:6]}) == 1:
        return "quad-Bayer colour filter array"
    return f"colour filter array of {shown(sides).replace(', ', ' x ')}"


def _not_bayer(name: str, source: Path | None) -> InputError:
    return InputError(f"{name}; only 2x2 red-green-blue Bayer is supported", subject=source)
