"""The measured noise of one sensor, from a ``noise-profile/1`` JSON file, for training on it.

Such a file holds shot and read at some ISO values, one pair for all planes or one per plane, and
where it was measured the noise that a row of the sensor shares.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from cycleisp.noise import noisy_samples, with_row_noise
from cycleisp_runtime.errors import CalibrationError, InputError, SettingsError
from cycleisp_runtime.noise import NoiseModel

__all__ = ["SensorNoise", "SensorProfile", "read_sensor_profile"]

MAX_PROFILE_BYTES = 1 << 20
"""Of a file. A profile of 28 levels takes 5 kB."""

_SMALLEST_GROWTH = 0.5
"""Of ln(shot) over ln(ISO), which is 1 where the gain is analogue. Measured sensors have 0.73 and
more; phones that write one constant into every file have about 0."""

_PLANES = ("R", "Gr", "Gb", "B")
_PLANES_OF_CHANNEL = {
    "all": _PLANES,
    "R": ("R",),
    "G": ("Gr", "Gb"),
    "Gr": ("Gr",),
    "Gb": ("Gb",),
    "B": ("B",),
}

_Variance = Annotated[float, Meta(ge=0, lt=1)]


class _Level(msgspec.Struct, frozen=True):
    """One line of a file's table; further keys are for people."""

    iso: Annotated[float, Meta(gt=0)] | None
    shot: Annotated[float, Meta(gt=0, lt=1)]
    read: _Variance
    channel: Literal["all", "R", "G", "Gr", "Gb", "B"] = "all"
    row: _Variance = 0.0


class _Profile(msgspec.Struct, frozen=True):
    """What is read of a file; its other keys, such as licence and notes, are for people."""

    schema: Literal["noise-profile/1"]
    name: Annotated[str, Meta(min_length=1, max_length=4000)]
    levels: tuple[_Level, ...]


