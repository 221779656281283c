"""SIDD's files: frames of Small and Medium, blocks, metadata."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from cycleisp.data.augmentation import random_rggb_patch
from cycleisp.data.sidd import find_sidd_pairs, read_sidd_pair
from cycleisp.data.sidd_blocks import BLOCK_PHONES, read_raw_blocks, read_srgb_blocks
from cycleisp.data.sidd_metadata import PHONE_PHASES, read_metadata
from cycleisp_runtime.bayer import Phase
from cycleisp_runtime.errors import InputError
from cycleisp_runtime.noise import NoiseModel
from tests.training.matlab_files import write_metadata, write_v5, write_v73

SCENE = "0001_001_{}_00100_00060_3200_L"
NOISE = (1e-3, 2e-6)


def a_scene() -> npt.NDArray[np.float32]:
    """(48, 64, 3) linear, red, green and blue told apart, with no symmetry under turns."""
    rows, columns = np.mgrid[:48, :64].astype(np.float32)
    light = (1 + rows) / 60 * (1 + columns) / 80
    return np.stack([0.5 * light, light, 0.25 * light], axis=-1)


def mosaic_of(scene: npt.NDArray[np.float32], phase: Phase) -> npt.NDArray[np.float32]:
    mosaic = np.empty(scene.shape[:2], np.float32)
    for channel, (row, column) in zip((0, 1, 1, 2), phase.plane_offsets, strict=True):
        mosaic[row::2, column::2] = scene[row::2, column::2, channel]
    return mosaic


def write_frame(
    folder: Path, phone: str, *, prefix: str = "0001_", turns: int = 0, frame: str = "010"
) -> npt.NDArray[np.float32]:
    """One frame in ``folder/Data``; returns its clean mosaic."""
    phase, scene = PHONE_PHASES[phone], a_scene()
    data = folder / "Data" / SCENE.format(phone)
    data.mkdir(parents=True, exist_ok=True)
    mosaic = mosaic_of(scene, phase)
    write_v73(data / f"{prefix}GT_RAW_{frame}.MAT", x=mosaic)
    write_v73(data / f"{prefix}NOISY_RAW_{frame}.MAT", x=mosaic + np.float32(0.01))
    write_metadata(data / f"{prefix}METADATA_RAW_{frame}.MAT", phase, NOISE)
    picture = np.rot90((255 * np.sqrt(scene)).astype(np.uint8), -turns)
    for kind in ("GT", "NOISY"):
        Image.fromarray(picture).save(data / f"{prefix}{kind}_SRGB_{frame}.PNG")
    return mosaic


@pytest.mark.parametrize("prefix", ["0001_", ""])
def test_frames_of_small_and_medium_are_found(prefix: str, tmp_path: Path) -> None:
    write_frame(tmp_path, "GP", prefix=prefix)
    write_frame(tmp_path, "S6", prefix=prefix, frame="011")
    found, incomplete = find_sidd_pairs(tmp_path)
    assert [files.name for files in found] == [
        f"{SCENE.format('GP')}/010",
        f"{SCENE.format('S6')}/011",
    ]
    assert [files.phone for files in found] == ["GP", "S6"]
    assert incomplete == []


def test_raw_and_srgb_may_lie_apart_and_what_is_incomplete_is_told(tmp_path: Path) -> None:
    write_frame(tmp_path / "raw", "IP")
    write_frame(tmp_path / "raw", "N6")
    (source,) = (tmp_path / "raw" / "Data").glob("*_IP_*")
    target = tmp_path / "srgb" / "Data" / source.name
    target.mkdir(parents=True)
    for path in source.glob("*SRGB*"):
        path.rename(target / path.name)
    next((tmp_path / "raw" / "Data" / SCENE.format("N6")).glob("*GT_RAW*")).unlink()
    found, incomplete = find_sidd_pairs(tmp_path / "raw", tmp_path / "srgb")
    assert [files.phone for files in found] == ["IP"]
    assert incomplete == [f"{SCENE.format('N6')}/010"]


@pytest.mark.parametrize("phone", PHONE_PHASES)
def test_every_phone_is_read_in_its_phase(phone: str, tmp_path: Path) -> None:
    mosaic = write_frame(tmp_path, phone)
    (files,), _ = find_sidd_pairs(tmp_path)
    pair = read_sidd_pair(files)
    assert np.array_equal(pair.clean.mosaic, mosaic)
    assert np.allclose(pair.noisy.mosaic - mosaic, 0.01, atol=1e-6)
    assert pair.noise == NoiseModel.uniform(*NOISE)
    patch = random_rggb_patch(pair.clean, 16, np.random.default_rng(0))
    red, blue = patch.mosaic[::2, ::2].mean(), patch.mosaic[1::2, 1::2].mean()
    assert red == pytest.approx(2 * blue, rel=0.2)


@pytest.mark.parametrize("turns", range(4))
def test_srgb_that_was_turned_is_turned_back(turns: int, tmp_path: Path) -> None:
    write_frame(tmp_path, "G4", turns=turns)
    (files,), _ = find_sidd_pairs(tmp_path)
    expected = (255 * np.sqrt(a_scene())).astype(np.uint8)
    pair = read_sidd_pair(files)
    assert np.array_equal(pair.clean.rgb, expected)
    assert np.array_equal(pair.noisy.rgb, expected)


@pytest.mark.parametrize("highest", [1, 255])
def test_another_picture_is_refused(highest: int, tmp_path: Path) -> None:
    write_frame(tmp_path, "G4")
    (files,), _ = find_sidd_pairs(tmp_path)
    other = np.random.default_rng(0).integers(0, highest, (48, 64, 3), np.uint8)
    Image.fromarray(other).save(files.clean_srgb)
    with pytest.raises(InputError, match="do not show the same picture"):
        read_sidd_pair(files)


def test_a_cfa_that_is_not_the_phones_is_refused(tmp_path: Path) -> None:
    write_frame(tmp_path, "G4")
    (files,), _ = find_sidd_pairs(tmp_path)
    write_metadata(files.metadata, Phase.GRBG, NOISE)
    with pytest.raises(InputError, match=r"CFA is not the phone's \(met GRBG, wanted BGGR of G4\)"):
        read_sidd_pair(files)


@pytest.mark.parametrize(
    "mosaic",
    [np.full((4, 4), np.nan), np.full((4, 4), 900.0), np.zeros((3, 4)), np.zeros((2, 2, 2))],
)
def test_what_is_no_normalised_mosaic_is_refused(
    mosaic: npt.NDArray[np.float64], tmp_path: Path
) -> None:
    write_frame(tmp_path, "G4")
    (files,), _ = find_sidd_pairs(tmp_path)
    write_v73(files.noisy_raw, x=mosaic)
    with pytest.raises(InputError, match=r"not a mosaic|not normalised"):
        read_sidd_pair(files)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no complete frame of SIDD"):
        find_sidd_pairs(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        find_sidd_pairs(tmp_path / "missing")


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("in_sub_directory", [False, True])
def test_phase_and_noise_are_found_in_the_metadata(
    phase: Phase, in_sub_directory: bool, tmp_path: Path
) -> None:
    path = write_metadata(tmp_path / "m.MAT", phase, NOISE, in_sub_directory=in_sub_directory)
    assert read_metadata(path) == (phase, NoiseModel.uniform(*NOISE))


def test_metadata_without_usable_noise_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no NoiseProfile"):
        read_metadata(write_v5(tmp_path / "m.MAT", metadata={"Make": "Apple"}))
    with pytest.raises(InputError, match="no struct metadata"):
        read_metadata(write_v5(tmp_path / "m.MAT", other=1))
    with pytest.raises(InputError, match=r"m\.MAT: noise coefficients are out of range"):
        read_metadata(write_metadata(tmp_path / "m.MAT", Phase.RGGB, (0.0, 1e-6)))


def test_the_order_of_phones_is_the_public_loaders() -> None:
    assert BLOCK_PHONES[:10] == ("S6", "GP", "N6", "G4", "IP", "GP", "IP", "G4", "N6", "S6")
    assert BLOCK_PHONES[10:] == ("N6", "G4", "S6", "GP", "IP") * 6


@pytest.mark.parametrize("write", [write_v5, write_v73])
def test_blocks_keep_their_order_in_both_formats(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    raw = np.random.default_rng(0).random((2, 3, 16, 12), np.float32)
    srgb = np.random.default_rng(1).integers(0, 255, (2, 3, 16, 12, 3), np.uint8)
    write(tmp_path / "Raw.mat", Raw=raw)
    write(tmp_path / "Srgb.mat", Srgb=srgb)
    assert np.array_equal(read_raw_blocks(tmp_path, "Raw"), raw)
    assert np.array_equal(read_srgb_blocks(tmp_path, "Srgb"), srgb)
    with pytest.raises(InputError, match="not SIDD's blocks"):
        read_raw_blocks(tmp_path, "Srgb")
    with pytest.raises(InputError, match="not SIDD's blocks"):
        read_srgb_blocks(tmp_path, "Raw")
