"""What a tile is said to be like, on tiles that are known to be so."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from cycleisp_calibration.measures import fingerprint, is_constant, stratum
from cycleisp_calibration.selection import NEAR
from cycleisp_runtime.noise import LEVELS, NoiseModel

Planes = npt.NDArray[np.float32]

SIDE = 128


def noisy(clean: Planes, noise: NoiseModel, seed: int = 0) -> Planes:
    variance = noise.variance(clean[[0, 1, 1, 2]])[[0, 1, 3]]
    normal = np.random.default_rng(seed).standard_normal(clean.shape, dtype=np.float32)
    return np.add(clean, np.sqrt(variance) * normal, dtype=np.float32)


def ramp(brightness: float) -> Planes:
    """(3, SIDE, SIDE) without texture."""
    row = np.linspace(0.8, 1.2, SIDE, dtype=np.float32) * np.float32(brightness)
    return np.broadcast_to(row, (3, SIDE, SIDE)).copy()


def checks(brightness: float) -> Planes:
    """(3, SIDE, SIDE) of squares of 2x2 that differ by a factor of three."""
    cells = (np.indices((SIDE, SIDE)) // 2).sum(axis=0) % 2
    tile = np.where(cells, 1.5, 0.5).astype(np.float32) * np.float32(brightness)
    return np.broadcast_to(tile, (3, SIDE, SIDE)).copy()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("brightness", [("dark", 0.02), ("medium", 0.18), ("bright", 0.5)])
@pytest.mark.parametrize("level", LEVELS)
def test_noise_is_not_texture(level: str, brightness: tuple[str, float], seed: int) -> None:
    word, value = brightness
    noise = NoiseModel.uniform(*LEVELS[level])
    assert stratum(noisy(ramp(value), noise, seed), noise) == f"{level}/{word}/flat"


@pytest.mark.parametrize("level", LEVELS)
def test_texture_is_seen_through_noise(level: str) -> None:
    noise = NoiseModel.uniform(*LEVELS[level])
    assert stratum(noisy(checks(0.18), noise), noise) == f"{level}/medium/textured"


@pytest.mark.parametrize("level", LEVELS)
def test_noise_of_a_picture_is_measured(level: str) -> None:
    noise = NoiseModel.uniform(*LEVELS[level])
    assert stratum(noisy(ramp(0.18), noise), None) == f"{level}/medium/flat"


def test_a_level_between_two_goes_to_the_nearer_in_ratio() -> None:
    tile = ramp(0.18)
    assert stratum(tile, NoiseModel.uniform(3.2e-4, 0)).startswith("low/")
    assert stratum(tile, NoiseModel.uniform(3.4e-4, 0)).startswith("middle/")


@pytest.mark.parametrize("brightness", [0.0, 0.05, 0.5])
def test_a_place_is_known_at_every_noise(brightness: float) -> None:
    prints = [
        fingerprint(noisy(ramp(brightness), NoiseModel.uniform(*level), seed))
        for seed, level in enumerate(LEVELS.values())
    ]
    for other in prints[1:]:
        assert np.sqrt(np.square(prints[0] - other).mean()) < NEAR


def test_other_places_are_told_apart() -> None:
    clean = ramp(0.18)
    for other in (
        np.flip(clean, axis=2),
        clean * np.float32(1.5),
        clean[[1, 0, 2]] * [[[1.5]], [[1]], [[1]]],
    ):
        difference = fingerprint(clean) - fingerprint(other.astype(np.float32))
        assert np.sqrt(np.square(difference).mean()) > NEAR


def test_a_tile_is_constant_where_every_plane_is() -> None:
    tile = np.stack([np.full((4, 4), value, np.float32) for value in (0.1, 0.2, 0.2, 1)])
    assert is_constant(tile)
    tile[1, 2, 3] += 0.01
    assert not is_constant(tile)
