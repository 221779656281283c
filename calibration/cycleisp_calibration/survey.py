"""The tiles that a set can be chosen from: measured in one reading of all files, cut in another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cycleisp_calibration.contact_sheet import THUMBNAIL, thumbnail
from cycleisp_calibration.measures import PRINT_SIDE, fingerprint, is_constant, stratum
from cycleisp_calibration.set_file import hash_file
from cycleisp_calibration.set_record import MAX_SAMPLES, SourceRecord, tile_shapes
from cycleisp_calibration.views import Place, Task, View, is_picture, open_views
from cycleisp_runtime.errors import InputError, SettingsError
from cycleisp_runtime.noise import NoiseModel
from cycleisp_runtime.noise_source import NoiseChoice
from cycleisp_runtime.text import printable

__all__ = ["Candidate", "SetSettings", "Survey"]

_MOST_PLACES = 64
"""Of one file, drawn at random; so no frame of 100 MP outweighs the others."""

_MULTIPLE = 2 * PRINT_SIDE
"""Tile sides: whole squares of a print, of packed samples."""

_LEAST_SIDE = 128
"""In smaller tiles a print is too noisy to tell that two are of the same place."""


@dataclass(frozen=True)
class SetSettings:
    """What a set is to hold.

    Attributes:
        task: which networks it is for.
        tiles: how many are wanted.
        side: of a tile in pixels or Bayer samples; RAW tiles are packed to half of it.
        levels: noise to put on photographs; where empty, the low, middle and high level for RAW,
            and none for sRGB.
        seed: of the choice and of the noise.

    Raises:
        SettingsError: where the set would be too large, or its tiles cannot be packed.
    """

    task: Task = "raw"
    tiles: int = 500
    side: int = 256
    levels: tuple[NoiseModel, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if self.side < _LEAST_SIDE or self.side % _MULTIPLE:
            raise SettingsError(
                "not a side that tiles can have",
                subject="tile",
                met=self.side,
                wanted=f"a multiple of {_MULTIPLE} from {_LEAST_SIDE} on",
            )
        if not 1 <= self.tiles <= MAX_SAMPLES // self.side**2:
            raise SettingsError(
                "out of range",
                subject="tiles",
                met=self.tiles,
                wanted=f"1 to {MAX_SAMPLES // self.side**2} of {self.side}x{self.side}",
            )

    @property
    def step(self) -> int:
        """Side of a tile in the units of places: packed samples of RAW, pixels of a picture."""
        return self.side // 2 if self.task == "raw" else self.side


@dataclass(frozen=True)
class Candidate:
    """A tile that was looked at.

    Attributes:
        source: its file.
        view: number of the view of that file.
        place: its corner.
        choice: its noise; None for a picture as it is.
        stratum: one of ``STRATA``.
        print: its ``fingerprint``.
    """

    source: SourceRecord
    view: int
    place: Place
    choice: NoiseChoice | None
    stratum: str
    print: npt.NDArray[np.float32]


class Survey:
    """What is known of all files, and the way back to their tiles.

    Attributes:
        warnings: what makes a file's noise doubtful, one sentence each.
    """

    def __init__(self, settings: SetSettings) -> None:
        self._settings = settings
        self._paths: dict[SourceRecord, Path] = {}
        self._found: list[Candidate] = []
        self.warnings: list[str] = []

    @property
    def sources(self) -> tuple[SourceRecord, ...]:
        """Files with usable tiles, by their hash."""
        return tuple(sorted(self._paths, key=lambda source: source.sha256))

    @property
    def candidates(self) -> list[Candidate]:
        """Their tiles, in an order that does not depend on that of the files."""
        return sorted(self._found, key=lambda each: (each.source.sha256, each.view, each.place))

    def look(self, path: Path) -> None:
        """Add the tiles of one file to the candidates, if its content is new.

        Raises:
            InputError: where the file cannot be used.
            CalibrationError: where its noise cannot be told.
        """
        sha256 = hash_file(path)
        if any(source.sha256 == sha256 for source in self._paths):
            return
        source = SourceRecord(
            printable(path.name), sha256, "picture" if is_picture(path) else "raw"
        )
        found: list[Candidate] = []
        for number, view in enumerate(self._views(path, sha256)):
            found += self._candidates(source, number, view)
            doubts = view.choice.warnings if view.choice else ()
            self.warnings += (f"{path}: {doubt}" for doubt in doubts)
        if not found:
            raise InputError(
                "no tile that is not constant",
                subject=path,
                wanted=f"at least {self._settings.side}x{self._settings.side}",
                hint="a smaller --tile",
            )
        self._paths[source] = path
        self._found += found

    def _candidates(self, source: SourceRecord, number: int, view: View) -> Iterator[Candidate]:
        rng = np.random.default_rng((self._settings.seed, int(source.sha256, 16)))
        for place in rng.permutation(view.places())[:_MOST_PLACES].tolist():
            tile = view.cut(Place(*place))
            if not is_constant(tile.inputs["noisy"]):
                model = view.choice.model if view.choice else None
                yield Candidate(
                    source,
                    number,
                    Place(*place),
                    view.choice,
                    stratum(tile.light, model),
                    fingerprint(tile.light),
                )

    def cut(
        self, tiles: Sequence[Candidate], begin: Callable[[str], object]
    ) -> tuple[dict[str, npt.NDArray[np.float32]], npt.NDArray[np.uint8]]:
        """The inputs of these tiles by name, (N, ...) float32, and thumbnails (N, 64, 64, 3) uint8.

        Raises:
            InputError: where a file is not the one that was looked at.
        """
        shapes = tile_shapes(self._settings.task, self._settings.side)
        arrays = {
            name: np.empty((len(tiles), *shape), np.float32) for name, shape in shapes.items()
        }
        thumbnails = np.empty((len(tiles), THUMBNAIL, THUMBNAIL, 3), np.uint8)
        for source in {tile.source for tile in tiles}:
            path = self._paths[source]
            begin(path.name)
            if hash_file(path) != source.sha256:
                raise InputError("changed while tiles were cut from it", subject=path)
            for number, view in enumerate(self._views(path, source.sha256)):
                for row, tile in enumerate(tiles):
                    if (tile.source, tile.view) == (source, number):
                        cut = view.cut(tile.place)
                        for name, array in arrays.items():
                            array[row] = cut.inputs[name]
                        thumbnails[row] = thumbnail(cut.balanced)
        return arrays, thumbnails

    def _views(self, path: Path, sha256: str) -> Iterator[View]:
        settings = self._settings
        return open_views(
            path, settings.task, settings.levels, settings.step, (settings.seed, int(sha256, 16))
        )