@dataclass(frozen=True)
class SensorNoise:
    """Noise of a sensor at one ISO value, in normalised units.

    Attributes:
        iso: the ISO value.
        pixel: shot and read per plane R, Gr, Gb, B, of what every sample has for itself.
        row: variance of what all samples of a sensor row share; 0 where it was not measured.
    """

    iso: float
    pixel: NoiseModel
    row: float

    def variance(self, packed: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Variance map (4, h, w) float32 of a packed normalised frame, row noise included."""
        return self.pixel.variance(packed) + np.float32(self.row)

    def samples(
        self,
        clean: npt.NDArray[np.float32],
        rng: np.random.Generator,
        *,
        poisson: bool = False,
    ) -> npt.NDArray[np.float32]:
        """Noisy samples of a clean packed normalised frame (4, h, w), float32, not clipped.

        ``poisson`` as for ``cycleisp.noise.noisy_samples``.
        """
        planes = [
            noisy_samples(plane, shot, read, rng, poisson=poisson)
            for plane, shot, read in zip(clean, self.pixel.shot, self.pixel.read, strict=True)
        ]
        return with_row_noise(np.stack(planes), self.row, rng)


@dataclass(frozen=True)
class SensorProfile:
    """The noise of one sensor over ISO.

    Attributes:
        name: of the sensor or its calibration.
        levels: what was measured, by rising ISO; at least one.
    """

    name: str
    levels: tuple[SensorNoise, ...]

    def at(self, iso: float) -> SensorNoise:
        """The noise at this ISO value.

        Between two measured values ln(shot), ln(read) and ln(row) are linear in ln(ISO); a variance
        that is 0 at one of the two is linear itself. The jump of a sensor with two conversion gains
        becomes a slope between the two values that it lies between.

        Outside of the measured values nothing is known and gain is taken to act on everything: from
        the nearest one shot goes on in proportion to ISO, read and row to its square.

        Raises:
            SettingsError: where the ISO value is not positive and finite.
            InputError: where it is so far outside that shot leaves (0, 1) or read leaves [0, 1).
        """
        if not 0 < iso < math.inf:
            raise SettingsError("not an ISO value", met=iso, wanted="a positive number")
        above = bisect_left([level.iso for level in self.levels], iso)
        if above == 0:
            return _amplified(self.levels[0], iso)
        if above == len(self.levels):
            return _amplified(self.levels[-1], iso)
        return _between(self.levels[above - 1], self.levels[above], iso)

    def draw(self, rng: np.random.Generator) -> SensorNoise:
        """The noise at a random ISO value, log-uniform over the measured range."""
        low, high = (math.log(level.iso) for level in (self.levels[0], self.levels[-1]))
        return self.at(math.exp(rng.uniform(low, high)))


def read_sensor_profile(path: Path) -> SensorProfile:
    """The profile in a ``noise-profile/1`` JSON file.

    Raises:
        InputError: where the file cannot be read or is not such a profile, or holds a shot that is
            not in (0, 1) or a read or row that is not in [0, 1).
        CalibrationError: where its levels do not determine the noise over ISO: there are none, or
            one has no ISO, or a plane has none or two at an ISO, or shot does not grow with ISO.
    """
    file = _decoded(path)
    if not file.levels:
        raise CalibrationError(
            "the profile has no levels", subject=path, hint="give a noise law by its name instead"
        )
    table: dict[float, list[_Level]] = {}
    for line in file.levels:
        if line.iso is None:
            raise CalibrationError("a level has no ISO", subject=path, wanted="one in every level")
        table.setdefault(line.iso, []).append(line)
    levels = tuple(_level(path, iso, table[iso]) for iso in sorted(table))
    _check_growth(path, levels)
    return SensorProfile(file.name, levels)


def _decoded(path: Path) -> _Profile:
    try:
        with path.open("rb") as opened:
            encoded = opened.read(MAX_PROFILE_BYTES + 1)
    except OSError as error:
        raise InputError("cannot be read", subject=path, met=error.strerror) from error
    if len(encoded) > MAX_PROFILE_BYTES:
        raise InputError(
            "too large for a noise profile",
            subject=path,
            wanted=f"at most {MAX_PROFILE_BYTES} bytes",
        )
    try:
        return msgspec.json.decode(encoded, type=_Profile)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(
            f"not a noise profile: {error}", subject=path, wanted="JSON of noise-profile/1"
        ) from error


def _level(path: Path, iso: float, lines: list[_Level]) -> SensorNoise:
    """The lines of one ISO value as one pair per plane."""
    lines_of_plane = {
        plane: [line for line in lines if plane in _PLANES_OF_CHANNEL[line.channel]]
        for plane in _PLANES
    }
    for plane, found in lines_of_plane.items():
        if len(found) != 1:
            raise CalibrationError(
                f"plane {plane} at ISO {iso:g} is not determined",
                subject=path,
                met=f"{len(found)} levels",
                wanted="1",
            )
    chosen = [found[0] for found in lines_of_plane.values()]
    pixel = _noise_model((line.shot for line in chosen), (line.read for line in chosen))
    return SensorNoise(iso, pixel, math.fsum(line.row for line in chosen) / 4)


def _check_growth(path: Path, levels: tuple[SensorNoise, ...]) -> None:
    """Nothing, where shot grows with ISO as a sensor's does; placeholders are constant."""
    if len(levels) == 1:
        return
    first, last = levels[0], levels[-1]
    growth = math.log(last.pixel.mean_shot / first.pixel.mean_shot) / math.log(last.iso / first.iso)
    if growth < _SMALLEST_GROWTH:
        raise CalibrationError(
            "shot does not grow with ISO: the numbers are a placeholder, not a measurement",
            subject=path,
            met=f"{first.pixel.mean_shot:g} at ISO {first.iso:g}, "
            f"{last.pixel.mean_shot:g} at ISO {last.iso:g}",
        )


def _amplified(level: SensorNoise, iso: float) -> SensorNoise:
    """The level with another gain in front of all of its noise."""
    gain = iso / level.iso
    power = gain * gain
    pixel = _noise_model(
        (gain * shot for shot in level.pixel.shot), (power * read for read in level.pixel.read)
    )
    return SensorNoise(iso, pixel, power * level.row)


def _between(low: SensorNoise, high: SensorNoise, iso: float) -> SensorNoise:
    """The level at an ISO value between two levels."""
    weight = math.log(iso / low.iso) / math.log(high.iso / low.iso)
    pixel = _noise_model(
        map(_blend, low.pixel.shot, high.pixel.shot, repeat(weight)),
        map(_blend, low.pixel.read, high.pixel.read, repeat(weight)),
    )
    return SensorNoise(iso, pixel, _blend(low.row, high.row, weight))


def _noise_model(shots: Iterable[float], reads: Iterable[float]) -> NoiseModel:
    (shot_r, shot_gr, shot_gb, shot_b), (read_r, read_gr, read_gb, read_b) = shots, reads
    return NoiseModel((shot_r, shot_gr, shot_gb, shot_b), (read_r, read_gr, read_gb, read_b))


def _blend(below: float, above: float, weight: float) -> float:
    """Geometric mean with this weight of ``above``; arithmetic where one of the two is 0."""
    if below == 0 or above == 0:
        return (1 - weight) * below + weight * above
    return math.pow(below, 1 - weight) * math.pow(above, weight)
