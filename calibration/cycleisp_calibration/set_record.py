"""What is known of a calibration set: the schema of SET.json, and the arrays that go with it."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

__all__ = [
    "CHANNELS",
    "MAX_SAMPLES",
    "SetRecord",
    "SourceRecord",
    "TileNoise",
    "TileRecord",
    "tile_shapes",
]

CHANNELS: dict[str, int] = {"raw": 4, "srgb": 3}
"""Planes of the tiles of each task."""

MAX_SAMPLES = 1 << 26
"""Pixels of all tiles of a set: 1024 tiles of 256x256, half a gigabyte of RAW."""

Text = Annotated[str, Meta(max_length=4000)]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Meta(ge=0, le=1 << 32)]
Four = tuple[float, float, float, float]


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of ``SET.json``."""


class SourceRecord(_Record, frozen=True):
    """A file that tiles were cut from.

    Attributes:
        file: its name, without its folder.
        sha256: hash of the file.
        kind: "raw" frame or rendered "picture".
    """

    file: Text
    sha256: Sha256
    kind: Literal["raw", "picture"]


class TileNoise(_Record, frozen=True):
    """Noise of a tile: variance = shot * x + read, R, Gr, Gb, B, in normalised units.

    Attributes:
        source: "given" and put on a photograph, the file's noise "profile", or an "estimate".
    """

    shot: Four
    read: Four
    source: Literal["given", "profile", "estimate"]


class TileRecord(_Record, frozen=True):
    """Where a tile comes from.

    Attributes:
        source: index of its file in the set's sources.
        top: first row: in packed samples of a RAW frame, in pixels of a picture in sRGB.
        left: first column, the same.
        stratum: noise/brightness/texture, each in a word.
        noise: None for pictures as they are.
    """

    source: Count
    top: Count
    left: Count
    stratum: Text
    noise: TileNoise | None


class SetRecord(_Record, frozen=True):
    """``SET.json``.

    Attributes:
        format: version of this schema.
        task: "raw" for packed Bayer frames, "srgb" for rendered pictures.
        channels: planes of ``noisy``.
        side: of a tile in pixels or Bayer samples; RAW tiles are packed to half of it.
        seed: of the choice and of simulated noise.
        candidates: how many tiles could be chosen from.
        duplicates: how many of them were passed over because they are near one that was chosen.
        near: rms difference of the prints below which tiles count as near-duplicates.
        sources: files that were usable, by hash.
        skipped: files that were not usable, each "name: reason".
        tiles: in the order of the arrays.
        strata: how many tiles are in each stratum, empty ones among them.
        sha256: hash of ``SET.npz``.
    """

    format: Literal["cycleisp-calibration/1"]
    task: Literal["raw", "srgb"]
    channels: Count
    side: Annotated[int, Meta(ge=16, multiple_of=16, le=8192)]
    seed: Count
    candidates: Count
    duplicates: Count
    near: float
    sources: tuple[SourceRecord, ...]
    skipped: tuple[str, ...]
    tiles: Annotated[tuple[TileRecord, ...], Meta(min_length=1)]
    strata: dict[str, int]
    sha256: Sha256 = "0" * 64


def tile_shapes(task: str, side: int) -> dict[str, tuple[int, ...]]:
    """Shapes of one tile's inputs, by name."""
    if task == "srgb":
        return {"noisy": (3, side, side)}
    packed = (4, side // 2, side // 2)
    return {"noisy": packed, "variance": packed, "noise_scale": (1, 1, 1)}
