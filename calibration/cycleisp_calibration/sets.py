"""Calibration sets: tiles of a user's own frames or photographs, evenly from all strata.

    look    every file once: its tiles are measured and let go
    choose  evenly from the strata, no near-duplicates
    cut     the files with chosen tiles once more

Memory is that of one file and of the set itself. The result depends on the files' contents and the
seed, not on the files' names or order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cycleisp_calibration.contact_sheet import contact_sheet
from cycleisp_calibration.measures import STRATA
from cycleisp_calibration.selection import NEAR, choose_tiles
from cycleisp_calibration.set_file import CalibrationSet, save_calibration_set
from cycleisp_calibration.set_record import (
    CHANNELS,
    SetRecord,
    SourceRecord,
    TileNoise,
    TileRecord,
)
from cycleisp_calibration.survey import Candidate, SetSettings, Survey
from cycleisp_calibration.views import is_picture
from cycleisp_runtime.errors import CalibrationError, CycleISPError, SettingsError
from cycleisp_runtime.text import printable
from cycleisp_runtime.writers import atomic_output, check_output

__all__ = ["BuiltSet", "build_calibration_set", "check_set_outputs", "write_set"]

_MOST_SOURCES = 1024


@dataclass(frozen=True)
class BuiltSet:
    """A set in memory.

    Attributes:
        calibration: its tiles.
        thumbnails: (N, 64, 64, 3) uint8, the same to look at.
        errors: why a file was left out, in one line that names it.
        warnings: what was guessed or may disappoint, one sentence each.
    """

    calibration: CalibrationSet
    thumbnails: npt.NDArray[np.uint8]
    errors: tuple[str, ...]
    warnings: tuple[str, ...]


def build_calibration_set(
    paths: Sequence[Path],
    settings: SetSettings,
    begin: Callable[[str], object] = lambda _name: None,
) -> BuiltSet:
    """A calibration set from RAW files, or pictures by their suffix; unusable files are left out.

    Args:
        paths: files; equal ones count once.
        settings: what the set is to hold; fewer tiles where there are not so many, with a warning.
        begin: called with the name of a file whenever it is read, at most twice for each.

    Raises:
        SettingsError: where there are too many files, or noise is given and nothing to put it on.
        CalibrationError: where no file has a usable tile.
        InputError: where a file changes meanwhile.
    """
    if len(paths) > _MOST_SOURCES:
        raise SettingsError("too many files", met=len(paths), wanted=f"at most {_MOST_SOURCES}")
    if settings.levels and not any(map(is_picture, paths)):
        raise SettingsError(
            "there is no photograph to put noise on", subject="noise", hint="RAW has its own"
        )
    survey = Survey(settings)
    skipped: dict[Path, str] = {}
    for path in sorted(paths):
        begin(path.name)
        try:
            survey.look(path)
        except CycleISPError as error:
            skipped[path] = error.reason
        except MemoryError:
            skipped[path] = "not enough memory for this file"
    errors = tuple(printable(f"{path}: {reason}") for path, reason in skipped.items())
    candidates = survey.candidates
    if not candidates:
        raise CalibrationError(
            f"no usable tile of {settings.side}x{settings.side} in any file",
            met=errors[0] if errors else None,
        )
    chosen, duplicates = choose_tiles(
        [candidate.stratum for candidate in candidates],
        np.stack([candidate.print for candidate in candidates]),
        settings.tiles,
        np.random.default_rng(settings.seed),
    )
    tiles = [candidates[index] for index in chosen]
    arrays, thumbnails = survey.cut(tiles, begin)
    counts = Counter(tile.stratum for tile in tiles)
    record = SetRecord(
        format="cycleisp-calibration/1",
        task=settings.task,
        channels=CHANNELS[settings.task],
        side=settings.side,
        seed=settings.seed,
        candidates=len(candidates),
        duplicates=duplicates,
        near=NEAR,
        sources=survey.sources,
        skipped=tuple(sorted(printable(f"{path.name}: {skipped[path]}") for path in skipped)),
        tiles=tuple(_tile_record(tile, survey.sources) for tile in tiles),
        strata={name: counts[name] for name in STRATA},
    )
    warnings = list(survey.warnings)
    if len(tiles) < settings.tiles:
        warnings.append(
            f"{len(tiles)} tiles instead of {settings.tiles}: all others are nearly the same as one"
        )
    return BuiltSet(CalibrationSet(record, arrays), thumbnails, errors, tuple(warnings))


def _tile_record(tile: Candidate, sources: Sequence[SourceRecord]) -> TileRecord:
    noise = None
    if tile.choice is not None:
        model = tile.choice.model
        noise = TileNoise(model.shot, model.read, tile.choice.source)
    return TileRecord(sources.index(tile.source), *tile.place, tile.stratum, noise)


def write_set(built: BuiltSet, path: Path, *, sources: Sequence[Path], force: bool) -> SetRecord:
    """Write SET.npz, the contact sheet SET.png and the manifest SET.json, and return the latter.

    Raises:
        OutputError: where a file cannot be written, stands there and ``force`` is not given, or
            would overwrite one of the sources.
    """
    check_set_outputs(path, sources=sources, force=force)
    strata = [tile.stratum for tile in built.calibration.record.tiles]
    with atomic_output(path.with_suffix(".png"), source=None, force=force) as file:
        contact_sheet(built.thumbnails, strata).save(file, format="PNG")
    return save_calibration_set(built.calibration, path, force=force)


def check_set_outputs(path: Path, *, sources: Sequence[Path], force: bool) -> None:
    """Nothing, where the three files may be written.

    Raises:
        SettingsError: where the set's name does not end in .npz.
        OutputError: as ``write_set``.
    """
    if path.suffix != ".npz":
        raise SettingsError("a calibration set is one file", subject=path, wanted="a name in .npz")
    for suffix in (".npz", ".png", ".json"):
        output = path.with_suffix(suffix)
        check_output(output, source=None, force=force)
        for source in sources:
            check_output(output, source=source, force=True)
