"""Noise that a graph carries as constants, for programs that cannot tell it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cycleisp.sensor_profile import read_sensor_profile
from cycleisp_runtime.errors import SettingsError
from cycleisp_runtime.noise import NoiseModel

__all__ = ["BakedNoise", "baked_noise"]


@dataclass(frozen=True)
class BakedNoise:
    """Noise for one camera and ISO value.

    Attributes:
        model: shot and read per plane, in normalised units.
        origin: where it comes from, for people.
    """

    model: NoiseModel
    origin: str

    def __str__(self) -> str:
        shot, read = (
            " ".join(f"{value:.6g}" for value in values)
            for values in (self.model.shot, self.model.read)
        )
        return f"{self.origin}: shot {shot}, read {read} (R, Gr, Gb, B)"


def baked_noise(given: NoiseModel | None, profile: Path | None, iso: float | None) -> BakedNoise:
    """The noise given, or that of a camera at an ISO value.

    Args:
        given: shot and read; None to take them from the profile.
        profile: ``noise-profile/1`` JSON file of the camera. Its row noise, which a variance map
            cannot tell from the noise of single samples, is added to read.
        iso: ISO value to read off the profile.

    Raises:
        SettingsError: where it is not exactly one of the two, or the ISO value is not positive.
        InputError, CalibrationError: where the profile cannot be read, or does not say.
    """
    if given is not None and profile is None and iso is None:
        return BakedNoise(given, "noise as given")
    if given is not None or profile is None or iso is None:
        raise SettingsError(
            "the noise is not determined", wanted="--noise, or both of --profile and --iso"
        )
    sensor = read_sensor_profile(profile)
    level = sensor.at(iso)
    a, b, c, d = (read + level.row for read in level.pixel.read)
    return BakedNoise(NoiseModel(level.pixel.shot, (a, b, c, d)), f"{sensor.name}, ISO {iso:g}")
